"""Augmentation of a patch: image, vessels and FOV move together, light changes the image only.

:class:`Augment` is built from ``torchvision.transforms.v2``; :class:`Cameras` is the stronger one
for networks that are to work on photographs of cameras they have never seen.
"""

import math

import numpy as np
import torch
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from retina_utils.machine import jpeg
from retina_utils.machine.matrices import enlarged
from retina_utils.patches import as_tensors

# name -> largest rotation (degrees), scale, bend (pixels), light; see Augment
STRENGTHS = {
    "flips": (0, 0.0, 0, 0.0),
    "light": (20, 0.1, 0, 0.15),
    "full": (45, 0.2, 4, 0.3),
}


class Bend(v2.Transform):
    """Smooth local distortion by up to about ``pixels``, as another lens or another eye would.

    The displacement is drawn on a coarse grid and enlarged, which is thirty times faster than
    blurring noise at full size (``v2.ElasticTransform``) and as smooth.
    """

    def __init__(self, pixels: float, knots: int = 7):
        super().__init__()
        self.pixels, self.knots = pixels, knots

    def make_params(self, flat_inputs: list) -> dict:
        """One displacement (1, H, W, 2) for all of them, in the half widths of ``elastic``."""
        size = functional.get_size(flat_inputs[0])
        coarse = torch.rand(1, 2, self.knots, self.knots) * 2 - 1
        smooth = F.interpolate(coarse, size, mode="bicubic", align_corners=True)
        half = torch.tensor(size[::-1]) / 2  # x counts in widths, y in heights
        return {"displacement": smooth.permute(0, 2, 3, 1) * self.pixels / half}

    def transform(self, inpt, params: dict):
        """Bend one tensor."""
        return functional.elastic(inpt, **params)


class Augment:
    """Random flips, rotation, scale, elastic distortion, brightness, contrast and gamma.

    The patch comes with more around it (``context`` times its size, and ``margin`` pixels to each
    side) so that real pixels are turned in, not black corners; the middle is cut out at the end.
    v2 moves a mask with nearest neighbours, so a two-valued annotation stays two-valued.

    ``degrees`` is the largest rotation either way; a ``scale`` of 0.2 means 0.8 to 1.2 times the
    size; ``bend`` is the largest shift of the elastic distortion in pixels, which half of the
    patches get; ``light`` the largest relative change of brightness and contrast, which gamma and
    colour follow.
    """

    def __init__(self, degrees: float, scale: float, bend: float, light: float):
        self.context = turned(degrees) / (1 - scale)
        self.margin = math.ceil(bend)
        geometry = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        if degrees or scale:
            options = {"interpolation": v2.InterpolationMode.BILINEAR}
            geometry.append(v2.RandomAffine(degrees, scale=(1 - scale, 1 + scale), **options))
        if bend:
            geometry.append(v2.RandomApply([Bend(bend)], p=0.5))
        self.geometry = v2.Compose(geometry)
        self.light = light
        self.jitter = v2.ColorJitter(light, light)
        self.colour_jitter = v2.ColorJitter(light, light, light, light / 6)

    def __call__(
        self, window: dict[str, np.ndarray], size: int, seed: int
    ) -> dict[str, torch.Tensor]:
        """A changed copy of ``window``, cut to ``size``; the same seed gives the same change.

        ``image`` is (C, P', P') uint8, ``vessels`` (P', P') uint8, 255 for all vessel, ``fov``
        (P', P') bool, and P' = size times ``context``, and twice the ``margin``. What comes out
        is described in :func:`retina_utils.patches.as_tensors`.
        """
        item = as_tensors(window)
        with torch.random.fork_rng(devices=[]):  # v2 draws from the global generator
            torch.random.default_generator.manual_seed(seed)
            image, both = self.geometry(
                tv_tensors.Image(item["image"]),
                tv_tensors.Mask(torch.cat([item["vessels"], item["fov"]])),
            )
            image, both = (
                functional.center_crop(t.as_subclass(torch.Tensor), [size, size])
                for t in (image, both)
            )
            if self.light:
                image = self._relight(image)
        return {"image": image, "vessels": both[:1], "fov": both[1:]}

    def _relight(self, image: torch.Tensor) -> torch.Tensor:
        """Another exposure of the same eye: brightness, contrast, gamma, and colour if RGB."""
        image = (self.colour_jitter if len(image) == 3 else self.jitter)(image)
        gamma = float(torch.empty(()).uniform_(-self.light, self.light).exp())
        return functional.adjust_gamma(image, gamma)


