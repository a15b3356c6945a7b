"""Figures: arrays in, a Matplotlib ``Figure`` out.

Nothing here shows or saves by itself: a notebook shows the figure it is given, and
:func:`save_figure` writes it. Probabilities are always drawn from 0 to 1, outside the field of
view is black, and decision maps are shrunk so that a vessel one pixel wide stays visible.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter
from PIL import Image
from scipy.ndimage import uniform_filter

from retina_utils import metrics
from retina_utils.fov import frame_of
from retina_utils.images import atomic_path

# Okabe-Ito colours: told apart with any kind of colour vision, unlike red and green.
BLUE, ORANGE, SKY, GREEN = "#0072B2", "#E69F00", "#56B4E9", "#009E73"
VERMILLION, PURPLE, INK, GREY = "#D55E00", "#CC79A7", "#222222", "#8C8C8C"
ERROR_COLOURS = {"hit": "#EBEBEB", "false alarm": ORANGE, "miss": SKY}
FOUND = "#C4C4C4"  # vessels that were found, where only the mistakes matter
# Misses in blues, false alarms in warm colours; mere errors of width are the dull ones.
MISTAKE_COLOURS = dict(
    zip(
        metrics.MISTAKES,
        (SKY, BLUE, "#6E8796", "#9A8B6B", VERMILLION, ORANGE, PURPLE),
        strict=True,
    )
)
EMPTY = 31  # grey level of "inside the field of view, and nothing there"
PROBABILITY_MAP = "magma"
WIDTH = 9.6  # inches: the width of a notebook cell
NAMES = {"iou": "IoU", "dice": "Dice", "lr": "learning rate"}

STYLE = {
    "figure.dpi": 100,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "figure.titlesize": 10,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=[BLUE, ORANGE, GREEN, VERMILLION, PURPLE, SKY, INK]),
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "figure.constrained_layout.wspace": 0.04,
}


class Case(NamedTuple):
    """One photograph with the network's answer, all arrays at the same size."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8
    probability: np.ndarray  # (H, W) float32 in [0, 1]
    vessels: np.ndarray | None  # (H, W) bool annotation, None where there is none
    fov: np.ndarray  # (H, W) bool


def use_style() -> None:
    """One look for every figure; call it once at the top of a notebook.

    In a notebook, figures that hold photographs are stored as JPEG and charts as PNG, which
    keeps a committed notebook small.
    """
    plt.rcParams.update(STYLE)
    shell = get_ipython()
    if shell is None:
        return
    plt.switch_backend(plt.get_backend())  # now, or it would bring its own formats later
    formatters = shell.display_formatter.formatters
    for kind in ("png", "jpeg"):
        formatters[f"image/{kind}"].for_type(
            Figure, lambda fig, kind=kind: encode(fig) if inline_format(fig) == kind else None
        )


def inline_format(fig: Figure) -> str:
    """ "jpeg" for a figure with images in it, "png" for a chart."""
    return "jpeg" if any(ax.images for ax in fig.axes) else "png"


def encode(fig: Figure) -> bytes:
    """The figure as JPEG or PNG bytes at screen resolution, margins trimmed."""
    kind, buffer = inline_format(fig), io.BytesIO()
    options = {"quality": 85, "optimize": True} if kind == "jpeg" else {}
    fig.savefig(buffer, format=kind, dpi=90, bbox_inches="tight", pil_kwargs=options)
    return buffer.getvalue()


def save_figure(fig: Figure, folder: str | Path, name: str, caption: str = "") -> None:
    """Write ``name.png`` (200 dpi) and ``name.svg``, the caption in their metadata.

    The bytes are the same every time: no date, no version, no random identifiers.
    """
    metadata = {
        "png": {"Description": caption, "Software": None},
        "svg": {"Description": caption, "Date": None, "Creator": None},
    }
    for kind, text in metadata.items():
        with (
            atomic_path(Path(folder) / f"{name}.{kind}") as path,
            plt.rc_context({"svg.hashsalt": name}),
        ):
            fig.savefig(path, format=kind, dpi=200, metadata=text)


# Decisions as colours ---------------------------------------------------------------------------


