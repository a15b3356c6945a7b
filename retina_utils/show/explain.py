"""Figures that explain: a network, a score, a finder, an augmentation shown at work.

They draw what the code does, with its own widths, counts and functions; what a run came to is
drawn by :mod:`retina_utils.show.figures`.
"""

import math
import time
from collections import defaultdict

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from scipy import ndimage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from retina_utils import metrics
from retina_utils.augment import Augment, Cameras
from retina_utils.data import Sample
from retina_utils.evaluate import Case
from retina_utils.fov import find_fov
from retina_utils.frame import fov_diameter
from retina_utils.measures.widths import THIN, Drawing
from retina_utils.models import build_model
from retina_utils.patches import as_tensors, cut
from retina_utils.show import pictures
from retina_utils.show.figures import plot_gallery
from retina_utils.show.pictures import GREY, INK, ORANGE, SKY
from retina_utils.show.tables import level_table

# One change at a time, then all: degrees, scale, bend and light as in `augment.STRENGTHS`.
CHANGES = {
    "mirrored": Augment(0, 0, 0, 0),
    "turned": Augment(45, 0, 0, 0),
    "scaled": Augment(0, 0.2, 0, 0),
    "bent": Augment(0, 0, 12, 0),
    "lit otherwise": Augment(0, 0, 0, 0.3),
    "all of these": Augment(45, 0.2, 4, 0.3),
    "another camera": Cameras(),
}


def plot_u(model: nn.Module, size: int) -> Figure:
    """The U of a ``models.UNet`` for a square patch of ``size`` pixels, from its own stages.

    A box is as high as its tensor is, on a scale of powers of two, and as wide as the root of its
    channels.
    """
    rows = {row["stage"]: row for row in level_table(model, size, size)}
    levels = len(model.settings["widths"])
    right = 2 * levels - 1
    place = {f"down {i}": (i - 1, 1 - i) for i in range(1, levels + 1)}
    place |= {f"fuse {i}": (right - i, 1 - i) for i in range(1, levels)}
    fig, ax = plt.subplots(figsize=(8, 0.4 + 0.9 * levels), layout="constrained")
    box = {}  # stage -> width, height
    for stage, (x, y) in place.items():
        row = rows[stage]
        wide, tall = box[stage] = (
            0.05 * row["channels"] ** 0.5,
            0.55 * (row["height"] / size) ** 0.3,
        )
        colour = SKY if stage.startswith("down") else ORANGE
        corner = (x - wide / 2, y - tall / 2)
        ax.add_patch(Rectangle(corner, wide, tall, fc=colour, ec=INK, lw=0.6))
        words = f"{row['channels']} × {row['height']}²"
        ax.text(x, corner[1] - 0.03, words, ha="center", va="top", fontsize=8)

    def below(stage):
        return place[stage][0], place[stage][1] - box[stage][1] / 2 - 0.2

    def beside(stage, sign):
        return place[stage][0] + sign * (box[stage][0] / 2 + 0.03), place[stage][1]

    def arrow(tail, head, words, **look):
        ax.annotate("", head, tail, arrowprops={"arrowstyle": "-|>", "shrinkA": 0} | look)
        x, y = np.add(tail, head) / 2
        ax.text(x, y + 0.05, words, ha="center", color=look["color"], fontsize=8)

    for i in range(1, levels):
        bridge, again = {"color": GREY, "ls": (0, (4, 3))}, {"color": INK, "lw": 1}
        arrow(below(f"down {i}"), beside(f"down {i + 1}", -1), "", **again)
        lower = f"fuse {i + 1}" if i < levels - 1 else f"down {levels}"
        arrow(beside(lower, 1), below(f"fuse {i}"), "", **again)
        arrow(beside(f"down {i}", 1), beside(f"fuse {i}", -1), "skip connection", **bridge)
    for x, name in {-0.7: "photograph", right - 0.4: "logits"}.items():
        ax.text(x, 0, name, ha="center", va="center", fontsize=9)
    ax.set(xlim=(-1.1, right), ylim=(0.45 - levels, 0.35))
    ax.axis("off")
    return fig


