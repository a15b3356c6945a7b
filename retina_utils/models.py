"""The networks: photographs in, logits out.

Nobody in this file calls sigmoid: the losses want logits, and `predict` makes probabilities.
Both networks take any height and width: they pad inside ``forward`` and crop back.
"""

import inspect
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

NORMS = {
    "batch": nn.BatchNorm2d,
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "group": lambda channels: nn.GroupNorm(math.gcd(8, channels), channels),
}
ACTIVATIONS = {
    "relu": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(inplace=True),
}


class DoubleConv(nn.Sequential):
    """Twice 3x3 convolution, norm, activation: (N, c_in, H, W) -> (N, c_out, H, W)."""

    def __init__(self, c_in: int, c_out: int, norm: str = "batch", activation: str = "relu"):
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel_size=3, padding=1),
            pick("norm", NORMS, norm)(c_out),
            pick("activation", ACTIVATIONS, activation)(),
            nn.Conv2d(c_out, c_out, kernel_size=3, padding=1),
            pick("norm", NORMS, norm)(c_out),
            pick("activation", ACTIVATIONS, activation)(),
        )


class Up(nn.ConvTranspose2d):
    """2x2 transposed convolution, as a faster 1x1: (N, c_in, H, W) -> (N, c_out, 2H, 2W)."""

    def __init__(self, c_in: int, c_out: int):
        super().__init__(c_in, c_out, kernel_size=2, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, _, height, width = x.shape
        weight = self.weight.permute(2, 3, 1, 0).flatten(0, 2)[..., None, None]  # 2, 2, c_out
        x = F.conv2d(x, weight, self.bias.repeat(4)).permute(0, 2, 3, 1)
        x = x.unflatten(-1, (2, 2, -1)).transpose(2, 3)  # (N, H, 2, W, 2, c_out)
        return x.reshape(n, 2 * height, 2 * width, -1).permute(0, 3, 1, 2)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., MICCAI 2015): (N, c_in, H, W) -> (N, 1, H, W) logits.

    Parameters
    ----------
    c_in : int
        Channels of the photograph: 1 (green) or 3.
    widths : sequence of int
        Channels of each level, finest first; the last level is the bottom of the U.
        (64, 128, 256, 512) with one input channel has 7,701,825 parameters.
    norm : "batch", "instance" or "group"
        Normalisation after each convolution; "group" has 8 groups.
    activation : "relu" or "leaky_relu"
    fold : int
        2 lays every 2x2 square of pixels into four channels of half the height and width, and
        unfolds four logits at the end (pixel shuffle, Shi et al., CVPR 2016): the network sees
        and draws every pixel at a quarter of the work. 1 leaves the photograph as it is.
    """

    architecture = "unet"

    def __init__(self, c_in=1, widths=(16, 32, 64, 128), norm="batch", activation="relu", fold=1):
        super().__init__()
        widths = list(widths)
        require_positive(c_in=[c_in], widths=widths, fold=[fold])
        self.settings = {"c_in": c_in, "widths": widths, "norm": norm, "activation": activation}
        self.settings["fold"] = self.fold = fold
        self.takes_any_size = norm == "batch"  # the other norms look at all they are given
        # Four levels halve three times: 2**3 = 8 pixels, of the folded photograph.
        self.multiple = fold * 2 ** (len(widths) - 1)

        block = {"norm": norm, "activation": activation}
        steps = list(itertools.pairwise(widths))  # (16, 32), (32, 64), (64, 128)
        first = (c_in * fold**2, widths[0])
        self.down = nn.ModuleList(DoubleConv(a, b, **block) for a, b in [first, *steps])
        self.up = nn.ModuleList(Up(b, a) for a, b in steps)
        self.fuse = nn.ModuleList(DoubleConv(2 * a, a, **block) for a, _ in steps)
        self.head = nn.Conv2d(widths[0], fold**2, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        x = pad_to_multiple(image, self.multiple, at_least=2 * self.multiple)
        if self.fold > 1:
            x = F.pixel_unshuffle(x, self.fold).contiguous(memory_format=torch.channels_last)
        skips = [self.down[0](x)]  # (N, widths[0], H, W), both divided by fold
        for down in self.down[1:]:
            skips.append(down(F.max_pool2d(skips[-1], 2)))  # (N, widths[i], H/2^i, W/2^i)
        x = skips.pop()
        for up, fuse in zip(reversed(self.up), reversed(self.fuse), strict=True):
            x = fuse(torch.cat([skips.pop(), up(x)], dim=1))
        logits = F.pixel_shuffle(self.head(x), self.fold)
        return logits[..., :height, :width]  # (N, 1, H, W) logits


class Shrink(nn.Sequential):
    """4x4 convolution, norm, LeakyReLU: (N, c_in, H, W) -> (N, c_out, H/2, W/2)."""

    def __init__(self, c_in: int, c_out: int, norm: str | None):
        super().__init__(
            nn.Conv2d(c_in, c_out, kernel_size=4, stride=2, padding=1, bias=False),
            pick("norm", NORMS, norm)(c_out) if norm else nn.Identity(),
            nn.LeakyReLU(0.2),
        )


class Grow(nn.Sequential):
    """ReLU, 4x4 transposed convolution, norm, dropout: (N, c_in, H, W) -> (N, c_out, 2H, 2W)."""

    def __init__(self, c_in: int, c_out: int, norm: str, dropout: float):
        super().__init__(
            nn.ReLU(),
            nn.ConvTranspose2d(c_in, c_out, kernel_size=4, stride=2, padding=1, bias=False),
            pick("norm", NORMS, norm)(c_out),
            nn.Dropout(dropout),
        )


class UNet256(nn.Module):
    """Generator "U-Net 256" of pix2pix (Isola et al., CVPR 2017): (N, c_in, H, W) -> (N, 1, H, W).

    Eight levels shrink 256 pixels to one. As in the paper, the outermost and the innermost level
    have no normalisation (over a single pixel it would give 0), and the three innermost
    blocks on the way up drop half of their channels' values. Logits come out: no tanh.
    ``base_width`` is the channels of the finest level, the deepest five have eight times as many;
    the paper's 64 make 54,407,809 parameters with one input channel.
    """

    architecture = "unet256"

    def __init__(self, c_in=1, base_width=64, norm="batch"):
        super().__init__()
        require_positive(c_in=[c_in], base_width=[base_width])
        self.settings = {"c_in": c_in, "base_width": base_width, "norm": norm}

        widths = [base_width * factor for factor in (1, 2, 4, 8, 8, 8, 8, 8)]
        self.down = nn.ModuleList(
            Shrink(a, b, norm if 0 < level < 7 else None)
            for level, (a, b) in enumerate(itertools.pairwise([c_in, *widths]))
        )
        # Below the bottom of the U nothing comes from a skip; above it, half of the channels do.
        self.up = nn.ModuleList(
            Grow(b if level == 7 else 2 * b, a, norm, dropout=0.5 if level >= 5 else 0.0)
            for level, (a, b) in enumerate(itertools.pairwise(widths), start=1)
        )
        self.head = nn.Sequential(
            nn.ReLU(), nn.ConvTranspose2d(2 * base_width, 1, kernel_size=4, stride=2, padding=1)
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        skips = [pad_to_multiple(image, 256, at_least=256)]
        for down in self.down:
            skips.append(down(skips[-1]))  # H/2, H/4, ... H/256
        x = skips.pop()
        for up in reversed(self.up):
            x = torch.cat([skips.pop(), up(x)], dim=1)
        return self.head(x)[..., :height, :width]  # (N, 1, H, W) logits


ARCHITECTURES = {"unet": UNet, "unet256": UNet256}


def pick(argument: str, choices: dict, value: str):
    """The entry of ``choices`` called ``value``, or an error that lists them."""
    if value not in choices:
        raise ValueError(f"{argument}: unknown {value!r}; choose one of {', '.join(choices)}")
    return choices[value]


def require_positive(**settings: list) -> None:
    """Raise unless each setting holds positive whole numbers, and at least one of them."""
    for name, values in settings.items():
        if not values or not all(isinstance(value, int) and value > 0 for value in values):
            raise ValueError(f"{name}: expected positive whole numbers, got {values}")


def pad_to_multiple(image: torch.Tensor, multiple: int, at_least: int) -> torch.Tensor:
    """Repeat the last row and column until height and width are multiples of ``multiple``.

    ``at_least`` keeps the deepest level of a U above one pixel, which cannot be normalised.
    """
    if image.ndim != 4:
        raise ValueError(f"image: expected a tensor (N, C, H, W), got shape {tuple(image.shape)}")
    below, right = (max(at_least, size + -size % multiple) - size for size in image.shape[-2:])
    return F.pad(image, (0, right, 0, below), mode="replicate") if below or right else image


def build_model(architecture: str, settings: dict) -> nn.Module:
    """A new network, e.g. ``build_model("unet", {"widths": [16, 32, 64, 128]})``."""
    network = pick("architecture", ARCHITECTURES, architecture)
    known = list(inspect.signature(network).parameters)
    if unknown := [name for name in settings if name not in known]:
        raise ValueError(
            f"settings: {architecture} has no {', '.join(map(repr, unknown))}; "
            f"it has {', '.join(known)}"
        )
    return network(**settings)


def network_of(parameters: dict, c_in: int) -> tuple[str, dict]:
    """Architecture and settings from the notebooks' parameters, as :func:`build_model` takes them.

    ``widths``, ``norm``, ``activation`` and ``fold`` make a "unet"; "unet256" uses the first of
    the widths and the norm.
    """
    architecture, norm = parameters["architecture"], parameters["norm"]
    if architecture == "unet256":
        return architecture, {"c_in": c_in, "base_width": parameters["widths"][0], "norm": norm}
    names = ("widths", "norm", "activation", "fold")
    return architecture, {"c_in": c_in, **{name: parameters[name] for name in names}}


def count_parameters(model: nn.Module) -> int:
    """Number of trainable values in the model."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
