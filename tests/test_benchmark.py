"""The benchmark on synthetic photographs: who is tested by whom, what is written, what is kept."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from retina_utils import benchmark, data, metrics, models, sources

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
    known = dict(sources.SOURCES)
    entry = known["hrf"]
    sources.SOURCES["one"] = entry._replace(title="ONE", fov_degrees=30)
    sources.SOURCES["two"] = entry._replace(title="TWO", fov_degrees=60)
    try:
        command = ["one", "--data", str(world), "--out", str(out), "--folds", "2", "--jobs", "1"]
        command += ["--preset", "tiny", "--ship", str(out / "box" / "net.pt"), "--others", "two"]
        command += ["--notebooks", str(ROOT / "notebooks"), *QUICK]
        assert benchmark.main(command) == 0
        yield out, command
    finally:
        sources.SOURCES.clear()
        sources.SOURCES.update(known)


def test_no_person_is_in_two_folds_and_everybody_is_tested_once(world):
    pairs = benchmark.read_photographs(world / "one")
    folds = benchmark.folds_by_person(pairs, 3)
    assert sorted(person for fold in folds for person in fold) == sorted({p.person for p in pairs})
    with pytest.raises(benchmark.BenchmarkError, match="expected 2 to 4 folds"):
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
    content = json.loads((out / "one" / "table.json").read_text())
    assert [row["dice"] for row in content["rows"]] == [float(row["dice"]) for row in rows]
    assert content["recipe"]["seed"] == 0 and content["recipe"]["epochs"] == 1
    assert content["provenance"]["command"].startswith("python -m retina_utils.benchmark one")
    commits = {job["made"]["commit"] for job in content["jobs"].values()}
    assert commits == {content["provenance"]["commit"]}
    page = (out / "one" / "table.md").read_text()
    assert f"trained at commit {commits.pop()}" in page
    assert "inside the FOV" in page and "seed 0" in page and rows[0]["dice"][:4] in page


def test_another_camera_is_shown_at_the_same_pixels_for_a_degree(world, finished):
    recipe = {"fov_diameter": 100}
    jobs = benchmark.plan(["one"], world, ["two"], recipe, 2, Path("x"))
    assert jobs[-1].tests["two"][1] == 200
    jobs = benchmark.plan(["two"], world, ["one"], recipe, 2, Path("x"))
    assert jobs[-1].tests["one"][1] == 50
    assert jobs[0].tests["two"][1] == 100


def test_a_second_run_takes_what_is_done_and_another_recipe_does_not(finished, capsys, monkeypatch):
    _, command = finished
    asked = []
    monkeypatch.setattr(benchmark, "run_job", lambda job: asked.append(job.name) or "done")
    assert benchmark.main(command) == 0
    assert "3 of 3 trainings have their results already" in capsys.readouterr().out
    assert asked == []
    benchmark.main([*command, "-p", "seed", "1", "--only", "fold_1"])
    assert asked == ["fold 1"]


def test_the_shipped_network_opens_with_its_card(finished):
    out, _ = finished
    model, facts = models.load_model(out / "box" / "net.pt")
    assert not model.training and 0 < facts["threshold"] < 1
    assert facts["card"]["photographs"]["one"] == [f"one_{i}" for i in range(6)]
    assert facts["card"]["threshold"] == "photographs held out of the folds"
    assert data.Preparation(**facts["preparation"]).fov_diameter == 128
    page = (out / "box" / "net.md").read_text()
    for part in ("CC BY 4.0", "ONE, 2-fold", f"{facts['threshold']:.3f}", "not a medical device"):
        assert part in page


def test_a_network_without_folds_is_shipped_with_the_scores_there_are(finished, world):
    out, command = finished
    again = [*command, "--folds", "0"]
    again[again.index("--ship") + 1] = str(out / "box" / "alone.pt")
    assert benchmark.main(again) == 0
    _, facts = models.load_model(out / "box" / "alone.pt")
    assert facts["card"]["threshold"] == "its training photographs"
    assert facts["card"]["scores"][0]["trained_on"] == "ONE, 2-fold"


def test_the_network_in_the_box_is_small_and_says_what_it_saw():
    model, facts = models.load_model("pretrained")
    assert models.PRETRAINED.stat().st_size <= 2_000_000
    assert models.count_parameters(model) <= 500_000
    assert len(facts["card"]["photographs"]["chase_db1"]) == 20
    assert len(facts["card"]["photographs"]["hrf"]) == 15
    page = models.PRETRAINED.with_suffix(".md").read_text(encoding="utf-8")
    assert f"{facts['threshold']:.3f}" in page and facts["card"]["made"]["command"] in page


def test_counts_of_several_networks_are_summed_each_at_its_own_threshold():
    def drawn(low, high):
        vessels = np.array([[True] * 4 + [False] * 4])
        probability = np.array([[high] * 4 + [low] * 4])
        return metrics.histogram(probability, vessels, np.ones_like(vessels))

    # Each network separates perfectly, at thresholds that are wrong for the other.
    tests = [({"a": drawn(0.1, 0.3)}, 0.2), ({"b": drawn(0.6, 0.9)}, 0.8)]
    row = benchmark.table_row("x", "y", tests)
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
    assert 0.1 < benchmark.best_threshold([large, small, small]) <= 0.5


def test_training_again_gives_the_same_weights(world):
    recipe = benchmark.read_recipe(
        ROOT / "notebooks", "tiny", [tuple(QUICK[i + 1 : i + 3]) for i in range(0, len(QUICK), 3)]
    )
    pairs = benchmark.read_photographs(world / "two")
    recipe |= {"ema": 0.9, "augment": "cameras", "schedule": "onecycle", "epochs": 2}
    first, again = (
        benchmark.fit(pairs, recipe, torch.device("cpu"))[0].state_dict() for _ in range(2)
    )
    assert all(torch.equal(first[name], again[name]) for name in first)


def test_the_recipe_says_what_is_done_and_a_set_without_its_own_takes_that_of_the_box():
    notebooks = ROOT / "notebooks"
    recipe = benchmark.read_recipe(notebooks, "tiny", [("schedule", "plateau")])
    assert recipe["schedule"] == "cosine"  # there is no validation loss to stand still
    presets = notebooks / "presets"
    assert benchmark.preset_of(["hrf"], presets) == "hrf"
    assert benchmark.preset_of(["drive"], presets) == "pretrained"
    assert benchmark.preset_of(["chase_db1", "hrf"], presets) == "pretrained"


def test_what_is_missing_is_said(tmp_path, capsys):
    assert benchmark.main(["drive", "--data", str(tmp_path), "--preset", "tiny"]) == 2
    assert "make import-data DATASET=drive" in capsys.readouterr().err
    assert benchmark.main(["drive", "--preset", "tiny", "-p", "epoch", "3"]) == 2
    assert "Did you mean epochs?" in capsys.readouterr().err
