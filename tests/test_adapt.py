"""The ladder of `make adapt`: what gains clearly is kept, and nothing else."""

import shutil

import numpy as np
import pytest
import torch
from conftest import TINY
from scipy.ndimage import binary_dilation
from scipy.special import expit

from retina_utils import RetinaError, images, metrics
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands import __main__ as commands
from retina_utils.commands import adapt
from retina_utils.commands.benchmark import dice_at
from retina_utils.commands.folder import EXPECTED_DICE, USUAL, cut_of
from retina_utils.data import DataError, Pair, load_data, load_sample
from retina_utils.measures import calibration
from retina_utils.models import build_model
from retina_utils.patches import Preparation


def told(bias, seed, pixels=20_000):
    """A photograph whose network is right after this bias of its logits."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 3, (1, pixels))
    vessels = rng.random(logits.shape) < expit(logits + bias)
    return metrics.histogram(expit(logits), vessels, np.ones_like(vessels))


def given(count, people=None):
    """Pairs whose files nobody opens."""
    people = people or [f"p{k}" for k in range(count)]
    return [Pair("given", f"{k}_{p}", p, "", "") for k, p in enumerate(people)]


def climb(biases, people=None, threshold=0.5):
    """The ladder without training, on photographs whose network is wrong by these biases."""
    torch.manual_seed(0)
    network = Network(build_model("unet", {"widths": [4, 8]}), Preparation(), threshold)
    counted = [told(bias, seed) for seed, bias in enumerate(biases)]
    pairs = given(len(biases), people)
    said = []
    found = adapt.adapt(network, pairs, histograms=counted, tunes=False, tell=said.append)
    return network, found, said


def shown(network, pairs):
    return [adapt.show(network, load_sample(pair)) for pair in pairs]


def names(found):
    return [step.name for step in found.steps if step.is_kept]


def test_what_all_photographs_ask_for_is_done_in_part():
    network, found, said = climb([2.0] * 6)
    assert names(found) == ["start", "threshold", "calibration"]
    assert found.calibration.bias > 1
    assert found.steps[1].gain > 0.01 and len(said) == 3 and "kept" in said[1]
    # Nobody would draw twice as far as asked, nor less than a third of it.
    raw = (
        np.log(found.network.threshold / (1 - found.network.threshold))
        * found.calibration.temperature
        - found.calibration.bias
    )
    best = metrics.best_threshold([told(2.0, 9, 200_000)])
    assert 0.3 < raw / np.log(best / (1 - best)) <= 1.05
    assert network.threshold == 0.5  # the start is not touched


def test_photographs_that_disagree_keep_the_network():
    network, found, _ = climb([3.0, -3.0, 2.5, -2.5])
    assert names(found) == ["start"]
    assert found.network.sha256 == network.sha256 and found.network.threshold == 0.5
    assert "stays as it was" in adapt.verdict_of(found)


def test_a_network_that_is_right_is_kept():
    best = metrics.best_threshold([told(0, seed) for seed in range(4)])
    _, found, _ = climb([0.0] * 4, threshold=best)
    assert "threshold" not in names(found)
    assert found.network.threshold == pytest.approx(best, abs=0.02)


def test_few_photographs_move_the_threshold_less_than_many():
    histograms = [told(2.0, seed) for seed in range(8)]
    steps = [0.5 - adapt.threshold_for(histograms[:n], 0.5) for n in (1, 2, 8)]
    assert 0 < steps[0] < steps[1] < steps[2]
    assert steps[0] < 0.5 * (0.5 - metrics.best_threshold(histograms[:1], weigh="photographs"))


def test_nobody_is_scored_by_a_number_that_their_photograph_had_a_part_in():
    histograms = ["left", "right", "other"]
    assert adapt.of_others(histograms, ["a", "a", "b"]) == [["other"], ["other"], ["left", "right"]]
    gain, error = adapt.gain_of(np.array([0.1, 0.3, 0.4]), ["a", "a", "b"])
    assert (gain, error) == pytest.approx((0.3, 0.1))


def test_of_one_person_photographs_are_left_out_one_by_one():
    _, found, _ = climb([2.0] * 3, people=["a"] * 3)
    assert "threshold" in names(found)
    with pytest.raises(RetinaError, match="1 photograph"):
        climb([2.0])


def test_a_network_that_gives_each_photograph_its_own_threshold_keeps_that_where_it_is_better():
    def own(biases, **facts):
        torch.manual_seed(0)
        network = Network(build_model("unet", {"widths": [4, 8]}), Preparation(), 0.8, facts)
        found = [told(bias, seed) for seed, bias in enumerate(biases)]
        pairs = given(len(biases))
        return adapt.adapt(network, pairs, histograms=found, tunes=False, tell=lambda line: None)

    # It is right: own thresholds are the best there are, and 0.8 is far from them.
    kept = own([0.0] * 6, promise=0.1)
    assert names(kept) == ["start"] and cut_of(kept.network) == EXPECTED_DICE
    plain = own([0.0] * 6)
    assert names(plain) == ["start", "threshold"] and cut_of(plain.network) == USUAL
    assert np.mean(kept.steps[0].left_out) > np.mean(plain.steps[0].left_out) + 0.01
    # It promises too little everywhere: calibrated, each photograph's own threshold is the best.
    moved = own([2.0] * 6, promise=0.1)
    assert "calibration" in names(moved)


def test_a_calibration_that_moves_own_thresholds_the_wrong_way_is_not_kept(monkeypatch):
    def kept():
        torch.manual_seed(0)
        network = Network(build_model("unet", {"widths": [4, 8]}), Preparation(), 0.5)
        network.facts["promise"] = 0.1
        found = [told(0.5, seed) for seed in range(6)]
        options = {"histograms": found, "tunes": False, "tell": lambda line: None}
        return names(adapt.adapt(network, given(6), **options))

    assert kept() == ["start", "calibration"]
    moved = calibration.calibrated
    wrong = calibration.Calibration(1.0, 6.0)
    monkeypatch.setattr(calibration, "calibrated", lambda found, fit: moved(found, wrong))
    assert kept() == ["start"]


def test_a_calibration_moves_the_counts_of_a_histogram_and_loses_none():
    before = told(0.0, 3)
    after = calibration.calibrated(before, calibration.Calibration(1.0, 2.0))
    assert after.vessel.sum() == before.vessel.sum()
    assert after.background.sum() == before.background.sum()
    both = (h.vessel + h.background for h in (before, after))
    means = [counts @ np.linspace(0, 1, metrics.LEVELS) / counts.sum() for counts in both]
    assert means[1] > means[0] + 0.1
    assert metrics.roc_auc(after) == pytest.approx(metrics.roc_auc(before), abs=1e-3)


# --- With weights ---------------------------------------------------------------------------------


QUICK = {"steps": 40, "lr": 0.01, "batch_size": 4, "augment": "flips"}


@pytest.fixture
def quick(monkeypatch):
    """A training of seconds."""
    monkeypatch.setattr(adapt, "TUNING", adapt.TUNING | QUICK)


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A small network that has learned a little from two other people, in a file."""
    torch.manual_seed(0)
    preparation = Preparation(patch_size=64, stride=32)
    network = Network(build_model("unet", {"widths": [8, 16]}), preparation, 0.5)
    pairs = [p for p in load_data(TINY).train if p.name in ("img_0007", "img_0009")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(adapt, "TUNING", adapt.TUNING | QUICK)
        path = tmp_path_factory.mktemp("start") / "start.pt"
        save_network(path, adapt.tune(network, shown(network, pairs)))
    return path


@pytest.fixture
def flat(tiny, tmp_path):
    """Three annotated photographs, no splits."""
    folder = tmp_path / "mine"
    for kind, end in {"images": "", "masks": "_mask", "fov": "_fov"}.items():
        (folder / kind).mkdir(parents=True)
        for name in ("img_0001", "img_0003", "img_0005"):
            file = tiny / "training" / kind / f"{name}{end}.png"
            shutil.copy(file, folder / kind / file.name)
    return folder


def run(folder, start, tmp_path):
    place = ["--weights", str(start), "--outputs", str(tmp_path / "out")]
    return commands.main(["adapt", str(folder), "--run", "mine", *place])


def test_a_network_that_knew_little_learns_and_says_so(quick, start, flat, tmp_path, capsys):
    assert run(flat, start, tmp_path) == 0
    path = tmp_path / "out" / "mine" / "adapted.pt"
    said, card = capsys.readouterr().out, path.with_suffix(".md").read_text()
    network = load_network(path)
    story = network.facts["adapted"]
    assert "make predict" in said and "WEIGHTS=" in said
    assert network.sha256 != load_network(start).sha256 == story["start"]
    assert list(story["photographs"]) == ["img_0001", "img_0003", "img_0005"]
    dice = {step["name"]: np.mean(step["left_out"]) for step in story["steps"]}
    assert dice["all the way"] > dice["start"] + 0.02
    for word in ("img_0003", "all the way", "kept", "standard error", story["start"][:12]):
        assert word in card
    assert str(tmp_path) not in card
    assert "3 photographs of mine" in network.facts["data"]  # no test for it any more
    maps = ["predict", str(flat / "images" / "img_0001.png"), "--out", str(tmp_path / "maps")]
    assert commands.main([*maps, "--weights", str(path)]) == 0


def test_drawings_of_other_eyes_are_refused(quick, start, flat, tmp_path, capsys):
    masks = sorted((flat / "masks").iterdir())
    turned = [np.rot90(images.read_binary(mask), 2) for mask in masks]
    for mask, wrong in zip(masks, turned, strict=True):
        images.write_png(mask, wrong)
    with pytest.raises(DataError, match="lie on no vessels"):
        adapt.read_given(flat)
    for mask, wrong in zip(masks, turned, strict=True):  # thick enough to lie on something
        images.write_png(mask, binary_dilation(wrong, iterations=12))
    assert run(flat, start, tmp_path) == 2
    assert "drawings" in capsys.readouterr().err
    assert not (tmp_path / "out" / "mine" / "adapted.pt").exists()


def test_one_wrong_drawing_among_three_ships_no_harm(quick, start, flat):
    right = adapt.read_given(flat)
    network = load_network(start)
    samples = shown(network, right)
    before = np.mean([dice_at(h, 0.5) for h in adapt.look(network, samples)])
    images.write_png(right[0].vessels, np.rot90(samples[0].sample.vessels, 2))
    found = adapt.adapt(network, right, tell=lambda line: None)
    threshold = found.network.threshold
    after = np.mean([dice_at(h, threshold) for h in adapt.look(found.network, samples)])
    assert after > before - 0.005


def test_people_who_are_left_out_take_no_part(start, flat, monkeypatch):
    pairs = [p._replace(person=q) for p, q in zip(adapt.read_given(flat), "aab", strict=True)]
    network, trained = load_network(start), []
    monkeypatch.setattr(
        adapt, "tune", lambda n, given: trained.append([s.sample.name for s in given]) or n
    )
    adapt.adapt(network, pairs, tell=lambda line: None)
    assert trained[:2] == [["img_0005"], ["img_0001", "img_0003"]]


def test_halfway_is_halfway():
    torch.manual_seed(0)
    a, b = (Network(build_model("unet", {"widths": [4, 8]}), Preparation()) for _ in range(2))
    before = a.sha256
    half = adapt.blend(a, b, 0.5).model.head.weight
    torch.testing.assert_close(half, (a.model.head.weight + b.model.head.weight) / 2)
    assert adapt.blend(a, b, 0).sha256 == before == a.sha256 != b.sha256
    assert adapt.blend(a, b, 1).sha256 == b.sha256


# --- What is given --------------------------------------------------------------------------------


def test_test_photographs_of_a_data_folder_are_left_alone(tiny, capsys):
    pairs = adapt.read_given(tiny)
    assert pairs and {pair.split for pair in pairs} == {"train", "validation"}
    assert "left alone" in capsys.readouterr().out


def test_a_broken_annotation_and_names_that_collide_are_named(flat):
    spoiled = flat / "masks" / "img_0003_mask.png"
    spoiled.write_bytes(spoiled.read_bytes()[:200])
    shutil.copy(flat / "images" / "img_0001.png", flat / "images" / "img_0001.bmp")
    with pytest.raises(DataError) as caught:
        adapt.read_given(flat)
    assert "img_0003_mask.png" in str(caught.value) and "share one name" in str(caught.value)


def test_one_photograph_and_too_many_are_refused(flat, monkeypatch, tmp_path, start, capsys):
    monkeypatch.setattr(adapt, "MOST", 2)
    with pytest.raises(RetinaError, match="make run-all"):
        adapt.read_given(flat)
    for name in ("img_0003", "img_0005"):
        for file in flat.rglob(f"{name}*"):
            file.unlink()
    assert run(flat, start, tmp_path) == 2
    assert "Annotate another" in capsys.readouterr().err
    assert run(flat / "nothing", start, tmp_path) == 2
    assert "no such folder" in capsys.readouterr().err
