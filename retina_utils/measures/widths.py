"""Drawings of vessels -> centrelines and widths."""

import math

import numpy as np
from scipy.ndimage import distance_transform_edt
from skimage.morphology import skeletonize

from retina_utils.frame import fov_diameter
from retina_utils.metrics import ratio, require_maps

THIN = 0.008  # of the FOV's diameter: vessels up to this width are thin


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


def thin_and_thick(vessels: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Split (H, W) bool vessels by width: at most ``limit`` pixels wide, and wider.

    The width at a pixel is the width of its vessel at the nearest point of the centreline, right
    to one pixel. Recall on thin vessels is that of ``confusion(predicted, thin, fov & ~thick)``.
    """
    require_maps(vessels=vessels)
    centre = skeletonize(vessels)
    to_edge = distance_transform_edt(np.pad(vessels, 1))[1:-1, 1:-1]
    nearest = distance_transform_edt(~centre, return_distances=False, return_indices=True)
    thin = vessels & (2 * to_edge[tuple(nearest)] - 1 <= limit)
    return thin, vessels & ~thin


def cldice(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> float:
    """Centreline Dice (Shit et al., CVPR 2021) of (H, W) bool arrays: how far topology is kept.

    The share of the predicted centreline on vessels and the share of the annotated centreline
    found, as a harmonic mean: a gap in a thin vessel costs as much as one in a thick vessel.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    predicted, vessels = predicted & fov, vessels & fov
    centre, true_centre = skeletonize(predicted), skeletonize(vessels)
    on_vessels = ratio(np.count_nonzero(centre & vessels), np.count_nonzero(centre))
    found = ratio(np.count_nonzero(true_centre & predicted), np.count_nonzero(true_centre))
    if math.isnan(on_vessels) or math.isnan(found):  # one has no centreline, or neither has
        return math.nan if math.isnan(on_vessels) and math.isnan(found) else 0.0
    return 2 * on_vessels * found / (on_vessels + found) if on_vessels + found else 0.0
