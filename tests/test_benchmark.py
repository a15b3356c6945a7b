"""The benchmark on synthetic photographs: who is tested by whom, what is written, what is kept."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_utils import RetinaError, checkpoint, data, metrics, models
from retina_utils.commands import benchmark, card, recipe
from retina_utils.commands.__main__ import main
from retina_utils.datasets import catalogue, ledger
from retina_utils.machine import files

ROOT = Path(__file__).parent.parent
QUICK = ["-p", "epochs", "1", "-p", "patches_per_image", "1", "-p", "patch_size", "64"]
QUICK += ["-p", "stride", "64", "-p", "widths", "[2, 4]", "-p", "fov_diameter", "128"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Two data sets with people of two eyes each, one of them with a second observer."""
    folder = tmp_path_factory.mktemp("sets")
    pairs = [pair for split in data.load_data(ROOT / "data" / "tiny") for pair in split]
    layout = {
        "one": ("training", "training", "training", "training", "validation", "test"),
        "two": ("training", "validation", "test"),
    }
    for name, splits in layout.items():
        people = "aabbcd" if name == "one" else "abc"
        for i, split in enumerate(splits):
            pair = pairs.pop()
            stem = f"{name}_{i}"
            copies = [("images", pair.image, ""), ("masks", pair.vessels, "_mask")]
            copies += [("second", pair.vessels, "_second")] if name == "one" else []
            for part, file, end in copies:
                target = folder / name / split / part / f"{stem}{end}.png"
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target)
        rows = [f"{name}_{i},{name}{people[i]}\n" for i in range(len(splits))]
        (folder / name / "people.csv").write_text("name,person\n" + "".join(rows))
    return folder


@pytest.fixture(scope="module")
def finished(world, tmp_path_factory):
    """The whole command, once, in this process."""
    out = tmp_path_factory.mktemp("benchmark")
    known = dict(catalogue.SOURCES)
    entry = known["hrf"]
    catalogue.SOURCES["one"] = entry._replace(title="ONE", fov_degrees=30)
    catalogue.SOURCES["two"] = entry._replace(title="TWO", fov_degrees=60)
    os.environ.pop("RETINA_COMMAND", None)  # of another command in this process
    try:
        command = ["one", "--data", str(world), "--out", str(out), "--folds", "2", "--jobs", "1"]
        command += ["--preset", "tiny", "--ship", str(out / "box" / "net.pt"), "--others", "two"]
        command += ["--notebooks", str(ROOT / "notebooks"), *QUICK]
        assert main(["benchmark", *command]) == 0
        yield out, command
    finally:
        catalogue.SOURCES.clear()
        catalogue.SOURCES.update(known)


def test_no_person_is_in_two_folds_and_everybody_is_tested_once(world):
    pairs = benchmark.read_photographs(world / "one")
    folds = benchmark.folds_by_person(pairs, 3)
    assert sorted(person for fold in folds for person in fold) == sorted({p.person for p in pairs})
    with pytest.raises(RetinaError, match="expected 2 to 4 folds"):
        benchmark.folds_by_person(pairs, 5)


def test_no_photograph_of_a_tested_person_is_trained_on(finished):
    out, _ = finished
    tested = []
    for fold in (1, 2):
        folder = out / "one" / f"fold_{fold}"
        trained_on = json.loads((folder / "result.json").read_text())["trained_on"]
        with np.load(folder / "histograms.npz") as arrays:
            names = [key.split("/")[1] for key in arrays]
        people = {"one_0": "a", "one_1": "a", "one_2": "b", "one_3": "b"}
        assert not {people.get(n, n) for n in trained_on} & {people.get(n, n) for n in names}
        assert json.loads((folder / "result.json").read_text())["threshold_from"]
        tested += names
    assert sorted(tested) == [f"one_{i}" for i in range(6)]


