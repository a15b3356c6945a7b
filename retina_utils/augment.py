"""Augmentation of a patch: image, vessels and FOV move together, light changes the image only.

Built from ``torchvision.transforms.v2``, which moves a ``tv_tensors.Mask`` with nearest
neighbours, so an annotation stays binary.
"""

import torch
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

# name -> largest rotation (degrees), scale, bend (pixels), light; see Augment
STRENGTHS = {
    "none": None,
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
        smooth = torch.nn.functional.interpolate(coarse, size, mode="bicubic", align_corners=True)
        half = torch.tensor(size[::-1]) / 2  # x counts in widths, y in heights
        return {"displacement": smooth.permute(0, 2, 3, 1) * self.pixels / half}

    def transform(self, inpt, params: dict):
        """Bend one tensor."""
        return functional.elastic(inpt, **params)


class Augment:
    """Random flips, rotation, scale, elastic distortion, brightness, contrast and gamma.

    The patch comes with a margin (``context`` times its size) so that a rotation turns real
    pixels in, not black corners; the middle is cut out at the end.

    Parameters
    ----------
    degrees : float
        Largest rotation either way.
    scale : float
        0.2 means between 0.8 and 1.2 times the size.
    bend : float
        Largest shift of the elastic distortion, in pixels; half of the patches get one.
    light : float
        Largest relative change of brightness and contrast; gamma and colour follow it.
    """

    def __init__(self, degrees: float, scale: float, bend: float, light: float):
        self.context = 1.4 if degrees else 1.0
        geometry = [v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]
        if degrees or scale:
            geometry.append(
                v2.RandomAffine(
                    degrees,
                    scale=(1 - scale, 1 + scale),
                    interpolation=v2.InterpolationMode.BILINEAR,
                )
            )
        if bend:
            geometry.append(v2.RandomApply([Bend(bend)], p=0.5))
        self.geometry = v2.Compose(geometry)
        self.light = light
        self.jitter = v2.ColorJitter(light, light)
        self.colour_jitter = v2.ColorJitter(light, light, light, light / 6)

    def __call__(
        self, item: dict[str, torch.Tensor], size: int, seed: int
    ) -> dict[str, torch.Tensor]:
        """A changed copy of ``item``, cut to ``size``; the same seed gives the same change.

        ``image`` is (C, P', P') in [0, 1], ``vessels`` and ``fov`` (1, P', P') in {0, 1}, and
        P' = size times ``context``.
        """
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


def make_augment(strength: str) -> Augment | None:
    """Augmentation of a named strength: "none", "flips", "light" or "full".

    Raises
    ------
    ValueError
        For another name.
    """
    if strength not in STRENGTHS:
        raise ValueError(f"augment={strength!r}: expected one of {', '.join(STRENGTHS)}")
    settings = STRENGTHS[strength]
    return Augment(*settings) if settings else None
