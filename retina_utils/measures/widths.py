"""Drawings of vessels -> centrelines and widths."""

import math

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from retina_utils.frame import fov_diameter
from retina_utils.metrics import ratio, require_maps

THIN = 0.008  # of the FOV's diameter: vessels up to this width are thin


def by_width(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """Recall on ``thin`` and ``thick`` vessels, and ``cldice``, of (H, W) bool; nan of nothing."""
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    thin, thick = thin_and_thick(vessels & fov, THIN * fov_diameter(fov))
    found = {"thin": recall(predicted, thin), "thick": recall(predicted, thick)}
    return found | {"cldice": cldice(predicted, vessels, fov)}


def recall(predicted: np.ndarray, vessels: np.ndarray) -> float:
    """The share of the ``vessels`` that is ``predicted``, of (H, W) bool arrays; nan of none."""
    return ratio(np.count_nonzero(predicted & vessels), np.count_nonzero(vessels))


def thin_and_thick(vessels: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Split (H, W) bool vessels by width: at most ``limit`` pixels wide, and wider.

    The width at a pixel is the width of its vessel at the nearest point of the centreline, right
    to one pixel. Recall on thin vessels is that of ``confusion(predicted, thin, fov & ~thick)``.
    """
    require_maps(vessels=vessels)
    width = 2 * to_edge(vessels)[nearest(skeletonize(vessels))] - 1
    thin = vessels & (width <= limit)
    return thin, vessels & ~thin


def to_edge(area: np.ndarray) -> np.ndarray:
    """(H, W) float pixels to the edge of a (H, W) bool area; it ends where the frame ends."""
    return distance_transform_edt(np.pad(area, 1))[1:-1, 1:-1]


def nearest(centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the True pixel of a (H, W) bool map nearest to each, (H, W) int both."""
    return tuple(distance_transform_edt(~centre, return_distances=False, return_indices=True))


def cldice(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> float:
    """Centreline Dice (Shit et al., CVPR 2021) of (H, W) bool arrays: how far topology is kept.

    The share of the predicted centreline on vessels and the share of the annotated centreline
    found, as a harmonic mean: a gap in a thin vessel costs as much as one in a thick vessel.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    predicted, vessels = predicted & fov, vessels & fov
    on_vessels = recall(vessels, skeletonize(predicted))
    found = recall(predicted, skeletonize(vessels))
    if math.isnan(on_vessels) and math.isnan(found):  # neither has a centreline
        return math.nan
    if not on_vessels * found > 0:  # nan if one has no centreline
        return 0.0
    return 2 * on_vessels * found / (on_vessels + found)
