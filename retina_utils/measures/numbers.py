"""A map of vessels -> what is measured of them, with what the probabilities leave open.

Arteries and veins are not told apart, so there is no CRAE, no CRVE and no ratio of the two.
"""

import math

import numpy as np
from skimage.measure import block_reduce

from retina_utils.frame import fov_diameter
from retina_utils.measures.segments import segments_of
from retina_utils.measures.widths import window_of
from retina_utils.metrics import ratio

FINE = 1536  # pixels across the FOV are enough: the network sees 1024
BOXES = 2 ** -np.arange(3, 6.5, 0.5)  # of the FOV's diameter: from an eighth to 1/64
SHIFTS = np.arange(3) / 3  # of a box, each way: where the grid may begin
TURNS = np.radians([0, 22.5, 45, 67.5])  # and how it may lie
CUTS = (0.05, 0.35, 0.65, 0.95)  # the middle 90 % of all levels at which a map may be cut
# What is measured, and which power of a length it is.
MEASURES = {
    "density": 0,  # share of the FOV
    "length": 1,  # of all centrelines
    "width_mean": 1,  # over the length, forks left out; so are the quantiles
    "width_median": 1,
    "width_q10": 1,
    "width_q90": 1,
    "branch_points": 0,  # forks and crossings
    "end_points": 0,  # also where a vessel leaves the FOV
    "tortuosity": 0,  # arc over chord, of all segments together; 1 is straight
    "tau4": -1,  # turning per arc (Hart et al., 1999)
    "tau5": -2,  # curvature squared, summed along the arc, per arc (the same)
    "inflections": 0,  # how often the segments begin to turn the other way
    "fractal_dimension": 0,  # of the centrelines
}


def measure(drawing: np.ndarray, fov: np.ndarray, cut: float = 0.5) -> dict[str, float]:
    """``MEASURES`` of a drawing in a FOV, lengths in its pixels; nan of what is not there.

    ``drawing`` is (H, W) bool, or float probabilities cut at ``cut``; ``fov`` (H, W) bool. Where
    the FOV is twice ``FINE`` across or more, all but the density is taken from means of 2 x 2
    pixels or more: a network's vessels are soft there, and it takes a quarter of the time.
    """
    window, diameter = window_of(fov), fov_diameter(fov)
    drawing = np.where(fov, drawing, 0)[window].astype(np.float32)
    factor = max(1, diameter // FINE)
    shades = block_reduce(drawing, factor, np.mean) if factor > 1 else drawing
    found = segments_of(shades, diameter / factor, cut)
    arc = found.arc.sum() if len(found.arc) else 0
    open_ = found.chord > 0  # a ring has no chord
    wide = found.widths, found.weights
    in_pixels = {
        "density": ratio(np.count_nonzero(drawing >= cut), np.count_nonzero(fov)),
        "length": float(found.length.sum()),
        "width_mean": ratio((wide[0] * wide[1]).sum(), wide[1].sum()),
        **dict(zip(("width_median", "width_q10", "width_q90"), quantiles(*wide), strict=True)),
        "branch_points": found.branch_points,
        "end_points": found.end_points,
        "tortuosity": ratio(found.arc[open_].sum(), found.chord[open_].sum()),
        "tau4": ratio(found.turning.sum(), arc),
        "tau5": ratio(found.bending.sum(), arc),
        "inflections": int(found.inflections.sum()),
        "fractal_dimension": fractal_dimension(found.centre, diameter / factor),
    }
    return {key: in_pixels[key] * float(factor) ** power for key, power in MEASURES.items()}


def measure_map(
    probability: np.ndarray, fov: np.ndarray, threshold: float, spacing: float | None = None
) -> dict[str, float]:
    """The columns of ``measures.csv``: each of :func:`measure`, ``_low`` and ``_high``.

    Lengths, and tau4 and tau5, come in pixels (``_px``), with the FOV's diameter as the unit
    (``_fov``), and in micrometres (``_um``) where ``spacing``, those of a pixel, is known.

    The value is that of the map cut at ``threshold``. The interval spans it and the values at
    ``CUTS``: 90 % if the probabilities are honest and all pixels err together, as they do for a
    pen that is too wide or a photograph too faint. It knows nothing of another training, another
    annotator, or of a camera on which the probabilities are not honest.
    """
    found = [measure(probability, fov, cut) for cut in (threshold, *CUTS)]
    units = {"px": 1.0, "fov": 1 / fov_diameter(fov)} | ({"um": spacing} if spacing else {})
    row = {}
    for key, power in MEASURES.items():
        values = [one[key] for one in found]
        known = [value for value in values if not math.isnan(value)] or [math.nan]
        for unit, size in units.items() if power else {"": 1.0}.items():
            name, scale = "_".join(filter(None, (key, unit))), size**power
            row[name] = values[0] * scale
            row |= {f"{name}_low": min(known) * scale, f"{name}_high": max(known) * scale}
    return row


def quantiles(values: np.ndarray, weights: np.ndarray, at=(0.5, 0.1, 0.9)) -> np.ndarray:
    """Quantiles of (M,) values that weigh differently; nan of none."""
    if not len(values):
        return np.full(len(at), math.nan)
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return np.interp(at, (total - weights[order] / 2) / total[-1], values[order])


def fractal_dimension(points: np.ndarray, diameter: float) -> float:
    """Box-counting dimension of (K, 2) points in a FOV ``diameter`` pixels across; nan of none.

    The slope of log count against log size over ``BOXES``. The grid is laid in nine places, of
    which the fewest boxes are taken, since the definition asks for the fewest that cover the
    points; and turned in four ways, whose logs are averaged, or a turned eye had another dimension.
    """
    if not len(points):
        return math.nan
    logs = np.zeros((len(TURNS), len(BOXES)))
    for i, turn in enumerate(TURNS):
        turned = points @ [[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]
        turned -= turned.min(axis=0)
        for j, size in enumerate(BOXES * diameter):
            down, across = [[(x / size + shift).astype(int) for shift in SHIFTS] for x in turned.T]
            each = [np.bincount(y * (across[-1].max() + 1) + x) for y in down for x in across]
            logs[i, j] = np.log(min(map(np.count_nonzero, each)))
    return float(-np.polyfit(np.log(BOXES), logs.mean(axis=0), 1)[0])
