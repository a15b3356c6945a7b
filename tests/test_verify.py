"""A run is done anew from its record, and what does not come out again is named and judged."""

import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from test_series import parameters_of

from retina_utils import images
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands import verify
from retina_utils.commands.__main__ import main
from retina_utils.machine import files, runs
from retina_utils.models import build_model
from retina_utils.patches import Preparation

# What every notebook of the toy does in its place; epochs stands for the seed.
WORK = {
    "01_data": """
results = {"data_dir": str(pathlib.Path(data_dir).resolve())}
results["data_files"] = runs.checksums(data.files_read(data_dir), data_dir)
files.write_csv(run_dir / "splits.csv", [{"split": "test", "name": "d", "person": "d"}])
saved = ["splits.csv"]
""",
    "02_model": "saved = []",
    "03_train": """
torch.manual_seed(epochs)
model = build_model("unet", {"c_in": 1, "widths": [4]})
save_network(run_dir / "weights" / "unet_best.pth", Network(model, Preparation()))
files.write_csv(run_dir / "history.csv", [{"epoch": 1, "loss": lr}])
saved = ["history.csv", "weights/unet_best.pth"]
""",
    "04_evaluate": """
images.write_probability(run_dir / "probability" / "test" / "d.png", np.full((8, 8), 0.5))
scores = {"dice": 0.8, "iou": 0.7, "auc": 0.98, "ap": 0.9}
evaluate.Results({"data": "toy", "threshold": "", "counted": ""},
    evaluate.Threshold(0.5, "validation", "dice", 0.5),
    {"test": evaluate.SplitScores(scores, scores, scores, 1)}, {"sha256": "abc"}).write(run_dir)
saved = ["metrics.json", "probability/test/d.png"]
""",
    "05_visualize": "saved = []",
}
START = """
import pathlib, numpy as np, torch
from retina_utils import data, evaluate, images
from retina_utils.checkpoint import Network, save_network
from retina_utils.machine import files, runs
from retina_utils.models import build_model
from retina_utils.patches import Preparation
run_dir, results = runs.open_run(outputs_dir, run), {}
"""
END = 'runs.record(run_dir, "NAME", runs.parameters_of(globals()), results, saved)'


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run of five small notebooks on a small data folder."""
    top = tmp_path_factory.mktemp("verify")
    images.write_png(top / "data" / "test" / "images" / "d.png", np.zeros((8, 8), np.uint8))
    images.write_png(top / "data" / "test" / "masks" / "d.png", np.zeros((8, 8), bool))
    for name, work in WORK.items():
        cell = nbformat.v4.new_code_cell(parameters_of(name), metadata={"tags": ["parameters"]})
        title = nbformat.v4.new_markdown_cell(f"# {name}")
        code = nbformat.v4.new_code_cell(START + work + "\n" + END.replace("NAME", name))
        notebook = nbformat.v4.new_notebook(cells=[title, cell, code])
        notebook.metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
        (top / "notebooks").mkdir(exist_ok=True)
        nbformat.write(notebook, top / "notebooks" / f"{name}.ipynb")
    (top / "notebooks" / "presets").mkdir()
    (top / "notebooks" / "presets" / "tiny.yaml").write_text("{}\n")
    assert main(["run-all", "--notebooks", str(top / "notebooks"), "-p", "epochs", "7"]) == 0
    return top


@pytest.fixture
def top(made, tmp_path):
    """A copy of it that a test may spoil."""
    return Path(shutil.copytree(made, tmp_path / "top"))


def check(top, run="tiny"):
    folders = ["--outputs", str(top / "outputs"), "--notebooks", str(top / "notebooks")]
    return main(["verify", run, *folders])


@pytest.fixture
def quick(made, monkeypatch):
    """Instead of the notebooks: what they gave before, with the parameters they are given."""

    def copy(*, run, parameters, **_):
        copy.parameters = dict(parameters)
        shutil.copytree(made / "outputs" / "tiny", Path(copy.parameters["outputs_dir"]) / run)

    monkeypatch.setattr(verify, "run_series", copy)
    return copy


def as_if_written_so(run, notebook, name):
    """Renew the checksum of a file that a test has changed."""
    manifest = json.loads((run / f"{notebook}.json").read_text())
    manifest["files"][name] = files.sha256(run / name)
    files.write_json(run / f"{notebook}.json", manifest)


def made_elsewhere(run):
    """Let the record say that another kind of processor made it."""
    for path in run.glob("0*.json"):
        manifest = json.loads(path.read_text())
        manifest["provenance"]["processor"] = "another"
        files.write_json(path, manifest)


def change_weight(run, by=1e-6):
    path = run / "weights" / "unet_best.pth"
    network = load_network(path)
    next(network.model.parameters()).data.view(-1)[0] += by
    save_network(path, network)
    as_if_written_so(run, "03_train", "weights/unet_best.pth")


def change_score(run, by):
    found = json.loads((run / "metrics.json").read_text())
    found["splits"]["test"]["pooled"]["dice"] += by
    files.write_json(run / "metrics.json", found)
    as_if_written_so(run, "04_evaluate", "metrics.json")


def test_a_run_comes_out_again_with_its_own_parameters_and_leaves_nothing(top, capfd):
    (top / "notebooks" / "presets" / "tiny.yaml").write_text("[")  # not read again
    assert check(top) == 0
    said = capfd.readouterr().out
    assert "no value may differ" in said and "5 of 5 files came out again" in said
    assert sorted(p.name for p in (top / "outputs").iterdir()) == ["tiny"]


def test_a_changed_weight_is_named_with_both_values(top, quick, capsys):
    change_weight(top / "outputs" / "tiny")
    assert check(top) == 1
    said = capsys.readouterr().out
    assert "4 of 5 files came out again" in said
    [row] = [line for line in said.splitlines() if line.startswith("weights/unet_best.pth")]
    assert row.endswith("outside") and ".weight" in row
    assert (top / "outputs" / "tiny_verify" / "weights").is_dir()  # kept to look at


@pytest.mark.parametrize(("by", "elsewhere", "status"), [(1e-4, 0, 1), (0.02, 1, 0), (0.04, 1, 1)])
def test_a_changed_score_is_judged_by_what_made_it(top, quick, capsys, by, elsewhere, status):
    change_score(top / "outputs" / "tiny", by)
    if elsewhere:
        made_elsewhere(top / "outputs" / "tiny")
    assert check(top) == status
    said = capsys.readouterr().out
    assert ("scores may differ by 0.03" in said) == bool(elsewhere)
    [row] = [line for line in said.splitlines() if line.startswith("metrics.json")]
    assert "splits.test.pooled.dice" in row
    assert row.endswith("outside" if status else "within")


def test_weights_and_maps_of_another_processor_are_told_and_not_judged(top, quick, capsys):
    run = top / "outputs" / "tiny"
    change_weight(run)
    images.write_probability(run / "probability" / "test" / "d.png", np.full((8, 8), 0.51))
    as_if_written_so(run, "04_evaluate", "probability/test/d.png")
    made_elsewhere(run)
    assert check(top) == 0
    said = capsys.readouterr().out
    [row] = [line for line in said.splitlines() if line.startswith("probability/test")]
    assert row.split()[-3:] == ["0.00999466", "not", "judged"]  # as probabilities
    assert said.count(" not judged\n") == 2 and "another" in said


def test_splits_are_the_same_everywhere(top, quick, capsys):
    run = top / "outputs" / "tiny"
    files.write_csv(run / "splits.csv", [{"split": "test", "name": "d", "person": "e"}])
    as_if_written_so(run, "01_data", "splits.csv")
    made_elsewhere(run)
    assert check(top) == 1
    assert "line 2, person" in capsys.readouterr().out


@pytest.mark.parametrize("spoil", [lambda p: p.write_bytes(b"?"), Path.unlink])
def test_a_result_that_was_altered_afterwards_is_outside_everywhere(top, quick, capsys, spoil):
    run = top / "outputs" / "tiny"
    spoil(run / "metrics.json")
    made_elsewhere(run)
    assert check(top) == 1
    assert "as 04_evaluate wrote it" in capsys.readouterr().out


def add(data):
    shutil.copy(data / "images" / "d.png", data / "images" / "e.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda d: (d / "masks" / "d.png").write_bytes(b"?"), "test/masks/d.png was changed"),
        (lambda d: (d / "images" / "d.png").unlink(), "test/images/d.png is missing"),
        (add, "test/images/e.png is new"),
        (lambda d: shutil.rmtree(d.parent), "2 of 2 files are not as tiny read them"),
    ],
)  # fmt: skip
def test_data_that_changed_since_are_named_before_anything_runs(top, capsys, spoil, words):
    spoil(top / "data" / "test")
    assert check(top) == 2
    assert words in capsys.readouterr().err
    assert not (top / "outputs" / "tiny_verify").exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: shutil.rmtree(run), "no such run. Expected one of those of make run-all"),
        (lambda run: (run / "03_train.json").unlink(), "unfinished, for 03_train has not run"),
        (lambda run: (run / "notebooks" / "04_evaluate.failed.ipynb").touch(), "for 04_evaluate"),
        (lambda run: (run / "02_model.json").write_text("{"), r"02_model.json: damaged"),
        (lambda run: shutil.copytree(run, f"{run}_verify"), "left from an earlier check"),
    ],
)  # fmt: skip
def test_a_run_that_cannot_be_verified_is_refused_in_a_sentence(top, capsys, spoil, words):
    spoil(top / "outputs" / "tiny")
    assert check(top) == 2
    said = capsys.readouterr().err
    assert words in said and "Traceback" not in said


def test_a_run_of_two_seeds_or_of_an_older_record_cannot_be_repeated(top, capsys):
    path = top / "outputs" / "tiny" / "03_train.json"
    manifest = json.loads(path.read_text())
    files.write_json(path, manifest | {"parameters": manifest["parameters"] | {"epochs": 8}})
    assert check(top) == 2
    assert "03_train ran with epochs=8, a later notebook with 7" in capsys.readouterr().err
    files.write_json(path, manifest)
    path = top / "outputs" / "tiny" / "01_data.json"
    manifest = json.loads(path.read_text())
    del manifest["results"]["data_files"]
    files.write_json(path, manifest)
    assert check(top) == 2
    assert "without checksums of its photographs" in capsys.readouterr().err


def test_it_runs_with_as_many_threads_as_the_run_had(top, quick):
    for name in runs.NOTEBOOKS[2:4]:
        path = top / "outputs" / "tiny" / f"{name}.json"
        manifest = json.loads(path.read_text())
        manifest["parameters"]["threads"] = 0
        manifest["provenance"]["threads"] = 3
        files.write_json(path, manifest)
    assert check(top) == 0
    assert quick.parameters["threads"] == 3


def test_given_weights_have_to_be_those_of_the_run(top, quick, tmp_path, capsys):
    run, given = top / "outputs" / "tiny", tmp_path / "given.pth"
    model = build_model("unet", {"c_in": 1, "widths": [4]})
    save_network(given, Network(model, Preparation()))
    path = run / "04_evaluate.json"
    manifest = json.loads(path.read_text())
    manifest["parameters"]["weights"] = str(given)
    manifest["results"]["weights_sha256"] = load_network(given).sha256
    files.write_json(path, manifest)
    for name in ("02_model", "03_train", "05_visualize"):
        (run / f"{name}.json").unlink()
    files.write_json(run / "05_visualize.json", manifest | {"files": {}})
    with torch.no_grad():
        next(model.parameters()).add_(1)
    save_network(given, Network(model, Preparation()))
    assert check(top) == 2
    assert "not the weights that tiny was made with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "new", "size"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), 0),
        (np.array([1.0, 2.0]), np.array([1.0, np.nan]), np.inf),
        (np.uint16([0, 9]), np.uint16([9, 9]), 9),
        (np.zeros(2), np.zeros(3), np.inf),
        (None, None, 0),
        (None, 0.5, np.inf),
        ("a", "b", np.inf),
        (True, False, 1),
    ],
)
def test_how_far_two_values_are_apart(old, new, size):
    assert verify._apart(old, new)[2] == size
