"""How far the true Dice may lie from the one that a map expects of itself."""

from collections.abc import Mapping, Sequence

import numpy as np

COVERED = 0.95  # of the photographs of each camera


def margin(misses: Mapping[str, Sequence[float]]) -> float:
    """Half of the interval around the expected Dice of a photograph from a camera never met.

    ``misses`` holds, by camera, the true Dice less the expected one of photographs of which the
    network had met neither people nor camera. Cameras, and who drew their annotations, differ more
    than photographs of one, and a few cameras say little of the next: so the interval is that of
    the camera with the widest, in which 95 % of its photographs lie.
    """
    return max(float(np.quantile(np.abs(found), COVERED)) for found in misses.values())


def covered(misses: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each camera the share of its photographs that an interval from the others alone holds."""
    shares = {}
    for camera, found in misses.items():
        others = {name: values for name, values in misses.items() if name != camera}
        shares[camera] = float(np.mean(np.abs(found) <= margin(others)))
    return shares
