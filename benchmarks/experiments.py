"""Small trainings on drawn photographs, each to answer one question of the notebooks.

    python benchmarks/experiments.py losses      (or another of EXPERIMENTS, below)

Every row is one training, or what came of it, and is written to ``results/experiments/NAME.csv``
as soon as it is there; the same command goes on where it stopped, after ``--minutes`` by itself.
Networks are kept in ``outputs/experiments``, so a row that needs one of another experiment finds
it. One thread: the numbers are the same on every call, on one kind of processor. Scores of drawn
photographs compare choices with each other, and say nothing about real eyes.
"""

import argparse
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from retina_utils import metrics, patches, train
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands.recipe import read_recipe
from retina_utils.data import Sample, Splits, load_data, load_sample
from retina_utils.datasets.synthetic import COUNTS, SIZES, draw_fundus
from retina_utils.machine.files import fingerprint, read_csv, write_csv
from retina_utils.measures.reliability import crossing, temperature, tempered
from retina_utils.measures.widths import by_width
from retina_utils.models import build_model, network_of
from retina_utils.predict import predict_image
from retina_utils.show.explain import level_costs

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "experiments"
KEPT = ROOT / "outputs" / "experiments"
CPU = torch.device("cpu")
FOLDED = {"fold": 2}  # a network that folds pixels two by two: a training in a third of the time


# --- What there is to learn from ------------------------------------------------------------------


@cache
def tiny() -> Splits:
    """The embedded photographs, decoded."""
    return Splits(*([*map(load_sample, some)] for some in pairs()))


@cache
def pairs() -> Splits:
    """The files of the embedded photographs, and whose they are."""
    return load_data(ROOT / "data" / "tiny")


