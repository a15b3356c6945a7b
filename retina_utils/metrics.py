"""How good a vessel map is: counts of pixels inside the field of view, and what follows from them.

One histogram of probabilities per photograph gives the counts at every threshold at once. Count
first, divide later: pooled scores are the scores of summed counts, per-image scores a mean.

Probabilities are rounded to 16 bits, as they are stored, and one rule holds everywhere:
vessels = probability >= threshold.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, label

from retina_utils.fov import frame_of

LEVELS = 65536  # of a 16-bit PNG; level k is the probability k / 65535
THIN = 0.008  # of the FOV's diameter: vessels up to this width are thin
NEAR = 0.001  # of the FOV's diameter, at least a pixel: this near, a centreline is met
RIM = 0.02  # of the FOV's diameter: this near its border a false alarm is one of the border
AROUND = 0.02  # of the FOV's diameter: the surroundings a vessel is compared with
ELONGATED = 4  # times as long as wide: from here on a false alarm is a line, not a spot

# The kinds of wrong pixels that `mistakes` tells apart, in the order of its labels 1, 2, ...
MISTAKES = (
    "thin vessel missed",
    "thick vessel missed",
    "drawn too thin",
    "drawn too wide",
    "false alarm along the FOV border",
    "false line elsewhere",
    "false compact spot",
)


class Histogram(NamedTuple):
    """How many vessel and background pixels inside the FOV have each of the 65536 probabilities."""

    vessel: np.ndarray  # (65536,) int64
    background: np.ndarray  # (65536,) int64


def histogram(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> Histogram:
    """Count probabilities inside the field of view.

    Parameters
    ----------
    probability : (H, W) float array in [0, 1]
        Outside the field of view it may hold anything.
    vessels, fov : (H, W) bool arrays
        Annotated vessels, field of view.

    Raises
    ------
    TypeError, ValueError
        Wrong dtype, differing shapes, an empty field of view, nan, values outside [0, 1].
    """
    require_maps(vessels=vessels, fov=fov)
    if probability.shape != fov.shape:
        raise ValueError(f"probability is {probability.shape}, but fov is {fov.shape}")
    inside = to_levels(probability[fov]) + LEVELS * vessels[fov].astype(np.int32)
    counts = np.bincount(inside, minlength=2 * LEVELS)
    return Histogram(vessel=counts[LEVELS:], background=counts[:LEVELS])


def pool(histograms: list[Histogram]) -> Histogram:
    """All pixels of several photographs together."""
    if not histograms:
        raise ValueError("histograms: nothing to pool; expected one per photograph")
    return Histogram(sum(h.vessel for h in histograms), sum(h.background for h in histograms))


def decide(probability: np.ndarray, threshold: float) -> np.ndarray:
    """(H, W) float probabilities in [0, 1] -> (H, W) bool vessels, by the rule of all counts here.

    A plain ``probability >= threshold`` can differ at ties, by the rounding of float32.
    """
    return to_levels(probability) >= lowest_level(threshold)


def confusion(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> dict[str, int]:
    """Count right and wrong pixels of a decision; all three are (H, W) bool arrays.

    Examples
    --------
    >>> predicted = np.array([[1, 1, 0, 1]], bool)
    >>> vessels = np.array([[1, 0, 1, 1]], bool)
    >>> fov = np.array([[1, 1, 1, 0]], bool)  # the last pixel does not count
    >>> confusion(predicted, vessels, fov)
    {'tp': 1, 'fp': 1, 'fn': 1, 'tn': 0}
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    predicted, vessels = predicted[fov], vessels[fov]
    tp = int(np.count_nonzero(predicted & vessels))
    fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(vessels)) - tp
    return {"tp": tp, "fp": fp, "fn": fn, "tn": predicted.size - tp - fp - fn}


def confusion_at(histogram: Histogram, threshold: float) -> dict[str, int]:
    """The same counts from a histogram, at any threshold in [0, 1]."""
    level = lowest_level(threshold)
    tp, fp = int(histogram.vessel[level:].sum()), int(histogram.background[level:].sum())
    fn, tn = int(histogram.vessel[:level].sum()), int(histogram.background[:level].sum())
    return {"tp": tp, "fp": fp, "fn": fn, "tn": tn}


