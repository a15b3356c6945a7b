"""A complete run folder made of small drawn photographs, without training anything."""

from pathlib import Path

import numpy as np

from retina_utils import data, images, metrics, runs

THRESHOLD = 0.4183  # between two steps of the slider
PEOPLE = {"train": "aab", "validation": "cd", "test": "eefg"}


def write_fake_run(
    folder: Path, synthetic: bool = False, size: int = 96, name: str = "fake"
) -> Path:
    """Photographs in ``folder/eyes`` and their run in ``folder/outputs/name``; the run's path."""
    root, run = folder / "eyes", folder / "outputs" / name
    rng = np.random.default_rng(3)
    splits = {split: [] for split in PEOPLE}
    rows, summary = [], {}
    for split, people in PEOPLE.items():
        counted = []
        for i, person in enumerate(people):
            pair = data.Pair(
                split, f"{split}_{i}", person, *(root / split / f"{i}_{k}.png" for k in "ivfs")
            )
            counted.append(write_photograph(run, pair, size, rng))
            rows.append({"split": split, "name": pair.name, "threshold": THRESHOLD})
            rows[-1] |= metrics.evaluate(counted[-1], THRESHOLD)
            splits[split].append(pair)
        pooled = metrics.pool(counted)
        spread = metrics.summarise([metrics.evaluate(h, THRESHOLD) for h in counted])
        summary[split] = {"pooled": metrics.evaluate(pooled, THRESHOLD), **spread}
    data.write_splits(run / "splits.csv", data.Splits(**splits), root)
    runs.write_csv(run / "metrics.csv", rows)
    threshold = {"value": THRESHOLD, "chosen_on": "validation", "by": "dice"}
    threshold["best_test"] = metrics.best_threshold(pooled)
    protocol = {"pixels": "inside the FOV", "threshold": "highest pooled dice on validation"}
    content = {"protocol": protocol, "threshold": threshold, "splits": summary}
    runs.write_json(run / "metrics.json", content | {"second_observer": None})
    settings = {"c_in": 1, "widths": [4, 8]}
    runs.write_json(
        run / "model.json", {"architecture": "unet", "settings": settings, "parameters": 1234}
    )
    runs.write_csv(run / "history.csv", [history_row(epoch) for epoch in range(1, 5)])
    results = {"data": root.name, "synthetic": synthetic, "data_dir": root}
    runs.record(run, "01_data", {"seed": 5}, results, ["splits.csv"])
    runs.record(run, "02_model", {"seed": 5}, {}, ["model.json"])
    runs.record(run, "03_train", {"seed": 5, "loss": "bce"}, {}, ["history.csv"])
    runs.record(run, "04_evaluate", {"seed": 5}, {}, ["metrics.json", "metrics.csv"])
    return run


def write_photograph(run: Path, pair: data.Pair, size: int, rng) -> metrics.Histogram:
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
    path = run / "probability" / pair.split / f"{pair.name}.png"
    images.write_probability(path, probability)
    return metrics.histogram(images.read_probability(path), vessels, fov)


def history_row(epoch: int) -> dict:
    scores = ("dice", "iou", "precision", "recall", "accuracy")
    row = {"epoch": epoch, "lr": 1e-3, "train_loss": 1 / epoch, "validation_loss": 1.1 / epoch}
    return row | {f"validation_{score}": 1 - 1 / (epoch + 1) for score in scores} | {"seconds": 1.0}
