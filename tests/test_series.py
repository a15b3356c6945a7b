"""The series runs in order, resumes, and refuses what it does not know, before anything runs."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time

import nbformat
import numpy as np
import pytest
import torch
from conftest import ROOT
from jupyter_client.kernelspec import KernelSpecManager

from retina_utils import (
    RetinaError,
    augment,
    data,
    images,
    losses,
    metrics,
    models,
    patches,
    train,
)
from retina_utils.commands import series
from retina_utils.commands.__main__ import main
from retina_utils.commands.parameters import (
    CHOICES,
    cast,
    check_choices,
    check_known,
    declared_by,
    declared_parameters,
    find_notebooks,
    names_of,
    read_preset,
)
from retina_utils.evaluate import Results, SplitScores, Threshold
from retina_utils.machine import compute
from retina_utils.machine.files import fingerprint
from retina_utils.machine.runs import LENT, NOTEBOOKS, close_run, open_run

PARAMETERS = """\
epochs: int = 3
lr: float = 0.1
flips: bool = True
WEIGHTSwidths: list = [8, 16]
loss: str = "dice"
outputs_dir: str = "../outputs"
data_dir: str = "../data"
run: str = "tiny"
"""
WORK = """\
import json, pathlib
folder = pathlib.Path(outputs_dir, run)
parts = {part: {} for part in ("parameters", "results", "files", "provenance")}
(folder / "NAME.json").write_text(json.dumps(parts | {"epochs": epochs}))
count = folder / "NAME.count"
count.write_text(str(int(count.read_text()) + 1 if count.exists() else 1))
scores = {"dice": 0.8, "iou": 0.7, "auc": 0.98, "ap": 0.9}
split = {"pooled": scores, "mean": scores, "sd": scores, "n": 4}
(folder / "metrics.json").write_text(json.dumps({"splits": {"test": split},
    "protocol": {"data": "toy", "threshold": "by hand", "counted": "inside the FOV"},
    "threshold": {"value": 0.5, "chosen_on": "validation", "by": "dice", "best_test": 0.5},
    "network": {}, "intervals": {}, "vessel_width": {}, "calibration_error": 0.1}))
if "NAME" == "03_train" and epochs == 13:
    raise ValueError("unlucky")
if "NAME" == "03_train" and epochs in (14, 15):  # what threads and libraries write themselves
    import os, time
    os.write(2, b"a thread complains ")
    time.sleep(0.5)
    os._exit(1) if epochs == 14 else None
if epochs == 16:
    import time
    (folder / "waits").touch()
    time.sleep(600)