def coverage(decision: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How strongly each displayed pixel is vessel: (H, W) bool -> (h, w) uint8, 255 is fully.

    The share of its area, times the reduction: a vessel one pixel wide covers a third of each
    pixel it crosses when the picture is three times smaller, and is drawn at full strength.
    """
    grey = Image.fromarray(np.negative(decision.view(np.uint8)))  # True becomes 255
    if decision.shape != size:
        gain = max(1.0, decision.shape[0] / size[0])
        grey = grey.reduce(int(gain + 0.01))  # by a whole number first: much faster
        if grey.size != size[::-1]:
            grey = grey.resize(size[::-1], Image.Resampling.BOX)
        grey = grey.point([min(255, round(gain * value)) for value in range(256)])
    return np.asarray(grey)


def tint(picture: np.ndarray, strength: np.ndarray, colour: str) -> np.ndarray:
    """Mix ``colour`` into a (h, w, 3) uint8 picture by (h, w) uint8 ``strength``."""
    plain = Image.new("RGB", strength.shape[::-1], colour)
    mixed = Image.composite(plain, Image.fromarray(picture), Image.fromarray(strength))
    return np.asarray(mixed)


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A (H, W[, 3]) uint8 or float32 picture at (h, w): averaged down, smoothly enlarged."""
    if picture.shape[:2] == size:
        return picture
    down = size[0] < picture.shape[0]
    method = Image.Resampling.BOX if down else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size[::-1], method, reducing_gap=1.0))


