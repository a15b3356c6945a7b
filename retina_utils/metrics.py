"""How good a vessel map is: counts of pixels inside the field of view, and what follows from them.

One histogram of probabilities per photograph gives the counts at every threshold at once. Count
first, divide later: pooled scores are the scores of summed counts, per-image scores a mean.

Probabilities are rounded to 16 bits, as they are stored, and one rule holds everywhere:
vessels = probability >= threshold.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

LEVELS = 65536  # of a 16-bit PNG; level k is the probability k / 65535
RESAMPLES = 2000  # of the bootstrap
COUNTS = ("tp", "fp", "fn", "tn")
# The scores by the names they are stored under, and in words.
SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "auc": "ROC-AUC",
    "ap": "average precision",
}


class Histogram(NamedTuple):
    """How many vessel and background pixels inside the FOV have each of the 65536 probabilities."""

    vessel: np.ndarray  # (65536,) int64
    background: np.ndarray  # (65536,) int64


def histogram(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> Histogram:
    """Count probabilities, a (H, W) float array in [0, 1], inside the field of view.

    ``vessels``, as annotated, and ``fov`` are (H, W) bool arrays. A wrong dtype, differing shapes,
    an empty field of view, nan and values outside [0, 1] are refused (TypeError, ValueError).
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


def best_threshold(
    histograms: Sequence[Histogram], by: str = "dice", weigh: str = "pixels"
) -> float:
    """Threshold with the highest score; in the middle of the plateau where several share it.

    ``weigh`` "pixels" takes the score ``by`` of all pixels pooled, in which large photographs weigh
    more; "photographs" takes the mean of the photographs' scores.
    """
    if not any(histogram.vessel.any() for histogram in histograms):
        raise ValueError("no vessel inside the FOV of any photograph: no threshold is best")
    if weigh not in ("pixels", "photographs"):
        raise ValueError(f"weigh: unknown {weigh!r}; choose pixels or photographs")
    if by not in (known := scores(dict.fromkeys(COUNTS, 0))):
        raise ValueError(f"by: unknown score {by!r}; choose one of {', '.join(known)}")
    counted = [pool(histograms)] if weigh == "pixels" else histograms
    score = np.mean([curves(histogram)[by] for histogram in counted], axis=0)
    best = np.flatnonzero(score == np.nanmax(score))
    plateaus = np.split(best, np.flatnonzero(np.diff(best) > 1) + 1)
    plateau = max(plateaus, key=len)
    return float((plateau[0] + plateau[-1]) // 2) / (LEVELS - 1)


class Expected(NamedTuple):
    """What a map says of itself, without an annotation."""

    threshold: float  # at which its expected Dice is greatest
    dice: float  # that Dice, in [0, 1]


def expect(counts: np.ndarray) -> Expected:
    """The threshold that belongs to one photograph, and the Dice to expect there.

    ``counts``, (65536,) int, says how many pixels inside the FOV have each probability: a
    histogram's vessel and background together. As far as probabilities are calibrated, a cut at t
    has the expected Dice 2 Σ(p ≥ t) p / (#(p ≥ t) + Σ p), and the t that makes it greatest is half
    of that Dice (Lipton et al., ECML PKDD 2014). A map without any vessel expects 0.
    """
    promised = np.linspace(1, 0, LEVELS)
    drawn, right = np.cumsum(counts[::-1]), np.cumsum(counts[::-1] * promised)
    dice = np.nan_to_num(ratio(2 * right, drawn + right[-1]))
    best = int(dice.argmax())
    return Expected(float(promised[best]), float(dice[best]))


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
    """What probabilities promise and what is found, in bins of equal width: (bins,) arrays.

    ``promised`` is the mean probability of the pixels in a bin, ``found`` the share of them that is
    vessel, ``pixels`` their number. Where a bin is empty the first two are nan.
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
    """Mean and sample standard deviation (n - 1) over photographs of each score.

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


def add_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts of several photographs together."""
    counts = list(counts)
    return {key: sum(row[key] for row in counts) for key in COUNTS}


def bootstrap_intervals(
    counts: Sequence[dict[str, int]], people: Sequence[str], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of pooled scores, by resampling whole people.

    Two eyes of one person are alike, so people are drawn with replacement, not photographs
    (2000 times; percentile interval, Efron & Tibshirani, 1993). With the photographs' own names
    as ``people`` photographs are drawn, which is too narrow where eyes are alike. Training is not
    repeated: the interval tells of other photographs, not of another training run.

    ``counts`` and ``people`` hold one entry for each photograph. Gives score -> (low, high), nan
    for a single person.
    """
    names = sorted(set(people))
    table = np.zeros((len(names), len(COUNTS)), np.int64)
    for person, row in zip(people, counts, strict=True):
        table[names.index(person)] += [row[key] for key in COUNTS]
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    totals = table[draws].sum(axis=1)  # (RESAMPLES, 4)
    found = scores(dict(zip(COUNTS, totals.T, strict=True)))
    if len(names) == 1:
        return dict.fromkeys(found, (math.nan, math.nan))
    return {key: tuple(np.nanpercentile(value, [2.5, 97.5])) for key, value in found.items()}


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
