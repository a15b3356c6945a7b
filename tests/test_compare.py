"""Two runs, compared photograph by photograph."""

import math
import re

import numpy as np
import pytest
from fake_run import THRESHOLD, write_fake_run

from retina_utils import RetinaError, data, evaluate, images, metrics
from retina_utils.commands.__main__ import main
from retina_utils.machine import files, runs
from retina_utils.measures.compare import Comparison, compare


@pytest.fixture
def a(tmp_path):
    return write_fake_run(tmp_path, size=48, name="a")


@pytest.fixture
def b(tmp_path):
    """The same photographs in another order; the first one's map lies nine rows too low."""
    run = write_fake_run(tmp_path, size=48, name="b")
    root = tmp_path / "eyes"
    splits = data.read_splits(run / "splits.csv", root)
    data.write_splits(run / "splits.csv", splits._replace(test=splits.test[::-1]), root)
    runs.record(run, "01_data", {}, {"data_dir": root}, ["splits.csv"])
    path = evaluate.map_path(run, splits.test[0])
    images.write_probability(path, np.roll(images.read_probability(path), 9, axis=0))
    return run


def dice_of(run, name):
    [pair] = [p for p in compare_pairs(run) if p.name == name]
    case = evaluate.load_case(run, pair)
    drawn = metrics.decide(case.probability, THRESHOLD)
    return metrics.scores(metrics.confusion(drawn, case.vessels, case.fov))["dice"]


def compare_pairs(run):
    return data.read_splits(run / "splits.csv", run.parents[1] / "eyes").test


def test_each_photograph_is_paired_with_itself(a, b):
    found = compare(a, b)
    assert found.runs == ("a", "b")
    assert dict(zip(found.photographs, found.people, strict=True)) == {
        "test_0": "e", "test_1": "e", "test_2": "f", "test_3": "g",
    }  # fmt: skip
    lost = dice_of(b, "test_0") - dice_of(a, "test_0")
    assert lost < -0.01
    assert found.difference() == pytest.approx([lost, 0, 0, 0])
    row = found.rows[0]
    assert row["difference"] == pytest.approx(lost / 4)
    assert (row["better"], row["worse"]) == (0, 1)
    assert row["b"] - row["a"] == pytest.approx(row["difference"])


def test_each_run_keeps_its_own_threshold(a, b):
    results = evaluate.Results.read(b)
    results.threshold = evaluate.Threshold(0.9, "validation", "dice")
    results.write(b)
    runs.record(b, "04_evaluate", {}, {}, ["metrics.json"])
    recall = compare(a, b).scores["recall"]
    assert (recall[1] < recall[0]).all()


@pytest.mark.parametrize("part", ["image", "vessels", "fov"])
def test_other_pixels_are_refused_by_name(tmp_path, a, part):
    b = write_fake_run(tmp_path / "elsewhere", size=48)
    assert not compare(a, b).difference().any()  # the same pixels in another folder will do
    path = getattr(compare_pairs(b)[2], part)
    array = np.array(
        images.read_photograph(path) if part == "image" else images.read_binary(path, part)
    )
    array[24, 24] = ~array[24, 24]
    images.write_png(path, array)
    with pytest.raises(RetinaError, match=r"other pixels in the .* of test_2, expected the same"):
        compare(a, b)


def test_photographs_that_only_one_was_tested_on_are_refused_by_name(a, b):
    rows = [row for row in files.read_csv(b / "splits.csv") if row["name"] != "test_1"]
    files.write_csv(b / "splits.csv", rows)
    runs.record(b, "01_data", {}, {"data_dir": b.parents[1] / "eyes"}, ["splits.csv"])
    with pytest.raises(RetinaError, match=r"1 test photographs that only one .* \(test_1\)"):
        compare(a, b)


def test_a_run_without_scores_is_refused(a, b, tmp_path):
    with pytest.raises(RetinaError, match="no such run folder"):
        compare(a, tmp_path / "none")
    (b / "04_evaluate.json").unlink()
    with pytest.raises(RetinaError, match="04_evaluate has not run yet"):
        compare(a, b)


def comparison(differences, people):
    a = np.full(len(people), 0.5)
    scores = {"dice": np.stack([a, a + differences])}
    return Comparison(("a", "b"), [f"p{i}" for i in range(len(people))], list(people), scores)


def test_the_interval_is_over_people_and_needs_five():
    eyes = np.repeat([0.1, -0.1, 0.05, 0.02, -0.03, 0.04], 2)
    over_people = comparison(eyes, "aabbccddeeff")
    over_eyes = comparison(eyes, "abcdefghijkl")
    (low, high), (nearer, farther) = over_people.interval(), over_eyes.interval()
    assert low < nearer < eyes.mean() < farther < high  # two eyes are no two witnesses
    assert "12 photographs of 6 people; the interval is over people" in over_people.words
    assert not np.isnan(comparison(eyes[:10], "aabbccddee").interval()).any()
    few = comparison(eyes[:8], "aabbccdd")
    assert np.isnan(few.interval()).all() and math.isnan(few.rows[0]["95 % from"])
    assert "4 people; no interval: it takes 5 people" in few.words


def test_the_same_gain_on_everybody_is_certain_and_undefined_scores_are_left_out():
    gain = np.full(6, 0.02)
    assert comparison(gain, "abcdef").interval() == pytest.approx((0.02, 0.02))
    gain[0] = math.nan
    found = comparison(gain, "abcdef")
    assert found.interval() == pytest.approx((0.02, 0.02))
    assert (found.rows[0]["difference"], found.rows[0]["better"]) == (pytest.approx(0.02), 5)
    gain[1] = math.nan
    assert np.isnan(comparison(gain, "abcdef").interval()).all()


def test_the_command_prints_the_table_and_draws_the_differences(a, b, capsys):
    assert main(["compare", "a", "b", "--outputs", str(a.parent)]) == 0
    said = capsys.readouterr().out
    assert "b minus a on 4 photographs of 3 people; no interval: it takes 5 people" in said
    assert re.search(r"Dice .* 0 +1\n", said)
    assert (b / "figures" / "compared_with_a.png").is_file()
    assert main(["compare", "a", "none", "--outputs", str(a.parent)]) == 2
    assert "no such run folder" in capsys.readouterr().err
