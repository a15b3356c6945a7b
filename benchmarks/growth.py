"""How cost grows: one page of small plots, and their numbers as CSV, in outputs/bench/.

    python benchmarks/growth.py        (minutes)

Seconds and memory of a map against the photograph's size, the batch, views and threads; of a
training step against batch and patch; of a folder against its photographs; of an epoch's data
against the loader's workers. README.md beside this file says where the lines bend, and why.
"""

import contextlib
import csv
import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
import training
from PIL import Image
from prediction import peak_memory
from timing import seconds

from retina_utils import data, models, patches
from retina_utils.checkpoint import Network, load_network
from retina_utils.commands.folder import predict_folder
from retina_utils.datasets.synthetic import draw_fundus
from retina_utils.images import write_png
from retina_utils.predict import predict_image
from retina_utils.show.figures import STYLE

ROOT = Path(__file__).parent.parent
OUT = ROOT / "outputs" / "bench"
PLOTS = {  # title -> what lies across
    "map: size of the photograph": "pixels a side",
    "map: memory, PyTorch included": "pixels a side",
    "map: patches at once": "batch size",
    "map: views averaged": "views",
    "map: threads": "threads",
    "training step: batch": "patches of 256 pixels",
    "training step: patch": "pixels a side, batch of 8",
    "folder": "photographs",
    "an epoch's data": "workers",
}
Points = Iterator[tuple[str, int, float]]  # a plot's title, where on it, seconds or GiB


def shown(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A synthetic photograph and its FOV, brought to a size."""
    drawing = draw_fundus(0, (512, 512))
    image = np.asarray(Image.fromarray(drawing.image).resize((side, side)))
    fov = np.asarray(Image.fromarray(drawing.fov).resize((side, side), Image.Resampling.NEAREST))
    return image, fov


def timed(work, times: int = 3) -> float:
    return min(seconds(work, times=times)[0])


def of_maps() -> Points:
    network = load_network("pretrained")
    for side in (256, 512, 1024, 2048, 4096):
        image, fov = shown(side)
        yield (
            "map: size of the photograph",
            side,
            timed(partial(predict_image, network, image, fov)),
        )
        yield "map: memory, PyTorch included", side, peak_memory(image, fov)
    image, fov = shown(1024)
    for views in (1, 4):
        work = partial(predict_image, network, image, fov, flips=views == 4)
        yield "map: views averaged", views, timed(work)
    for threads in range(1, (most := torch.get_num_threads()) + 1):
        torch.set_num_threads(threads)
        yield "map: threads", threads, timed(partial(predict_image, network, image, fov))
    torch.set_num_threads(most)
    # A network that looks at all it is given at once is given patches.
    patched = Network(models.UNet(c_in=3, fold=2, norm="instance"), network.preparation)
    for size in (1, 2, 4, 8, 16):
        work = partial(predict_image, patched, image, fov, batch_size=size)
        yield "map: patches at once", size, timed(work)


def of_training() -> Points:
    for title, shapes in {
        "training step: batch": [(n, 256) for n in (1, 2, 4, 8, 16, 32)],
        "training step: patch": [(8, side) for side in (64, 128, 256, 512)],
    }.items():
        for n, side in shapes:
            training.STEPS["grown"] = ({}, (n, 1, side, side))
            yield title, n if "batch" in title else side, timed(training.make_step("grown", True))


def of_folders() -> Points:
    with tempfile.TemporaryDirectory() as held:
        for n in range(16):
            write_png(Path(held) / "all" / f"eye_{n:02d}.png", draw_fundus(n).image)
        for count in (1, 2, 4, 8, 16):
            (some := Path(held) / f"of_{count}").mkdir()
            for file in sorted((Path(held) / "all").iterdir())[:count]:
                (some / file.name).symlink_to(file)
            runs = iter(range(9))

            def work(some=some, runs=runs):
                with contextlib.redirect_stdout(None):
                    predict_folder(some, some.with_name(f"{some.name}_{next(runs)}"))

            yield "folder", count, timed(work, times=1)


def of_loading() -> Points:
    pairs = data.load_data(ROOT / "data" / "tiny").train
    dataset = patches.RetinaDataset(pairs, patches.Preparation(), patches_per_image=64)
    for workers in range((os.cpu_count() or 1) + 1):
        loader = patches.make_loader(dataset, 8, True, workers=workers)
        yield "an epoch's data", workers, timed(lambda loader=loader: sum(1 for _ in loader))


def draw(points: list[tuple[str, int, float]]) -> plt.Figure:
    """One small plot for each of :data:`PLOTS`; axes count in powers of two, or start at 0."""
    plt.style.use(STYLE)
    fig, axes = plt.subplots(3, 3, figsize=(9.6, 7.2), layout="constrained")
    for ax, (title, across) in zip(axes.flat, PLOTS.items(), strict=True):
        x, y = zip(*(point[1:] for point in points if point[0] == title), strict=True)
        ax.plot(x, y, marker="o", ms=4)
        ax.set(title=title, xlabel=across, ylabel="GiB" if "memory" in title else "seconds")
        if max(x) > 4:
            ax.set_xscale("log", base=2)
        ax.set_xticks(x, x)
        if max(y) > 4 * min(y) and max(x) > 4:
            ax.set_yscale("log", base=2)  # what grows in proportion is a straight line
            ax.yaxis.set_major_formatter("{x:g}")
        else:
            ax.set_ylim(0, 1.08 * max(y))
        ax.minorticks_off()
    return fig


if __name__ == "__main__":
    os.environ.setdefault("RETINA_QUIET", "1")
    OUT.mkdir(parents=True, exist_ok=True)
    found = [point for of in (of_maps, of_training, of_folders, of_loading) for point in of()]
    with (OUT / "growth.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("what", "at", "seconds or GiB"), *found])
    draw(found).savefig(OUT / "growth.png", dpi=150)
    print(f"wrote growth.png and growth.csv to {OUT.relative_to(ROOT)}")
