"""Straight bars across a photograph that cut the camera's disc off at a side."""

import numpy as np

DEEPEST = 0.2  # of the disc: as far in as a bar is looked for
STEP = 4  # pixels in which a bar's edge rises; light that fades takes longer


def without_bars(disc: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """The part of a disc that no bar covers: both (H, W) bool, ``brightness`` (H, W) float32.

    A bar is all along about as bright as left and right of the disc, for a film's frame may glow,
    and four pixels further in most of it is twice as far above that. A rim in shadow is curved,
    and light that fades takes longer: neither is a bar.
    """
    for _ in range(4):
        disc, brightness = (np.rot90(array) for array in (disc, brightness))
        disc = _without_top(disc, brightness)
    return disc


def _without_top(disc: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """The same for a bar at the top."""
    rows = np.flatnonzero(disc.any(1))
    rows = rows[: int(len(rows) * DEEPEST)]
    if disc.all() or len(rows) <= STEP:
        return disc
    surround = np.median(brightness[~disc])
    found = np.empty((len(rows), 2))
    for light, row in zip(found, rows, strict=True):
        inside, beside = brightness[row, disc[row]], brightness[row, ~disc[row]]
        light[:] = np.quantile(inside, (0.25, 0.75))
        light -= np.median(beside) if len(beside) else surround
    least, most = found.T
    bars = np.maximum.accumulate(most)[:-STEP] < least[STEP:] / 2
    last = rows[np.flatnonzero(bars).max()] if bars.any() else -1
    return disc & (np.arange(len(disc)) > last)[:, None]
