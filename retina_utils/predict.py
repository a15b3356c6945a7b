"""A photograph -> the probability of vessel for each of its pixels."""

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from retina_utils.checkpoint import Network
from retina_utils.fov import find_fov
from retina_utils.frame import fov_diameter
from retina_utils.intake import scale
from retina_utils.machine.compute import OutOfMemory, autocast, explain_memory
from retina_utils.patches import cut, patch_grid, statistics_of

FLIPS = ((), (-1,), (-2,), (-2, -1))
LARGEST = 1536  # pixels: a side of what is given to a network at once; about 1 GiB of memory
OVERLAP = 128  # pixels that neighbours of that size share
LOOKS = 2  # at most, to find the scale


@torch.inference_mode()
def predict_image(
    network: Network,
    image: np.ndarray,
    fov: np.ndarray | None = None,
    *,
    flips: bool = False,
    batch_size: int = 8,
    precision: str = "auto",
) -> np.ndarray:
    """The probability of vessel for every pixel of a photograph.

    The photograph is cropped to its FOV and brought to the network's scale, and the map returns
    to the photograph's own size. A network that only looks at a pixel's surroundings is given all
    of it at once, up to 1536 pixels a side; any other, and larger ones, overlapping patches, which
    are averaged *as probabilities*, each weighted less towards its border where it saw less around.

    Parameters
    ----------
    network : Network
        Of :func:`retina_utils.checkpoint.load_network`; its device is used. A bare model, which
        does not say what it was taught to see, is a TypeError.
    image : (H, W, 3) uint8
    fov : (H, W) bool, optional
        Found in the photograph if not given.
    flips : bool
        Average over the four mirror images too: four times the work, a little better.
    batch_size : int
        Patches at once, fewer where memory holds no more; no result depends on it.
    precision : "auto", "bfloat16" or "float32"

    Returns
    -------
    probability : (H, W) float32 in [0, 1], zero outside the FOV
    """
    if not isinstance(network, Network):
        raise TypeError(
            f"network is a {type(network).__name__}, which does not say what it was taught to "
            "see. Take load_network(path), or Network(model, Preparation(...))."
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}; expected (H, W, 3) uint8")
    fov = find_fov(image) if fov is None else fov
    if fov.shape != image.shape[:2] or not fov.any():
        raise ValueError(
            f"fov is {fov.shape} with {int(fov.sum())} pixels inside; "
            f"expected {image.shape[:2]} and some inside"
        )
    options = {"batch_size": batch_size, "precision": precision}
    network = at_fitting_scale(network, image, fov, **options)
    return average_views(network, image, fov, FLIPS if flips else FLIPS[:1], **options)


def at_fitting_scale(network: Network, image: np.ndarray, fov: np.ndarray, **options) -> Network:
    """The network with the diameter of the FOV at which vessels are as wide as those it learned.

    One whose facts tell that ``learned_width``, a share of the diameter it learned at, looks once
    or twice to see how wide they are (:mod:`retina_utils.intake.scale`); another stays as it is.
    """
    usual, learned = network.preparation.fov_diameter, network.facts.get("learned_width")
    for _ in range(LOOKS if learned else 0):
        found = width_seen(network, image, fov, **options)
        diameter = scale.fitting_diameter(usual, learned, found, fov_diameter(fov))
        if abs(diameter / network.preparation.fov_diameter - 1) < scale.NEAR:
            break
        network = replace(network, preparation=replace(network.preparation, fov_diameter=diameter))
    return network


def width_seen(network: Network, image: np.ndarray, fov: np.ndarray, **options) -> float:
    """How wide the widest vessels are that it draws, as a share of the FOV's diameter."""
    probability = average_views(network, image, fov, FLIPS[:1], **options)
    return scale.widest(probability >= 0.5, fov_diameter(fov))


@torch.inference_mode()
def average_views(
    network: Network, image: np.ndarray, fov: np.ndarray, views: tuple, **options
) -> np.ndarray:
    """The mean over mirror images, each given by the axes it is turned in: (H, W) float32."""
    model, preparation = network.model, network.preparation
    small, inside = preparation.view(image, fov)
    tensor = preparation.normalise(
        torch.from_numpy(small) / 255,
        torch.from_numpy(inside)[None].float(),
        statistics_of(small, inside),
    ).numpy()

    was_training = model.training
    model.eval()
    probability = sum(
        np.flip(average_patches(network, np.flip(tensor, axes), **options), axes) for axes in views
    ) / len(views)
    model.train(was_training)
    return preparation.frame(fov).restore(probability) * fov


def average_patches(
    network: Network, tensor: np.ndarray, batch_size: int, precision: str
) -> np.ndarray:
    """Weighted mean of overlapping patches: (C, H, W) float32 -> (H, W) float32 in [0, 1]."""
    model, size, stride = network.model, network.preparation.patch_size, network.preparation.stride
    height, width = tensor.shape[-2:]
    device = next(model.parameters()).device
    if getattr(model, "takes_any_size", False):
        size, batch_size = max(size, min(max(height, width), LARGEST)), 1
        stride = max(size - OVERLAP, size // 2)
    corners = patch_grid(height, width, size, stride)
    weight = patch_weight(size)
    total = np.zeros((max(height, size), max(width, size)), np.float32)
    weights = np.zeros_like(total)
    for start in range(0, len(corners), batch_size):
        part = corners[start : start + batch_size]
        patches = torch.from_numpy(np.stack([cut(tensor, *corner, size) for corner in part]))
        patches = patches.to(device).contiguous(memory_format=torch.channels_last)
        probabilities = _logits(model, patches, precision).sigmoid()[:, 0].cpu().numpy()
        for (top, left), probability in zip(part, probabilities, strict=True):
            total[top : top + size, left : left + size] += probability * weight
            weights[top : top + size, left : left + size] += weight
    return (total / weights)[:height, :width]


def _logits(model: nn.Module, patches: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits (N, 1, P, P) float32; half of the patches at a time where memory holds no more."""
    try:
        with explain_memory(patches.shape), autocast(patches.device, precision):
            return model(patches).float()
    except OutOfMemory:
        if len(patches) == 1:
            raise
    halves = patches.tensor_split(2)  # here what the failed try held has been let go
    return torch.cat([_logits(model, half, precision) for half in halves])


def patch_weight(size: int) -> np.ndarray:
    """How much each pixel of a patch counts: (size, size) float32, 1 amid, above 0 at edges."""
    ramp = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    ramp = (ramp / ramp.max()).astype(np.float32)
    return np.outer(ramp, ramp)
