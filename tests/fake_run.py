"""A complete run folder made of small drawn photographs, without training anything."""

from pathlib import Path

import numpy as np

from retina_utils import data, evaluate, images, metrics
from retina_utils.machine import files, runs

THRESHOLD = 0.4183  # between two steps of the slider
PEOPLE = {"train": "aab", "validation": "cd", "test": "eefg"}


def write_fake_run(
    folder: Path, synthetic: bool = False, size: int = 96, name: str = "fake"
) -> Path:
    """Photographs in ``folder/eyes`` and their run in ``folder/outputs/name``; the run's path."""
    root, run = folder / "eyes", folder / "outputs" / name
    rng = np.random.default_rng(3)
    splits = {split: [] for split in PEOPLE}
    for split, people in PEOPLE.items():
        for i, person in enumerate(people):
            paths = (root / split / f"{i}_{kind}.png" for kind in "ivfs")
            splits[split].append(data.Pair(split, f"{split}_{i}", person, *paths))
            write_photograph(run, splits[split][-1], size, rng)
    data.write_splits(run / "splits.csv", data.Splits(**splits), root)
    measured = {split: evaluate.measure(run, pairs) for split, pairs in splits.items()}
    rows = [row for found in measured.values() for row in found.rows(THRESHOLD)]
    files.write_csv(run / "metrics.csv", rows)
    best = metrics.best_threshold(measured["test"].histograms)
    evaluate.Results(
        vessel_width={
            "network": {"thin": 0.5, "found": 0.912, "on_vessel": 0.9, "width_ratio": 1.1}
        },
        protocol={
            "data": root.name,
            "counted": "inside the FOV",
            "threshold": "highest pooled dice on validation",
        },
        threshold=evaluate.Threshold(THRESHOLD, "validation", "dice", best),
        splits={split: found.scores(THRESHOLD) for split, found in measured.items()},
        network={"weights": "", "sha256": "", "parameters": 1234, "trained_on": root.name},
    ).write(run)
    settings = {"c_in": 1, "widths": [4, 8]}
    files.write_json(
        run / "model.json", {"architecture": "unet", "settings": settings, "parameters": 1234}
    )
    files.write_csv(run / "history.csv", [history_row(epoch) for epoch in range(1, 5)])
    results = {"data": root.name, "synthetic": synthetic, "data_dir": root}
    runs.record(run, "01_data", {"seed": 5}, results, ["splits.csv"])
    runs.record(run, "02_model", {"seed": 5}, {}, ["model.json"])
    runs.record(run, "03_train", {"seed": 5, "loss": "bce"}, {}, ["history.csv"])
    runs.record(run, "04_evaluate", {"seed": 5}, {}, ["metrics.json", "metrics.csv"])
    return run


def write_photograph(run: Path, pair: data.Pair, size: int, rng) -> None:
    """Four files of one eye and a probability map that is right more often than not."""
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    fov = np.hypot(y, x) < 0.48
    vessels = (np.abs(y - 0.2 * np.sin(9 * x + rng.uniform(0, 6))) < 0.05) & fov
    second = vessels ^ (rng.random(vessels.shape) < 0.01)
    image = np.full((size, size, 3), (190, 80, 40), np.uint8)
    image[vessels] = (110, 20, 20)
    image[~fov] = 0
    for path, array in zip(pair[3:], (image, vessels, fov, second), strict=True):
        images.write_png(path, array)
    probability = np.clip(0.5 * vessels + rng.normal(0.25, 0.2, vessels.shape), 0, 1) * fov
    images.write_probability(evaluate.map_path(run, pair), probability)


def history_row(epoch: int) -> dict:
    scores = ("dice", "iou", "precision", "recall", "accuracy")
    row = {"epoch": epoch, "lr": 1e-3, "train_loss": 1 / epoch, "validation_loss": 1.1 / epoch}
    return row | {f"validation_{score}": 1 - 1 / (epoch + 1) for score in scores} | {"seconds": 1.0}
