"""Pairs -> tensors: what the network sees of a photograph, cut into patches.

:class:`Preparation` says it once, for training and for prediction; :class:`RetinaDataset` cuts.
"""

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from retina_utils.data import Pair, Sample, load_sample
from retina_utils.frame import Frame, frame_of
from retina_utils.machine.compute import one_thread
from retina_utils.machine.distributed import EpochShuffle
from retina_utils.machine.matrices import tent
from retina_utils.machine.shelf import Shelf, quarter_of_memory

CHANNELS = {"green": 1, "luminance": 1, "rgb": 3}
KEYS = ("image", "vessels", "fov")  # of an item
MODES = ("patches", "whole")
MARGIN = 16  # pixels of black on each side of the FOV
NORMALISATIONS = ("photograph", "local")


class Statistics(NamedTuple):
    """Of one whole photograph in the network's frame."""

    mean: torch.Tensor  # (C, 1, 1) float32 in [0, 1], inside the FOV
    deviation: torch.Tensor  # (C, 1, 1) float32, at least 1/255
    diameter: int  # pixels across the FOV


@dataclass(frozen=True)
class Preparation:
    """What the network sees of a photograph: one choice for training and for prediction.

    Saved in every checkpoint, so that the two cannot differ.
    """

    channels: str = "green"  # "green", "luminance" or "rgb"
    mode: str = "patches"  # "patches" of the photograph, or the "whole" of it at patch size
    patch_size: int = 256  # pixels
    stride: int = 128  # pixels between neighbouring patches of the grid
    fov_diameter: int = 0  # pixels; 0 keeps the native scale
    normalisation: str = "photograph"  # by its mean and deviation, or by those of the "local" area

    def __post_init__(self):
        choices = {"channels": CHANNELS, "mode": MODES, "normalisation": NORMALISATIONS}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise ValueError(f"{name}={found!r}: expected one of {', '.join(known)}")
        if self.patch_size < 16:
            raise ValueError(f"patch_size={self.patch_size}: expected at least 16 pixels")
        if not 0 < self.stride <= self.patch_size:
            raise ValueError(
                f"stride={self.stride}: expected 1 to patch_size={self.patch_size} pixels, "
                "or pixels between the patches would never be seen"
            )
        if self.fov_diameter < 0:
            raise ValueError(f"fov_diameter={self.fov_diameter}: expected pixels, or 0 for native")

    @property
    def n_channels(self) -> int:
        """Channels of the network's input."""
        return CHANNELS[self.channels]

    @classmethod
    def of(cls, parameters: dict) -> "Preparation":
        """The preparation that the notebooks' parameters ask for."""
        return cls(**{name: parameters[name] for name in cls.__dataclass_fields__})

    def as_dict(self) -> dict:
        """All settings, for a checkpoint or a manifest."""
        return asdict(self)

    def frame(self, fov: np.ndarray) -> Frame:
        """The crop and scale that bring a photograph with this FOV into the network's view.

        There is black around it. At the edge of what a network is given its convolutions pad with
        zeros, which black no longer is after the first layer, and lines were drawn that are not.
        """
        if self.mode == "patches":
            return frame_of(fov, self.fov_diameter, MARGIN)
        margin = self.patch_size // 32
        return frame_of(fov, self.patch_size - 2 * margin, margin)

    def view(self, image: np.ndarray, fov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A photograph as the network sees it: (C, h, w) uint8 and its FOV (h, w) bool."""
        frame = self.frame(fov)
        image, fov = frame.view(image), frame.view(fov)
        if self.channels == "green":
            return image[None, ..., 1].copy(), fov
        if self.channels == "luminance":
            return np.asarray(Image.fromarray(image).convert("L"))[None].copy(), fov
        return np.ascontiguousarray(image.transpose(2, 0, 1)), fov

    def normalise(
        self, image: torch.Tensor, fov: torch.Tensor, statistics: "Statistics"
    ) -> torch.Tensor:
        """What the network is given: values around 0 with a deviation around 1, 0 outside the FOV.

        "photograph" takes away mean and deviation of the whole photograph, which keeps where it
        is bright and dark; "local" those of the surroundings, about a tenth of the FOV wide, and
        with them the light of the flash, the eye's pigment and most of the camera's colours.

        Parameters
        ----------
        image : (C, h, w) float32 in [0, 1]
            A photograph or a patch of it.
        fov : (1, h, w) float32 in {0, 1}
        statistics : Statistics
            Of the whole photograph.
        """
        if self.normalisation == "local":
            return normalise_locally(image, fov, statistics.diameter)
        return (image - statistics.mean) / statistics.deviation * fov


class Photograph(NamedTuple):
    """A photograph in the network's frame, as small as it can be kept."""

    image: np.ndarray  # (C, h, w) uint8
    vessels: np.ndarray  # (h, w) uint8, 255 where all of the pixel is vessel
    fov: np.ndarray  # (h, w) bool
    statistics: Statistics


class RetinaDataset(Dataset):
    """Patches of photographs, as a dict of tensors.

    Each item holds ``image`` (C, P, P) float32, normalised (:meth:`Preparation.normalise`) and
    0 outside the FOV; ``vessels`` (1, P, P) float32, the share of each pixel
    that is vessel, which is 0 or 1 at the photograph's own scale; ``fov`` (1, P, P) in {0, 1}.

    Photographs are decoded once; those beyond a quarter of the memory lie on disk. Chance follows
    from ``(seed, epoch, index)``, whatever the number of workers; :meth:`set_epoch` moves on.

    Parameters
    ----------
    pairs : sequence of Pair or Sample
    preparation : Preparation
    patches_per_image : int
        Random patches of each photograph and epoch; 0 takes the grid of overlapping patches.
    vessel_share : float
        Share of the random patches centred on a vessel, not just anywhere inside the FOV.
    augment : callable, optional
        One of :mod:`retina_utils.augment`; it gets a window larger than the patch by its
        ``context``.
    seed : int
        Everything random follows from it.
    diameters : sequence of int, optional
        Pixels across the FOV of each photograph, if not those of the preparation.
    """

    def __init__(
        self,
        pairs: Sequence[Pair | Sample],
        preparation: Preparation,
        *,
        patches_per_image: int = 0,
        vessel_share: float = 0.0,
        augment: Callable | None = None,
        seed: int = 0,
        diameters: Sequence[int] | None = None,
    ):
        if not pairs:
            raise ValueError("RetinaDataset: no photographs given; expected at least one pair")
        self.preparation, self.augment, self.seed = preparation, augment, seed
        self.patches_per_image, self.vessel_share = patches_per_image, vessel_share
        self.epoch, diameters = 0, diameters or [preparation.fov_diameter] * len(pairs)
        if len(diameters) != len(pairs):
            raise ValueError(f"{len(diameters)} diameters for {len(pairs)} photographs")
        self.shelf = Shelf(quarter_of_memory())
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            self.photographs = list(pool.map(self._prepare, pairs, diameters))
        self.items = [
            (which, corner)
            for which, photograph in enumerate(self.photographs)
            for corner in self._corners(*photograph.fov.shape)
        ]

    def _prepare(self, pair: Pair | Sample, diameter: int) -> Photograph:
        """Decode one photograph and bring it into the network's frame."""
        sample = load_sample(pair) if isinstance(pair, Pair) else pair
        preparation = replace(self.preparation, fov_diameter=diameter)
        image, fov = preparation.view(sample.image, sample.fov)
        share = preparation.frame(sample.fov).share(sample.vessels)
        kept = (self.shelf.keep(array) for array in (image, share, fov))
        return Photograph(*kept, statistics_of(image, fov))

    def _corners(self, height: int, width: int) -> list[tuple[int, int] | None]:
        """Grid corners, or None for each patch that will be drawn at random."""
        if self.patches_per_image:
            return [None] * self.patches_per_image
        return patch_grid(height, width, self.preparation.patch_size, self.preparation.stride)

    def set_epoch(self, epoch: int) -> None:
        """Move on to another epoch's random patches (not with ``persistent_workers``)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.items)

    @one_thread()
    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """One patch: drawn or of the grid, changed if wanted, and normalised."""
        which, corner = self.items[index]
        photograph, size = self.photographs[which], self.preparation.patch_size
        rng = np.random.default_rng([self.seed, self.epoch, index])
        if corner is None:
            corner = random_corner(photograph, size, self.vessel_share, rng)
        reach = 0
        if self.augment:
            reach = math.ceil(size * (self.augment.context - 1) / 2) + self.augment.margin
        window = (corner[0] - reach, corner[1] - reach, size + 2 * reach)

        item = {key: cut(getattr(photograph, key), *window) for key in KEYS}
        if self.augment:
            item = self.augment(item, size, seed=int(rng.integers(2**62)))
        else:
            item = as_tensors(item)
        image = self.preparation.normalise(item["image"], item["fov"], photograph.statistics)
        return item | {"image": image}

    def vessel_prevalence(self) -> float:
        """Share of the FOV's area that is vessel, over all photographs."""
        vessels = sum(int(p.vessels[p.fov].sum()) for p in self.photographs) / 255
        return vessels / sum(int(p.fov.sum()) for p in self.photographs)


def make_loader(
    dataset: RetinaDataset, batch_size: int, shuffle: bool, workers: int = 0
) -> DataLoader:
    """Batches of a dataset, the same ones whatever the number of workers."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochShuffle(dataset) if shuffle else None,
        num_workers=workers,
        # A last batch of one has no spread for BatchNorm to measure; the others lose little.
        drop_last=shuffle and len(dataset) > batch_size,
        pin_memory=torch.cuda.is_available(),
    )


def statistics_of(image: np.ndarray, fov: np.ndarray) -> Statistics:
    """Those of a (C, h, w) uint8 photograph and its (h, w) bool FOV."""
    values = np.arange(256) / 255
    found = []
    for channel in image:
        share = np.bincount(channel[fov], minlength=256) / fov.sum()
        mean = share @ values
        found.append((mean, max(np.sqrt(share @ (values - mean) ** 2), 1 / 255)))
    tensors = torch.tensor(found, dtype=torch.float32).T[..., None, None]
    return Statistics(*tensors, max(fov.any(0).sum(), fov.any(1).sum()))


def normalise_locally(image: torch.Tensor, fov: torch.Tensor, diameter: int) -> torch.Tensor:
    """Each pixel against the mean and deviation of its surroundings inside the FOV.

    (C, h, w) float32 in [0, 1] and (1, h, w) float32 in {0, 1} -> (C, h, w) float32 in [-6, 6],
    0 outside. The surroundings are a tent of a fifteenth of the FOV's diameter to each side
    (after Foracchia et al., Medical Image Analysis 2005), worked out at a quarter of the size.
    """
    size = image.shape[-2:]
    side = max(1, round(diameter / 120)) * 2 + 1  # of a box, in quarters

    def smooth(array: torch.Tensor) -> torch.Tensor:
        quarter = F.avg_pool2d(array, 4, ceil_mode=True, count_include_pad=False)
        return tent(quarter.shape[-2], side) @ quarter @ tent(quarter.shape[-1], side)

    def surroundings(array: torch.Tensor) -> torch.Tensor:
        mean = smooth(array * fov[None]) / weight
        wide = (mean.shape[-2] * 4, mean.shape[-1] * 4)
        whole = F.interpolate(mean, size=wide, mode="bilinear", align_corners=False)
        return whole[..., : size[0], : size[1]]

    image, weight = image[None], smooth(fov[None]).clamp(min=1e-3)
    away = (image - surroundings(image)) * fov
    deviation = surroundings(away.square()).sqrt().clamp(min=1 / 255)
    return (away / deviation).clamp(-6, 6)[0]


def patch_grid(height: int, width: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Top-left corners of overlapping patches that cover every pixel, edges included.

    The last row and column are moved inwards to end at the edge. Along a side shorter than
    ``size`` there is one patch, to be padded.

    >>> len(patch_grid(512, 512, size=256, stride=128))
    9
    """

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return [*range(0, last, stride), last]

    return [(top, left) for top in starts(height) for left in starts(width)]


def cut(array: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """A (..., size, size) window of (..., H, W); zeros where it reaches beyond the array."""
    height, width = array.shape[-2:]
    t, b = np.clip([top, top + size], 0, height)
    le, r = np.clip([left, left + size], 0, width)
    out = np.zeros((*array.shape[:-2], size, size), array.dtype)
    out[..., t - top : b - top, le - left : r - left] = array[..., t:b, le:r]
    return out


def as_tensors(item: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A window of a photograph in float32: ``image`` (C, h, w), ``vessels``, ``fov`` (1, h, w).

    Image and vessels come as uint8 and are divided by 255; the FOV comes as bool.
    """
    return {
        "image": torch.from_numpy(item["image"]) / 255,
        "vessels": torch.from_numpy(item["vessels"])[None] / 255,
        "fov": torch.from_numpy(item["fov"])[None].float(),
    }


def random_corner(
    photograph: Photograph, size: int, vessel_share: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Top-left corner of a patch centred inside the FOV, or on a vessel for a set share."""
    allowed = photograph.vessels if rng.random() < vessel_share else photograph.fov
    height, width = allowed.shape
    for _ in range(1000):  # about ten tries find a vessel; the last try is taken as it is
        row, column = int(rng.integers(height)), int(rng.integers(width))
        if allowed[row, column]:
            break
    corner = []
    for middle, side in ((row, height), (column, width)):
        free = side - size  # where there is a choice, none is wasted on the black around the FOV
        edge = min(MARGIN, max(free // 2, 0))
        corner.append(min(max(middle - size // 2, edge), max(free - edge, edge)))
    return tuple(corner)
