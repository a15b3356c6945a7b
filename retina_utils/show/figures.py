"""Figures: arrays, or an ``evaluate.Case``, in; a Matplotlib ``Figure`` out.

Nothing here shows a figure: a notebook shows what it is given, and writes it with the function of
:func:`keep_in`. Probabilities are always drawn from 0 to 1. Counts of a second observer are a dict
of ``tp, fp, fn, tn``.
"""

import io
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from IPython import get_ipython
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import PercentFormatter

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.frame import frame_of
from retina_utils.machine.files import atomic_path
from retina_utils.measures import mistakes
from retina_utils.measures.compare import Comparison
from retina_utils.measures.reliability import crossing
from retina_utils.show import pictures
from retina_utils.show.pictures import BLUE, GREEN, GREY, INK, ORANGE, SKY, VERMILLION
from retina_utils.show.tables import OF_A_DECISION

STYLE = Path(__file__).with_name("retina.mplstyle")
WIDTH = 9.6  # inches: the width of a notebook cell
NAMES = metrics.SCORES | {"lr": "learning rate"}
POINT = {"marker": "o", "mec": "white", "ms": 6, "ls": "", "zorder": 4}
CHOSEN = POINT | {"color": VERMILLION}
HUMAN = POINT | {"marker": "D", "color": INK}  # the second observer


def keep_in(run_dir: str | Path) -> Callable[..., None]:
    """Set one look for every figure, and return the function that keeps figures in a run.

    ``keep(figure, name, caption)`` writes ``figures/NAME.png`` (200 dpi) and ``.svg`` into the run
    folder, the caption in their metadata. The bytes are the same every time: no date, version or
    random identifier. From now on a notebook stores figures that hold photographs as JPEG and
    charts as PNG, which keeps it small, with the caption as text for who cannot see them.
    """
    plt.style.use(STYLE)
    if shell := get_ipython():
        plt.switch_backend(plt.get_backend())  # now, or it would bring its own formats later
        for kind in ("png", "jpeg"):
            shell.display_formatter.formatters[f"image/{kind}"].for_type(
                Figure, lambda fig, kind=kind: _described(fig) if _kind(fig) == kind else None
            )
    return partial(_save, Path(run_dir) / "figures")


def encode(fig: Figure) -> bytes:
    """The figure at screen resolution, margins trimmed: a JPEG if it holds images, else a PNG."""
    kind, buffer = _kind(fig), io.BytesIO()
    options = {"quality": 85, "optimize": True} if kind == "jpeg" else {}
    fig.savefig(buffer, format=kind, dpi=90, bbox_inches="tight", pil_kwargs=options)
    return buffer.getvalue()


def _described(fig: Figure) -> tuple[bytes, dict]:
    """The picture, and its caption where nbconvert looks for an ``alt``."""
    return encode(fig), {"alt": fig.get_label()}


def _kind(fig: Figure) -> str:
    return "jpeg" if any(ax.images for ax in fig.axes) else "png"


def _save(folder: Path, fig: Figure, name: str, caption: str = "") -> None:
    fig.set_label(caption)
    for kind, unwanted in {"png": ("Software",), "svg": ("Date", "Creator")}.items():
        metadata = {"Description": caption, **dict.fromkeys(unwanted)}
        fixed = plt.rc_context({"svg.hashsalt": name})
        with fixed, atomic_path(folder / f"{name}.{kind}") as path:
            fig.savefig(path, format=kind, dpi=200, metadata=metadata)


def plot_photograph(
    image: np.ndarray, vessels: np.ndarray | None, fov: np.ndarray, title: str = ""
) -> Figure:
    """Photograph | annotation | field of view."""
    panels = {"photograph": image, "annotated vessels": vessels, "field of view": fov}
    panels = {name: panel for name, panel in panels.items() if panel is not None}
    return plot_gallery([*panels.values()], [*panels], len(panels), title)


