"""Losses agree with their authorities, mind the field of view, and always give a gradient."""

import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from retina_utils import losses

NAMES = list(losses.LOSSES)


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(3, 1, 24, 20, generator=generator)
    vessels = (torch.rand(3, 1, 24, 20, generator=generator) < 0.2).float()
    fov = torch.ones_like(vessels)
    fov[..., :6] = 0
    return logits, vessels, fov


def make(name):
    return losses.make_loss(name, vessel_share=0.1)


def inside(fov, *tensors):
    return [t[fov.bool()] for t in tensors]


def test_cross_entropies_equal_pytorchs_inside_the_fov(batch):
    logits, vessels, fov = batch
    x, y = inside(fov, logits, vessels)
    expected = F.binary_cross_entropy_with_logits(x, y)
    torch.testing.assert_close(losses.bce_loss(*batch), expected)
    torch.testing.assert_close(make("bce_on_probabilities")(*batch), expected)
    weighted = F.binary_cross_entropy_with_logits(x, y, pos_weight=torch.tensor(9.0))
    torch.testing.assert_close(make("weighted_bce")(*batch), weighted)


def test_focal_loss_equals_torchvisions_inside_the_fov(batch):
    logits, vessels, fov = batch
    x, y = inside(fov, logits, vessels)
    for gamma, alpha in ((2.0, 0.25), (1.5, 0.7)):
        expected = sigmoid_focal_loss(x, y, alpha=alpha, gamma=gamma, reduction="mean")
        torch.testing.assert_close(losses.focal_loss(*batch, gamma, alpha), expected)


