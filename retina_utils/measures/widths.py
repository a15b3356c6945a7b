"""Drawings of vessels -> centrelines and widths."""

import math
from functools import cached_property

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects
from skimage.morphology import skeletonize

from retina_utils.frame import fov_diameter
from retina_utils.metrics import ratio, require_maps

THIN = 0.008  # of the FOV's diameter: vessels up to this width are thin
NEAR = 0.01  # of the FOV's diameter: this near, two centrelines are of one vessel


class Drawing:
    """(H, W) bool vessels and their centreline, which is found once, when it is asked for."""

    def __init__(self, vessels: np.ndarray):
        self.vessels = vessels

    @cached_property
    def centre(self) -> np.ndarray:
        """The centreline, (H, W) bool."""
        return skeletonize(self.vessels)

    @cached_property
    def _to_centre(self) -> tuple[np.ndarray, np.ndarray]:
        return distance_transform_edt(~self.centre, return_indices=True)

    @property
    def nearest(self) -> tuple[np.ndarray, np.ndarray]:
        """Row and column of the point of the centreline nearest to each pixel, (H, W) int both."""
        return tuple(self._to_centre[1])

    def near(self, points: np.ndarray, reach: float) -> np.ndarray:
        """Which of the ``points``, (H, W) bool, lie on it, or near its centreline."""
        return points & (self.vessels | (self._to_centre[0] <= reach)) & self.centre.any()

    def width(self, points: np.ndarray) -> float:
        """Vessel pixels for each of some ``points`` of the centreline, (H, W) bool."""
        own = np.count_nonzero(points[self.nearest] & self.vessels)
        return ratio(own, np.count_nonzero(points))

    def thin(self, limit: float) -> np.ndarray:
        """Where vessels are at most ``limit`` pixels wide, (H, W) bool."""
        width = 2 * to_edge(self.vessels)[self.nearest] - 1
        return self.vessels & (width <= limit)


def by_width(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """Whether a drawing finds the vessels, and how it draws them, of (H, W) bool; nan of nothing.

    Recall on ``thin`` and ``thick`` vessels and ``cldice``; ``found``, ``on_vessel`` and
    ``width_ratio`` of :func:`finding`.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    limit, window = THIN * fov_diameter(fov), window_of(fov)
    drawn, truth = (Drawing((part & fov)[window]) for part in (predicted, vessels))
    thin = truth.thin(limit)
    thick = truth.vessels & ~thin
    found = {"thin": recall(drawn.vessels, thin), "thick": recall(drawn.vessels, thick)}
    found["cldice"] = _cldice(drawn, truth)
    return found | finding(drawn, truth, NEAR * fov_diameter(fov))


def finding(drawn: Drawing, truth: Drawing, reach: float) -> dict[str, float]:
    """Finding vessels told apart from drawing them, for a pen that is too wide finds no less.

    ``found`` is the share of the annotated centreline that lies on a drawn vessel or within
    ``reach`` pixels of its centreline, ``on_vessel`` the same share of the drawn centreline
    (completeness and correctness of road maps, Heipke et al., 1997; clDice, Shit et al., 2021, has
    no such tolerance, so widths move it), ``width_ratio`` the drawn width by the annotated, along
    what was found.
    """
    met, on = drawn.near(truth.centre, reach), truth.near(drawn.centre, reach)
    shares = {"found": recall(met, truth.centre), "on_vessel": recall(on, drawn.centre)}
    return shares | {"width_ratio": ratio(drawn.width(on), truth.width(met))}


def window_of(fov: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of a (H, W) bool map that hold all of it; what lies around costs time."""
    return find_objects(fov.view(np.uint8))[0]


def recall(predicted: np.ndarray, vessels: np.ndarray) -> float:
    """The share of the ``vessels`` that is ``predicted``, of (H, W) bool arrays; nan of none."""
    return ratio(np.count_nonzero(predicted & vessels), np.count_nonzero(vessels))


def thin_and_thick(vessels: np.ndarray, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Split (H, W) bool vessels by width: at most ``limit`` pixels wide, and wider.

    The width at a pixel is the width of its vessel at the nearest point of the centreline, right
    to one pixel. Recall on thin vessels is that of ``confusion(predicted, thin, fov & ~thick)``.
    """
    require_maps(vessels=vessels)
    thin = Drawing(vessels).thin(limit)
    return thin, vessels & ~thin


def to_edge(area: np.ndarray) -> np.ndarray:
    """(H, W) float pixels to the edge of a (H, W) bool area; it ends where the frame ends."""
    return distance_transform_edt(np.pad(area, 1))[1:-1, 1:-1]


def cldice(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> float:
    """Centreline Dice (Shit et al., CVPR 2021) of (H, W) bool arrays: how far topology is kept.

    The share of the predicted centreline on vessels and the share of the annotated centreline
    found, as a harmonic mean: a gap in a thin vessel costs as much as one in a thick vessel.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    window = window_of(fov)
    return _cldice(*(Drawing((part & fov)[window]) for part in (predicted, vessels)))


def _cldice(drawn: Drawing, truth: Drawing) -> float:
    on_vessels = recall(truth.vessels, drawn.centre)
    found = recall(drawn.vessels, truth.centre)
    if math.isnan(on_vessels) and math.isnan(found):  # neither has a centreline
        return math.nan
    if not on_vessels * found > 0:  # nan if one has no centreline
        return 0.0
    return 2 * on_vessels * found / (on_vessels + found)