def fit(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """The (h, w) with the proportions of ``shape`` whose longer side is ``longest`` pixels."""
    scale = longest / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def window_at(
    shape: tuple[int, int], sides: tuple[int, int], centre: tuple[int, int]
) -> tuple[slice, slice]:
    """The two slices of a window about ``centre``, moved where it would leave ``shape``."""
    top, left = (
        min(max(int(centre[axis]) - sides[axis] // 2, 0), shape[axis] - sides[axis])
        for axis in (0, 1)
    )
    return slice(top, top + sides[0]), slice(left, left + sides[1])


def error_map(
    predicted: np.ndarray,
    vessels: np.ndarray,
    fov: np.ndarray,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Colour each pixel by what the prediction got right or wrong.

    Hits are light grey, false alarms orange, misses sky blue; inside the field of view where
    there is nothing is dark grey, outside is black.

    Parameters
    ----------
    predicted, vessels, fov : (H, W) bool
    size : (h, w), optional
        Size of the result; the size of the arrays if not given.

    Returns
    -------
    picture : (h, w, 3) uint8
    """
    for name, array in {"predicted": predicted, "vessels": vessels, "fov": fov}.items():
        if array.dtype != bool or array.shape != fov.shape:
            raise TypeError(
                f"{name} must be a bool array of shape {fov.shape}, got {array.dtype} "
                f"{array.shape}; threshold probabilities first"
            )
    size = size or fov.shape
    ground = Image.fromarray(fov.view(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    picture = np.asarray(ground.point([EMPTY * bool(v) for v in range(256)]).convert("RGB"))
    found = predicted & fov
    hit = found & vessels
    kinds = {"miss": (vessels & fov) ^ hit, "false alarm": found ^ hit, "hit": hit}
    for kind, decision in kinds.items():
        if decision.any():
            picture = tint(picture, coverage(decision, size), ERROR_COLOURS[kind])
    return picture


def overlay(
    image: np.ndarray,
    vessels: np.ndarray,
    colour: str = SKY,
    opacity: float = 0.8,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Tint the vessels of a photograph, which stays visible beneath.

    Parameters
    ----------
    image : (H, W, 3) uint8
    vessels : (H, W) bool
    opacity : 0 (photograph only) to 1 (colour only)
    size : (h, w), optional
        Size of the result; the size of the photograph if not given.

    Returns
    -------
    picture : (h, w, 3) uint8
    """
    size = size or vessels.shape
    strength = np.multiply(coverage(vessels, size), opacity, dtype=np.float32).astype(np.uint8)
    return tint(shrink(image, size), strength, colour)


# Photographs and patches ------------------------------------------------------------------------


def plot_photograph(
    image: np.ndarray, vessels: np.ndarray | None, fov: np.ndarray, title: str = ""
) -> Figure:
    """Photograph | annotation | field of view."""
    panels = [(image, "photograph"), (vessels, "annotated vessels"), (fov, "field of view")]
    panels = [panel for panel in panels if panel[0] is not None]
    fig, axes = _grid(1, len(panels), fov.shape)
    for ax, panel in zip(axes[0], panels, strict=True):
        _show(ax, *panel)
    _set_title(fig, title)
    return fig


def plot_gallery(images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4) -> Figure:
    """Photographs (or decision maps) side by side, ``columns`` to a row."""
    rows = -(-len(images) // columns)
    fig, axes = _grid(rows, columns, images[0].shape)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        _show(ax, image, title)
    return fig


def plot_patch_grid(image: np.ndarray, corners: Sequence[tuple[int, int]], size: int) -> Figure:
    """How overlapping patches cover a photograph (one is bold), and how many cover each pixel.

    Parameters
    ----------
    image : (H, W, 3) uint8
    corners : (top, left) of each patch, in pixels
    size : side of a patch, in pixels
    """
    fig, (left, right) = plt.subplots(
        1, 2, figsize=(WIDTH * 0.8, WIDTH * 0.4 * image.shape[0] / image.shape[1] + 0.4),
        layout="constrained",
    )  # fmt: skip
    patches = np.zeros(image.shape[:2], int)
    _show(left, image, f"{len(corners)} patches of {size} × {size} pixels")
    for index, (top, start) in enumerate(corners):
        patches[max(top, 0) : top + size, max(start, 0) : start + size] += 1
        bold = index == len(corners) // 2
        box = {"ec": ORANGE if bold else "white", "lw": 2 if bold else 0.6, "zorder": 3 + bold}
        left.add_patch(Rectangle((start - 0.5, top - 0.5), size, size, fill=False, **box))
    left.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    least, most = patches.min(), patches.max()
    counts = _show(
        right, patches, "patches over each pixel", interpolation="nearest",
        cmap=plt.get_cmap("cividis", most - least + 1), vmin=least - 0.5, vmax=most + 0.5,
    )  # fmt: skip
    ticks = range(least, most + 1)
    bar = fig.colorbar(counts, cax=right.inset_axes((1.03, 0, 0.04, 1)), ticks=ticks)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=0)
    return fig


def plot_patches(batch, columns: int = 6) -> Figure:
    """Training patches as the network gets them, vessels outlined, field of view dashed.

    Parameters
    ----------
    batch : what a loader yields, or a list of a data set's items
        ``image`` (C, P, P) float, ``vessels`` and ``fov`` (1, P, P). The grey values of each
        patch are stretched for display.
    """
    if isinstance(batch, dict):
        batch = [{key: batch[key][i] for key in batch} for i in range(len(batch["fov"]))]
    rows = -(-len(batch) // columns)
    fig, axes = _grid(rows, columns, (1, 1), gap=0.05)
    for ax in axes.flat:
        ax.axis("off")
    for ax, item in zip(axes.flat, batch, strict=False):
        image, vessels, fov = (np.asarray(item[key]) for key in ("image", "vessels", "fov"))
        low, high = np.percentile(image[:, fov[0] > 0] if fov.any() else image, (0.5, 99.5))
        shown = np.clip((image - low) / max(high - low, 1e-6), 0, 1) * fov
        _show(ax, shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0], "")
        for outline, style in ((vessels[0], ("-", SKY, 0.7)), (fov[0], ("--", "white", 0.8))):
            if outline.min() < 0.5 < outline.max():
                line, colour, width = style
                ax.contour(outline, [0.5], colors=colour, linewidths=width, linestyles=line)
    return fig


# Training ---------------------------------------------------------------------------------------


def plot_history(rows: Sequence[dict], best: int | None = None) -> Figure:
    """Every loss and score of a training run against the epoch, the best epoch marked.

    Parameters
    ----------
    rows : the rows of ``history.csv``
        ``epoch``, ``lr`` and any ``train_…`` and ``validation_…``; numbers or their text.
    best : the epoch whose weights were kept; the highest validation Dice if not given
    """
    columns = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    epochs = columns.pop("epoch")
    if best is None:
        best = int(epochs[np.nan_to_num(columns["validation_dice"], nan=-1).argmax()])
    parts = {"train": ("training", ORANGE, "--"), "validation": ("validation", BLUE, "-")}
    names = dict.fromkeys(
        key.partition("_")[2] for key in columns if key.partition("_")[0] in parts
    )
    names = [*names, *(["lr"] if "lr" in columns else [])]
    fig, axes = plt.subplots(
        2, -(-(len(names) + 1) // 2), figsize=(WIDTH, 4), layout="constrained", sharex=True
    )
    dot = "." if len(rows) < 15 else ""
    for ax, name in zip(axes.flat, names, strict=False):
        for part, (label, colour, line) in parts.items():
            if f"{part}_{name}" in columns:
                ax.plot(epochs, columns[f"{part}_{name}"], dot + line, color=colour, label=label)
        if name == "lr":
            ax.step(epochs, columns["lr"], dot + "-", where="mid", color=INK)
            ax.set_ylim(0, None)
            ax.yaxis.set_major_formatter("{x:g}")
        ax.axvline(best, color=GREY, lw=0.8, ls=":", label=f"best epoch: {best}")
        ax.set_title(NAMES.get(name, name))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    for ax in axes.flat[len(names) - axes.shape[1] : len(names)]:
        ax.set_xlabel("epoch")
    axes.flat[len(names)].legend(*axes.flat[0].get_legend_handles_labels(), loc="center left")
    return fig


def plot_losses(logit: np.ndarray, losses: dict[str, np.ndarray]) -> Figure:
    """Each loss, and its pull on the network, against the logit of one vessel pixel.

    Parameters
    ----------
    logit : (L,) float, ascending
    losses : name -> (L,) float
    """
    fig, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained", sharex=True)
    for name, loss in losses.items():
        axes[0].plot(logit, loss, label=name)
        axes[1].plot(logit, -np.gradient(loss, logit), label=name)
    axes[0].set(xlabel="logit of a vessel pixel", ylabel="loss", title="how much it costs")
    axes[1].set(xlabel="logit of a vessel pixel", ylabel="− d loss / d logit")
    axes[1].set_title("how hard it pulls upwards")
    axes[0].legend()
    return fig


# Evaluation -------------------------------------------------------------------------------------


def plot_curves(
    histogram: metrics.Histogram, threshold: float, second_observer: dict | None = None
) -> Figure:
    """ROC and precision–recall curves with the chosen threshold marked.

    Parameters
    ----------
    histogram : pooled over the photographs of a split
    threshold : the chosen one, drawn as a point on both curves
    second_observer : counts ``tp, fp, fn, tn`` of a human second observer, optional
    """
    fig, (roc, pr) = plt.subplots(1, 2, figsize=(8.6, 4.1), layout="constrained")
    zoom = roc.inset_axes((0.36, 0.32, 0.62, 0.52))
    fpr, tpr = metrics.roc_curve(histogram)
    recall, precision = metrics.pr_curve(histogram)
    for ax in (roc, zoom):
        ax.plot(fpr, tpr, color=BLUE, label=f"network, AUC {metrics.roc_auc(histogram):.3f}")
    average = metrics.average_precision(histogram)
    pr.plot(recall, precision, color=BLUE, label=f"network, AP {average:.3f}")

    counts = metrics.confusion_at(histogram, threshold)
    points = [(f"chosen threshold {threshold:.3f}", counts, VERMILLION, "o")]
    if second_observer:
        points.append(("second observer", second_observer, INK, "D"))
    lowest = 0.8
    for name, counts, colour, marker in points:
        score = metrics.scores(counts)
        look = {"color": colour, "marker": marker, "ms": 6, "mec": "white", "ls": "", "zorder": 4}
        for ax in (roc, zoom):
            ax.plot(1 - score["specificity"], score["recall"], label=name, **look)
        pr.plot(score["recall"], score["precision"], label=name, **look)
        lowest = min(lowest, score["recall"] - 0.05)
    zoom.set(xlim=(0, 0.1), ylim=(lowest, 1))
    zoom.tick_params(labelsize=7)
    roc.indicate_inset_zoom(zoom, edgecolor=GREY, alpha=0.6)
    _draw_equal_dice(pr)
    unit = {"xlim": (0, 1), "ylim": (0, 1), "aspect": "equal"}
    roc.set(xlabel="false-positive rate", ylabel="recall (true-positive rate)", title="ROC", **unit)
    pr.set(xlabel="recall", ylabel="precision", title="precision–recall", **unit)
    roc.legend(loc="lower right")
    pr.legend(loc="lower left")
    return fig


def plot_thresholds(
    histogram: metrics.Histogram,
    chosen: float,
    histogram_test: metrics.Histogram | None = None,
    second_observer: dict[str, dict] | None = None,
) -> Figure:
    """Dice, precision and recall against the threshold, on validation and, if given, on test.

    The chosen threshold is a line. On the test photographs the best possible one is dashed: it
    says what the choice cost, and must never be used. ``second_observer`` holds, for "validation"
    and "test", the counts ``tp, fp, fn, tn`` of a human second observer: the Dice is a dotted
    line across, for a person has no threshold.
    """
    splits = {"validation": histogram} | ({"test": histogram_test} if histogram_test else {})
    fig, axes = plt.subplots(
        1, len(splits), figsize=(4.6 * len(splits), 3.4), layout="constrained",
        sharey=True, squeeze=False,
    )  # fmt: skip
    for ax, (split, counts) in zip(axes[0], splits.items(), strict=True):
        curves = metrics.curves(counts)
        threshold = curves["threshold"][::64]
        for name, colour in {"precision": GREEN, "recall": ORANGE, "dice": BLUE}.items():
            ax.plot(threshold, curves[name][::64], color=colour, label=NAMES.get(name, name))
        at, found, title = {"chosen": chosen}, [], f"{split} photographs, pooled"
        if split == "test":
            at["best possible"] = metrics.best_threshold(counts)
        for name, value in at.items():
            dice = metrics.scores(metrics.confusion_at(counts, value))["dice"]
            found.append(f"{name} {value:.3f}: Dice {dice:.3f}")
            line = "-" if name == "chosen" else "--"
            ax.axvline(value, color=INK, lw=0.9, ls=line, label=f"{name} threshold")
        if human := (second_observer or {}).get(split):
            dice = metrics.scores(human)["dice"]
            ax.axhline(dice, color=BLUE, lw=1.2, ls=":", label="Dice of the second observer")
            title += f"    second observer: Dice {dice:.3f}"
        ax.set_title(f"{title}\n" + "    ".join(found))
        ax.set(xlabel="threshold", xlim=(0, 1), ylim=(0, 1))
    axes[0, 0].set_ylabel("score inside the field of view")
    handles, labels = axes[0, -1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=len(labels))
    return fig


def plot_calibration(
    histogram: metrics.Histogram, second_observer: dict | None = None, bins: int = 15
) -> Figure:
    """How often a pixel of a given probability is vessel, with the expected calibration error.

    Bins have equal width. The lower panel says how many pixels stand behind each point; most
    are easy background, and they keep the error small (see ``metrics.calibration_error``).
    ``second_observer`` holds counts ``tp, fp, fn, tn`` of a human, who only says yes (1) or no (0).
    """
    table = metrics.reliability(histogram, bins)
    pixels = table["pixels"]
    fig, (top, bottom) = plt.subplots(
        2, 1, figsize=(4.2, 5), layout="constrained", sharex=True, height_ratios=(4, 1)
    )
    seen = pixels > 0
    top.plot((0, 1), (0, 1), color=GREY, lw=0.8, ls="--", label="perfectly calibrated")
    error = metrics.calibration_error(histogram, bins)
    label = f"network, expected calibration error {error:.3f}"
    top.plot(table["promised"][seen], table["found"][seen], "o-", color=BLUE, ms=4, label=label)
    if second_observer:
        no, yes = (second_observer["fn"], second_observer["tn"]), second_observer
        found = [no[0] / max(sum(no), 1), yes["tp"] / max(yes["tp"] + yes["fp"], 1)]
        look = {"color": INK, "marker": "D", "ms": 6, "mec": "white", "ls": "", "clip_on": False}
        top.plot((0, 1), found, label="second observer's no and yes", zorder=4, **look)
    top.set(ylabel="share of vessel pixels", xlim=(0, 1), ylim=(0, 1.02), title="calibration")
    top.legend(loc="upper left")
    left = np.arange(bins) / bins
    bottom.bar(left, pixels / pixels.sum(), 1 / bins, align="edge", color=SKY, ec="white", lw=0.5)
    bottom.set(xlabel="predicted probability", ylabel="share of pixels", yscale="log")
    fig.align_ylabels()
    return fig


def plot_intervals(
    pooled: dict[str, float],
    intervals: dict[str, dict[str, tuple[float, float]]],
    second_observer: dict | None = None,
) -> Figure:
    """Pooled scores with their 95 % intervals, one bar for each way of drawing again.

    Parameters
    ----------
    pooled : score -> value, such as ``metrics.evaluate`` gives
    intervals : what was drawn again ("photographs", "people") -> score -> (low, high)
        A nan interval (one person only) is left out.
    second_observer : counts ``tp, fp, fn, tn`` of a human second observer, optional
    """
    names = ("dice", "iou", "precision", "recall")
    human = metrics.scores(second_observer) if second_observer else {}
    fig, ax = plt.subplots(figsize=(6.4, 2.6), layout="constrained")
    rows, looks = np.arange(len(names))[::-1], ((SKY, 6), (BLUE, 2.5))
    for (what, found), (colour, width) in zip(intervals.items(), looks, strict=False):
        low, high = np.array([found[name] for name in names]).T
        label = f"95 % interval over {what}"
        ax.hlines(rows, low, high, color=colour, lw=width, label=label)
    network = [pooled[name] for name in names]
    ax.plot(network, rows, "o", color=BLUE, mec="white", ms=7, label="network, pooled", zorder=4)
    if human:
        look = {"color": INK, "mec": "white", "ms": 6.5, "zorder": 5}
        ax.plot([human[name] for name in names], rows, "D", label="second observer", **look)
    for row, value in zip(rows, network, strict=True):
        ax.annotate(f"{value:.3f}", (value, row), (0, 7), textcoords="offset points", ha="center")
    ax.set_yticks(rows, [NAMES.get(name, name) for name in names])
    ax.set(xlabel="score inside the field of view", ylim=(-0.6, len(names) - 0.3))
    ax.grid(axis="x", color=GREY, lw=0.4, alpha=0.4)
    fig.legend(loc="outside right upper")
    return fig


# Predictions ------------------------------------------------------------------------------------


def plot_prediction(
    image: np.ndarray,
    probability: np.ndarray,
    vessels: np.ndarray | None,
    fov: np.ndarray,
    threshold: float,
    title: str = "",
) -> Figure:
    """Photograph | probability | overlay | error map, the scores below.

    Without an annotation (``vessels`` is None) there is no error map and no score.
    """
    predicted = metrics.decide(probability, threshold) & fov
    fig, axes = _grid(1, 3 if vessels is None else 4, fov.shape, gap=1.1)
    size = _panel_pixels(axes, fov.shape)
    _show(axes[0, 0], image, "photograph")
    heat = _show(
        axes[0, 1], shrink(np.where(fov, probability, 0).astype(np.float32), size),
        "probability of vessel", cmap=PROBABILITY_MAP, vmin=0, vmax=1,
    )  # fmt: skip
    strip = axes[0, 1].inset_axes((0.1, -0.075, 0.8, 0.03))
    bar = fig.colorbar(heat, cax=strip, orientation="horizontal", ticks=(0, 0.5, 1))
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2)
    _show(
        axes[0, 2], overlay(image, predicted, size=size), f"vessels: probability ≥ {threshold:.3g}"
    )
    if vessels is not None:
        _show(axes[0, 3], error_map(predicted, vessels, fov, size), "against the annotation")
        _add_error_legend(axes[0, 3])
        fig.supxlabel("\n" + _score_line(predicted, vessels, fov), fontsize=9)
    _set_title(fig, title)
    return fig


def plot_cases(cases: Sequence[Case], threshold: float) -> Figure:
    """A row for each annotated case: whole photograph, then the part with most errors.

    Pass the best, the median and the worst photograph, and say which in their names.
    """
    fig, axes = _grid(len(cases), 4, cases[0].fov.shape, WIDTH * 0.85, gap=0.35)
    size = _panel_pixels(axes, cases[0].fov.shape)
    for row, case in zip(axes, cases, strict=True):
        predicted = metrics.decide(case.probability, threshold) & case.fov
        errors = error_map(predicted, case.vessels, case.fov)
        detail = worst_window((predicted ^ case.vessels) & case.fov)
        score = metrics.scores(metrics.confusion(predicted, case.vessels, case.fov))
        shape = case.fov.shape
        _show(row[0], shrink(case.image, size), f"{case.name}: Dice {score['dice']:.3f}", shape)
        _show(row[1], error_map(predicted, case.vessels, case.fov, size), "", shape)
        _show(row[2], case.image[detail], "")
        _show(row[3], errors[detail], "", interpolation="nearest")
        (top, bottom), (left, right) = ((part.start, part.stop) for part in detail)
        for ax in row[:2]:
            box = Rectangle((left, top), right - left, bottom - top, fill=False, ec="white", lw=1)
            ax.add_patch(box)
    axes[0, 1].set_title("against the annotation")
    axes[0, 2].set_title("detail: most errors")
    _add_error_legend(axes[-1, 1])
    return fig


def plot_three_thresholds(case: Case, thresholds: dict[str, float], title: str = "") -> Figure:
    """The threshold explorer on paper: overlay and error map at (three) named thresholds."""
    annotated = case.vessels is not None
    fig, axes = _grid(1 + annotated, len(thresholds), case.fov.shape, WIDTH * 0.7, gap=0.35)
    size = _panel_pixels(axes, case.fov.shape)
    for column, (name, threshold) in zip(axes.T, thresholds.items(), strict=True):
        predicted = metrics.decide(case.probability, threshold) & case.fov
        label = f"{name}: {threshold:.3g}"
        if annotated:
            score = metrics.scores(metrics.confusion(predicted, case.vessels, case.fov))
            label += f", Dice {score['dice']:.3f}"
            _show(column[1], error_map(predicted, case.vessels, case.fov, size), "")
        _show(column[0], overlay(case.image, predicted, size=size), label)
    if annotated:
        _add_error_legend(axes[1, len(thresholds) // 2])
    _set_title(fig, title or case.name)
    return fig


def plot_mistakes(
    cases: Sequence[Case], kinds: Sequence[np.ndarray], threshold: float, notes: Sequence[str]
) -> Figure:
    """A row for each annotated case: photograph, every wrong pixel by its kind, and their shares.

    Parameters
    ----------
    cases : photographs with annotation, worst first
    kinds : (H, W) uint8 of ``metrics.mistakes``, for each case
    threshold : the one they were found at
    notes : a line for each case, over its photograph
    """
    fig, axes = plt.subplots(
        len(cases), 3, figsize=(7.8, 2.6 * len(cases)), layout="constrained",
        squeeze=False, width_ratios=(1, 1, 0.75),
    )  # fmt: skip
    for row, case, wrong, note in zip(axes, cases, kinds, notes, strict=True):
        frame = frame_of(case.fov)
        inside = slice(*frame.rows), slice(*frame.columns)
        fov = case.fov[inside]
        hits = metrics.decide(case.probability[inside], threshold) & case.vessels[inside]
        size = fit(fov.shape, min(max(fov.shape), 520))
        _show(row[0], shrink(case.image[inside], size), note)
        _show(row[1], mistake_map(wrong[inside], hits, fov, size), "")
        _draw_shares(row[2], metrics.count_mistakes(wrong))
    axes[-1, 2].set_xlabel("share of the wrong pixels")
    return fig


def mistake_map(
    kinds: np.ndarray, hits: np.ndarray, fov: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Colour each kind of mistake, found vessels grey, outside black: (h, w, 3) uint8.

    ``kinds`` is the (H, W) uint8 of ``metrics.mistakes``; ``hits`` and ``fov`` are (H, W) bool.
    """
    ground = Image.fromarray(fov.view(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    picture = np.asarray(ground.point([EMPTY * bool(v) for v in range(256)]).convert("RGB"))
    picture = tint(picture, coverage(hits & fov, size), FOUND)
    for k in sorted(range(1, len(metrics.MISTAKES) + 1), key=lambda k: "too" not in _kind(k)):
        picture = tint(picture, coverage(kinds == k, size), MISTAKE_COLOURS[_kind(k)])
    return picture


# Helpers ----------------------------------------------------------------------------------------


def _grid(rows, columns, shape, width=WIDTH, gap=0.25):
    """A figure of ``rows`` x ``columns`` panels in the proportions of ``shape``."""
    panel = width / columns
    height = rows * (panel * shape[0] / shape[1] + gap)
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", squeeze=False)


def _panel_pixels(axes, shape):
    """The (h, w) to draw one panel at: between screen (100 dpi) and saved (200 dpi) figures."""
    inches = axes[0, 0].figure.get_figwidth() / axes.shape[1]
    return fit(shape, min(max(shape[:2]), round(150 * inches * max(1, shape[0] / shape[1]))))


def _show(ax, picture, title, shape=None, **options):
    """Draw a picture without axes; ``shape`` keeps the coordinates of the full-size one."""
    height, width = (shape or picture.shape)[:2]
    options = {"cmap": "gray", "extent": (-0.5, width - 0.5, height - 0.5, -0.5)} | options
    drawn = ax.imshow(picture, **options)
    ax.set_anchor("N")  # titles of a row stand on one line, whatever the panels' heights
    ax.axis("off")
    ax.set_title(title)
    return drawn


def _set_title(fig, title):
    """A bold title over the whole figure, flush with its left edge."""
    if title:
        # Given at once, an x would keep the layout from making room for the title.
        fig.suptitle(title, ha="left", weight="bold").set_x(0.01)


def _add_error_legend(ax):
    """Name the colours of an error map in a line below it."""
    handles = [Patch(fc=c, ec=GREY, lw=0.5, label=name) for name, c in ERROR_COLOURS.items()]
    look = {"handlelength": 1, "handleheight": 1, "columnspacing": 1.2, "handletextpad": 0.5}
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, **look)


def _kind(k):
    """The name of a label of ``metrics.mistakes``."""
    return metrics.MISTAKES[k - 1]


def _draw_shares(ax, counts):
    """Bars of the shares of all mistakes; the names stand on the bars' line, in their colour."""
    total = max(sum(counts.values()), 1)
    rows = np.arange(len(counts))[::-1]
    shares = [count / total for count in counts.values()]
    ax.barh(rows, shares, 0.55, color=[MISTAKE_COLOURS[name] for name in counts])
    for row, share, name in zip(rows, shares, counts, strict=True):
        ax.text(share + 0.01, row, f"{name} {share:.0%}", va="center", fontsize=8)
    ax.set(xlim=(0, 1), yticks=(), ylim=(-0.6, len(counts) - 0.4))
    ax.xaxis.set_major_formatter(PercentFormatter(1, 0))


def _score_line(predicted, vessels, fov):
    """Scores of one photograph in one line of text."""
    score = metrics.scores(metrics.confusion(predicted, vessels, fov))
    names = ("dice", "iou", "precision", "recall", "specificity")
    return "   ".join(f"{NAMES.get(name, name)} {score[name]:.3f}" for name in names)


def _draw_equal_dice(ax):
    """Faint lines of equal Dice on a precision–recall plot, named at the right edge."""
    for dice in (0.5, 0.6, 0.7, 0.8, 0.9):
        recall = np.linspace(dice / (2 - dice), 1, 100)
        ax.plot(recall, dice * recall / (2 * recall - dice), color=GREY, lw=0.5, alpha=0.6)
        name = f"Dice {dice}" if dice == 0.9 else f"{dice}"
        ax.text(1.02, dice / (2 - dice), name, fontsize=7, color=GREY, va="center")


def worst_window(wrong):
    """Two slices: the window, a fifth of the photograph each way, that holds most wrong pixels."""
    sides = tuple(max(n // 5, 1) for n in wrong.shape)
    share = uniform_filter(wrong.astype(np.float32), sides, mode="constant")
    centre = np.unravel_index(np.argmax(share), share.shape)
    return window_at(wrong.shape, sides, centre)
