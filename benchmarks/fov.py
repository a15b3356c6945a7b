"""Finding the field of view of a large photograph, against finding a disc at full size.

    python benchmarks/fov.py

The plain way runs in the same process: threshold every pixel, take the largest connected part and
fill its holes. It knows no rims, labels or straight sides. Best of three; nothing is asserted.
"""

import numpy as np
from scipy import ndimage
from timing import seconds

from retina_utils.fov import find_fov

SHAPE, RADIUS = (2336, 3504), 1630  # of HRF


def plain(image: np.ndarray) -> np.ndarray:
    """The largest bright region as (H, W) bool."""
    brightness = image.max(axis=2)
    labels, _ = ndimage.label(brightness > 0.1 * brightness.max())
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


if __name__ == "__main__":
    y, x = np.ogrid[: SHAPE[0], : SHAPE[1]]
    disc = np.hypot(y + 0.5 - SHAPE[0] / 2, x + 0.5 - SHAPE[1] / 2) < RADIUS
    image = disc[..., None] * np.array((170, 70, 30), np.uint8)
    taken = seconds(lambda: find_fov(image), lambda: plain(image))
    ours, full = map(min, taken)
    print(f"{SHAPE[1]} x {SHAPE[0]}: {ours:.2f} s, plain {full:.2f} s, {full / ours:.1f} times")