def test_soft_dice_of_a_case_by_hand():
    probability = torch.tensor([0.5, 1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    vessels = torch.tensor([1.0, 1.0, 0.0, 1.0]).reshape(1, 1, 2, 2)
    fov = torch.tensor([1.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    # Overlap 1.5, sums 1.5 and 2, eps 1: (2 * 1.5 + 1) / (1.5 + 2 + 1).
    assert losses.soft_dice(probability, vessels, fov).item() == pytest.approx(4 / 4.5)


def test_dice_is_taken_per_image_so_neighbours_in_the_batch_do_not_matter(batch):
    alone = [losses.dice_loss(*(t[i : i + 1] for t in batch)) for i in range(3)]
    torch.testing.assert_close(losses.dice_loss(*batch), torch.stack(alone).mean())


def test_mixtures_are_the_weighted_sums_of_their_parts(batch):
    dice, bce, focal = (make(name)(*batch) for name in ("dice", "bce", "focal"))
    torch.testing.assert_close(losses.bce_dice_loss(*batch, 0.3), 0.7 * bce + 0.3 * dice)
    torch.testing.assert_close(losses.focal_dice_loss(*batch, 0.3), 0.7 * focal + 0.3 * dice)
    torch.testing.assert_close(losses.cldice_loss(*batch, cldice_weight=0), dice)


@pytest.mark.parametrize("name", NAMES)
def test_pixels_outside_the_fov_change_nothing(name, batch):
    logits, vessels, fov = batch
    before = make(name)(logits, vessels, fov)
    outside = fov == 0
    logits, vessels = logits.clone(), vessels.clone()
    logits[outside], vessels[outside] = -logits[outside], 1 - vessels[outside]
    assert torch.equal(make(name)(logits, vessels, fov), before)


@pytest.mark.parametrize("name", NAMES)
def test_better_logits_have_a_lower_loss_and_perfect_ones_nearly_none(name):
    vessels = torch.zeros(1, 1, 32, 32)
    vessels[..., 10:13, :] = 1
    right, fov = 20 * (2 * vessels - 1), torch.ones_like(vessels)
    values = [make(name)(scale * right, vessels, fov).item() for scale in (-1, 0, 0.05, 1)]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 1e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_patches_without_vessels_give_a_finite_loss_and_gradient(name, dtype):
    logits = torch.zeros(2, 1, 256, 256, dtype=dtype).requires_grad_()
    loss = make(name)(logits, torch.zeros(2, 1, 256, 256), torch.ones(2, 1, 256, 256))
    (gradient,) = torch.autograd.grad(loss * 2**16, logits)  # scaled, as float16 training does
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", NAMES)
def test_patches_outside_the_fov_add_neither_loss_nor_gradient(name, batch):
    logits, vessels, fov = batch
    logits.requires_grad_()
    loss = make(name)(logits, vessels, torch.zeros_like(fov))
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert not logits.grad.any()


@pytest.mark.parametrize("name", NAMES)
def test_very_sure_logits_stay_finite(name, batch):
    logits, vessels, fov = batch
    logits = (1e4 * logits).requires_grad_()
    loss = make(name)(logits, vessels, fov)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("name", NAMES)
def test_autocast_changes_nothing(name, batch):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = make(name)(*batch)
    assert torch.equal(under_autocast, make(name)(*batch))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_logits_are_computed_with_in_float32(name, batch):
    logits, vessels, fov = batch
    half = logits.bfloat16()
    assert torch.equal(make(name)(half, vessels, fov), make(name)(half.float(), vessels, fov))


@pytest.mark.parametrize("name", NAMES)
def test_bool_and_integer_annotations_are_cast(name, batch):
    logits, vessels, fov = batch
    expected = make(name)(logits, vessels, fov)
    assert torch.equal(make(name)(logits, vessels.bool(), fov.bool()), expected)
    assert torch.equal(make(name)(logits, vessels.long(), fov.byte()), expected)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_shapes_are_refused_with_the_shapes(name, batch):
    logits, vessels, fov = batch
    with pytest.raises(ValueError, match=r"\(3, 1, 24, 20\), \(3, 24, 20\) and \(3, 1, 24, 20\)"):
        make(name)(logits, vessels[:, 0], fov)
    with pytest.raises(ValueError, match=r"must all be \(N, 1, H, W\)"):
        make(name)(logits[:, 0], vessels[:, 0], fov[:, 0])
    with pytest.raises(ValueError, match=r"must all be \(N, 1, H, W\)"):
        make(name)(*(t.expand(3, 2, 24, 20) for t in batch))


def test_masks_of_255_and_decisions_in_place_of_logits_are_refused(batch):
    logits, vessels, fov = batch
    with pytest.raises(ValueError, match=r"vessels: expected values in \[0, 1\], got 0 to 255"):
        losses.dice_loss(logits, 255 * vessels, fov)
    with pytest.raises(ValueError, match=r"fov: expected values in \[0, 1\], got 0 to 255"):
        losses.dice_loss(logits, vessels, 255 * fov)
    with pytest.raises(TypeError, match=r"logits: expected .* got torch\.bool"):
        losses.dice_loss(logits > 0, vessels, fov)


def test_a_sure_mistake_keeps_its_gradient_on_logits_and_loses_it_on_probabilities():
    vessels, fov = torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1)
    gradients = {}
    for name in ("bce", "bce_on_probabilities"):
        logits = torch.full((1, 1, 1, 1), 30.0, requires_grad=True)
        make(name)(logits, vessels, fov).backward()
        gradients[name] = logits.grad.item()
    assert gradients == {"bce": 1.0, "bce_on_probabilities": 0.0}


def test_the_soft_skeleton_of_a_bar_is_its_centreline():
    bar = torch.zeros(1, 1, 21, 41)
    bar[..., 8:13, 4:37] = 1  # five pixels thick: rows 8 to 12
    skeleton = losses.soft_skeleton(bar, iterations=3)
    assert (skeleton[0, 0, 10, 8:33] == 1).all()
    assert skeleton[0, 0, [8, 9, 11, 12], 8:33].sum() == 0


def test_cldice_minds_a_gap_in_a_thin_vessel_that_dice_hardly_sees():
    vessels = torch.zeros(1, 1, 40, 60)
    vessels[..., 5:16, :] = 1  # a thick vessel
    vessels[..., 30, :] = 1  # a thin one
    shaved, broken, fov = vessels.clone(), vessels.clone(), torch.ones_like(vessels)
    shaved[..., 5, :40] = 0  # 40 pixels off the thick vessel's edge
    broken[..., 30, :40] = 0  # 40 pixels out of the thin vessel

    def loss(found, weight):
        return losses.cldice_loss(40 * found - 20, vessels, fov, cldice_weight=weight, iterations=6)

    assert loss(broken, 0).item() == pytest.approx(loss(shaved, 0).item(), abs=1e-4)
    assert loss(broken, 1) > loss(shaved, 1) + 0.1


def test_the_weight_from_prevalence_balances_the_classes(batch):
    expected = losses.weighted_bce_loss(*batch, vessel_weight=9)
    assert losses.make_loss("weighted_bce", 0.1)(*batch) == pytest.approx(expected)
    for share in (0, 1, -0.1, 10, float("nan")):
        with pytest.raises(ValueError, match="vessel_share"):
            losses.make_loss("weighted_bce", share)


def test_make_loss_lists_the_known_names_and_asks_for_what_it_needs():
    with pytest.raises(ValueError, match=r"unknown 'tversky'; choose one of bce, weighted_bce, .*"):
        losses.make_loss("tversky")
    with pytest.raises(ValueError, match="weighted_bce needs vessel_share"):
        losses.make_loss("weighted_bce")


def test_on_half_a_vessel_the_squared_dice_wants_one_half_and_the_plain_one_all():
    vessels, fov = torch.full((1, 1, 8, 8), 0.5), torch.ones(1, 1, 8, 8)
    probability = torch.linspace(0.02, 0.98, 49)
    logits = [torch.full((1, 1, 8, 8), p.logit().item()) for p in probability]

    def best(loss):
        return probability[min(range(49), key=lambda i: loss(logits[i], vessels, fov))].item()

    assert best(losses.bce_squared_dice_loss) == pytest.approx(0.5, abs=0.03)
    assert best(losses.dice_loss) > 0.9