def test_the_table_comes_as_csv_json_and_markdown_with_what_made_it(finished):
    out, _ = finished
    with (out / "one" / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["trained_on"] for row in rows] == ["ONE, 2-fold", "second human observer", "ONE"]
    assert [row["tested_on"] for row in rows] == ["ONE", "ONE", "TWO"]
    assert float(rows[1]["dice"]) == 1.0  # the second observer here is a copy of the first
    assert [row["took_part"] for row in rows] == ["camera trained on", "", "not known"]
    content = json.loads((out / "one" / "table.json").read_text())
    assert [row["dice"] for row in content["rows"]] == [float(row["dice"]) for row in rows]
    assert content["recipe"]["seed"] == 0 and content["recipe"]["epochs"] == 1
    assert content["provenance"]["command"].startswith(
        "python -m retina_utils.commands benchmark one"
    )
    commits = {job["made"]["commit"] for job in content["jobs"].values()}
    assert commits == {content["provenance"]["commit"]}
    page = (out / "one" / "table.md").read_text()
    assert f"trained at commit {commits.pop()}" in page
    assert "inside the FOV" in page and "seed 0" in page and rows[0]["dice"][:4] in page


def test_another_camera_is_shown_at_the_same_pixels_for_a_degree(world, finished):
    asked = {"fov_diameter": 100}
    jobs = benchmark.plan(["one"], world, ["two"], asked, 2, Path("x"))
    assert jobs[-1].tests["two"].fov_diameter == 200
    jobs = benchmark.plan(["two"], world, ["one"], asked, 2, Path("x"))
    assert jobs[-1].tests["one"].fov_diameter == 50
    assert jobs[0].tests["two"].fov_diameter == 100


def test_a_second_run_takes_what_is_done_and_another_recipe_does_not(finished, capsys, monkeypatch):
    _, command = finished
    asked = []
    monkeypatch.setattr(benchmark, "run_job", lambda job, **_: asked.append(job.name) or "done")
    assert main(["benchmark", *command]) == 0
    assert "3 of 3 trainings have their results already" in capsys.readouterr().out
    assert asked == []
    main(["benchmark", *command, "-p", "seed", "1", "--only", "fold_1"])
    assert asked == ["fold 1"]


def test_the_shipped_network_opens_with_its_card(finished, world):
    out, _ = finished
    network = checkpoint.load_network(out / "box" / "net.pt")
    assert not network.model.training and 0 < network.threshold < 1
    assert network.card["photographs"]["one"] == [f"one_{i}" for i in range(6)]
    assert network.card["threshold"] == "photographs held out of the folds"
    assert network.preparation.fov_diameter == 128
    book, there = ledger.Ledger.of(network), benchmark.read_photographs(world / "one")
    assert book.compare(there) == ["trained on"] * 6
    assert set(book.entries["roles"]) == {0b11}  # held out of the folds, all chose the threshold
    page = (out / "box" / "net.md").read_text()
    for part in ("CC BY 4.0", "ONE, 2-fold", f"{network.threshold:.3f}", "not a medical device"):
        assert part in page


def test_a_network_without_folds_is_shipped_with_the_scores_there_are(finished, world):
    out, command = finished
    again = [*command, "--folds", "0"]
    again[again.index("--ship") + 1] = str(out / "box" / "alone.pt")
    assert main(["benchmark", *again]) == 0
    facts = checkpoint.load_network(out / "box" / "alone.pt").card
    assert facts["threshold"] == "its training photographs"
    assert facts["scores"][0]["trained_on"] == "ONE, 2-fold"


def test_the_network_in_the_box_is_small_and_says_what_it_saw():
    network = checkpoint.load_network("pretrained")
    assert checkpoint.PRETRAINED.stat().st_size <= 2_000_000
    assert models.count_parameters(network.model) <= 500_000
    assert len(network.card["photographs"]["chase_db1"]) == 20
    assert len(network.card["photographs"]["hrf"]) == 15
    page = checkpoint.PRETRAINED.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{network.threshold:.3f}" in page and network.card["made"]["command"] in page
    anew = card.card_page(network, checkpoint.PRETRAINED)
    assert "# The network in the box\n" in anew and "It has seen three cameras" in anew
    tables = [[row for row in text.splitlines() if row[:1] == "|"] for text in (page, anew)]
    assert tables[0] == tables[1]


