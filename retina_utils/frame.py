"""One scale for all photographs: the crop to the field of view, and its resampling.

Vessels of two cameras match in width once their fields of view are equally many pixels across.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy.sparse import csr_array


class Frame(NamedTuple):
    """A crop to the FOV's bounding box and its resampling, made by :func:`frame_of`."""

    shape: tuple[int, int]  # (H, W) of the photograph
    rows: tuple[int, int]  # first row of the crop, and the one after the last
    columns: tuple[int, int]
    size: tuple[int, int]  # (h, w) of the crop once resampled
    margin: int = 0  # pixels of black on each side of it, which every view has and restore expects

    def view(self, array: np.ndarray) -> np.ndarray:
        """Bring a (H, W[, 3]) uint8 or (H, W) bool array into the frame, same dtype.

        It comes as (h + 2 margin, w + 2 margin[, 3]), 0 in the margin. A photograph is resampled
        with anti-aliasing. A bool map is averaged over the area of each new pixel and is True from
        one half on, which keeps its area.
        """
        if array.dtype not in (np.uint8, bool):
            raise TypeError(f"array must be uint8 (image) or bool (map), got {array.dtype}")
        if array.shape[:2] != self.shape:
            raise ValueError(f"array is {array.shape[:2]}, the frame's photograph {self.shape}")
        crop = array[slice(*self.rows), slice(*self.columns)]
        if crop.shape[:2] == self.size:
            return self._surround(crop)
        if array.dtype == bool:
            return self._surround(_area_mean(crop, self.size) >= 0.5)
        resized = Image.fromarray(crop).resize(self.size[::-1], Image.Resampling.BICUBIC)
        return self._surround(np.asarray(resized))

    def share(self, vessels: np.ndarray) -> np.ndarray:
        """How much of each new pixel is vessel: (H, W) bool -> uint8, 255 for all of it.

        A vessel three pixels wide is a soft line at half the scale. Trained on such lines, a
        network can say where between two pixels an edge runs, which no two-valued map can.
        """
        if vessels.dtype != bool or vessels.shape != self.shape:
            raise ValueError(
                f"vessels is {vessels.shape} {vessels.dtype}, the frame's photograph {self.shape}; "
                "expected a bool map of the photograph's size"
            )
        crop = vessels[slice(*self.rows), slice(*self.columns)]
        return self._surround(np.rint(_area_mean(crop, self.size) * 255).astype(np.uint8))

    def restore(self, probability: np.ndarray) -> np.ndarray:
        """Bring a view's float probability back: (H, W) float32 in [0, 1], 0 outside the crop."""
        viewed = tuple(side + 2 * self.margin for side in self.size)
        if probability.shape != viewed or probability.dtype.kind != "f":
            raise ValueError(
                f"probability is {probability.shape} {probability.dtype}, expected the frame's "
                f"size {viewed} in floating point"
            )
        inner = slice(self.margin, -self.margin or None)
        rows, columns = slice(*self.rows), slice(*self.columns)
        restored = np.zeros(self.shape, np.float32)
        height, width = restored[rows, columns].shape
        grey = Image.fromarray(probability[inner, inner].astype(np.float32))
        native = grey.resize((width, height), Image.Resampling.BICUBIC)
        restored[rows, columns] = np.asarray(native).clip(0, 1)
        return restored

    def _surround(self, view: np.ndarray) -> np.ndarray:
        """A copy with the margin's zeros around it."""
        sides = ((self.margin, self.margin),) * 2 + ((0, 0),) * (view.ndim - 2)
        return np.pad(view, sides)


def frame_of(fov: np.ndarray, diameter: int = 0, margin: int = 0) -> Frame:
    """The frame around a (H, W) bool FOV in which its diameter is ``diameter`` pixels.

    The diameter is the larger side of the bounding box, so a disc cut off at the top and bottom
    keeps its true scale. 0 keeps the photograph's own scale and only crops. ``margin`` is how many
    pixels of black the frame adds on each side.
    """
    if fov.dtype != bool or fov.ndim != 2 or not fov.any():
        raise ValueError(
            f"fov must be (H, W) bool with at least one True pixel, got {fov.shape} {fov.dtype}"
            f"{' without any' if fov.dtype == bool else ''}"
        )
    if diameter < 0:
        raise ValueError(f"diameter must be 0 (native scale) or more pixels, got {diameter}")
    found = (np.flatnonzero(fov.any(axis)) for axis in (1, 0))
    rows, columns = ((int(inside[0]), int(inside[-1]) + 1) for inside in found)
    native = (rows[1] - rows[0], columns[1] - columns[0])
    scale = diameter / max(native) if diameter else 1
    size = tuple(max(1, round(side * scale)) for side in native)
    return Frame(fov.shape, rows, columns, size, margin)


def fov_diameter(fov: np.ndarray) -> int:
    """Pixels across a (H, W) bool field of view; a disc cut off at two sides keeps its own."""
    return max(frame_of(fov).size)


def _area_mean(array: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Mean of (H, W) bool ``array`` over the area of each pixel of a grid of ``size``, float64.

    Pillow's box filter counts each pixel wholly or not at all, so that halves are common and a
    threshold at one half makes vessels grow by 4 to 9 %.
    """
    down, across = (_overlap(*lengths) for lengths in zip(array.shape, size, strict=True))
    return (across @ (down @ array.view(np.uint8)).T).T


def _overlap(length: int, pixels: int) -> csr_array:
    """How much of each of ``pixels`` new ones each of ``length`` old ones makes up: (new, old)."""
    edges = np.linspace(0, length, pixels + 1)
    cuts = np.union1d(edges, np.arange(length + 1))
    middle = (cuts[:-1] + cuts[1:]) / 2
    places = (np.searchsorted(edges, middle) - 1, middle.astype(int))
    return csr_array((np.diff(cuts) * pixels / length, places), shape=(pixels, length))
