"""What training minimises: logits, vessels and field of view in, one number out.

Every loss counts pixels inside the field of view only, works in float32 whatever the network
computed in, and stays finite with a gradient on patches without any vessel. A patch without any
field of view adds nothing.

Common parameters
-----------------
logits : (N, 1, H, W) float tensor
    Raw network output, of any floating type.
vessels, fov : (N, 1, H, W) tensors
    1 = vessel, 1 = inside the field of view. bool and integer tensors are cast; values outside
    [0, 1] (a mask of 0/255) are refused.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor


def bce_loss(logits: Tensor, vessels: Tensor, fov: Tensor) -> Tensor:
    """Binary cross-entropy: every pixel has one vote, so it calibrates the probabilities."""
    return weighted_bce_loss(logits, vessels, fov, vessel_weight=1.0)


def bce_on_probabilities_loss(logits: Tensor, vessels: Tensor, fov: Tensor) -> Tensor:
    """Cross-entropy after a sigmoid, as networks that end in one are trained.

    Prefer `bce_loss`: in float32 a sigmoid rounds to 1 from logits of 17 on, and a mistake as
    sure as that has no gradient left here. 1e-7 from 0 and 1 the logarithm is held.
    """
    logits, vessels, fov = prepare(logits, vessels, fov)
    probability = logits.sigmoid().clamp(1e-7, 1 - 1e-7)
    loss = -(vessels * probability.log() + (1 - vessels) * (1 - probability).log())
    return fov_mean(loss, fov)


def weighted_bce_loss(logits: Tensor, vessels: Tensor, fov: Tensor, vessel_weight: float) -> Tensor:
    """Cross-entropy in which each vessel pixel counts ``vessel_weight`` times."""
    logits, vessels, fov = prepare(logits, vessels, fov)
    weight = logits.new_tensor(vessel_weight)
    loss = F.binary_cross_entropy_with_logits(logits, vessels, pos_weight=weight, reduction="none")
    return fov_mean(loss, fov)


def dice_loss(logits: Tensor, vessels: Tensor, fov: Tensor) -> Tensor:
    """1 - soft Dice of each image, then the mean over images (Milletari et al., 3DV 2016)."""
    logits, vessels, fov = prepare(logits, vessels, fov)
    return 1 - soft_dice(logits.sigmoid(), vessels, fov).mean()


def bce_dice_loss(logits: Tensor, vessels: Tensor, fov: Tensor, dice_weight: float = 0.5) -> Tensor:
    """Cross-entropy and Dice loss mixed; ``dice_weight`` 0 is pure cross-entropy, 1 pure Dice.

    Cross-entropy ranks the pixels; Dice gives the vessels back what their small share takes away.
    """
    bce, dice = bce_loss(logits, vessels, fov), dice_loss(logits, vessels, fov)
    return (1 - dice_weight) * bce + dice_weight * dice


def bce_squared_dice_loss(logits: Tensor, vessels: Tensor, fov: Tensor) -> Tensor:
    """Two parts cross-entropy and one part Dice with squares in its denominator.

    The squares are those of V-Net (Milletari et al., 3DV 2016). Where an annotation says that
    half of a pixel is vessel, this Dice is best at one half; the plain one is best at 1.
    """
    bce = bce_loss(logits, vessels, fov)
    logits, vessels, fov = prepare(logits, vessels, fov)
    dice = soft_dice(logits.sigmoid(), vessels, fov, squared=True)
    return (2 * bce + 1 - dice.mean()) / 3


def focal_loss(
    logits: Tensor, vessels: Tensor, fov: Tensor, gamma: float = 2.0, alpha: float = 0.25
) -> Tensor:
    """Focal loss (Lin et al., ICCV 2017): cross-entropy that fades where the network is right.

    ``gamma`` says how fast; 0 is cross-entropy. ``alpha`` is the weight of the vessels, and the
    background has 1 - alpha. The defaults are the paper's.
    """
    logits, vessels, fov = prepare(logits, vessels, fov)
    bce = F.binary_cross_entropy_with_logits(logits, vessels, reduction="none")
    probability = logits.sigmoid()
    wrong = vessels * (1 - probability) + (1 - vessels) * probability
    weight = vessels * alpha + (1 - vessels) * (1 - alpha)
    return fov_mean(weight * wrong**gamma * bce, fov)


def focal_dice_loss(
    logits: Tensor, vessels: Tensor, fov: Tensor, dice_weight: float = 0.5
) -> Tensor:
    """Focal loss and Dice loss mixed."""
    focal, dice = focal_loss(logits, vessels, fov), dice_loss(logits, vessels, fov)
    return (1 - dice_weight) * focal + dice_weight * dice


def cldice_loss(
    logits: Tensor, vessels: Tensor, fov: Tensor, cldice_weight: float = 0.5, iterations: int = 5
) -> Tensor:
    """Dice loss mixed with centreline Dice (Shit et al., CVPR 2021), which minds broken vessels.

    ``cldice_weight`` 0 is pure Dice. ``iterations`` are erosions of the soft skeleton: at least
    half the width, in pixels, of the widest vessel.
    """
    logits, vessels, fov = prepare(logits, vessels, fov)
    probability, vessels = logits.sigmoid() * fov, vessels * fov
    centre, true_centre = soft_skeleton(probability, iterations), soft_skeleton(vessels, iterations)
    on_vessels = ((centre * vessels).sum((1, 2, 3)) + 1) / (centre.sum((1, 2, 3)) + 1)
    found = ((true_centre * probability).sum((1, 2, 3)) + 1) / (true_centre.sum((1, 2, 3)) + 1)
    cldice = (2 * on_vessels * found / (on_vessels + found)).mean()
    dice = soft_dice(probability, vessels, fov).mean()
    return 1 - (1 - cldice_weight) * dice - cldice_weight * cldice


def soft_dice(
    probability: Tensor, vessels: Tensor, fov: Tensor, eps: float = 1.0, squared: bool = False
) -> Tensor:
    """Soft Dice of each image: (N, 1, H, W) probabilities -> (N,); without vessels not 0/0.

    ``squared`` sums the squares of both in the denominator.
    """
    probability, vessels = (probability * fov).flatten(1), (vessels * fov).flatten(1)
    overlap = (probability * vessels).sum(1)
    if squared:
        probability, vessels = probability.square(), vessels.square()
    return (2 * overlap + eps) / (probability.sum(1) + vessels.sum(1) + eps)


def soft_skeleton(probability: Tensor, iterations: int) -> Tensor:
    """Differentiable centreline of (N, 1, H, W) probabilities: what each erosion cannot reopen."""
    skeleton = torch.zeros_like(probability)
    for _ in range(iterations + 1):
        eroded = soft_erode(probability)
        ridge = F.relu(probability - F.max_pool2d(eroded, 3, stride=1, padding=1))
        skeleton = skeleton + (1 - skeleton) * ridge
        probability = eroded
    return skeleton


def soft_erode(probability: Tensor) -> Tensor:
    """Each pixel takes the smallest value of itself and its four neighbours."""
    column = F.max_pool2d(-probability, (3, 1), stride=1, padding=(1, 0))
    row = F.max_pool2d(-probability, (1, 3), stride=1, padding=(0, 1))
    return -torch.maximum(column, row)


def fov_mean(loss: Tensor, fov: Tensor) -> Tensor:
    """Mean over the pixels inside the field of view; 0 where there are none."""
    return (loss * fov).sum() / fov.sum().clamp(min=1)


def prepare(logits: Tensor, vessels: Tensor, fov: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The three as float32, or an error that says what is wrong with them."""
    if not logits.shape == vessels.shape == fov.shape or logits.ndim != 4 or logits.shape[1] != 1:
        raise ValueError(
            "logits, vessels and fov must all be (N, 1, H, W), got "
            f"{tuple(logits.shape)}, {tuple(vessels.shape)} and {tuple(fov.shape)}; "
            "a missing channel axis is added with [:, None]"
        )
    if not logits.is_floating_point():
        raise TypeError(f"logits: expected the network's floating output, got {logits.dtype}")
    vessels, fov = vessels.float(), fov.float()
    for name, values in {"vessels": vessels, "fov": fov}.items():
        if not ((values >= 0) & (values <= 1)).all():  # nan fails, too
            low, high = values.min().item(), values.max().item()
            raise ValueError(
                f"{name}: expected values in [0, 1], got {low:g} to {high:g}; divide 0/255 by 255"
            )
    return logits.float(), vessels, fov


