"""What is counted of a run's maps, and what is recorded of its network."""

import json
import shutil

import numpy as np
import pytest
import torch
from fake_run import write_fake_run

from retina_utils import RetinaError, data, evaluate, metrics, models
from retina_utils.checkpoint import Network
from retina_utils.machine import files
from retina_utils.patches import Preparation


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_fake_run(tmp_path_factory.mktemp("run"), size=48)


def test_intervals_cover_the_true_score_about_as_often_as_they_say():
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        recall = np.clip(rng.normal(0.8, 0.05, 40), 0, 1)
        tp = np.round(1000 * recall).astype(int)
        counts = [{"tp": int(t), "fp": 0, "fn": 1000 - int(t), "tn": 9000} for t in tp]
        low, high = metrics.bootstrap_intervals(counts, [str(i) for i in range(40)])["recall"]
        inside += low <= 0.8 <= high
    assert 0.88 <= inside / 200 <= 0.99


def test_eyes_of_one_person_are_drawn_together():
    good, bad = {"tp": 9, "fp": 1, "fn": 1, "tn": 9}, {"tp": 5, "fp": 5, "fn": 5, "tn": 5}
    alike = metrics.bootstrap_intervals([good, good, bad, bad], ["a", "a", "b", "b"])["dice"]
    apart = metrics.bootstrap_intervals([good, good, bad, bad], ["a", "b", "c", "d"])["dice"]
    assert alike == (0.5, 0.9)  # only both good, both bad, or one of each
    assert apart[0] >= alike[0] and apart[1] <= alike[1]
    assert np.isnan(metrics.bootstrap_intervals([good, bad], ["a", "a"])["dice"]).all()


def test_the_record_of_a_network_changes_with_its_weights():
    model = models.build_model("unet", {"c_in": 1, "widths": [4, 8]})
    network = Network(model, Preparation(), facts={"seed": 3})
    before = evaluate.describe_network(network, "", "eyes")
    assert before["parameters"] == models.count_parameters(model)
    assert (before["trained_on"], before["seed"], before["weights"]) == ("eyes", 3, "")
    assert evaluate.describe_network(network, "", "")["sha256"] == before["sha256"]
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-3
    assert evaluate.describe_network(network, "", "")["sha256"] != before["sha256"]


def test_scores_of_other_weights_are_refused():
    def scored_with(weights):
        threshold = evaluate.Threshold(0.5, "validation", "dice")
        return evaluate.Results({}, threshold, {}, {"weights": weights})

    scored_with("").require_weights("")
    scored_with("pretrained").require_weights("pretrained")
    with pytest.raises(RetinaError, match=r"the run's own weights, and 'pretrained' are asked"):
        scored_with("").require_weights("pretrained")
    with pytest.raises(RetinaError, match=r"'pretrained' weights, and the run's own"):
        scored_with("pretrained").require_weights("")


def test_a_second_observer_counts_only_if_all_photographs_have_one(run):
    pairs = data.read_splits(run / "splits.csv", run.parent.parent / "eyes").test
    assert len(evaluate.measure(run, pairs).second) == len(pairs) > 1
    assert evaluate.measure(run, [pairs[0]._replace(second=None), *pairs[1:]]).second == []
    assert evaluate.measure(run, []).second == []


@pytest.mark.parametrize(
    ("n", "places"),
    [
        (1, {"only": 0}),
        (2, {"best": 0, "worst": 1}),
        (3, {"best": 0, "middle": 1, "worst": 2}),
        (4, {"best": 0, "middle": 2, "worst": 3}),  # of two in the middle the lower
    ],
)
def test_few_photographs_have_fewer_extremes(run, n, places):
    pairs = data.read_splits(run / "splits.csv", run.parent.parent / "eyes").test[:n]
    measured = evaluate.measure(run, pairs)
    ranked = measured.ranked(0.5)
    assert len(ranked) == n
    assert [row.dice for row in ranked] == sorted((row.dice for row in ranked), reverse=True)
    expected = {name: ranked[place].pair for name, place in places.items()}
    assert list(measured.extremes(0.5).items()) == list(expected.items())


def odd(change):
    def spoil(path):
        content = files.read_json(path)
        change(content)
        path.write_text(json.dumps(content))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:300]),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_text("[" * 100_000),
        odd(lambda c: c.pop("splits")),
        odd(lambda c: c.update(network=None)),
        odd(lambda c: c.update(splits=[])),
        odd(lambda c: c["threshold"].update(value="0.5")),
        odd(lambda c: c["threshold"].update(value=None)),
        odd(lambda c: c["threshold"].update(value=7)),
        odd(lambda c: c["splits"]["test"]["pooled"].update(dice="0.8")),
        odd(lambda c: c["splits"]["test"].update(pooled=0.8)),
    ],
)
def test_results_that_cannot_be_read_are_named(run, spoil):
    folder = shutil.copytree(run, run.with_name("spoilt"), dirs_exist_ok=True)
    spoil(folder / "metrics.json")
    with pytest.raises(RetinaError, match=r"metrics\.json: damaged.*Run 04_evaluate\.ipynb again"):
        evaluate.Results.read(folder)
