"""The series runs in order, resumes, and refuses what it does not know, before anything runs."""

import json
import math

import nbformat
import pytest
from conftest import ROOT

from retina_utils import RetinaError
from retina_utils.commands import series
from retina_utils.commands.__main__ import main
from retina_utils.commands.recipe import cast, check_known, declared_parameters, read_preset
from retina_utils.evaluate import Results, SplitScores, Threshold
from retina_utils.machine.runs import NOTEBOOKS

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
(folder / "NAME.json").write_text(json.dumps({"files": {}, "epochs": epochs}))
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
    assert "01_data: up to date" in said
    assert "toy, test split, 4 photographs, inside the FOV" in said and "Where to look:" in said


def test_nothing_runs_twice_unless_something_changed(toy, capfd):
    assert run(toy) == 0 and run(toy) == 0
    assert "All five are up to date" in capfd.readouterr().out
    assert [count(toy, name) for name in NOTEBOOKS] == [1] * 5
    assert run(toy, "-p", "epochs", "4") == 0
    assert [count(toy, name) for name in NOTEBOOKS] == [2] * 5
    manifest = json.loads((toy / "outputs" / "tiny" / "03_train.json").read_text())
    assert manifest["epochs"] == 4


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
    protocol = {"data": "toy", "threshold": "by hand", "counted": "inside", "weights": "Seen."}
    Results(protocol, Threshold(0.5, "validation", "dice"), {"test": split}, {}).write(tmp_path)
    assert "0.800 ± –" in series.closing_words(tmp_path)
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
    ],
)
def test_values_from_the_command_line_have_the_expected_type(text, default, value):
    found = cast("name", text, default)
    assert found == value and type(found) is type(value)


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
        series.find_notebooks(str(tmp_path))