def level_costs(model: nn.Module, size: int, repeats: int = 5) -> list[dict]:
    """What each level of a ``models.UNet`` holds and costs for one patch of ``size`` pixels.

    Rows of ``level`` (1 is the finest; its way down and up together), ``parameters``,
    ``multiply-adds`` and ``ms``, of the fastest of some forward passes.
    """
    with torch.device("meta"):  # counted on shapes
        twin = build_model(model.architecture, model.settings).eval()
        with FlopCounterMode(display=False) as counter:
            twin(torch.zeros(1, model.settings["c_in"], size, size))
    seconds = _seconds_by_stage(model, size, repeats)
    rows = defaultdict(lambda: {"parameters": 0, "multiply-adds": 0, "ms": 0.0})
    for name, spent in seconds.items():
        part, _, index = name.partition(".")
        row = rows[1 if part == "head" else int(index) + 1]
        row["parameters"] += sum(p.numel() for p in model.get_submodule(name).parameters())
        # A multiplication and an addition are two operations.
        row["multiply-adds"] += sum(counter.get_flop_counts()[f"UNet.{name}"].values()) // 2
        row["ms"] += 1000 * spent
    return [{"level": level, **rows[level]} for level in sorted(rows)]


@torch.inference_mode()
def _seconds_by_stage(model: nn.Module, size: int, repeats: int) -> dict[str, float]:
    """Fastest seconds of a forward pass in each stage: down.0, up.0, fuse.0, ..., head."""
    stages = [
        f"{part}.{i}" for part in ("down", "up", "fuse") for i in range(len(getattr(model, part)))
    ]
    started, spent, hooks = {}, defaultdict(list), []
    for name in [*stages, "head"]:
        stage = model.get_submodule(name)

        def before(*_, name=name):
            started[name] = time.perf_counter()

        def after(*_, name=name):
            spent[name].append(time.perf_counter() - started[name])

        hooks += [stage.register_forward_pre_hook(before), stage.register_forward_hook(after)]
    was_training = model.training
    for _ in range(repeats + 1):  # the first one warms up
        model.eval()(torch.zeros(1, model.settings["c_in"], size, size))
    model.train(was_training)
    for hook in hooks:
        hook.remove()
    return {name: min(times[1:]) for name, times in spent.items()}


def plot_level_costs(rows: list[dict]) -> Figure:
    """Parameters, multiply-adds and time of each level, side by side, as shares of the whole.

    ``rows`` are those of :func:`level_costs`, as numbers or their text."""
    names = ("parameters", "multiply-adds", "ms")
    fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.6), sharey=True, layout="constrained")
    for ax, name in zip(axes, names, strict=True):
        values = np.array([row[name] for row in rows], float)
        bars = ax.bar([str(row["level"]) for row in rows], values / values.sum(), 0.6, color=SKY)
        words = [f"{v:.1f} ms" if name == "ms" else as_count(v) for v in values]
        ax.bar_label(bars, words, fontsize=8, padding=2)
        ax.set(title="time" if name == "ms" else name, xlabel="level", ylim=(0, 1))
    axes[0].set_ylabel("share of the whole")
    return fig