@cache
def drawn(factor: float) -> Splits:
    """The same people and eyes drawn anew, ``factor`` times as large: vessels, not pixels, grow."""
    samples = []
    for number in range(sum(COUNTS.values())):
        size = tuple(round(factor * side) for side in SIZES[number // 2])
        drawing = draw_fundus(number, size)
        samples.append(Sample(f"img_{number + 1:04d}", drawing.image, drawing.vessels, drawing.fov))
    first, second = COUNTS["train"], COUNTS["train"] + COUNTS["validation"]
    return Splits(samples[:first], samples[first:second], samples[second:])


def through_another_lens(sample: Sample) -> Sample:
    """A photograph blurred by two pixels, its colours mixed otherwise and its shadows lifted."""
    image = ndimage.gaussian_filter(sample.image / 255, (2, 2, 0))
    mixed = image @ np.array([[0.75, 0.25, 0.05], [0.2, 0.6, 0.25], [0.05, 0.15, 0.7]])
    image = np.rint(255 * mixed.clip(0, 1) ** 0.7 * sample.fov[..., None]).astype(np.uint8)
    return sample._replace(image=image)


@cache
def another_camera() -> Splits:
    """The same eyes through a lens that magnifies 1.3 times, is less sharp and sees other hues."""
    return Splits(*([*map(through_another_lens, samples)] for samples in drawn(1.3)))


# --- One training ---------------------------------------------------------------------------------


def recipe_of(**changes) -> dict:
    """The quick run's recipe on one thread, with changes by name."""
    recipe = read_recipe(ROOT / "notebooks", "tiny")
    return recipe | {"threads": 1, "workers": 0, "device": "cpu"} | changes


def trained(splits: Splits, of: str, **changes) -> Network:
    """The network of the epoch with the best validation Dice, as 03 keeps it."""
    recipe = recipe_of(**changes)
    name = fingerprint([recipe, of])[:16]
    path, best = KEPT / f"{name}.pth", KEPT / f"{name}.best"

    def keep(training: train.Training) -> None:
        if training.best == len(training.history):
            save_network(best, training.network(epoch=training.best))

    if not path.exists():
        run(splits, recipe, name, keep)
        best.replace(path)
    return load_network(path)


def run(splits: Splits, recipe: dict, name: str, after_each: Callable) -> train.Training:
    """A training, validated after each epoch; one that was stopped goes on by its ``name``."""
    state = KEPT / f"{name}.state"
    training = train.assemble(recipe, splits.train, CPU)
    train.resume_state(state, training, {})
    loader = grid_of(splits.validation, training)
    for epoch in training.epochs_left():
        row = {"epoch": epoch} | train.train_epoch(training) | train.validate(training, loader)
        train.finish_epoch(training, row)
        after_each(training)
        train.save_state(state, training, {})
    return training


def grid_of(samples: list[Sample], training: train.Training):
    """All of some photographs, in patches, unchanged."""
    seen = patches.RetinaDataset(samples, training.preparation)
    return patches.make_loader(seen, training.recipe["batch_size"], shuffle=False)


def maps(network: Network, samples: list[Sample]) -> list[np.ndarray]:
    return [predict_image(network, sample.image, sample.fov) for sample in samples]


def count(maps: list[np.ndarray], samples: list[Sample]) -> list[metrics.Histogram]:
    found = zip(maps, samples, strict=True)
    return [metrics.histogram(p, sample.vessels, sample.fov) for p, sample in found]


def scores_of(test: list[metrics.Histogram], threshold: float) -> dict:
    """Pooled scores of the test photographs, and how honest their probabilities are."""
    pooled, best = metrics.pool(test), metrics.best_threshold(test)
    return {
        "dice": metrics.evaluate(pooled, threshold)["dice"],
        "threshold": threshold,
        "best_threshold": best,
        "best_dice": metrics.evaluate(pooled, best)["dice"],
        "auc": metrics.roc_auc(pooled),
        "calibration_error": metrics.calibration_error(pooled),
        "even": crossing(pooled, 0.5),
    }


# --- The experiments: each gives the names of its rows, and how to make one -----------------------


def losses() -> Iterator[tuple[dict, Callable]]:
    """Which loss, and how much augmentation?"""
    for seed in range(3):
        for loss in ("bce", "dice", "bce_dice"):
            for augment in ("none", "flips", "cameras"):
                key = {"loss": loss, "augment": augment, "seed": seed}
                yield key, lambda key=key: at_home(trained(tiny(), "tiny", **FOLDED, **key))


def seeds() -> Iterator[tuple[dict, Callable]]:
    """How far apart are trainings that differ in nothing but the seed?"""
    for seed in range(5):
        key = {"source": "this command", "seed": seed}
        yield key, lambda seed=seed: at_home(trained(tiny(), "tiny", seed=seed))


def at_home(network: Network) -> dict:
    """Tested on the embedded test photographs, the threshold chosen on validation."""
    validation, test = (count(maps(network, s), s) for s in tiny()[1:])
    found = scores_of(test, metrics.best_threshold(validation))
    counts = [metrics.confusion_at(histogram, found["threshold"]) for histogram in test]
    people, photographs = ([getattr(p, key) for p in pairs().test] for key in ("person", "name"))
    for whom, names in {"": people, "_photographs": photographs}.items():
        low, high = metrics.bootstrap_intervals(counts, names)["dice"]
        found |= {f"low{whom}": low, f"high{whom}": high}
    return found | {"best_epoch": network.facts["epoch"]}


def one_photograph() -> Iterator[tuple[dict, Callable]]:
    """What does it look like when a network learns by heart?"""
    for augment in ("none", "full"):
        # Cross-entropy at a rate that does not fall: nothing hides what is learned by heart.
        alone = {"loss": "bce", "schedule": "constant", "epochs": 60, "patches_per_image": 12}
        recipe = recipe_of(augment=augment, **alone, **FOLDED)
        yield {"augment": augment}, lambda recipe=recipe: course(recipe)


def course(recipe: dict) -> list[dict]:
    """Loss and Dice of every epoch, on the one photograph trained on, and on validation."""
    one = tiny()._replace(train=tiny().train[:1])

    def look_back(training: train.Training) -> None:
        row, known = training.history[-1], train.validate(training, grid_of(one.train, training))
        row |= {f"train_{key}": known[f"validation_{key}"] for key in ("loss", "dice")}

    done = run(one, recipe, f"one_{fingerprint(recipe)[:16]}", look_back)
    shown = ("epoch", "train_loss", "validation_loss", "train_dice", "validation_dice")
    return [{key: row[key] for key in shown} for row in done.history]


def patches_and_whole() -> Iterator[tuple[dict, Callable]]:
    """A whole photograph made small, or patches of it: side by side, overlapping, all at once?"""
    for seed in range(2):
        yield {"seed": seed}, lambda seed=seed: [*ways_to_see(seed)]


def ways_to_see(seed: int) -> Iterator[dict]:
    """One network that saw whole photographs, one that saw patches; the latter shown in 3 ways."""
    large = drawn(2.1)
    small = trained(large, "drawn 2.1", seed=seed, mode="whole", **FOLDED)
    network = trained(large, "drawn 2.1", seed=seed, **FOLDED)
    yield {"seen": "whole, made 256 pixels wide"} | on_large(small, large)
    yield {"seen": "whole, at its own size"} | on_large(network, large)
    network.model.takes_any_size = False  # now patch by patch, as networks that need it are
    for seen, stride in {"patches side by side": 256, "patches, overlap of half": 128}.items():
        preparation = replace(network.preparation, stride=stride)
        yield {"seen": seen} | on_large(replace(network, preparation=preparation), large)


def on_large(network: Network, large: Splits) -> dict:
    """Scores, recall by width and clDice, and how much a map jumps where two patches meet."""
    threshold = metrics.best_threshold(count(maps(network, large.validation), large.validation))
    found = maps(network, large.test)
    each = [
        by_width(metrics.decide(p, threshold) & s.fov, s.vessels, s.fov)
        for p, s in zip(found, large.test, strict=True)
    ]
    seam = np.mean([jump(p, s.fov) for p, s in zip(found, large.test, strict=True)])
    return (
        scores_of(count(found, large.test), threshold)
        | metrics.summarise(each)["mean"]
        | {"seam": float(seam)}
    )


def jump(probability: np.ndarray, fov: np.ndarray) -> float:
    """The mean step between the pixels to both sides of the first seam; 1 is that of all pixels."""
    found = []
    for p, inside in ((probability, fov), (probability.T, fov.T)):
        step, both = np.abs(np.diff(p, axis=0)), inside[1:] & inside[:-1]
        line = np.flatnonzero(inside.any(1))[0] - patches.MARGIN + 256 - 1
        found.append(step[line][both[line]].mean() / step[both].mean())
    return float(np.mean(found))


def lens() -> Iterator[tuple[dict, Callable]]:
    """The same people through another lens: which of score, threshold and calibration holds?"""
    for seed in range(3):
        for augment in ("none", "flips", "cameras"):
            for camera, splits in {"home": tiny, "other": another_camera}.items():
                key = {"augment": augment, "seed": seed, "camera": camera}
                yield key, lambda a=augment, n=seed, s=splits: through(a, n, s())


def through(augment: str, seed: int, splits: Splits) -> dict:
    """A network of home on some camera's photographs: its thresholds and its temperature too."""
    network = trained(tiny(), "tiny", loss="bce_dice", augment=augment, seed=seed, **FOLDED)
    home = count(maps(network, tiny().validation), tiny().validation)
    there = count(maps(network, splits.validation), splits.validation)
    plain = maps(network, splits.test)
    row = scores_of(count(plain, splits.test), metrics.best_threshold(home))
    for where, validation in {"home": home, "there": there}.items():
        degree = temperature(metrics.pool(validation))
        mended = count([tempered(p, degree) for p in plain], splits.test)
        row |= {f"temperature_{where}": degree}
        row |= {f"error_{where}": metrics.calibration_error(metrics.pool(mended))}
        row |= {f"own_dice_{where}": own_dice(mended)}
    return row | {"own_dice": own_dice(count(plain, splits.test))}


def levels() -> Iterator[tuple[dict, Callable]]:
    """What does a level of the U cost?"""
    recipe = recipe_of()
    torch.set_num_threads(1)
    model = build_model(*network_of(recipe, c_in=1))
    yield {"patch": 256}, lambda: level_costs(model, 256, repeats=20)


def own_dice(histograms: list[metrics.Histogram]) -> float:
    """Pooled Dice with each photograph cut where its own probabilities say (metrics.expect)."""
    each = [(h, metrics.expect(h.vessel + h.background).threshold) for h in histograms]
    return metrics.scores(metrics.add_counts(metrics.confusion_at(*one) for one in each))["dice"]


# --- Rows, one by one -----------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=EXPERIMENTS)
    parser.add_argument("--minutes", type=float, default=1e9, help="start no row after these")
    args = parser.parse_args()
    os.environ["RETINA_QUIET"] = "1"
    end = time.monotonic() + 60 * args.minutes
    for name in args.names:
        path = RESULTS / f"{name}.csv"
        rows = read_csv(path) if path.exists() else []
        for key, make in EXPERIMENTS[name]():
            key = {k: str(v) for k, v in key.items()}
            if any(key.items() <= row.items() for row in rows):
                continue
            if time.monotonic() > end:
                return print(f"{name}: more to do; the same command goes on")
            start, made = time.process_time(), make()
            print(f"{name} {key}: {time.process_time() - start:.0f} s of one core", flush=True)
            for row in made if isinstance(made, list) else [made]:
                rows.append(key | row)
            write_csv(path, [{k: rounded(v) for k, v in row.items()} for row in rows])


def rounded(value):
    return f"{value:.4f}" if isinstance(value, float) else value


EXPERIMENTS = {
    "losses": losses,
    "one_photograph": one_photograph,
    "seeds": seeds,
    "patches": patches_and_whole,
    "lens": lens,
    "levels": levels,
}

if __name__ == "__main__":
    main()