class Cameras:
    """The same eye through another camera: turned, scaled, lit, coloured and focused otherwise.

    Geometry is one bilinear sampling of image, vessels and FOV together, so a vessel's edge is
    blurred once and its share of a pixel kept; :class:`Augment` samples up to three times.

    ``degrees`` is the largest rotation either way; a ``scale`` of 1.4 means between 1/1.4 and 1.4
    times the size, evenly on a logarithmic scale. ``light`` is the strength of all that changes
    the image alone: at 1, each colour channel takes up to a quarter of each other one; gamma, for
    each channel, and a smooth field of illumination lie between exp(-1/2) and exp(1/2); noise has
    a deviation of up to 0.04. ``unsharp`` is the share of the patches that lose detail, as if
    taken at 0.3 to 0.8 times the resolution, ``squeezed`` of those kept as JPEG of quality 25 to
    75, and ``grey`` of those whose channels all become green.
    """

    def __init__(
        self,
        degrees: float = 30,
        scale: float = 1.4,
        light: float = 0.6,
        unsharp: float = 0.25,
        squeezed: float = 0.25,
        grey: float = 0.1,
    ):
        self.degrees, self.scale, self.light = degrees, scale, light
        self.unsharp, self.squeezed, self.grey = unsharp, squeezed, grey
        self.context, self.margin = scale * turned(degrees), 0

    def __call__(
        self, window: dict[str, np.ndarray], size: int, seed: int
    ) -> dict[str, torch.Tensor]:
        """See :meth:`Augment.__call__`."""
        rng = np.random.default_rng(seed)
        item = self._move(window, size, rng)
        image = item["image"]
        if self.light and item["fov"].any():
            image = _same_statistics(self._relight(image, rng), image, item["fov"])
        if rng.random() < self.unsharp:
            image = _lose_detail(image, rng.uniform(0.3, 0.8))
        if self.light:
            deviation = rng.uniform(-0.03, 0.04) * self.light
            if deviation > 0:  # in four patches of seven
                image = image + deviation * torch.from_numpy(rng.standard_normal(image.shape, "f4"))
        image = image.clamp(0, 1)
        if rng.random() < self.squeezed:
            image = jpeg.squeezed(image, int(rng.integers(25, 76)))
        return item | {"image": image}

    def _move(self, window: dict, size: int, rng: np.random.Generator) -> dict[str, torch.Tensor]:
        """Flip, turn and scale about the middle."""
        zoom = math.exp(rng.uniform(-1, 1) * math.log(self.scale))
        turn = math.radians(rng.uniform(-self.degrees, self.degrees))
        across, down = rng.choice([-1, 1], 2)
        # Only the part of the window that this turn and zoom can reach is turned into floats.
        whole = window["fov"].shape[0]
        reach = size / zoom * (abs(math.cos(turn)) + abs(math.sin(turn))) / 2 + 2
        part = min(whole, 2 * math.ceil(reach) + whole % 2)
        first = (whole - part) // 2
        inner = {k: a[..., first : first + part, first : first + part] for k, a in window.items()}
        stack = torch.cat(list(as_tensors(inner).values()))[None]

        # Where each pixel comes from: grid_sample's (x, y), -1 to 1 across the part.
        steps = torch.linspace(1 - size, size - 1, size) / (zoom * part)
        cos, sin = math.cos(turn), math.sin(turn)
        along = torch.stack([steps * (cos * across), steps * (sin * across)], dim=1)
        below = torch.stack([steps * (-sin * down), steps * (cos * down)], dim=1)
        grid = (along + below[:, None])[None]
        moved = F.grid_sample(stack, grid, align_corners=False)[0]
        return {"image": moved[:-2], "vessels": moved[-2:-1], "fov": (moved[-1:] > 0.99).float()}

    def _relight(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Another sensor, flash and exposure."""

        def draw(limit: float, *shape: int) -> torch.Tensor:
            limit = limit * self.light
            return torch.from_numpy(rng.uniform(-limit, limit, shape).astype(np.float32))

        channels = len(image)
        mixture = torch.eye(channels) + draw(0.25, channels, channels)
        if rng.random() < self.grey:
            mixture = mixture[torch.full([channels], channels // 2)]  # all from green
        mixture = mixture / mixture.sum(1, keepdim=True).clamp(min=0.3)
        image = torch.einsum("ij,jhw->ihw", mixture, image).clamp(min=0) + 1e-3
        image = image ** draw(0.5, channels, 1, 1).exp()
        field = draw(0.5, 1, 1, 4, 4)
        field = enlarged(4, image.shape[-2]) @ field[0] @ enlarged(4, image.shape[-1]).T
        return image * (field + draw(0.3, 1, 1, 1)).exp()


def _same_statistics(changed: torch.Tensor, image: torch.Tensor, fov: torch.Tensor) -> torch.Tensor:
    """``changed`` (C, P, P) with the mean and deviation of ``image`` inside the FOV.

    The photograph's own are taken away first, so no camera can make a change of them alone.
    """

    def statistics(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = (picture * fov).sum((1, 2), keepdim=True) / area
        variance = (picture.square() * fov).sum((1, 2), keepdim=True) / area - mean.square()
        return mean, variance.clamp(min=1 / 255**2).sqrt()

    area = fov.sum()
    mean, deviation = statistics(changed)
    wanted_mean, wanted_deviation = statistics(image)
    factor = wanted_deviation / deviation
    return changed * factor + (wanted_mean - mean * factor)


def _lose_detail(image: torch.Tensor, factor: float) -> torch.Tensor:
    """(C, P, P) at ``factor`` times its resolution, brought back to its size."""
    size = image.shape[-1]
    small = functional.resize(image, [max(1, round(size * factor))] * 2)
    return functional.resize(small, [size, size], antialias=False)


def turned(degrees: float) -> float:
    """How much wider a square has to be for a square turned by up to ``degrees`` to fit in it."""
    turn = math.radians(min(degrees, 45))
    return math.cos(turn) + math.sin(turn)


def make_augment(strength: str) -> Augment | Cameras | None:
    """Augmentation of a named strength: "none", "flips", "light", "full" or "cameras".

    Raises
    ------
    ValueError
        For another name.
    """
    if strength in ("none", "cameras"):
        return Cameras() if strength == "cameras" else None
    if strength not in STRENGTHS:
        names = ", ".join(["none", *STRENGTHS, "cameras"])
        raise ValueError(f"augment={strength!r}: expected one of {names}")
    return Augment(*STRENGTHS[strength])
