"""Where probabilities promise too much, and what mends it."""

import math

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_expit, logit

from retina_utils import metrics


def crossing(histogram: metrics.Histogram, share: float, bins: int = 20) -> float:
    """The probability from which on more than ``share`` of the pixels really are vessel.

    Read off the reliability curve between two of its points; ``share`` itself if calibrated, nan
    if the curve does not cross. Dice is highest where ``share`` is half of that Dice (Lipton et
    al., ECML PKDD 2014), accuracy where it is 0.5.
    """
    table = metrics.reliability(histogram, bins)
    seen = table["pixels"] > 0
    promised, found = table["promised"][seen], table["found"][seen]
    below = np.flatnonzero(found < share)
    if not below.size or below[-1] + 1 == len(found):
        return math.nan
    around = slice(below[-1], below[-1] + 2)
    return float(np.interp(share, found[around], promised[around]))


def temperature(histogram: metrics.Histogram) -> float:
    """What to divide all logits by for the least cross-entropy (Guo et al., ICML 2017).

    Above 1 the network is too sure of itself, below 1 too timid; fitted on validation.
    """
    logits = logit_of(np.linspace(0, 1, metrics.LEVELS))

    def cost(degree: float) -> float:
        vessel, background = log_expit(logits / degree), log_expit(-logits / degree)
        return -(histogram.vessel @ vessel + histogram.background @ background)

    return float(minimize_scalar(cost, bounds=(0.1, 10), method="bounded").x)


def tempered(probability: np.ndarray, degree: float) -> np.ndarray:
    """Float probabilities in [0, 1] with their logits divided by a temperature."""
    return expit(logit_of(probability) / degree)


def logit_of(probability: np.ndarray) -> np.ndarray:
    """Logits of probabilities kept in 16 bits: their 0 and 1 are less than half a level away."""
    edge = 0.5 / (metrics.LEVELS - 1)
    return logit(np.clip(probability, edge, 1 - edge))