def test_counts_of_several_networks_are_summed_each_at_its_own_threshold():
    def drawn(low, high):
        vessels = np.array([[True] * 4 + [False] * 4])
        probability = np.array([[high] * 4 + [low] * 4])
        return metrics.histogram(probability, vessels, np.ones_like(vessels))

    # Each network separates perfectly, at thresholds that are wrong for the other.
    row = benchmark.network_row("x", "y", [drawn(0.1, 0.3), drawn(0.6, 0.9)], [0.2, 0.8])
    assert row["dice"] == 1.0 and row["photographs"] == 2
    assert row["best_dice"] < 1.0 and row["auc"] < 1.0
    assert row["threshold"] == "0.20 to 0.80"


def test_the_threshold_weighs_photographs_alike():
    vessels = np.zeros((1, 1000), bool)
    vessels[0, :100] = True
    large = metrics.histogram(np.where(vessels, 0.9, 0.6), vessels, np.ones_like(vessels))
    small = vessels[:, 95:105]
    small = metrics.histogram(np.where(small, 0.5, 0.1), small, np.ones_like(small))
    # Above 0.6 the large one is right and the small one blind; at 0.5 the small one is right.
    assert 0.1 < metrics.best_threshold([large, small, small], weigh="photographs") <= 0.5


def test_training_again_gives_the_same_weights(world):
    changes = [tuple(QUICK[i + 1 : i + 3]) for i in range(0, len(QUICK), 3)]
    asked = recipe.read_recipe(ROOT / "notebooks", "tiny", changes)
    asked |= {"ema": 0.9, "augment": "cameras", "schedule": "onecycle", "epochs": 2}
    pairs = benchmark.read_photographs(world / "two")
    job = benchmark.Job("again", {"two": pairs}, {}, asked, Path("x"))
    first, again = (benchmark.train_all(job, asked).network() for _ in range(2))
    assert first.sha256 == again.sha256


def test_the_recipe_says_what_is_done_and_a_set_without_its_own_takes_that_of_the_box():
    notebooks = ROOT / "notebooks"
    asked = recipe.read_recipe(notebooks, "tiny", [("schedule", "plateau"), ("patience", "3")])
    # There is no validation loss to stand still.
    assert asked["schedule"] == "cosine" and asked["patience"] == 0
    presets = notebooks / "presets"
    assert recipe.preset_of(["hrf"], presets) == "hrf"
    assert recipe.preset_of(["drive"], presets) == "pretrained"
    assert recipe.preset_of(["chase_db1", "hrf"], presets) == "pretrained"


def test_what_is_missing_is_said(tmp_path, capsys):
    assert main(["benchmark", "drive", "--data", str(tmp_path), "--preset", "tiny"]) == 2
    assert "make import-data DATASET=drive" in capsys.readouterr().err
    assert main(["benchmark", "drive", "--preset", "tiny", "-p", "epoch", "3"]) == 2
    assert "Did you mean epochs?" in capsys.readouterr().err


