"""How far the scale of a photograph may be moved: wide fields, and photographs of few pixels.

    python benchmarks/scales.py NETWORKS

NETWORKS is the folder of a leave-one-camera-out benchmark; each network sees the camera it never
met. One view. Ten minutes on one core. Rows go to results/scales.csv.

"wide": 36 pieces of STARE's photographs, 480 pixels each, side by side in one round field of view.
Vessels are as thin in it as those of an ultra-wide camera, though they are no such camera's.
The others: photographs made smaller, until so many pixels are left across the FOV ("soft": blurred
there by a Gaussian of one pixel, and kept as a JPEG of quality 80; "hazy": by one of three pixels,
and at half of the contrast); every second photograph.
"""

import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter

from retina_utils import metrics
from retina_utils.checkpoint import load_network
from retina_utils.commands.benchmark import network_row, read_photographs
from retina_utils.data import Sample, load_sample
from retina_utils.frame import fov_diameter
from retina_utils.intake import scale
from retina_utils.machine.files import write_csv
from retina_utils.predict import at_fitting_scale, average_views

ROOT = Path(__file__).parent.parent
ROWS = ROOT / "benchmarks" / "results" / "scales.csv"
PIECE, SIDE = 480, 6
HIGHEST, BEYOND = (1.0, 2.0, 3.0, 4.0), (1.5, 2.0, 3.0, 4.0)
COARSE = (
    ("hrf", 540, "sharp"),
    ("hrf", 540, "soft"),
    ("stare", 420, "sharp"),
    ("stare", 650, "hazy"),
    ("chase_db1", 400, "sharp"),
    ("chase_db1", 450, "soft"),
)


def side_by_side(samples: list[Sample]) -> Sample:
    """Middles of photographs as one round picture; which, is drawn with seed 0."""
    rng, whole = np.random.default_rng(0), {}
    order = [*rng.permutation(len(samples)), *rng.permutation(len(samples))][: SIDE**2]
    for part in ("image", "vessels"):
        pieces = [middle(getattr(samples[k], part)) for k in order]
        rows = [np.hstack(pieces[k : k + SIDE]) for k in range(0, SIDE**2, SIDE)]
        whole[part] = np.vstack(rows)
    y, x = np.indices(whole["vessels"].shape) - (PIECE * SIDE - 1) / 2
    fov = np.hypot(x, y) <= PIECE * SIDE / 2 - 4
    return Sample("wide", whole["image"] * fov[..., None].astype(np.uint8), whole["vessels"], fov)


def middle(array: np.ndarray) -> np.ndarray:
    top, left = ((side - PIECE) // 2 for side in array.shape[:2])
    return array[top : top + PIECE, left : left + PIECE]


def smaller(sample: Sample, across: int, quality: str) -> Sample:
    """The photograph with so many pixels across its FOV."""
    share = across / fov_diameter(sample.fov)
    size = tuple(round(side * share) for side in sample.fov.shape[::-1])
    image, *drawn = (
        Image.fromarray(a if a.ndim == 3 else a.astype(np.uint8) * 255).resize(size, Image.BOX)
        for a in (sample.image, sample.vessels, sample.fov)
    )
    if quality == "hazy":
        image = ImageEnhance.Contrast(image.filter(ImageFilter.GaussianBlur(3))).enhance(0.5)
    if quality == "soft":
        image.filter(ImageFilter.GaussianBlur(1)).save(kept := BytesIO(), "JPEG", quality=80)
        image = Image.open(kept)
    return Sample(sample.name, np.array(image), *(np.array(part) >= 128 for part in drawn))


def pictures(camera: str) -> Iterator[tuple[str, int, list[Sample]]]:
    """What a camera's network is shown: a name, pixels across the FOV, the pictures."""
    samples = [load_sample(pair) for pair in read_photographs(ROOT / "data" / camera)]
    if camera == "stare":
        wide = side_by_side(samples)
        yield "wide", fov_diameter(wide.fov), [wide]
    for name, across, quality in COARSE:
        if name == camera:
            yield quality, across, [smaller(sample, across, quality) for sample in samples[::2]]


def seen(network, samples: list[Sample]) -> dict:
    """The scores at the scale that is found within the limits, and the diameter in the middle."""
    options, found, diameters = {"batch_size": 8, "precision": "auto"}, [], []
    for sample in samples:
        fitting = at_fitting_scale(network, sample.image, sample.fov, **options)
        probability = average_views(fitting, sample.image, sample.fov, ((),), **options)
        found.append(metrics.histogram(probability, sample.vessels, sample.fov))
        diameters.append(fitting.preparation.fov_diameter)
    scores = network_row("", "", found, [0.5] * len(found))
    row = {"seen_at": int(np.median(diameters))}
    return row | {key: scores[key] for key in ("own_dice", "best_dice", "auc")}


def main(networks: str) -> None:
    rows, limits = [], (scale.HIGHEST, scale.BEYOND)
    for camera in ("stare", "hrf", "chase_db1"):
        network = load_network(Path(networks) / f"without_{camera}" / "network.pt")
        for kind, across, samples in pictures(camera):
            for limit in HIGHEST if kind == "wide" else BEYOND:
                both = (limit, limits[1]) if kind == "wide" else (limits[0], limit)
                scale.HIGHEST, scale.BEYOND = both
                row = {"tested_on": camera, "pictures": kind, "across": across, "limit": limit}
                rows.append(row | seen(network, samples))
                print(*rows[-1].values(), flush=True)
                write_csv(ROWS, rows)


if __name__ == "__main__":
    main(*sys.argv[1:])
