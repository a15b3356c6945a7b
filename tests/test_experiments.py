"""The experiments that the notebooks draw: rows that go on, and honest pieces."""

import importlib.util
import sys

import numpy as np
import pytest
from conftest import ROOT

from retina_utils import data, metrics
from retina_utils.machine.files import read_csv

path = ROOT / "benchmarks" / "experiments.py"
spec = importlib.util.spec_from_file_location("experiments", path)
experiments = importlib.util.module_from_spec(spec)
spec.loader.exec_module(experiments)


def call(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["experiments.py", *arguments])
    experiments.main()


def test_rows_are_kept_one_by_one_and_not_made_twice(tmp_path, monkeypatch):
    made = []

    def make(seed):
        if seed == 2 and len(made) == 2:
            raise KeyboardInterrupt
        made.append(seed)
        return [{"part": part, "dice": seed / 3} for part in "ab"]

    rows = lambda: (({"seed": seed}, lambda seed=seed: make(seed)) for seed in range(4))  # noqa: E731
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    monkeypatch.setitem(experiments.EXPERIMENTS, "losses", rows)
    with pytest.raises(KeyboardInterrupt):
        call(monkeypatch, "losses")
    kept = read_csv(tmp_path / "losses.csv")
    assert [(row["seed"], row["part"]) for row in kept] == [(s, p) for s in "01" for p in "ab"]
    assert kept[2]["dice"] == "0.3333"
    made.append("stopped")
    call(monkeypatch, "losses")
    assert made == [0, 1, "stopped", 2, 3]
    call(monkeypatch, "losses")
    assert made == [0, 1, "stopped", 2, 3]


def test_no_row_is_started_after_the_minutes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(experiments, "RESULTS", tmp_path)
    call(monkeypatch, "losses", "--minutes", "-1")
    assert "the same command goes on" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", sorted(p.stem for p in experiments.RESULTS.glob("*.csv")))
def test_stored_results_are_whole(name):
    kept = read_csv(experiments.RESULTS / f"{name}.csv")
    for key, _ in experiments.EXPERIMENTS[name]():
        key = {k: str(v) for k, v in key.items()}
        assert any(key.items() <= row.items() for row in kept), key


@pytest.fixture
def small(tmp_path, monkeypatch):
    """One epoch of a network of next to nothing, on three people."""
    few = data.Splits(*(some[:n] for some, n in zip(experiments.pairs(), (1, 1, 4), strict=True)))
    tiny, recipe_of = experiments.tiny.__wrapped__, experiments.recipe_of
    quick = {"epochs": 1, "patches_per_image": 2, "widths": [4, 8]}
    monkeypatch.setattr(experiments, "KEPT", tmp_path)
    monkeypatch.setattr(experiments, "pairs", lambda: few)
    monkeypatch.setattr(experiments, "tiny", tiny)
    monkeypatch.setattr(experiments, "drawn", lambda factor: tiny())
    monkeypatch.setattr(experiments, "another_camera", experiments.another_camera.__wrapped__)
    monkeypatch.setattr(experiments, "recipe_of", lambda **changes: recipe_of(**changes | quick))


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [
        ("losses", ("dice", "threshold", "best_threshold", "even", "calibration_error"), 1),
        ("seeds", ("dice", "low", "high"), 1),
        ("one_photograph", ("train_loss", "validation_loss", "train_dice", "validation_dice"), 1),
        ("patches", ("seen", "dice", "thin", "cldice", "seam"), 4),
        ("lens", ("own_dice", "best_dice", "calibration_error", "error_home", "error_there"), 1),
        ("levels", ("level", "parameters", "multiply-adds", "ms"), 2),
    ],
)
def test_an_experiment_gives_what_the_notebooks_draw(small, name, columns, rows):
    _, make = next(iter(experiments.EXPERIMENTS[name]()))
    made = make()
    made = made if isinstance(made, list) else [made]
    assert len(made) == rows
    assert all(set(columns) <= row.keys() for row in made)


def test_the_same_people_are_drawn_again(sample, monkeypatch):
    monkeypatch.setattr(experiments, "COUNTS", {"train": 1, "validation": 0, "test": 0})
    drawn = experiments.drawn.__wrapped__  # not kept: two photographs are enough here
    [same], [larger] = drawn(1).train, drawn(1.3).train
    assert np.array_equal(same.image, sample.image)
    assert np.array_equal(same.vessels, sample.vessels)
    assert larger.image.shape[0] == round(1.3 * sample.image.shape[0])
    share = [s.vessels[s.fov].mean() for s in (sample, larger)]
    assert share[1] == pytest.approx(share[0], rel=0.15)


def test_another_lens_changes_the_photograph_and_nothing_else(sample):
    seen = experiments.through_another_lens(sample)
    assert np.array_equal(seen.vessels, sample.vessels)
    assert np.array_equal(seen.fov, sample.fov)
    assert seen.image.dtype == np.uint8
    assert not seen.image[~seen.fov].any()
    rows, columns = np.nonzero(sample.fov[2:-2, 2:-2])
    sharp, soft = (
        np.abs(np.diff(s.image[..., 1].astype(float), axis=1))[rows, columns].mean()
        for s in (sample, seen)
    )
    assert soft < 0.6 * sharp


def test_a_seam_is_a_jump_where_two_patches_meet():
    fov = np.zeros((700, 700), bool)
    fov[40:660, 40:660] = True
    smooth = np.indices(fov.shape).sum(0) / 1400
    assert experiments.jump(smooth, fov) == pytest.approx(1)
    seam = smooth.copy()
    seam[40 - 16 + 256 :] += 0.01  # the view begins 16 pixels before the field of view
    assert experiments.jump(seam, fov) > 5
    elsewhere = smooth.copy()
    elsewhere[400:] += 0.01
    assert experiments.jump(elsewhere, fov) < 1.1


def test_each_photograph_is_cut_where_its_own_probabilities_say():
    levels = np.linspace(0, 1, metrics.LEVELS)
    honest = np.rint(1000 * levels).astype(np.int64)
    one = metrics.Histogram(honest, 1000 - honest)
    best = metrics.evaluate(one, metrics.best_threshold([one]))["dice"]
    assert experiments.own_dice([one]) == pytest.approx(best, abs=1e-3)