def scores(counts: dict) -> dict:
    """Six scores in [0, 1] from counts (numbers, or arrays of them); nan where undefined."""
    tp, fp, fn, tn = (counts[key] for key in ("tp", "fp", "fn", "tn"))
    return {
        "dice": ratio(2 * tp, 2 * tp + fp + fn),
        "iou": ratio(tp, tp + fp + fn),
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "specificity": ratio(tn, tn + fp),
        "accuracy": ratio(tp + tn, tp + fp + fn + tn),
    }


def curves(histogram: Histogram) -> dict[str, np.ndarray]:
    """The six scores at all thresholds k / 65535, as (65536,) arrays, beside ``threshold``."""
    tp, fp = (np.cumsum(counts[::-1])[::-1] for counts in histogram)
    counts = {"tp": tp, "fp": fp, "fn": tp[0] - tp, "tn": fp[0] - fp}
    return {"threshold": np.arange(LEVELS) / (LEVELS - 1), **scores(counts)}


def best_threshold(histogram: Histogram, by: str = "dice") -> float:
    """Threshold with the highest score; in the middle of the plateau where several share it."""
    table = curves(histogram)
    if by not in table or by == "threshold":
        raise ValueError(f"by: unknown score {by!r}; choose one of {', '.join(list(table)[1:])}")
    if not histogram.vessel.any():
        raise ValueError("no vessel inside the FOV of any photograph: no threshold is best")
    best = np.flatnonzero(table[by] == np.nanmax(table[by]))
    plateaus = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    plateau = max(plateaus, key=len)
    return float(table["threshold"][(plateau[0] + plateau[-1]) // 2])


def roc_curve(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """False and true positive rate from (0, 0) to (1, 1), a point per probability that occurs."""
    tp, fp = cumulative(histogram)
    return ratio(fp, fp[-1]), ratio(tp, tp[-1])


def pr_curve(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Recall and precision, strictest threshold first, starting at (0, 1) by convention."""
    tp, fp = cumulative(histogram)
    precision = ratio(tp, tp + fp)
    precision[0] = 1.0
    return ratio(tp, tp[-1]), precision


def roc_auc(histogram: Histogram) -> float:
    """Area under the ROC curve; nan without vessels or without background."""
    fpr, tpr = roc_curve(histogram)
    return float(np.sum(np.diff(fpr) * (tpr[1:] + tpr[:-1]) / 2))


def average_precision(histogram: Histogram) -> float:
    """Precision averaged over the steps of recall, not interpolated; nan without vessels."""
    recall, precision = pr_curve(histogram)
    return float(np.sum(np.diff(recall) * precision[1:]))


def evaluate(histogram: Histogram, threshold: float) -> dict[str, float]:
    """The six scores at the threshold, and "auc" and "ap", which need none."""
    at_threshold = scores(confusion_at(histogram, threshold))
    return at_threshold | {"auc": roc_auc(histogram), "ap": average_precision(histogram)}


def reliability(histogram: Histogram, bins: int = 15) -> dict[str, np.ndarray]:
    """What probabilities promise and what is found, in bins of equal width.

    Returns
    -------
    table : dict of (bins,) arrays
        ``promised``, the mean probability of the pixels in a bin; ``found``, the share of them
        that is vessel; ``pixels``, their number. Where a bin is empty the first two are nan.
    """
    if not 1 <= bins <= LEVELS:
        raise ValueError(f"bins must be 1 to {LEVELS}, got {bins}")
    first = np.arange(bins) * LEVELS // bins
    total = histogram.vessel + histogram.background
    pixels = np.add.reduceat(total, first)
    promised = ratio(np.add.reduceat(total * np.linspace(0, 1, LEVELS), first), pixels)
    found = ratio(np.add.reduceat(histogram.vessel, first), pixels)
    return {"promised": promised, "found": found, "pixels": pixels}


def calibration_error(histogram: Histogram, bins: int = 15) -> float:
    """Expected calibration error in [0, 1] (Guo et al., ICML 2017); nan without pixels.

    The distance between promised and found of each bin, weighted with its share of the pixels.
    Most pixels are easy background, which keeps it small.
    """
    table = reliability(histogram, bins)
    distance = np.nan_to_num(np.abs(table["found"] - table["promised"]))
    return ratio(float(np.sum(distance * table["pixels"])), int(table["pixels"].sum()))


def summarise(rows: list[dict]) -> dict:
    """Mean and sample standard deviation (n - 1) over photographs of each number in the rows.

    Undefined scores (nan) are left out of both; a standard deviation of one value is nan.
    """
    if not rows:
        raise ValueError("rows: nothing to summarise; expected a dict of scores per photograph")
    mean, sd = {}, {}
    for key in (key for key, value in rows[0].items() if not isinstance(value, str)):
        values = [float(row[key]) for row in rows if not math.isnan(row[key])]
        mean[key] = statistics.fmean(values) if values else math.nan
        sd[key] = statistics.stdev(values) if len(values) > 1 else math.nan
    return {"mean": mean, "sd": sd, "n": len(rows)}


def cldice(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> float:
    """Centreline Dice (Shit et al., CVPR 2021) of (H, W) bool arrays: how far topology is kept.

    The share of the predicted centreline on vessels and the share of the annotated centreline
    found, as a harmonic mean: a gap in a thin vessel costs as much as one in a thick vessel.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    predicted, vessels = predicted & fov, vessels & fov
    centre, true_centre = skeleton(predicted), skeleton(vessels)
    on_vessels = ratio(np.count_nonzero(centre & vessels), np.count_nonzero(centre))
    found = ratio(np.count_nonzero(true_centre & predicted), np.count_nonzero(true_centre))
    if math.isnan(on_vessels) or math.isnan(found):  # one has no centreline, or neither has
        return math.nan if math.isnan(on_vessels) and math.isnan(found) else 0.0
    return 2 * on_vessels * found / (on_vessels + found) if on_vessels + found else 0.0


def skeleton(vessels: np.ndarray) -> np.ndarray:
    """Centrelines, one pixel wide, of (H, W) bool vessels (Guo & Hall, CACM 1989)."""
    grid = np.ascontiguousarray(np.pad(vessels, 1), dtype=np.uint8)
    flat, row = grid.ravel(), grid.shape[1]
    clockwise = [-row, -row + 1, 1, row + 1, row, row - 1, -1, -row - 1]  # from the north
    pixels, before = np.flatnonzero(flat), -1
    while len(pixels) != before:
        before = len(pixels)
        for removable in REMOVABLE:
            code = sum(flat[pixels + step] << i for i, step in enumerate(clockwise))
            flat[pixels[removable[code]]] = 0
            pixels = pixels[~removable[code]]
    return grid[1:-1, 1:-1].astype(bool)


def removable_codes() -> tuple[np.ndarray, np.ndarray]:
    """For both passes, whether a pixel goes, given its 8 neighbours as bits: two (256,) bool."""
    around = (np.arange(256)[:, None] >> np.arange(8)) & 1 == 1  # north first, clockwise
    north, north_east, east, south_east, south, south_west, west, north_west = around.T
    sides, corners = around[:, ::2], around[:, 1::2]
    onwards = corners | np.roll(sides, -1, axis=1)  # of each side: the two that follow clockwise
    parts = np.count_nonzero(~sides & onwards, axis=1)
    blocks = np.minimum((sides | corners).sum(axis=1), onwards.sum(axis=1))
    spare = (parts == 1) & (blocks >= 2) & (blocks <= 3)  # neither a link nor an end
    eastern = spare & ~((north | north_east | ~south_east) & east)
    western = spare & ~((south | south_west | ~north_west) & west)
    return eastern, western


REMOVABLE = removable_codes()


def thin_and_thick(vessels: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Split (H, W) bool vessels by width: at most ``limit`` pixels wide, and wider.

    The width at a pixel is the width of its vessel at the nearest point of the centreline, right
    to one pixel. Recall on thin vessels is that of ``confusion(predicted, thin, fov & ~thick)``.
    """
    require_maps(vessels=vessels)
    centre = skeleton(vessels)
    to_edge = distance_transform_edt(np.pad(vessels, 1))[1:-1, 1:-1]
    nearest = distance_transform_edt(~centre, return_distances=False, return_indices=True)
    thin = vessels & (2 * to_edge[tuple(nearest)] - 1 <= limit)
    return thin, vessels & ~thin


def by_width(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """Recall on thin and on thick vessels, and clDice, of (H, W) bool arrays; nan where undefined.

    Thin is at most ``THIN`` of the FOV's diameter wide, so that the word means the same at every
    size of photograph.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    thin, thick = thin_and_thick(vessels & fov, THIN * fov_diameter(fov))
    recall = {"thin": thin, "thick": thick}
    found = {
        k: ratio(np.count_nonzero(predicted & v), np.count_nonzero(v)) for k, v in recall.items()
    }
    return found | {"cldice": cldice(predicted, vessels, fov)}


def fov_diameter(fov: np.ndarray) -> int:
    """Pixels across a (H, W) bool field of view; a disc cut off at two sides keeps its own."""
    return max(frame_of(fov).size)


# Where it is wrong ------------------------------------------------------------------------------


def mistakes(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Give every wrong pixel inside the FOV one of the kinds in ``MISTAKES``.

    A miss beside a stretch of centreline that was found is an error of width; any other is a lost
    stretch of a thin or a thick vessel. A false alarm whose nearest stretch of drawn centreline
    lies on a vessel is an error of width, too; any other lies along the border of the FOV, in a
    line of its own, or in a compact spot.

    Parameters
    ----------
    predicted, vessels, fov : (H, W) bool arrays

    Returns
    -------
    kinds : (H, W) uint8
        0 where nothing is wrong, or outside the FOV; k for ``MISTAKES[k - 1]``.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    predicted, vessels = predicted & fov, vessels & fov
    diameter = fov_diameter(fov)
    missed, false = vessels & ~predicted, predicted & ~vessels
    thin, _ = thin_and_thick(vessels, THIN * diameter)
    reach = max(1, round(NEAR * diameter))
    too_thin = missed & near_centreline(vessels, predicted, reach)
    too_wide = false & near_centreline(predicted, vessels, reach)
    alone = false & ~too_wide
    # A frame that cuts the disc off is its border as well.
    to_border = distance_transform_edt(np.pad(fov, 1))[1:-1, 1:-1]
    rim = alone & (to_border <= RIM * diameter)
    line = elongated(alone & ~rim)
    lost = missed & ~too_thin
    found = (lost & thin, lost & ~thin, too_thin, too_wide, rim, line, alone & ~rim & ~line)
    return sum(part * np.uint8(k) for k, part in enumerate(found, start=1))


def near_centreline(vessels: np.ndarray, other: np.ndarray, reach: int) -> np.ndarray:
    """Where the nearest pixel of a map's centreline is within ``reach`` pixels of ``other``.

    All maps are (H, W) bool. Nothing is near where there is no centreline.
    """
    centre = skeleton(vessels)
    if not centre.any():
        return np.zeros_like(vessels)
    met = binary_dilation(other, np.ones((3, 3)), reach) & centre
    nearest = distance_transform_edt(~centre, return_distances=False, return_indices=True)
    return met[tuple(nearest)]


def elongated(spots: np.ndarray) -> np.ndarray:
    """The connected parts of a (H, W) bool map that are ``ELONGATED`` times as long as wide."""
    parts, count = label(spots, np.ones((3, 3)))
    length = np.bincount(parts[skeleton(spots)], minlength=count + 1)
    width = np.zeros(count + 1)
    to_edge = 2 * distance_transform_edt(np.pad(spots, 1))[1:-1, 1:-1] - 1
    np.maximum.at(width, parts[spots], to_edge[spots])
    is_line = length >= ELONGATED * np.maximum(width, 1)
    is_line[0] = False
    return is_line[parts]


def count_mistakes(kinds: np.ndarray) -> dict[str, int]:
    """How many pixels of each kind a map of :func:`mistakes` holds."""
    counts = np.bincount(kinds.ravel(), minlength=len(MISTAKES) + 1)
    return {name: int(n) for name, n in zip(MISTAKES, counts[1:], strict=True)}


def light(image: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """How bright a photograph is, and how far its vessels stand out, in the green channel.

    Parameters
    ----------
    image : (H, W, 3) uint8
    vessels, fov : (H, W) bool arrays

    Returns
    -------
    found : dict
        ``brightness``, the median inside the FOV, 0 to 255; ``contrast``, how much darker the
        vessels are than their surroundings (within ``AROUND`` of the FOV's diameter), as a share
        of these: 0 is invisible. nan without vessels.
    """
    require_maps(vessels=vessels, fov=fov)
    green, vessels = image[..., 1].astype(np.float32), vessels & fov
    brightness = float(np.median(green[fov]))
    if not vessels.any():
        return {"brightness": brightness, "contrast": math.nan}
    distance = distance_transform_edt(~vessels)
    around = green[fov & ~vessels & (distance <= AROUND * fov_diameter(fov))]
    contrast = 1 - green[vessels].mean() / around.mean() if around.any() else math.nan
    return {"brightness": brightness, "contrast": float(contrast)}


def what_went_wrong(
    counts: dict[str, int], here: dict[str, float] | None = None, usual: dict | None = None
) -> str:
    """The share of mere width errors, the two commonest of the other kinds, and poor light.

    Parameters
    ----------
    counts : of :func:`count_mistakes`
    here, usual : of :func:`light`, optional
        Of this photograph, and the median over those it is compared with. It is called dark, or
        its vessels faint, where it has less than three quarters of what is usual.

    Examples
    --------
    >>> counts = dict.fromkeys(MISTAKES, 0) | {"drawn too wide": 40}
    >>> what_went_wrong(counts | {"thin vessel missed": 45, "false compact spot": 15})
    'width 40%; of the rest: thin vessel missed 75%, false compact spot 25%'
    """
    wrong = sum(counts.values())
    if not wrong:
        return "nothing wrong"
    rest = {name: n for name, n in counts.items() if n and not name.startswith("drawn too")}
    other = sum(rest.values())
    words = [f"width {1 - other / wrong:.0%}"]
    if rest:
        ranked = sorted(rest, key=rest.get, reverse=True)[:2]
        words.append("of the rest: " + ", ".join(f"{k} {rest[k] / other:.0%}" for k in ranked))
    poor = {"brightness": "dark photograph", "contrast": "faint vessels"}
    for key, name in poor.items():
        if here and usual and here[key] < 0.75 * usual[key]:
            words.append(f"{name} ({key} {here[key]:.3g}, usually {usual[key]:.3g})")
    return "; ".join(words)


# Pieces -----------------------------------------------------------------------------------------


def to_levels(probability: np.ndarray) -> np.ndarray:
    """Probabilities in [0, 1] rounded to 16 bits: float array -> int32 array of 0 ... 65535."""
    if not np.issubdtype(probability.dtype, np.floating):
        raise TypeError(
            f"probability must be floating, in [0, 1], got {probability.dtype}; "
            "divide what a 16-bit PNG holds by 65535"
        )
    low, high = (probability.min(), probability.max()) if probability.size else (0, 0)
    if not (low >= 0 and high <= 1):  # nan fails too
        raise ValueError(
            f"probability must be in [0, 1], got {low:g} to {high:g}; "
            "apply sigmoid to logits; nan comes from a training that diverged"
        )
    return np.rint(probability * np.float32(LEVELS - 1)).astype(np.int32)


def lowest_level(threshold: float) -> int:
    """The lowest level whose probability is >= threshold.

    A threshold within 0.005 levels above k / 65535 counts as a tie: float32 rounds that far.
    """
    if not 0 <= threshold <= 1:
        raise ValueError(f"threshold must be in [0, 1], got {threshold}")
    return math.ceil(float(threshold) * (LEVELS - 1) - 0.005)


def cumulative(histogram: Histogram) -> tuple[np.ndarray, np.ndarray]:
    """Counts of tp and fp from the strictest threshold on, one per level that occurs; first 0."""
    occurs = (histogram.vessel + histogram.background > 0)[::-1]
    tp, fp = (np.cumsum(counts[::-1])[occurs] for counts in histogram)
    return np.concatenate([[0], tp]), np.concatenate([[0], fp])


def ratio(part, whole):
    """part / whole as float or array; nan for 0 / 0."""
    with np.errstate(invalid="ignore"):
        result = np.true_divide(part, whole)
    return result if np.ndim(result) else float(result)


def require_maps(**maps: np.ndarray) -> None:
    """Raise unless all are (H, W) bool arrays of one shape and the field of view is not empty."""
    for name, array in maps.items():
        if array.dtype != bool:
            raise TypeError(f"{name} must be bool, got {array.dtype}; threshold it first")
    shapes = {name: array.shape for name, array in maps.items()}
    if len(set(shapes.values())) > 1 or any(len(shape) != 2 for shape in shapes.values()):
        raise ValueError(f"all must be (H, W) of one size, got {shapes}")
    if "fov" in maps and not maps["fov"].any():
        raise ValueError("fov is empty: no pixel to score; check the field-of-view mask")
