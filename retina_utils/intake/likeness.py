"""Which pictures show the same thing though their pixels differ: saved again, resized, mirrored.

The limits were measured on 69 photographs of eyes (CHASE_DB1 01-10, HRF 01-05, STARE, data/tiny):
one photograph as JPEG of quality 30, at another size, in another light, mirrored or turned has a
correlation of .94 and more with itself; two photographs, of one person too, at most .49.
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage
from scipy.sparse.csgraph import connected_components

VIEW = 64  # pixels of the square view in which pictures are compared
SAME, SAME_IF_SO_IS_ANOTHER_SIGN = 0.7, 0.55


def view(grey: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The lines and spots of a picture, equally strong everywhere: (VIEW, VIEW) of unit length.

    ``grey`` is (H, W) float32; only what is ``inside``, (H, W) bool, is looked at. Shorter if it
    is too plain to be compared.
    """
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    grey, weight = (
        np.asarray(Image.fromarray(a.astype(np.float32)).resize((VIEW, VIEW), box=box))
        for a in (grey * inside, inside)
    )
    values, middle = grey / np.maximum(weight, 1e-2), (weight > 0.9).astype(np.float32)
    detail = (local_mean(values, middle, 1) - local_mean(values, middle, 3)) * middle
    detail /= np.sqrt(local_mean(detail**2, middle, 3) + 1)  # one grey level is noise
    detail = np.clip(detail / max(detail.std(), 0.1), -2, 2)
    detail -= detail.mean()
    return detail / max(np.linalg.norm(detail), VIEW / 4)


def group(views: Sequence[np.ndarray], signs: Sequence[str]) -> list[list[int]]:
    """Places of the views that show one thing; equal ``signs`` (of another kind) speak for it."""
    flat = np.stack(views).reshape(len(views), -1)
    alike = flat @ flat.T
    for turned in zip(*map(turns, views), strict=True):
        np.maximum(alike, np.stack(turned).reshape(flat.shape) @ flat.T, out=alike)
    signs = np.array(signs)
    limit = np.where(signs[:, None] == signs, SAME_IF_SO_IS_ANOTHER_SIGN, SAME)
    count, labels = connected_components(alike > limit, directed=False)
    return [np.flatnonzero(labels == n).tolist() for n in range(count)]


def turns(array: np.ndarray) -> list[np.ndarray]:
    """The seven other ways to lay a picture on a table."""
    return [np.rot90(side, k) for side in (array, array[:, ::-1]) for k in range(4)][1:]


def local_mean(values: np.ndarray, weight: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean of the pixels that have weight."""
    total = np.maximum(ndimage.gaussian_filter(weight, sigma), 1e-2)
    return ndimage.gaussian_filter(values * weight, sigma) / total
