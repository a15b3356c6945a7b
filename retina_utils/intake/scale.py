"""The scale at which a network should see a photograph, from how wide the vessels in it are.

How many degrees of the eye a photograph shows is rarely known, and decides how many pixels wide a
vessel is once every field of view has the same diameter: 8 with HRF (60 degrees), 15 with CHASE_DB1
(30 degrees), where a network has learned from one of them. The widest vessels of all eyes are about
half a degree wide, so their width in the picture tells.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt

WIDE = 0.97  # quantile of the distances to the edge
FEWEST = 100  # pixels of vessel that a width is found in
LOWEST, HIGHEST = 0.6, 4.0  # times the network's own diameter of the FOV
BEYOND = 3.0  # times the photograph's own diameter
NEAR = 0.1  # a scale nearer to another than this is no other


class Drawn(NamedTuple):
    """The annotation of a photograph."""

    width: float  # of the widest vessels, see below
    native: int  # pixels across the FOV


def widest(vessels: np.ndarray, diameter: int) -> float:
    """How wide the widest vessels are, as a share of the FOV's diameter; nan of hardly any vessel.

    ``vessels`` is (H, W) bool, inside a FOV of that ``diameter`` in pixels. It is twice the
    distance to the edge that 97 % of the pixels of vessels stay below.
    """
    if np.count_nonzero(vessels) < FEWEST:
        return math.nan
    return float(2 * np.quantile(distance_transform_edt(vessels)[vessels], WIDE) / diameter)


def typical(widths: Iterable[Iterable[float]]) -> float:
    """The width in the middle of several cameras' photographs: a geometric mean of their means.

    Widths that are nan do not count; it is nan where there is no other.
    """
    known = [[width for width in camera if width > 0] for camera in widths]
    return (
        float(np.exp(np.mean([np.mean(np.log(w)) for w in known if w]))) if any(known) else math.nan
    )


def matching_diameters(usual: int, cameras: Mapping[str, Sequence[Drawn]]) -> dict[str, int]:
    """Pixels for each camera's FOV at which its vessels are as wide as those of the widest.

    That one has its FOV at ``usual``. Each is known by some annotated photographs. As below, no
    photograph is enlarged to more than 3 times its own pixels, and a scale that is hardly
    another stays the usual one.
    """
    widths = {name: typical([[d.width for d in drawn]]) for name, drawn in cameras.items()}
    found = {}
    for name, drawn in cameras.items():
        factor = max(widths.values()) / widths[name]
        most = max(usual, BEYOND * min(d.native for d in drawn))
        found[name] = round(min(usual * factor, most)) if factor > 1 + NEAR else usual
    return found


def fitting_diameter(usual: int, learned: float, found: float, native: int) -> int:
    """Pixels for the FOV's diameter at which vessels are as wide as those learned from.

    ``usual`` is what the network gives every photograph, at which it learned vessels ``learned``
    wide; ``found`` is the width in this photograph, both as shares of the diameter, and nan leaves
    all as it is. Enlarging costs little but time, making smaller loses the thinnest vessels: that
    goes half of the way. No further than 0.6 to 4 times the usual, and no more than 3 times the
    photograph's own ``native`` pixels, but where the usual are more already.
    """
    if not (found > 0 and learned > 0):
        return usual
    factor = learned / found
    factor = min(max(factor if factor > 1 else math.sqrt(factor), LOWEST), HIGHEST)
    return round(min(usual * factor, max(BEYOND * native, LOWEST * usual)))
