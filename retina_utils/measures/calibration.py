"""Probabilities that keep their promise on another camera: a temperature and a bias of the logits.

Both are folded into the network's last layer, so whoever uses the network has them: the notebooks,
a folder of photographs, an ONNX file.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, logit
from torch import nn

from retina_utils import metrics
from retina_utils.checkpoint import Network

PRIOR = 2.0  # photographs; chosen on left-out cameras (benchmarks/adapt.py)
HOTTEST = 4.0  # temperatures lie in 1/4 to 4
FARTHEST = 4.0  # so far may a bias shift, after the temperature
# Levels as logits. The first and the last hold all that rounds to them: a quarter of a level.
LOGITS = logit(np.clip(np.arange(metrics.LEVELS), 0.25, metrics.LEVELS - 1.25) / metrics.LEVELS)


class Calibration(NamedTuple):
    """logits' = (logits + bias) / temperature; 1 and 0 change nothing."""

    temperature: float = 1.0
    bias: float = 0.0


NONE = Calibration()


def fit_calibration(histograms: Sequence[metrics.Histogram], prior: float = PRIOR) -> Calibration:
    """The temperature and bias with the least cross-entropy inside the FOV, drawn towards none.

    Platt scaling (Platt 1999) of what the network says; with a bias of 0 it would be the
    temperature scaling of Guo et al. (ICML 2017). Photographs weigh alike, large or small. To
    them come ``prior`` photographs on which the network is right already: with few photographs
    little changes, with none nothing. A temperature stays within 1/4 and 4, which also stops
    annotations that contradict the network.

    Parameters
    ----------
    histograms : sequence of Histogram
        One for each annotated photograph (`metrics.histogram`), of uncalibrated probabilities.
    prior : float
        0 believes the photographs alone, and needs at least one.
    """
    if prior < 0 or not (histograms or prior):
        raise ValueError(f"prior={prior} and {len(histograms)} photographs: nothing to fit on")
    if not all(h.vessel.any() and h.background.any() for h in histograms):
        raise ValueError("a photograph has no vessel or no background inside its FOV; leave it out")
    shares = [np.stack(h) / (h.vessel.sum() + h.background.sum()) for h in histograms]
    vessel, background = np.sum(shares, axis=0) if shares else np.zeros((2, metrics.LEVELS))
    promised = expit(LOGITS)
    alike = (vessel + background) * prior / max(1, len(histograms))
    vessel, background = vessel + alike * promised, background + alike * (1 - promised)
    if not (vessel + background).any():
        return Calibration()

    def loss_of(line: np.ndarray) -> tuple[float, np.ndarray]:
        """Cross-entropy of logits slope * x + shift, in which it is convex; and its gradient."""
        x = line[0] * LOGITS + line[1]
        off = (vessel + background) * expit(x) - vessel
        value = vessel @ np.logaddexp(0, -x) + background @ np.logaddexp(0, x)
        return value, np.array([off @ LOGITS, off.sum()])

    bounds = [(1 / HOTTEST, HOTTEST), (-FARTHEST, FARTHEST)]
    slope, shift = minimize(loss_of, [1.0, 0.0], jac=True, bounds=bounds, tol=1e-12).x
    return Calibration(float(1 / slope), float(shift / slope))


def cross_entropy(histogram: metrics.Histogram, calibration: Calibration = NONE) -> float:
    """Of a photograph's pixels inside the FOV after a calibration, in nats a pixel."""
    x = (LOGITS + calibration.bias) / calibration.temperature
    total = histogram.vessel @ np.logaddexp(0, -x) + histogram.background @ np.logaddexp(0, x)
    return float(total / (histogram.vessel.sum() + histogram.background.sum()))


def calibrated(histogram: metrics.Histogram, calibration: Calibration) -> metrics.Histogram:
    """The histogram of the same photograph after a calibration."""
    after = expit((LOGITS + calibration.bias) / calibration.temperature)
    levels = np.rint(after * (metrics.LEVELS - 1)).astype(int)
    moved = (np.bincount(levels, counts, metrics.LEVELS) for counts in histogram)
    return metrics.Histogram(*(counts.astype(np.int64) for counts in moved))


def recalibrate(network: Network, temperature: float, bias: float) -> Network:
    """A copy of the network whose logits are (logits + bias) / temperature, exactly.

    Its threshold moves along, so it draws the same vessels and only promises otherwise; choose
    another threshold to draw others. Averages over mirror images or patches are of the new
    probabilities, which moves a pixel at the edge of a vessel now and then.
    """
    if not (0 < temperature < math.inf and math.isfinite(bias)):
        raise ValueError(f"temperature={temperature}, bias={bias}: expected above 0, and finite")
    model = copy.deepcopy(network.model)
    last = model.head[-1] if isinstance(model.head, nn.Sequential) else model.head
    last.weight.data /= temperature
    last.bias.data += bias
    last.bias.data /= temperature
    threshold = network.threshold
    if threshold is not None:  # logit(0) is -inf, and comes back as 0
        threshold = float(expit((logit(threshold) + bias) / temperature))
    return replace(network, model=model, threshold=threshold)