"""


def parameters_of(name):
    """Only 04 and 05 know weights; only 03 knows epochs_of_03."""
    extra = {"03_train": "epochs_of_03: int = 1\n"}
    weights = 'weights: str = ""\n'
    extra |= {"04_evaluate": weights, "05_visualize": weights}
    return PARAMETERS.replace("WEIGHTS", extra.get(name, ""))


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """Five notebooks that do nothing but leave traces, laid out like the real ones."""
    top = tmp_path_factory.mktemp("toy")
    (top / "data").mkdir()
    (top / "notebooks" / "presets").mkdir(parents=True)
    (top / "notebooks" / "presets" / "tiny.yaml").write_text("epochs: 2\n")
    (top / "notebooks" / "presets" / "spoilt.yaml").write_text("epohcs: 2\n")
    for name in NOTEBOOKS:
        cells = [
            nbformat.v4.new_markdown_cell(f"# {name} · a title"),
            nbformat.v4.new_code_cell(parameters_of(name), metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(WORK.replace("NAME", name)),
        ]
        notebook = nbformat.v4.new_notebook(cells=cells)
        notebook.metadata = {
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, top / "notebooks" / f"{name}.ipynb")
    return top


def run(toy, *arguments):
    return main(["run-all", "--notebooks", str(toy / "notebooks"), *arguments])


def count(toy, name, run="tiny"):
    path = toy / "outputs" / run / f"{name}.count"
    return int(path.read_text()) if path.exists() else 0


def test_a_failed_run_is_kept_and_resumes_where_it_failed(toy, capfd):
    assert run(toy, "--run", "r1", "-p", "epochs", "13") == 2
    said = capfd.readouterr().err
    assert "03_train stopped. ValueError in cell" in said and "unlucky" in said
    assert "03_train.failed.ipynb" in said and "goes on from 03_train" in said
    assert "Traceback" not in said
    assert series.OwnKernel.waiting is None  # the next notebook's is not left behind
    failed = toy / "outputs" / "r1" / "notebooks" / "03_train.failed.ipynb"
    assert "unlucky" in failed.read_text()
    assert [count(toy, name, "r1") for name in NOTEBOOKS] == [1, 1, 1, 0, 0]

    source = toy / "notebooks" / "03_train.ipynb"
    whole = source.read_text()
    source.write_text(whole.replace("epochs == 13", "epochs == 99"))  # the reader mends it
    try:
        assert run(toy, "--run", "r1", "-p", "epochs", "13") == 0
    finally:
        source.write_text(whole)
    assert [count(toy, name, "r1") for name in NOTEBOOKS] == [1, 1, 2, 1, 1]
    assert not failed.exists()
    said = capfd.readouterr().out
    assert "01_data: up to date" in said and "03_train · a title  [3 of 5]" in said
    assert "toy, test split, 4 photographs, inside the FOV" in said and "Where to look:" in said


def test_the_time_left_is_told_where_it_can_be_known():
    usual = {"a": 10, "b": 80, "c": 90}
    assert series.time_left(("a", "b", "c"), usual, {}) == " · about 3 min left"
    # The first took three times as long as it should: so will the others.
    assert series.time_left(("b", "c"), usual, {"a": 30}) == " · about 8 min left"
    assert series.time_left(("c",), usual | {"c": 8}, {"b": 80}) == " · less than a minute left"
    assert series.time_left(("b", "c"), {"a": 10, "b": 80}, {"a": 30}) == ""


def test_the_time_is_known_of_the_embedded_photographs_and_of_a_second_run(tmp_path):
    chosen = {"data_dir": "data/tiny", "outputs_dir": "o", "run": "tiny", "weights": ""}
    assert series.expected_seconds(tmp_path, chosen).keys() == set(NOTEBOOKS)
    for other in ({"epochs": 30}, {"data_dir": "data/mine"}):
        assert series.expected_seconds(tmp_path, chosen | other) == {}
    record = {"parameters": {"epochs": 30}, "results": {}, "files": {}}
    record |= {"provenance": {"seconds": 900}}
    (tmp_path / "03_train.json").write_text(json.dumps(record))
    assert series.expected_seconds(tmp_path, chosen | {"epochs": 30}) == {"03_train": 900}
    assert series.expected_seconds(tmp_path, chosen | {"epochs": 40}) == {}


def test_nothing_runs_twice_unless_something_changed(toy, capfd):
    assert run(toy) == 0 and run(toy) == 0
    assert "All five are up to date" in capfd.readouterr().out
    assert [count(toy, name) for name in NOTEBOOKS] == [1] * 5
    assert run(toy, "-p", "epochs", "4") == 0
    assert [count(toy, name) for name in NOTEBOOKS] == [2] * 5
    manifest = json.loads((toy / "outputs" / "tiny" / "03_train.json").read_text())
    assert manifest["epochs"] == 4


@pytest.mark.parametrize("file", ["04_evaluate.json", "notebooks/04_evaluate.done"])
def test_a_damaged_record_is_named_and_made_again(toy, capfd, file):
    path = toy / "outputs" / "damaged" / file
    assert run(toy, "--run", "damaged") == 0
    before = count(toy, "04_evaluate", "damaged")
    path.write_bytes(b"{")
    assert run(toy, "--run", "damaged") == 0
    said = capfd.readouterr()
    assert "Traceback" not in said.err
    assert f"04_evaluate is not up to date. {path}: damaged" in said.out
    assert count(toy, "04_evaluate", "damaged") == before + 1
    assert count(toy, "02_model", "damaged") == 1


def test_given_weights_leave_the_training_out(toy, capfd, monkeypatch):
    (toy / "w.pt").write_bytes(b"one")
    monkeypatch.chdir(toy)
    assert run(toy, "-p", "weights", "w.pt") == 0
    said = capfd.readouterr().out
    assert "02_model and 03_train are left out: the weights are given" in said
    assert [count(toy, name, "tiny_w") for name in NOTEBOOKS] == [1, 0, 0, 1, 1]
    assert run(toy, "-p", "weights", "w.pt") == 0
    assert "All three are up to date" in capfd.readouterr().out
    (toy / "w.pt").write_bytes(b"two")  # other weights under the same name
    assert run(toy, "-p", "weights", "w.pt") == 0
    assert [count(toy, name, "tiny_w") for name in NOTEBOOKS] == [1, 0, 0, 2, 2]


def test_a_run_can_go_from_its_own_weights_to_given_ones_and_back(toy, monkeypatch):
    (toy / "v.pt").write_bytes(b"v")
    monkeypatch.chdir(toy)
    own, given = ["--run", "both"], ["--run", "both", "-p", "weights", "v.pt"]
    for arguments in (own, given, own):
        assert run(toy, *arguments) == 0
    assert [count(toy, name, "both") for name in NOTEBOOKS] == [1, 1, 1, 3, 3]


def test_the_weights_in_the_box_are_asked_for_by_name(toy, tmp_path, monkeypatch, capfd):
    box = tmp_path / "pretrained.pt"
    monkeypatch.setattr(series, "PRETRAINED", box)
    assert run(toy, "-p", "weights", "pretrained") == 2
    assert "which comes with the package" in capfd.readouterr().err
    box.write_bytes(b"tensors")
    assert run(toy, "-p", "weights", "pretrained") == 0
    names = [count(toy, name, "tiny_pretrained") for name in NOTEBOOKS]
    assert names == [1, 0, 0, 1, 1]


def test_a_parameter_that_given_weights_make_idle_is_refused(toy, capfd, monkeypatch):
    (toy / "u.pt").write_bytes(b"u")
    monkeypatch.chdir(toy)
    assert run(toy, "-p", "weights", "u.pt", "-p", "epochs_of_03", "3") == 2
    assert "epochs_of_03 would change nothing" in capfd.readouterr().err
    assert not (toy / "outputs" / "tiny_u").exists()


def test_closing_words_can_be_said_of_one_test_photograph(tmp_path):
    scores = {"dice": 0.8, "iou": 0.7, "auc": 0.98, "ap": 0.9}
    split = SplitScores(scores, scores, dict.fromkeys(scores, math.nan), 1)
    protocol = {"data": "toy", "threshold": "by hand", "counted": "inside", "took_part": "Seen."}
    Results(protocol, Threshold(0.5, "validation", "dice"), {"test": split}, {}).write(tmp_path)
    said = series.closing_words(tmp_path)
    assert (
        "1 photograph, inside:\n  Dice 0.800\n" in said and "±" not in said and "pooled" not in said
    )
    assert "\n  Seen.\n" in series.closing_words(tmp_path)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["-p", "epohcs", "5"], "command line: unknown parameter epohcs. Did you mean epochs?"),
        (["--preset", "spoilt"], "preset spoilt: unknown parameter epohcs"),
        (["--preset", "moon"], "PRESET=moon: no such preset. Expected one of spoilt, tiny"),
        (["-p", "epochs", "many"], "parameter epochs: found 'many', expected a whole number"),
        (["-p", "flips", "perhaps"], "expected true or false"),
        (["--data", "/nowhere/hrf"], "make import-data DATASET=hrf"),
        (["--run", "../escape"], "expected letters, digits"),
        (["-p", "weights", "none.pt"], "parameter weights: none.pt not found. Expected pretrained"),
    ],
)
def test_a_wrong_call_stops_before_anything_runs(toy, capfd, arguments, words):
    before = sorted((toy / "outputs").rglob("*")) if (toy / "outputs").exists() else []
    assert run(toy, *arguments) == 2
    assert words in capfd.readouterr().err
    after = sorted((toy / "outputs").rglob("*")) if (toy / "outputs").exists() else []
    assert before == after


@pytest.mark.parametrize(
    "text, default, value",
    [
        ("false", True, False),
        ("5", 1, 5),
        ("1e-4", 0.1, 1e-4),
        ("1", 0.1, 1.0),
        ("[3, 4]", [1], [3, 4]),
        ("001", "tiny", "001"),
        ("false", "text", "false"),
        ("1e3", 1, 1000),
        ("010", 1, 10),  # YAML 1.1 takes it for eight
        ("[010, 1e1]", [1], [10, 10]),
        ("no", True, False),
        ("no", "tiny", "no"),
        ("", "tiny", ""),
    ],
)
def test_values_have_the_expected_type_and_mean_the_same_in_a_preset(
    tmp_path, text, default, value
):
    (tmp_path / "mine.yaml").write_text(f"name: {text}\n")
    for given in (text, read_preset(tmp_path, "mine")["name"]):
        found = cast("name", given, default)
        assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "default", "message"),
    [
        ("1:30", 1, "found '1:30', expected a whole number"),  # ninety, for YAML 1.1
        ("0x10", 1, "found '0x10', expected a whole number"),
        ("nan", 0.1, "found nan, expected a number"),
        ("1e999", 0.1, "found inf, expected a number"),
        ("-inf", 1, "found -inf, expected a whole number"),
        ("[8, x]", [1], "found 'x', expected a whole number"),
        ("[8, 16.5]", [1], r"found 16\.5, expected a whole number"),
        ("[8", [1], "cannot be read as YAML .*expected ',' or ']'"),
        ("!!python/name:os.system", [1], "found '', expected a list"),
        ("[" * 5000, [1], "cannot be read as YAML"),
        ("@", True, "found '@', expected true or false"),
    ],
)
def test_values_that_are_no_such_values_are_refused_by_name(text, default, message):
    with pytest.raises(RetinaError, match=f"^parameter lr: {message}"):
        cast("lr", text, default)


@pytest.mark.parametrize("content", [b"epochs: [", b"- 5", b"5", b"\xff", b"a: b: c"])
def test_a_preset_that_is_none_is_named(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(RetinaError, match=r"mine\.yaml: (cannot be read|expected lines)"):
        read_preset(tmp_path, "mine")


def test_presets_are_checked_for_type_too():
    with pytest.raises(RetinaError, match=r"expected a number such as 0\.1"):
        cast("lr", "fast", 0.1)
    with pytest.raises(RetinaError, match="expected true or false"):
        cast("flips", 1, True)


def test_every_preset_names_real_parameters_of_the_right_type():
    folder = ROOT / "notebooks"
    declared = {}
    for name in NOTEBOOKS:
        declared |= declared_parameters(folder / f"{name}.ipynb")
    presets = sorted(path.stem for path in (folder / "presets").glob("*.yaml"))
    assert {"tiny", "chase_db1", "hrf"} <= set(presets)
    for preset in presets:
        for name, value in read_preset(folder / "presets", preset).items():
            check_known(name, declared, preset)
            cast(name, value, declared[name])


def test_a_folder_without_the_notebooks_is_refused(tmp_path):
    with pytest.raises(RetinaError, match="run this from the repository's top folder"):
        find_notebooks(str(tmp_path))


# --- What decides whether a notebook runs again ---------------------------------------------------


def decided(toy, data):
    return fingerprint(
        series.what_decides(toy / "notebooks" / "01_data.ipynb", {"data_dir": str(data)}, None)
    )


def test_data_behind_links_decides_and_a_systems_files_do_not(toy, folder, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for split in ("training", "validation", "test"):
        (linked / split).symlink_to(folder / split)
    before = decided(toy, linked)
    (folder / "test" / "masks" / ".DS_Store").write_bytes(b"seen by Finder")
    (folder / "test" / "images" / "@eaDir").mkdir()
    (folder / "test" / "images" / "@eaDir" / "thumb.png").write_bytes(b"drawn by a NAS")
    (linked / "notes.txt").write_text("mine")
    assert decided(toy, linked) == before
    mask = folder / "test" / "masks" / "d_mask.png"
    images.write_png(mask, ~images.read_binary(mask))
    changed = decided(toy, linked)
    assert changed != before
    (linked / "people.csv").write_text("name,person\na,1\n")
    assert decided(toy, linked) != changed
    (linked / "people.csv").unlink()
    shutil.copytree(folder / "test", tmp_path / "other")  # as it is, with its times
    (linked / "test").unlink()
    (linked / "test").symlink_to(tmp_path / "other")
    assert decided(toy, linked) != changed


# --- One run in a folder --------------------------------------------------------------------------

HOLD = """
import sys
from retina_utils.machine import runs
runs.open_run(*sys.argv[1:])
print("open", flush=True)
sys.stdin.read()
"""


def test_a_second_run_in_one_folder_is_refused_until_the_first_is_gone(toy, capfd):
    command = [sys.executable, "-c", HOLD, str(toy / "outputs"), "busy"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"open\n"
        assert run(toy, "--run", "busy") == 2
        said = capfd.readouterr().err
        assert "another run is at work in this folder" in said and "Traceback" not in said
        assert count(toy, "01_data", "busy") == 0
        first.kill()  # a crash lets go
    assert run(toy, "--run", "busy") == 0
    assert LENT not in os.environ
    close_run(open_run(toy / "outputs", "busy"))  # the series has let go, too


# --- Values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given, words",
    [
        ({"epochs": "0"}, "epochs=0: expected a whole number from 1"),
        ({"batch_size": "0"}, "batch_size=0: expected a whole number from 1"),
        ({"save_every": "-1"}, "save_every=-1: expected a whole number from 0"),
        ({"lr": "0"}, r"lr=0\.0: expected a number from"),
        ({"lr": "-0.1"}, r"lr=-0\.1: expected a number from"),
        ({"lr": "nan"}, "lr: found nan"),
        ({"seed": "-1"}, "seed=-1: expected a whole number from 0"),
        ({"threads": "-1"}, "threads=-1: expected a whole number from 0"),
        ({"workers": "-1"}, "workers=-1: expected a whole number from 0"),
        ({"patches_per_image": "0"}, "patches_per_image=0: expected"),
        ({"vessel_share": "1.5"}, r"vessel_share=1\.5: expected a number from 0"),
        ({"widths": "[]"}, r"widths=\[\]: expected a list of 1 to 12"),
        ({"widths": "[8, 0]"}, r"widths=\[8, 0\]: expected a whole number from 1 to 4096"),
        ({"widths": "[8, 100000]"}, "expected a whole number from 1 to 4096"),
        ({"stride": "300"}, "stride=300: expected 1 to patch_size=256"),
        ({"patch_size": "8"}, "patch_size=8: expected a whole number from 16"),
        ({"channels": "blue"}, "channels='blue': expected one of green"),
        ({"normalisation": "none"}, "normalisation='none': expected one of"),
        ({"loss": "bec"}, r"loss='bec': expected one of bce, .*\. Did you mean bce\?$"),
        ({"optimizer": "sgd"}, "optimizer='sgd': expected one of adamw, adam"),
        ({"schedule": "linear"}, "schedule='linear': expected one of cosine"),
        ({"augment": "all"}, "augment='all': expected one of none"),
        ({"architecture": "vit"}, "architecture='vit': expected one of unet, unet256"),
        ({"norm": "layer"}, "norm='layer': expected one of batch"),
        ({"ema": "1"}, r"ema=1\.0: expected 0"),
        ({"precision": "float16"}, "precision='float16': expected one of auto"),
        ({"device": "abacus"}, "device='abacus': expected one of auto, cuda, mps, cpu"),
        ({"choose_by": "auc"}, "choose_by='auc': expected one of dice"),
        ({"split_to_show": "tset"}, "split_to_show='tset': expected one of train"),
        ({"opacity": "2"}, r"opacity=2\.0: expected a number from 0"),
        ({"schedule": "plateau", "patience": "2"}, "patience=2 is not longer"),
    ],
    ids=str,
)
def test_values_that_no_notebook_takes_are_refused_before_the_first(given, words):
    with pytest.raises(RetinaError, match=words):
        series.collect_parameters(ROOT / "notebooks", "tiny", given)


def takes(name, value):
    """Whether the lesson itself takes a value of a parameter, or the error in which it does not."""
    declared = declared_by(ROOT / "notebooks", NOTEBOOKS) | {name: value}
    try:
        patches.Preparation.of(declared)
        augment.make_augment(declared["augment"])
        losses.make_loss(declared["loss"], 0.1)
        model = models.build_model(*models.network_of(declared, 1))
        train.make_scheduler(declared, train.make_optimizer(declared, model))
        compute.autocast(torch.device("cpu"), declared["precision"])
    except ValueError as error:
        return str(error)
    return True


OF_THE_LESSON = sorted(CHOICES.keys() - {"split_to_show", "choose_by", "device"})


@pytest.mark.parametrize("name", OF_THE_LESSON)
def test_the_names_read_from_the_source_are_those_the_lesson_takes(name):
    assert all(takes(name, value) is True for value in names_of(name))
    for known in names_of(name):
        assert known in takes(name, "nonesuch")


def test_the_names_of_scores_splits_and_devices_are_those_in_use():
    assert names_of("split_to_show") == list(data.SPLITS)
    assert set(names_of("choose_by")) <= set(metrics.SCORES)
    flat = metrics.Histogram(*np.ones((2, metrics.LEVELS), int))
    for name in names_of("choose_by"):
        assert 0 <= metrics.best_threshold([flat], name) <= 1
    for name in set(names_of("device")) - {"cuda", "mps"}:
        assert compute.choose_device(name)


def test_a_table_that_cannot_be_read_without_running_it_refuses_nothing(tmp_path, monkeypatch):
    (tmp_path / "losses.py").write_text('LOSSES = {**others(), "dice": dice}\n')
    monkeypatch.setattr("retina_utils.__file__", str(tmp_path / "__init__.py"))
    check_choices({"loss": "mine"})


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("run-all -p epohcs 5", "Did you mean epochs?"),
        ("run-all -p epochs many", "expected a whole number"),
        ("run-all -p epochs -3", "epochs=-3: expected a whole number from 1"),
        ("run-all -p loss dicee", "Did you mean dice?"),
        ("run-all -p stride 300", "expected 1 to patch_size=256"),
        ("run-all --preset tyni", "no such preset"),
        ("train -p norm bacth", "Did you mean batch?"),
        ("benchmark chase_db1 -p augment fulll", "Did you mean full?"),
        ("predict x --out y --device cudda", "Did you mean cuda?"),
        ("predict x --out y --threshold half", "expected a number between 0 and 1"),
    ],
)
def test_a_slip_of_the_pen_is_answered_before_anything_large_is_imported(typed, words):
    told = "import sys; from retina_utils.commands.__main__ import main\n"
    told += "try: status = main(sys.argv[1:])\nexcept SystemExit as end: status = end.code\n"
    told += "print(status, sorted({'torch', 'papermill', 'matplotlib'} & set(sys.modules)))"
    command = [sys.executable, "-c", told, *typed.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "2 []\n"
    assert words in done.stderr and "Traceback" not in done.stderr


def test_every_preset_has_values_that_the_notebooks_take(tmp_path):
    for preset in (ROOT / "notebooks" / "presets").glob("*.yaml"):
        given = {"data_dir": str(tmp_path), "weights": ""}
        series.collect_parameters(ROOT / "notebooks", preset.stem, given)


# --- Kernels, words and paths ---------------------------------------------------------------------


@pytest.fixture
def foreign_kernel(tmp_path, monkeypatch):
    """Another program that is called python3 on Jupyter's paths, and dies at once."""
    spec = {"argv": ["false", "{connection_file}"], "display_name": "R", "language": "python"}
    (tmp_path / "kernels" / "python3").mkdir(parents=True)
    (tmp_path / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path))


