"""ROC-AUC, average precision and Dice at every threshold for twenty photographs.

    python benchmarks/scores.py

Ours: a histogram of 65,536 levels for each, pooled. The baseline: scikit-learn on all pixels, which
sorts them, and a loop over 256 thresholds that counts them. Both give the same scores, or it says
so.
"""

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score
from timing import make_row, seconds

from retina_utils import metrics

PHOTOGRAPHS, SHAPE = 20, (584, 565)  # as DRIVE's, every pixel inside the field of view
AGREE = 1e-4


def as_stored(probability: np.ndarray) -> np.ndarray:
    """As a run's 16-bit PNG gives it back."""
    return np.rint(65535 * probability).astype(np.float32) / np.float32(65535)


LEVELS = as_stored(np.linspace(0, 1, 256))


def rows() -> list[dict]:
    rng = np.random.default_rng(0)
    shape = (PHOTOGRAPHS, *SHAPE)
    vessels = rng.random(shape) < 0.12
    # Background and vessels overlap, and many pixels are nearly sure, as a network's are.
    logits = rng.normal(-4, 2, shape) + 6 * vessels
    maps = as_stored(1 / (1 + np.exp(-logits)))
    fov = np.ones(SHAPE, bool)

    def ours():
        counted = [metrics.histogram(*pair, fov) for pair in zip(maps, vessels, strict=True)]
        pooled = metrics.pool(counted)
        area = metrics.roc_auc(pooled), metrics.average_precision(pooled)
        return *area, metrics.curves(pooled)["dice"]

    def plain():
        truth, found = vessels.ravel(), maps.ravel()
        area = roc_auc_score(truth, found), average_precision_score(truth, found)
        return *area, [dice(truth, found >= level) for level in LEVELS]

    auc, ap, curve = ours()
    sorted_auc, sorted_ap, loop = plain()
    at_levels = curve[np.arange(256) * 257]  # 65535 = 255 * 257: the same thresholds
    apart = max(abs(auc - sorted_auc), abs(ap - sorted_ap), np.nanmax(np.abs(at_levels - loop)))
    note = f"largest difference {apart:.0e}"
    note += "" if apart <= AGREE else f": NOT EQUAL to {AGREE:.0e}"
    work = f"scores of {PHOTOGRAPHS} photographs, all thresholds"
    return [make_row(work, *seconds(ours, plain), note)]


def dice(truth: np.ndarray, found: np.ndarray) -> float:
    """Counted anew, pixel by pixel."""
    return 2 * np.count_nonzero(truth & found) / (np.count_nonzero(truth) + np.count_nonzero(found))


if __name__ == "__main__":
    from bench import run

    run(["scores"])