# By the names of the notebooks' `loss` parameter; each takes logits, vessels, fov.
LOSSES = {
    "bce": bce_loss,
    "weighted_bce": weighted_bce_loss,  # and a vessel_weight, which make_loss binds
    "bce_on_probabilities": bce_on_probabilities_loss,
    "dice": dice_loss,
    "bce_dice": bce_dice_loss,
    "bce_squared_dice": bce_squared_dice_loss,
    "focal": focal_loss,
    "focal_dice": focal_dice_loss,
    "cldice": cldice_loss,
}


def make_loss(name: str, vessel_share: float | None = None) -> Callable:
    """The loss called ``name``: a function of (logits, vessels, fov).

    ``vessel_share``, the vessels' share of the training pixels inside the FOV, sets the weight of
    "weighted_bce", which gives vessels and background the same say: a share of 0.1 weighs 9. The
    others do without it.
    """
    if name not in LOSSES:
        raise ValueError(f"loss: unknown {name!r}; choose one of {', '.join(LOSSES)}")
    if name != "weighted_bce":
        return LOSSES[name]
    if vessel_share is None or not 0 < vessel_share < 1:
        raise ValueError(
            f"loss: weighted_bce needs vessel_share, the vessels' share of the FOV, in (0, 1); "
            f"got {vessel_share}"
        )
    return partial(weighted_bce_loss, vessel_weight=(1 - vessel_share) / vessel_share)