def plot_gallery(
    images: Sequence[np.ndarray], titles: Sequence[str], columns: int = 4, title: str = ""
) -> Figure:
    """Pictures side by side as they are, ``columns`` to a row: no grey value is stretched.

    They are (H, W[, 3]): uint8 from black at 0 to white at 255; bool, and float such as a
    probability, from 0 to 1. A ValueError names one beyond that; ``pictures.stretch`` brings it in.
    """
    for name, image in zip(titles, images, strict=False):
        low, high = image.min(), image.max()
        if image.dtype != np.uint8 and not (low >= 0 and high <= 1):  # nan fails too
            raise ValueError(
                f"{name!r}: found {image.dtype} from {low:g} to {high:g}, expected uint8 or values "
                "in [0, 1]; draw pictures.stretch(array) to see other values"
            )
    fig, axes, _ = _grid(-(-len(images) // columns), columns, images[0].shape, title=title)
    for ax, image, title in zip(axes.flat, images, titles, strict=False):
        _show(ax, image, title)
    return fig


def plot_patch_grid(image: np.ndarray, corners: Sequence[tuple[int, int]], size: int) -> Figure:
    """How overlapping patches cover a photograph (one is bold), and how many cover each pixel.

    ``corners`` is the (top, left) of each patch and ``size`` their side, in pixels of the
    (H, W, 3) uint8 photograph.
    """
    fig, ((left, right),), _ = _grid(1, 2, image.shape, WIDTH * 0.8, gap=0.4)
    patches = np.zeros(image.shape[:2], int)
    _show(left, image, f"{len(corners)} patches of {size} × {size} pixels")
    for index, (top, start) in enumerate(corners):
        patches[max(top, 0) : top + size, max(start, 0) : start + size] += 1
        bold = index == len(corners) // 2
        box = {"ec": ORANGE if bold else "white", "lw": 2 if bold else 0.6, "zorder": 3 + bold}
        left.add_patch(Rectangle((start - 0.5, top - 0.5), size, size, fill=False, **box))
    left.set(xlim=(-0.5, image.shape[1] - 0.5), ylim=(image.shape[0] - 0.5, -0.5))
    least, most = patches.min(), patches.max()
    look = {"vmin": least - 0.5, "vmax": most + 0.5, "interpolation": "nearest"}
    look["cmap"] = plt.get_cmap("cividis", most - least + 1)
    counts = _show(right, patches, "patches over each pixel", **look)
    _add_scale(counts, (1.03, 0, 0.04, 1), range(least, most + 1), length=0)
    return fig


def plot_patches(batch, columns: int = 6) -> Figure:
    """Training patches as the network gets them, vessels outlined, field of view dashed.

    ``batch`` is what a loader yields, or a list of a data set's items: ``image`` (C, P, P) float,
    stretched for display; ``vessels`` and ``fov`` (1, P, P) float.
    """
    if isinstance(batch, dict):
        batch = [{key: batch[key][i] for key in batch} for i in range(len(batch["fov"]))]
    fig, axes, _ = _grid(-(-len(batch) // columns), columns, (1, 1), gap=0.05)
    for ax, item in zip(axes.flat, batch, strict=False):
        image, vessels, fov = (np.asarray(item[key]) for key in ("image", "vessels", "fov"))
        shown = pictures.stretch(image, fov > 0) * fov
        _show(ax, shown.transpose(1, 2, 0) if len(shown) == 3 else shown[0], "")
        for (area,), line, colour, width in ((vessels, "-", SKY, 0.7), (fov, "--", "white", 0.8)):
            if area.min() < 0.5 < area.max():
                ax.contour(area, [0.5], colors=colour, linewidths=width, linestyles=line)
    return fig


def plot_history(rows: Sequence[dict], best: int | None = None) -> Figure:
    """Every loss and score of a training run against the epoch, the best epoch marked.

    ``rows`` are those of ``history.csv``, as numbers or their text. ``best`` is the epoch whose
    weights were kept: that of the highest validation Dice if not given.
    """
    history = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    epochs = history.pop("epoch")
    if best is None:
        best = int(epochs[np.nan_to_num(history["validation_dice"], nan=-1).argmax()])
    parts = {"train": ("training", ORANGE, "--"), "validation": ("validation", BLUE, "-")}
    halves = [key.partition("_") for key in history]
    names = list(dict.fromkeys(name for part, _, name in halves if part in parts))
    names += ["lr"] if "lr" in history else []
    lines = 1 if len(names) < 4 else 2
    columns = len(names) // lines + 1  # one panel is left for the legend
    fig, axes = _axes(WIDTH, 2 * lines + 0.4 * (lines == 1), lines, columns, sharex=True)
    dot = "." if len(rows) < 15 else ""
    for ax, name in zip(axes.flat, names, strict=False):
        for part, (label, colour, line) in parts.items():
            if f"{part}_{name}" in history:
                ax.plot(epochs, history[f"{part}_{name}"], dot + line, color=colour, label=label)
        if name == "lr":
            ax.step(epochs, history["lr"], dot + "-", where="mid", color=INK)
            ax.set_ylim(0, None)
            ax.yaxis.set_major_formatter("{x:g}")
        ax.axvline(best, color=GREY, lw=0.8, ls=":", label=f"best epoch: {best}")
        ax.set_title(NAMES.get(name, name))
        ax.xaxis.get_major_locator().set_params(integer=True)
        ax.xaxis.set_tick_params(labelbottom=True)
    for ax in axes.flat[len(names) :]:
        ax.axis("off")
    plt.setp(axes.flat[max(len(names) - columns, 0) : len(names)], xlabel="epoch")
    axes.flat[len(names)].legend(*axes.flat[0].get_legend_handles_labels(), loc="center left")
    return fig


def plot_losses(logit: np.ndarray, losses: dict[str, np.ndarray]) -> Figure:
    """Each loss, and its pull on the network, against the logit of one vessel pixel.

    ``logit`` is (L,) float and ascending; ``losses`` is name -> (L,) float.
    """
    fig, (cost, pull) = _axes(8, 3, 1, 2, sharex=True)
    for name, loss in losses.items():
        cost.plot(logit, loss, label=name)
        pull.plot(logit, -np.gradient(loss, logit), label=name)
    cost.set(ylabel="loss", title="how much it costs")
    pull.set(ylabel="− d loss / d logit", title="how hard it pulls upwards")
    plt.setp((cost, pull), xlabel="logit of a vessel pixel")
    cost.legend()
    return fig


def plot_curves(
    histogram: metrics.Histogram, threshold: float, second_observer: dict | None = None
) -> Figure:
    """ROC and precision–recall curves of pooled photographs; thresholds and humans are points."""
    fig, (roc, pr) = _axes(8.6, 4.1, 1, 2)
    zoom = roc.inset_axes((0.36, 0.32, 0.62, 0.52))
    area, average = metrics.roc_auc(histogram), metrics.average_precision(histogram)
    for ax in (roc, zoom):
        ax.plot(*metrics.roc_curve(histogram), color=BLUE, label=f"network, AUC {area:.3f}")
    pr.plot(*metrics.pr_curve(histogram), color=BLUE, label=f"network, AP {average:.3f}")
    points = {f"chosen threshold {threshold:.3f}": metrics.confusion_at(histogram, threshold)}
    if second_observer:
        points["second observer"] = second_observer
    lowest = 0.8
    for (label, counts), look in zip(points.items(), (CHOSEN, HUMAN), strict=False):
        score, look = metrics.scores(counts), look | {"label": label}
        for ax in (roc, zoom):
            ax.plot(1 - score["specificity"], score["recall"], **look)
        pr.plot(score["recall"], score["precision"], **look)
        lowest = min(lowest, score["recall"] - 0.05)
    zoom.set(xlim=(0, 0.1), ylim=(lowest, 1))
    zoom.tick_params(labelsize=7)
    roc.indicate_inset_zoom(zoom, edgecolor=GREY, alpha=0.6)
    for dice in (0.5, 0.6, 0.7, 0.8, 0.9):  # faint lines of equal Dice, named at the right edge
        recall = np.linspace(dice / (2 - dice), 1, 100)
        pr.plot(recall, dice * recall / (2 * recall - dice), color=GREY, lw=0.5, alpha=0.6)
        name = f"Dice {dice}" if dice == 0.9 else f"{dice}"
        pr.text(1.02, dice / (2 - dice), name, fontsize=7, color=GREY, va="center")
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
    says what the choice cost, and must never be used. ``second_observer`` holds counts by split:
    their Dice is a dotted line across, for a person has no threshold.
    """
    splits = {"validation": histogram} | ({"test": histogram_test} if histogram_test else {})
    fig, axes = _axes(4.6 * len(splits), 3.4, 1, len(splits), sharey=True, squeeze=False)
    for ax, (split, counts) in zip(axes[0], splits.items(), strict=True):
        curves = {name: curve[::64] for name, curve in metrics.curves(counts).items()}
        for name, colour in {"precision": GREEN, "recall": ORANGE, "dice": BLUE}.items():
            ax.plot(curves["threshold"], curves[name], color=colour, label=NAMES[name])
        at, notes, title = [("chosen", chosen, "-")], [], f"{split} photographs, pooled"
        if split == "test":
            at.append(("best possible", metrics.best_threshold([counts]), "--"))
        for name, value, line in at:
            dice = metrics.scores(metrics.confusion_at(counts, value))["dice"]
            notes.append(f"{name} {value:.3f}: Dice {dice:.3f}")
            ax.axvline(value, color=INK, lw=0.9, ls=line, label=f"{name} threshold")
        if human := (second_observer or {}).get(split):
            dice = metrics.scores(human)["dice"]
            ax.axhline(dice, color=BLUE, lw=1.2, ls=":", label="Dice of the second observer")
            title += f"    second observer: Dice {dice:.3f}"
        ax.set_title(f"{title}\n" + "    ".join(notes), parse_math=False)
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
    are easy background, and they keep the error small. A human only says yes (1) or no (0).
    """
    table = metrics.reliability(histogram, bins)
    pixels = table["pixels"]
    fig, (top, bottom) = _axes(4.2, 5, 2, 1, sharex=True, height_ratios=(4, 1))
    top.plot((0, 1), (0, 1), color=GREY, lw=0.8, ls="--", label="perfectly calibrated")
    seen, error = pixels > 0, metrics.calibration_error(histogram, bins)
    look = {"color": BLUE, "ms": 4, "label": f"network, expected calibration error {error:.3f}"}
    top.plot(table["promised"][seen], table["found"][seen], "o-", **look)
    if human := second_observer:
        no, yes = human["fn"] + human["tn"], human["tp"] + human["fp"]
        found = [human["fn"] / max(no, 1), human["tp"] / max(yes, 1)]
        top.plot((0, 1), found, **HUMAN, label="second observer's no and yes", clip_on=False)
    top.set(ylabel="share of vessel pixels", xlim=(0, 1), ylim=(0, 1.02), title="calibration")
    top.legend(loc="upper left")
    left = np.arange(bins) / bins
    bottom.bar(left, pixels / pixels.sum(), 1 / bins, align="edge", color=SKY, ec="white", lw=0.5)
    bottom.set(xlabel="predicted probability", ylabel="share of pixels", yscale="log")
    fig.align_ylabels()
    return fig


def plot_cuts(histogram: metrics.Histogram) -> Figure:
    """Why a threshold lies where it does: the reliability curve, and what Dice and accuracy want.

    Dice is best cut where half of that Dice of the pixels are vessel, accuracy where half of them
    are (Lipton et al., ECML PKDD 2014): rings, where the curve comes to these shares; lines, the
    thresholds found best by trying all of them.
    """
    table = metrics.reliability(histogram, bins=20)
    fig, ax = _axes(WIDTH * 0.75, 3.8)
    ax.plot((0, 1), (0, 1), color=GREY, lw=0.8, ls="--", label="perfectly calibrated")
    ax.plot(table["promised"], table["found"], ".-", color=INK, label="network")
    for by, colour in {"dice": BLUE, "accuracy": ORANGE}.items():
        best = metrics.best_threshold([histogram], by)
        dice = metrics.evaluate(histogram, best)["dice"]
        share, name = (dice / 2, "half of the best Dice") if by == "dice" else (0.5, "one half")
        at = crossing(histogram, share)
        ax.axhline(share, color=colour, lw=0.8, ls=":")
        look = {"ms": 9, "mfc": "none", "mec": colour, "mew": 1.6}
        ax.plot(at, share, "o", label=f"{name} ({share:.3f}) is vessel at {at:.3f}", **look)
        ax.axvline(best, color=colour, lw=1, label=f"best threshold for {NAMES[by]}: {best:.3f}")
    ax.set(xlabel="predicted probability", ylabel="share of vessel pixels")
    ax.set(xlim=(0, 1), ylim=(0, 1.02), aspect="equal")
    fig.legend(loc="outside right upper")
    return fig


def plot_differences(found: Comparison, score: str = "dice") -> Figure:
    """What B has more than A on each photograph, sorted; their mean, and its interval if known."""
    change, (a, b) = found.difference(score), found.runs
    order = [i for i in np.argsort(change) if not np.isnan(change[i])]
    rows, change = np.arange(len(order)), change[order]
    fig, ax = _axes(6.4, 1 + min(0.2 * len(rows), 8))
    ax.hlines(rows, 0, change, color=GREY, lw=0.8)
    for better, colour in {True: BLUE, False: ORANGE}.items():
        chosen = (change > 0) == better
        words = f"{b if better else a} is better: {np.count_nonzero(chosen & (change != 0))}"
        ax.plot(change[chosen], rows[chosen], label=words, **POINT | {"color": colour})
    low, high = found.interval(score)
    if not np.isnan(low):
        words = f"95 % interval of the mean, over people: {low:+.3f} to {high:+.3f}"
        ax.axvspan(low, high, color=SKY, alpha=0.3, lw=0, label=words)
    mean = change.mean()
    ax.axvline(mean, color=INK, lw=1, ls="--", label=f"mean {mean:+.3f}")
    ax.axvline(0, color=INK, lw=0.6)
    named = rows[: 41 if len(rows) <= 40 else 0]  # more names would lie on top of each other
    ax.set_yticks(named, [found.photographs[order[i]] for i in named])
    ax.set(xlabel=f"{NAMES[score]}: {b} minus {a}")
    fig.legend(loc="outside right upper")
    return fig


def plot_tries(
    rows: Sequence[dict],
    by: Sequence[str],
    score: str,
    label: str = "",
    interval: tuple[str, str] | None = None,
) -> Figure:
    """One score of several trainings: a line for each choice, a dot for each try, | their mean.

    ``rows`` are those of a CSV in ``benchmarks/results/experiments``, as numbers or their text;
    ``by`` are the columns whose values make a choice, and ``interval`` those with two ends.
    """
    lines = {}
    for row in rows:
        lines.setdefault(", ".join(str(row[key]) for key in by), []).append(row)
    fig, ax = _axes(6.4, 0.8 + 0.24 * len(lines))
    for y, some in enumerate(lines.values()):
        for row in some if interval else ():
            if all(row[end] for end in interval):
                ax.hlines(y, *(float(row[end]) for end in interval), color=SKY, lw=4)
        values = [float(row[score]) for row in some]
        ax.plot(values, [y] * len(values), **POINT | {"color": BLUE})
        if len(values) > 1:
            ax.plot(np.mean(values), y, "|", color=INK, ms=11, zorder=3)
    ax.set_yticks(range(len(lines)), [*lines])
    ax.set(xlabel=label or NAMES.get(score, score), ylim=(len(lines) - 0.5, -0.5))
    ax.grid(axis="x", color=GREY, lw=0.4, alpha=0.4)
    return fig


def plot_intervals(
    pooled: dict[str, float],
    intervals: dict[str, dict[str, tuple[float, float]]],
    second_observer: dict | None = None,
) -> Figure:
    """Pooled scores with their 95 % intervals, one bar for each way of drawing again.

    ``pooled`` is score -> value, as of ``metrics.evaluate``; ``intervals`` is what was drawn
    again ("photographs", "people") -> score -> (low, high), where nan (one person) is left out.
    """
    names = ("dice", "iou", "precision", "recall")
    fig, ax = _axes(6.4, 2.6)
    rows, looks = np.arange(len(names))[::-1], ((SKY, 6), (BLUE, 2.5))
    for (what, found), (colour, width) in zip(intervals.items(), looks, strict=False):
        low, high = np.array([found[name] for name in names]).T
        ax.hlines(rows, low, high, color=colour, lw=width, label=f"95 % interval over {what}")
    points = {"network, pooled": (pooled, POINT | {"color": BLUE, "ms": 7})}
    if second_observer:
        points["second observer"] = (metrics.scores(second_observer), HUMAN | {"ms": 6.5})
    for label, (score, look) in points.items():
        ax.plot([score[name] for name in names], rows, label=label, **look)
    above = {"xytext": (0, 7), "textcoords": "offset points", "ha": "center"}
    for row, name in zip(rows, names, strict=True):
        ax.annotate(f"{pooled[name]:.3f}", (pooled[name], row), **above)
    ax.set_yticks(rows, [NAMES[name] for name in names])
    ax.set(xlabel="score inside the field of view", ylim=(-0.6, len(names) - 0.3))
    ax.grid(axis="x", color=GREY, lw=0.4, alpha=0.4)
    fig.legend(loc="outside right upper")
    return fig


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
    predicted, score = decide(Case(title, image, probability, vessels, fov), threshold)
    fig, (row,), size = _grid(1, 4 if score else 3, fov.shape, gap=1.1, title=title)
    _show(row[0], image, "photograph")
    inside = pictures.shrink(np.where(fov, probability, 0).astype(np.float32), size)
    look = {"cmap": pictures.PROBABILITY_MAP, "vmin": 0, "vmax": 1}
    heat = _show(row[1], inside, "probability of vessel", **look)
    _add_scale(heat, (0.1, -0.075, 0.8, 0.03), (0, 0.5, 1), length=2, orientation="horizontal")
    found = pictures.overlay(image, predicted, size=size)
    _show(row[2], found, f"vessels: probability ≥ {threshold:.3g}")
    if score:
        errors = pictures.error_map(predicted, vessels, fov, size)
        _show(row[3], errors, "against the annotation")
        _add_error_legend(row[3])
        words = [f"{name} {score[key]:.3f}" for key, name in OF_A_DECISION.items()]
        fig.supxlabel("\n" + "   ".join(words), fontsize=9)
    return fig


def plot_cases(cases: Sequence[Case], threshold: float) -> Figure:
    """A row for each annotated case: whole photograph, then the part with most errors.

    Pass the best, the median and the worst photograph, and say which in their names.
    """
    fig, axes, size = _grid(len(cases), 4, cases[0].fov.shape, WIDTH * 0.85, gap=0.35)
    for row, case in zip(axes, cases, strict=True):
        (predicted, score), shape = decide(case, threshold), case.fov.shape
        errors = pictures.error_map(predicted, case.vessels, case.fov, size)
        title = f"{case.name}: Dice {score['dice']:.3f}"
        _show(row[0], pictures.shrink(case.image, size), title, shape)
        _show(row[1], errors, "", shape)
        wrong = (predicted ^ case.vessels) & case.fov
        rows, columns = detail = pictures.worst_window(wrong)
        errors = pictures.error_map(predicted[detail], case.vessels[detail], case.fov[detail])
        _show(row[2], case.image[detail], "")
        _show(row[3], errors, "", interpolation="nearest")
        for ax in row[:2]:
            corner, (height, width) = (columns.start, rows.start), wrong[detail].shape
            ax.add_patch(Rectangle(corner, width, height, fill=False, ec="white", lw=1))
    axes[0, 1].set_title("against the annotation")
    axes[0, 2].set_title("detail: most errors")
    _add_error_legend(axes[-1, 1])
    return fig


def plot_three_thresholds(case: Case, thresholds: dict[str, float], title: str = "") -> Figure:
    """The threshold explorer on paper: overlay and error map at (three) named thresholds."""
    rows, shape, title = 1 if case.vessels is None else 2, case.fov.shape, title or case.name
    fig, axes, size = _grid(rows, len(thresholds), shape, WIDTH * 0.7, gap=0.35, title=title)
    for column, (name, threshold) in zip(axes.T, thresholds.items(), strict=True):
        predicted, score = decide(case, threshold)
        label = f"{name}: {threshold:.3g}"
        if score:
            label += f", Dice {score['dice']:.3f}"
            _show(column[1], pictures.error_map(predicted, case.vessels, case.fov, size), "")
        _show(column[0], pictures.overlay(case.image, predicted, size=size), label)
    if rows == 2:
        _add_error_legend(axes[1, len(thresholds) // 2])
    return fig


def low_and_high(chosen: float) -> dict[str, float]:
    """The chosen threshold between a low and a high one, to see what it trades off."""
    return {"low": max(chosen - 0.3, 0.05), "chosen": chosen, "high": min(chosen + 0.3, 0.95)}


def plot_mistakes(
    cases: Sequence[Case], kinds: Sequence[np.ndarray], threshold: float, notes: Sequence[str]
) -> Figure:
    """A row for each annotated case: photograph, every wrong pixel by its kind, and their shares.

    ``kinds`` is what ``mistakes.mistakes`` found at ``threshold``, ``notes`` are the titles.
    """
    options = {"squeeze": False, "width_ratios": (1, 1, 0.75)}
    fig, axes = _axes(7.8, 2.6 * len(cases), len(cases), 3, **options)
    for row, case, wrong, note in zip(axes, cases, kinds, notes, strict=True):
        hits = metrics.decide(case.probability, threshold) & case.vessels
        crop = frame_of(case.fov).view
        fov = crop(case.fov)
        size = pictures.size_within(fov.shape, min(max(fov.shape), 520))
        _show(row[0], pictures.shrink(crop(case.image), size), note)
        _show(row[1], pictures.mistake_map(crop(wrong), crop(hits), fov, size), "")
        counts = mistakes.count_mistakes(wrong)
        shares = np.array([*counts.values()]) / max(sum(counts.values()), 1)
        lines = np.arange(len(counts))[::-1]  # the names stand on the bars' line
        row[2].barh(lines, shares, 0.55, color=[pictures.MISTAKE_COLOURS[name] for name in counts])
        for line, share, name in zip(lines, shares, counts, strict=True):
            row[2].text(share + 0.01, line, f"{name} {share:.0%}", va="center", fontsize=8)
        row[2].set(xlim=(0, 1), yticks=(), ylim=(-0.6, len(counts) - 0.4))
        row[2].xaxis.set_major_formatter(PercentFormatter(1, 0))
    axes[-1, 2].set_xlabel("share of the wrong pixels")
    return fig


def _axes(width, height, rows=1, columns=1, **options):
    """A figure of that many inches, and its axes."""
    return plt.subplots(rows, columns, figsize=(width, height), layout="constrained", **options)


def _grid(rows, columns, shape, width=WIDTH, gap=0.25, title=""):
    """A figure of empty panels in the proportions of ``shape``, and the (h, w) to draw them at.

    That is between the pixels of a panel on screen (100 dpi) and in a file (200 dpi).
    """
    panel = width / columns
    height = panel * shape[0] / shape[1] + gap
    fig, axes = _axes(width, rows * height, rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    if title:  # given at once, an x would keep the layout from making room for it
        fig.suptitle(title, ha="left", weight="bold", parse_math=False).set_x(0.01)
    longest = min(max(shape[:2]), round(150 * panel * max(1, shape[0] / shape[1])))
    return fig, axes, pictures.size_within(shape, longest)


def _show(ax, picture, title, shape=None, **options):
    """Draw a picture without axes; ``shape`` keeps the coordinates of the full-size one."""
    height, width = (shape or picture.shape)[:2]
    look = {"cmap": "gray", "vmin": 0, "vmax": 255 if picture.dtype == np.uint8 else 1}
    look["extent"] = (-0.5, width - 0.5, height - 0.5, -0.5)
    drawn = ax.imshow(picture, **look | options)
    ax.set_anchor("N")  # titles of a row stand on one line, whatever the panels' heights
    ax.axis("off")
    ax.set_title(title, parse_math=False)  # a name may hold a $
    return drawn


def decide(case, threshold):
    """The vessels inside the field of view, and their scores; none without an annotation."""
    predicted = metrics.decide(case.probability, threshold) & case.fov
    if case.vessels is None:
        return predicted, None
    return predicted, metrics.scores(metrics.confusion(predicted, case.vessels, case.fov))


def _add_scale(drawn, place, ticks, length, **options):
    """A colour bar at a ``place`` in units of the axes, its ticks ``length`` points long."""
    strip = drawn.axes.inset_axes(place)
    bar = drawn.figure.colorbar(drawn, cax=strip, ticks=ticks, **options)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=length)


def _add_error_legend(ax):
    """Name the colours of an error map in a line below it."""
    colours = pictures.ERROR_COLOURS.items()
    handles = [Patch(fc=colour, ec=GREY, lw=0.5, label=name) for name, colour in colours]
    look = {"handlelength": 1, "handleheight": 1, "columnspacing": 1.2, "handletextpad": 0.5}
    ax.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0), ncols=3, **look)
