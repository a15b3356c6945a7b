"""Two who measured the same photographs -> how far they agree."""

import math
from collections.abc import Sequence

import numpy as np


def agreement(one: Sequence[float], other: Sequence[float]) -> dict[str, float]:
    """Bias, limits of agreement and ICC of paired numbers; pairs with nan are left out.

    ``bias`` is the mean of one - other, ``low`` and ``high`` are 1.96 standard deviations from it
    (Bland & Altman, 1986), ``icc`` is ICC(2,1), absolute agreement of single measurements (Shrout
    & Fleiss, 1979): 1 if all pairs are equal, about 0 if they have nothing in common. nan of fewer
    than three pairs.
    """
    pairs = np.array([one, other], float).T
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    if len(pairs) < 3:
        return dict.fromkeys(("bias", "low", "high", "icc"), math.nan)
    difference = pairs[:, 0] - pairs[:, 1]
    bias, reach = difference.mean(), 1.96 * difference.std(ddof=1)
    return {"bias": bias, "low": bias - reach, "high": bias + reach, "icc": icc(pairs)}


def icc(scores: np.ndarray) -> float:
    """ICC(2,1) of (n, k): n subjects, each measured by the same k; nan if all are equal."""
    n, k = scores.shape
    mean = scores.mean()
    rows, columns = (scores.mean(axis=axis) - mean for axis in (1, 0))
    rest = scores - mean - rows[:, None] - columns
    between = k * (rows**2).sum() / (n - 1)
    judges = n * (columns**2).sum() / (k - 1)
    error = (rest**2).sum() / ((n - 1) * (k - 1))
    whole = between + (k - 1) * error + k * (judges - error) / n
    return float((between - error) / whole) if whole > 0 else math.nan
