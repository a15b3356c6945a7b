"""How far the true Dice may lie from the one that a map expects of itself."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t

COVERED = 0.90  # of the photographs of a camera never met


def margin(misses: Mapping[str, Sequence[float]]) -> float:
    """Half of the interval around the expected Dice of a photograph from a camera never met.

    ``misses`` holds, by camera, the true Dice less the expected one of photographs of which the
    network had met neither people nor camera. Photographs of one camera, drawn by one person, miss
    alike: each camera counts as one observation, with its mean square, of a miss that is zero on
    average. The next camera is one more of them, so this is Student's interval with as many
    degrees of freedom as cameras: from few cameras it is wide.
    """
    square = np.mean([np.mean(np.square(found)) for found in misses.values()])
    return float(t.ppf((1 + COVERED) / 2, len(misses)) * np.sqrt(square))


def covered(misses: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """For each camera the share of its photographs that an interval from the others alone holds."""
    shares = {}
    for camera, found in misses.items():
        others = {name: values for name, values in misses.items() if name != camera}
        shares[camera] = float(np.mean(np.abs(found) <= margin(others)))
    return shares