def test_a_foreign_kernel_of_the_same_name_is_not_taken(toy, foreign_kernel):
    assert run(toy, "--run", "own") == 0


def test_a_kernel_that_dies_at_start_is_said_in_a_sentence(toy, foreign_kernel, monkeypatch, capfd):
    monkeypatch.setattr(series, "KernelSpecManager", lambda kernel_dirs: KernelSpecManager())
    assert run(toy, "--run", "dead") == 2
    said = capfd.readouterr().err
    assert "01_data stopped. its kernel did not start" in said and "Traceback" not in said


def test_a_kernel_that_dies_amid_its_work_leaves_its_last_words(toy, capfd):
    assert run(toy, "--run", "died", "-p", "epochs", "14") == 2
    said = capfd.readouterr().err
    assert "03_train stopped. the kernel died" in said and "a thread complains" in said


def test_what_a_kernel_mutters_is_not_passed_on(toy, capfd):
    assert run(toy, "--run", "mutters", "-p", "epochs", "15") == 0
    assert "complains" not in capfd.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is another thing there")
def test_ctrl_c_stops_the_series_in_a_sentence(toy):
    command = [sys.executable, "-m", "retina_utils.commands", "run-all", "--run", "stopped"]
    command += ["--notebooks", str(toy / "notebooks"), "-p", "epochs", "16"]
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes) as series:
        waits = toy / "outputs" / "stopped" / "waits"
        while not waits.exists():
            assert series.poll() is None, series.stderr.read()
            time.sleep(0.2)
        os.killpg(series.pid, signal.SIGINT)  # a terminal sends it to all of them
        said = series.communicate(timeout=300)[1]
    assert (series.returncode, said) == (130, "\nStopped. The same command goes on from here.\n")