@pytest.fixture
def mine(world, tmp_path):
    """A data set of one's own, called ``mine``, beside an imported one, and the command for it."""
    shutil.copytree(world / "one", tmp_path / "data" / "mine")
    shutil.copytree(world / "two", tmp_path / "data" / "hrf")
    command = ["mine", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    command += ["--notebooks", str(ROOT / "notebooks"), "--preset", "tiny", "--jobs", "1", *QUICK]
    return tmp_path, [*command, "--folds", "2"]


def test_photographs_of_ones_own_are_trained_on_compared_and_passed_on(mine):
    folder, command = mine
    assert main(["benchmark", *command, "--ship", str(folder / "mine.pt")]) == 0
    content = json.loads((folder / "out" / "mine" / "table.json").read_text())
    tested = [row["tested_on"] for row in content["rows"]]
    assert tested == ["mine", "mine", "HRF (High-Resolution Fundus)"]
    assert "not known how many degrees the photographs of mine show" in content["protocol"]
    facts = checkpoint.load_network(folder / "mine.pt").card
    assert facts["licences"] == ["mine, 6 photographs: your own photographs, licence not stated."]
    page = (folder / "mine.md").read_text()
    assert facts["licences"][0] in page and 'load_network("mine.pt")' in page
    assert "in the box" not in page and "two cameras" not in page and "not a medical" in page


def test_several_data_sets_are_trained_on_together_and_tested_each(mine):
    folder, command = mine
    assert main(["benchmark", command[0], "hrf", *command[1:], "--ship", str(folder / "n.pt")]) == 0
    content = json.loads((folder / "out" / "mine+hrf" / "table.json").read_text())
    where = "mine + HRF (High-Resolution Fundus), 2-fold"
    assert [row["trained_on"] for row in content["rows"]] == [where, "second human observer", where]
    assert "degrees" not in content["protocol"]
    assert set(checkpoint.load_network(folder / "n.pt").card["photographs"]) == {"mine", "hrf"}


def striped(folder, width):
    """A photograph 300 pixels across with vessels so wide."""
    vessels = np.zeros((300, 300), bool)
    vessels[100 : 100 + width] = vessels[:, 200 : 200 + width] = True
    paths = [folder / f"{width}{part}.png" for part in ("", "_mask")]
    Image.fromarray(np.where(vessels, 80, 160).astype(np.uint8)).convert("RGB").save(paths[0])
    Image.fromarray(vessels).save(paths[1])
    return data.Pair("train", f"{width}", f"{width}", *paths)


def test_a_camera_that_shows_more_of_the_eye_is_learned_from_at_a_larger_scale(tmp_path):
    cameras = {"near": [striped(tmp_path, 12)], "far": [striped(tmp_path, 8)]}
    values = recipe.read_recipe(ROOT / "notebooks", "tiny", [("fov_diameter", "200")])
    job = benchmark.Job("both", cameras, {}, values, tmp_path)
    assert job.diameters["near"] == 200 and job.diameters["far"] == pytest.approx(300, rel=0.15)
    assert job._replace(train={"far": cameras["far"]}).diameters == {"far": 200}
    values |= {"patches_per_image": 1, "epochs": 1, "patch_size": 64, "stride": 64}
    photographs = benchmark.train_all(job, values).loader.dataset.photographs
    assert [p.statistics.diameter for p in photographs] == list(job.diameters.values())


def test_where_the_angles_are_known_nothing_is_said_of_them(finished):
    out, _ = finished
    assert "degrees" not in (out / "one" / "table.md").read_text()


def test_a_training_that_there_is_not_is_refused_by_name(mine, capsys):
    folder, command = mine
    assert main(["benchmark", *command, "--only", "fold_1", "typo"]) == 2
    said = capsys.readouterr().err
    assert "--only typo: no such training. Expected some of fold_1, fold_2, all" in said
    assert not (folder / "out").exists()


@pytest.mark.parametrize(
    "asked, words",
    [
        (["--preset", "moon"], "PRESET=moon: no such preset"),
        (["--ship", "FOLDER/file/net.pt"], "cannot be written"),
        (["--ship", "FOLDER"], "expected a file ending in .pt"),
        (["--ship", "FOLDER/card.md"], "expected a file ending in .pt"),
        (["--out", "FOLDER/file/out"], "cannot be written"),
        (["--others", "mine"], "mine is named twice"),
        (["--others", "moon"], "no such data set"),
        (["--jobs", "-1"], "--jobs -1: expected"),
        (["--folds", "9"], "9 folds of 4 people"),
        (["-p", "loss", "luck"], "loss='luck': expected one of bce, "),
        (["-p", "augment", "luck"], "augment='luck': expected one of "),
        (["-p", "optimizer", "luck"], "optimizer='luck': expected one of "),
        (["-p", "precision", "luck"], "precision='luck': expected one of "),
        (["-p", "device", "luck"], "device='luck': expected one of auto, "),
        (["-p", "widths", "[]"], "widths=[]: expected a list"),
    ],
)
def test_what_cannot_end_well_is_refused_before_any_training(
    mine, capsys, monkeypatch, asked, words
):
    folder, command = mine
    (folder / "file").write_text("a file where a folder should be")
    trained = []
    monkeypatch.setattr(benchmark, "run_job", lambda job, **_: trained.append(job) or "")
    asked = [word.replace("FOLDER", str(folder)) for word in asked]
    assert main(["benchmark", *command, *asked]) == 2
    assert words in capsys.readouterr().err
    assert not trained


def test_a_corrected_file_makes_the_trainings_it_takes_part_in_anew(mine, monkeypatch):
    folder, command = mine
    assert main(["benchmark", *command]) == 0
    trained = []
    monkeypatch.setattr(benchmark, "run_job", lambda job, **_: trained.append(job.name) or "")
    for part, expected in {
        "hrf/test/images": ["all"],
        "hrf/test/masks": ["all"],
        "mine/test/second": ["all", "fold 1", "fold 2"],  # the longest first
    }.items():
        path = min((folder / "data" / part).glob("*.png"))
        before = path.read_bytes()
        array = np.array(Image.open(path))
        array[array.shape[0] // 2, array.shape[1] // 2] = 255 - array[0, 0]
        Image.fromarray(array).save(path)
        main(["benchmark", *command])
        assert trained == expected
        path.write_bytes(before)  # as it was, though written later
        trained.clear()
        assert main(["benchmark", *command]) == 0 and trained == []


def test_every_file_is_read_once_for_all_fingerprints(mine, monkeypatch):
    folder, _ = mine
    read = []
    sha256 = files.sha256
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path) or sha256(path))
    asked = {"fov_diameter": 100}
    jobs = benchmark.plan(["mine"], folder / "data", ["hrf"], asked, 2, folder)
    first = [job.fingerprint for job in jobs]
    assert len(read) == len(set(read)) == 6 * 3 + 3 * 2
    assert [job.fingerprint for job in jobs] == first and len(read) == 24
    assert len(set(first)) == 3


