"""Centrelines, widths, clDice and kinds of mistakes of a photograph of HRF's size.

    python benchmarks/topology.py

Ours: ``by_width`` and ``mistakes``, as 04 calls them. The baseline computes the same numbers with
scikit-image and SciPy on the whole frame: every skeleton and distance once, ``regionprops`` for
the spots. That both agree is said.
"""

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt
from skimage.measure import label, regionprops
from skimage.morphology import skeletonize
from timing import large_drawing, make_row, seconds

from retina_utils.frame import fov_diameter
from retina_utils.measures import widths
from retina_utils.measures.mistakes import (
    ELONGATED,
    MISTAKES,
    NEAR,
    RIM,
    count_mistakes,
    mistakes,
)
from retina_utils.measures.widths import THIN, by_width

SQUARE = np.ones((3, 3), bool)


def rows() -> list[dict]:
    drawing = large_drawing()
    predicted = wrong_drawing(drawing.vessels, drawing.fov)
    maps = (predicted, drawing.vessels, drawing.fov)

    def ours():
        return by_width(*maps), count_mistakes(mistakes(*maps))

    same = all(
        np.allclose(list(a.values()), list(b.values()))
        for a, b in zip(ours(), plain(*maps), strict=True)
    )
    height, width = drawing.fov.shape
    note = "all numbers agree" if same else "NOT THE SAME NUMBERS"
    work = f"topology and mistakes of {width} x {height}"
    return [make_row(work, *seconds(ours, lambda: plain(*maps)), note)]


def wrong_drawing(vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """What a network might draw: here too wide, there too thin, vessels lost and invented."""
    rng = np.random.default_rng(0)
    half = np.arange(vessels.shape[1]) < vessels.shape[1] // 2
    wide, thin = binary_dilation(vessels, SQUARE, 2), ~binary_dilation(~vessels, SQUARE, 2)
    lost = binary_dilation(rng.random(vessels.shape) < 2e-5, SQUARE, 30)
    spots = binary_dilation(rng.random(vessels.shape) < 1e-5, SQUARE, 6)
    return (np.where(half, wide, thin) & ~lost | spots) & fov


def plain(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> tuple[dict, dict]:
    """The same as ``by_width`` and the counts of ``mistakes``, written down as it is defined."""
    predicted, vessels = predicted & fov, vessels & fov
    diameter = fov_diameter(fov)
    centre, drawn_centre = skeletonize(vessels), skeletonize(predicted)
    edge = distance_transform_edt(np.pad(vessels, 1))[1:-1, 1:-1]
    at = distance_transform_edt(~centre, return_indices=True)[1]
    drawn_at = distance_transform_edt(~drawn_centre, return_indices=True)[1]
    thin = vessels & (2 * edge[tuple(at)] - 1 <= THIN * diameter)
    precise = (drawn_centre & vessels).sum() / drawn_centre.sum()
    sensitive = (centre & predicted).sum() / centre.sum()
    by = {"thin": (predicted & thin).sum() / thin.sum()}
    by["thick"] = (predicted & vessels & ~thin).sum() / (vessels & ~thin).sum()
    by["cldice"] = 2 * precise * sensitive / (precise + sensitive)
    to_centre, to_drawn = (distance_transform_edt(~c) for c in (centre, drawn_centre))
    met = centre & (predicted | (to_drawn <= widths.NEAR * diameter))
    on = drawn_centre & (vessels | (to_centre <= widths.NEAR * diameter))
    by |= {"found": met.sum() / centre.sum(), "on_vessel": on.sum() / drawn_centre.sum()}
    width = (vessels & met[tuple(at)]).sum() / met.sum()
    by["width_ratio"] = (predicted & on[tuple(drawn_at)]).sum() / on.sum() / width

    reach = max(1, round(NEAR * diameter))
    near = (binary_dilation(predicted, SQUARE, reach) & centre)[tuple(at)]
    drawn_near = (binary_dilation(vessels, SQUARE, reach) & drawn_centre)[tuple(drawn_at)]
    missed, false = vessels & ~predicted, predicted & ~vessels
    alone = false & ~drawn_near
    rim = alone & (distance_transform_edt(np.pad(fov, 1))[1:-1, 1:-1] <= RIM * diameter)
    rest = alone & ~rim
    rest_edge = distance_transform_edt(np.pad(rest, 1))[1:-1, 1:-1]
    rest_centre, line = skeletonize(rest), 0
    for spot in regionprops(label(rest, connectivity=2)):
        width = (2 * rest_edge[spot.slice][spot.image] - 1).max()
        length = rest_centre[spot.slice][spot.image].sum()
        line += spot.area if length >= ELONGATED * max(width, 1) else 0
    kinds = (missed & ~near & thin, missed & ~near & ~thin, missed & near, false & drawn_near, rim)
    counts = [*(int(kind.sum()) for kind in kinds), int(line), int(rest.sum() - line)]
    return by, dict(zip(MISTAKES, counts, strict=True))


if __name__ == "__main__":
    from bench import run

    run(["topology"])