@pytest.mark.parametrize("command", ["run-all", "report x", "verify x", "predict x --out y"])
def test_ctrl_c_while_a_command_is_still_starting_leaves_no_traceback(command, monkeypatch, capsys):
    def interrupted(name):
        raise KeyboardInterrupt

    monkeypatch.setattr("retina_utils.commands.__main__.import_module", interrupted)
    assert main(command.split()) == 130
    assert capsys.readouterr().err == "\nStopped. The same command goes on from here.\n"


OFFLINE = ["unshare", "--map-root-user", "--net"]  # not even a loopback
CAN_CUT_OFF = (
    shutil.which("unshare")
    and not subprocess.run([*OFFLINE, "true"], capture_output=True).returncode
)


@pytest.mark.skipif(not CAN_CUT_OFF, reason="this system cuts no network off")
def test_a_machine_that_cannot_reach_itself_is_said_before_a_kernel_is_waited_for(toy):
    command = [sys.executable, "-m", "retina_utils.commands", "run-all"]
    command += ["--notebooks", str(toy / "notebooks"), "--run", "cut_off"]
    done = subprocess.run([*OFFLINE, *command], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("run-all: 127.0.0.1: this machine cannot reach itself (")
    assert count(toy, "01_data", "cut_off") == 0


@pytest.mark.parametrize("missing", [None, math.nan])
def test_scores_that_cannot_be_had_do_not_end_the_series(tmp_path, missing):
    scores = {"dice": 0.8, "iou": 0.7, "auc": missing, "ap": missing}
    split = SplitScores(scores, scores, scores, 1)
    protocol = {"data": "toy", "threshold": "by hand", "counted": "inside"}
    Results(protocol, Threshold(0.5, "validation", "dice"), {"test": split}, {}).write(tmp_path)
    assert "ROC-AUC –, average precision –\n" in series.closing_words(tmp_path)


def test_what_is_kept_of_a_run_names_no_home(toy, monkeypatch):
    (toy / "x.pt").write_bytes(b"x")
    monkeypatch.setenv("HOME", str(toy))
    monkeypatch.chdir(toy)
    more = ["--data", str(toy / "data"), "-p", "weights", str(toy / "x.pt")]
    assert run(toy, "--run", "shown", *more) == 0
    for path in (toy / "outputs" / "shown" / "notebooks").iterdir():
        assert str(toy) not in path.read_text(), path