def test_a_single_photograph_has_no_spread_and_its_table_can_be_shown():
    row = benchmark.table_row("x", "y", [{"tp": 1, "fp": 1, "fn": 0, "tn": 2}])
    for spread in (row["dice_sd"], None):  # null, once it has been through JSON
        page = files.render(
            benchmark.HERE / "table.md.j2", rows=[row | {"dice_sd": spread}], protocol="How."
        )
        assert "| 0.667 ± – |" in page


def test_a_camera_left_out_is_tested_by_a_network_that_never_met_it(world, tmp_path, capsys):
    command = ["one", "two", "--data", str(world), "--out", str(tmp_path), "--leave-one-out"]
    command += ["--preset", "tiny", "--notebooks", str(ROOT / "notebooks"), "--jobs", "1", *QUICK]
    assert main(["benchmark", *command]) == 0
    (out,) = tmp_path.iterdir()
    table = json.loads((out / "table.json").read_text())
    for name, other in (("one", "two"), ("two", "one")):
        result = table["jobs"][f"without {name}"]
        assert result["tests"] == [name]
        assert all(photograph.startswith(other) for photograph in result["trained_on"])
    tested = [
        (row["trained_on"].lower(), row["tested_on"].lower(), row["photographs"])
        for row in table["rows"]  # other tests give the two sets titles in capitals
    ]
    assert tested == [("two", "one", 6), ("second human observer", "one", 6), ("one", "two", 3)]
    assert "each camera left out in turn" in capsys.readouterr().out
    assert main(["benchmark", command[0], *command[2:]]) == 2
    assert "expected two data sets or more" in capsys.readouterr().err
