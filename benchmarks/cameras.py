"""What was tried for cameras never met, each change by itself; rows go to results/cameras.csv.

    python benchmarks/cameras.py NETWORKS chase_db1 jpeg halo

NETWORKS is the folder of a leave-one-camera-out benchmark. The network that never met the camera is
trained on for a few epochs with one change and tested on the camera; "control" is the same without
a change. Three to six minutes a row on one core. cameras.md reads the rows; those of the recipe
"before" were made when "cameras" knew no JPEGs and lost detail less often.
"""

import csv
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from retina_utils import metrics, train
from retina_utils.augment import Cameras
from retina_utils.checkpoint import Network, load_network
from retina_utils.commands.benchmark import Job, measure, network_row, plan_cameras
from retina_utils.commands.recipe import read_recipe
from retina_utils.data import Pair, load_sample
from retina_utils.images import write_png
from retina_utils.predict import predict_image

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "benchmarks" / "results" / "cameras.csv"
EPOCHS = {"chase_db1": 4, "hrf": 3, "stare": 6}
FIELDS = ("recipe", "change", "tested_on", "dice", "own_dice", "best_dice", "auc")


class Tried(Cameras):
    """Cameras with a sharpening halo, blur along rows, or vessels drawn wider and thinner."""

    def __init__(self, halo: float = 0.0, rows: float = 0.0, style: float = 0.0, **options):
        super().__init__(**options)
        self.halo, self.rows, self.style = halo, rows, style

    def __call__(self, window: dict, size: int, seed: int) -> dict[str, torch.Tensor]:
        item, rng = super().__call__(window, size, seed), np.random.default_rng([seed, 1])
        image, vessels = item["image"], item["vessels"]
        if rng.random() < self.halo:
            image = image + (image - blurred(image, 5, 5)) * rng.uniform(0.3, 1.5)
        if rng.random() < self.rows:
            image = image.lerp(blurred(image, 1, 5), rng.uniform(0.3, 1))
        if rng.random() < self.style:  # by up to one and a half pixels
            wide = F.max_pool2d(vessels, 3, 1, 1)
            thin = -F.max_pool2d(-vessels, 3, 1, 1)
            vessels = vessels.lerp(wide if rng.random() < 0.5 else thin, rng.uniform(0, 1))
        return item | {"image": image.clamp(0, 1), "vessels": vessels}


CHANGES = {
    "control": {},
    "unsharp": {"unsharp": 0.5},
    "jpeg": {"squeezed": 0.4},
    "halo": {"halo": 0.4},
    "rows": {"rows": 0.4},
    "style": {"style": 0.6},
    "light": {"light": 1.0},
    "scale": {"scale": 1.8},
    "together": {"unsharp": 0.4, "squeezed": 0.3, "halo": 0.3, "rows": 0.3},
}


def blurred(image: torch.Tensor, high: int, wide: int) -> torch.Tensor:
    """A (C, H, W) image averaged over ``high`` times ``wide`` pixels."""
    around = (wide // 2, wide // 2, high // 2, high // 2)
    return F.avg_pool2d(F.pad(image[None], around, mode="replicate"), (high, wide), 1)[0]


def observers(job: Job, network: Network, folder: Path) -> dict[str, list[Pair]]:
    """Each photograph that two people drew once more, with the second person's vessels."""
    return {
        name: pairs + [pair._replace(vessels=pair.second) for pair in pairs if pair.second]
        for name, pairs in job.train.items()
    }


def itself(job: Job, network: Network, folder: Path) -> dict[str, list[Pair]]:
    """The camera's own photographs besides, with the network's map for their annotation.

    Pseudo-labels (Lee, ICML workshop 2013), cut at each photograph's own threshold: what can be
    done with photographs that nobody annotated.
    """
    drawn = {}
    for name, test in job.tests.items():
        drawn[name] = []
        for pair in test.pairs:
            sample = load_sample(pair)
            probability = predict_image(network, sample.image, sample.fov, flips=True)
            found = metrics.histogram(probability, sample.vessels, sample.fov)
            cut = metrics.expect(found.vessel + found.background).threshold
            path = folder / f"{pair.name}.png"
            write_png(path, metrics.decide(probability, cut) & sample.fov)
            drawn[name].append(pair._replace(vessels=path))
    return job.train | drawn


MORE = {"observers": observers, "itself": itself}


def try_change(networks: Path, camera: str, change: str, folder: Path) -> dict:
    """Train on, and test on the camera; gives a row."""
    network = load_network(networks / f"without_{camera}" / "network.pt")
    start = network.model.state_dict()
    recipe = read_recipe(ROOT / "notebooks", "pretrained", [])
    recipe |= {"epochs": EPOCHS[camera], "lr": 0.004, "threads": 1, "flips": False}
    jobs = {job.name: job for job in plan_cameras(list(EPOCHS), ROOT / "data", recipe, folder)}
    job = jobs[f"without {camera}"]
    if change in MORE:
        job = job._replace(train=MORE[change](job, network, folder))
    across = [job.diameters[name] for name, pairs in job.train.items() for _ in pairs]
    training = train.assemble(recipe, job.pairs, torch.device("cpu"), diameters=across)
    if change in CHANGES:
        training.loader.dataset.augment = Tried(**CHANGES[change])
    for model in (training.model, training.average.module):
        model.load_state_dict(start)
    for _ in training.epochs_left():
        train.finish_epoch(training, train.train_epoch(training))
    tuned = replace(training.network(), facts=network.facts)  # the width it learned from
    known = job.pairs[:: len(job.pairs) // 6]
    threshold = metrics.best_threshold(measure(tuned, known, recipe)[0], weigh="photographs")
    found = measure(tuned, job.tests[camera].pairs, recipe)[0]
    row = network_row(change, camera, found, [threshold] * len(found))
    return {key: row[key] for key in ("tested_on", "dice", "own_dice", "best_dice", "auc")}


if __name__ == "__main__":
    os.environ["RETINA_QUIET"] = "1"
    networks, camera, *changes = sys.argv[1:]
    for change in changes or [*CHANGES, *MORE]:
        with tempfile.TemporaryDirectory() as folder:
            row = {"recipe": "today", "change": change}
            row |= try_change(Path(networks), camera, change, Path(folder))
        with ROWS.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow(row)
        print(row, flush=True)