def as_count(value: float) -> str:
    """A large number in three figures: 482 k, 1.2 M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:g}"


def plot_counts(predicted: np.ndarray, vessels: np.ndarray) -> Figure:
    """Annotation, drawing and comparison of two small (H, W) bool grids, and scores by hand."""
    counts = metrics.confusion(predicted, vessels, np.ones_like(vessels))
    tp, fp, fn, tn = (counts[key] for key in metrics.COUNTS)
    ground = np.full((*vessels.shape, 3), pictures.EMPTY, np.uint8)
    alone = [
        pictures.tint(ground, np.uint8(255) * each, "#EBEBEB") for each in (vessels, predicted)
    ]
    both = pictures.error_map(predicted, vessels, np.ones_like(vessels))
    fig = plot_gallery([*alone, both], ["annotated", "drawn", "compared"], columns=3)
    for ax in fig.axes:
        ax.hlines(np.arange(-0.5, len(vessels)), -0.5, vessels.shape[1] - 0.5, color=GREY, lw=0.5)
        ax.vlines(np.arange(-0.5, vessels.shape[1]), -0.5, len(vessels) - 0.5, color=GREY, lw=0.5)
    found = metrics.scores(counts)
    words = {
        "dice": f"2·{tp} / (2·{tp} + {fp} + {fn})",
        "iou": f"{tp} / ({tp} + {fp} + {fn})",
        "precision": f"{tp} / ({tp} + {fp})",
        "recall": f"{tp} / ({tp} + {fn})",
        "specificity": f"{tn} / ({tn} + {fp})",
        "accuracy": f"({tp} + {tn}) / {vessels.size}",
    }
    lines = [f"{metrics.SCORES[key]} = {how} = {found[key]:.3f}" for key, how in words.items()]
    counted = f"hits (light) {tp}    false alarms (orange) {fp}    misses (blue) {fn}    rest {tn}"
    lines = [counted, "      ".join(lines[:3]), "      ".join(lines[3:])]
    fig.supxlabel("\n".join(lines), fontsize=9)
    return fig


def two_drawings() -> dict[str, np.ndarray]:
    """A vessel, drawn a pixel too wide and drawn with gaps: (48, 126) bool maps, equal in Dice."""
    rows, columns = np.indices((48, 126))
    off = np.abs(rows - np.rint(24 + 12 * np.sin(columns / 18)))
    vessels, wide = off <= 2, off <= 3
    # Dice is 2N / (N + wide) for one and 2n / (n + N) for the other: equal for this n.
    left = round(vessels.sum() ** 2 / wide.sum())
    gaps = np.zeros_like(vessels)
    along = np.argsort(np.where(vessels, columns % 24, -1), axis=None, kind="stable")
    gaps.flat[along[-left:]] = True
    return {"vessels": vessels, "too wide": wide, "with gaps": gaps}


def thin_window(case: Case) -> tuple[slice, slice]:
    """A window a sixth of the FOV wide with thin vessel in doubt, and little of any other."""
    diameter = fov_diameter(case.fov)
    thin = Drawing(case.vessels).thin(THIN * diameter) & case.fov
    doubt = thin & (case.probability > 0.3) & (case.probability < 0.9)
    weight, side = np.where(doubt, 1.0, -0.4 * case.vessels), diameter // 6
    share = ndimage.uniform_filter(weight, side, mode="constant")
    centre = np.unravel_index(np.argmax(share), share.shape)
    return pictures.window_at(case.fov.shape, (side, side), centre)


def plot_thin_vessel(case: Case, thresholds=(0.3, 0.5, 0.7, 0.9)) -> Figure:
    """One thin vessel: the photograph, the probability, and what each threshold leaves of it."""
    window = thin_window(case)
    image, p, vessels, fov = (part[window] for part in case[1:])
    shown = {"photograph": image, "probability": p.clip(0, 1)}
    for threshold in thresholds:
        drawn = metrics.decide(p, threshold)
        recall = metrics.scores(metrics.confusion(drawn, vessels, fov))["recall"]
        shown[f"≥ {threshold:g}: recall {recall:.2f}"] = pictures.error_map(drawn, vessels, fov)
    return plot_gallery([*shown.values()], [*shown], columns=3, title=case.name)


def plot_augmentations(sample: Sample, seed: int = 0, size: int = 192) -> Figure:
    """One patch as it is, and under each of ``CHANGES``: raw above, its vessels outlined below."""
    centre = np.array(sample.fov.shape) // 2
    layers = {
        "image": sample.image.transpose(2, 0, 1),
        "vessels": sample.vessels * np.uint8(255),
        "fov": sample.fov,
    }
    items = {}
    for name, change in {"as it is": None, **CHANGES}.items():
        reach = math.ceil(size * (change.context - 1) / 2) + change.margin if change else 0
        top, left = (int(c) - size // 2 - reach for c in centre)
        window = {k: cut(layer, top, left, size + 2 * reach) for k, layer in layers.items()}
        items[name] = change(window, size, seed) if change else as_tensors(window)
    raw = [(item["image"] * item["fov"]).permute(1, 2, 0).numpy() for item in items.values()]
    fig = plot_gallery([*raw, *raw], [*items, *[""] * len(items)], columns=len(items))
    for ax, item in zip(fig.axes[len(items) :], items.values(), strict=True):
        ax.contour(item["vessels"][0].numpy(), [0.5], colors=pictures.OUTLINE, linewidths=0.5)
    return fig


def plot_fov_at_work(image: np.ndarray) -> Figure:
    """``find_fov`` on a (H, W, 3) uint8 photograph, and on four of what exports make of one."""
    height, width = image.shape[:2]
    ways = {"as it is": image, "cut off above and below": image.copy(), "hazy surround": image}
    ways |= {"a label in the corner": image.copy(), "on a white page": image.copy()}
    ways["cut off above and below"] = image[height // 9 : -height // 9]
    ways["hazy surround"] = np.maximum(image, 40)
    ways["a label in the corner"][4 : height // 12, 4 : width // 4] = 230
    ways["on a white page"] = np.pad(image, ((20, 20), (20, 20), (0, 0)), constant_values=255)
    fig = plot_gallery([*ways.values()], [*ways], columns=len(ways))
    for ax, each in zip(fig.axes, ways.values(), strict=True):
        fov = np.pad(find_fov(each), 1)[1:-1, 1:-1]
        ax.contour(fov, [0.5], colors=pictures.OUTLINE, linewidths=1.2)
    return fig
