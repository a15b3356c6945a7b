"""The networks keep sizes, learn, and say what is wrong with their settings."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from retina_utils import models
from retina_utils.losses import bce_dice_loss

SMALL = {"unet": {"widths": [4, 8, 8]}, "unet256": {"base_width": 2}}


def small(architecture, **settings):
    torch.manual_seed(0)
    return models.build_model(architecture, SMALL[architecture] | settings)


def test_the_starting_notebooks_network_has_its_number_of_parameters():
    with torch.device("meta"):
        model = models.UNet(c_in=1, widths=(64, 128, 256, 512))
    assert models.count_parameters(model) == 7_701_825


def test_unet256_has_the_number_of_parameters_that_pix2pix_reports():
    with torch.device("meta"):
        one_channel = models.count_parameters(models.UNet256(c_in=1))
        three_channels = models.count_parameters(models.UNet256(c_in=3))
    assert one_channel == 54_407_809
    # pix2pix puts out 3 channels: two more of 128 * 4 * 4 weights and a bias. It logs 54.414 M.
    assert round((three_channels + 2 * (128 * 16 + 1)) / 1e6, 3) == 54.414


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
@pytest.mark.parametrize("norm", models.NORMS)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (32, 32), (33, 70), (256, 31)])
def test_any_size_and_norm_gives_logits_of_that_size_in_training_too(architecture, norm, size):
    model = small(architecture, norm=norm)
    for training in (True, False):
        logits = model.train(training)(torch.rand(1, 1, *size))
        assert logits.shape == (1, 1, *size)
        assert torch.isfinite(logits).all()


@pytest.mark.parametrize(("architecture", "right", "below"), [("unet", 0, 2), ("unet256", 12, 6)])
def test_padding_repeats_the_border_and_crops_back(architecture, right, below):
    model, image = small(architecture).eval(), torch.rand(1, 1, 250, 244)
    by_hand = model(F.pad(image, (0, right, 0, below), mode="replicate"))[..., :250, :244]
    assert torch.equal(model(image), by_hand)


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (64, 64)])
def test_a_folded_unet_sees_and_draws_every_pixel(size):
    model = small("unet", fold=2, c_in=3, norm="group", activation="leaky_relu")
    image = torch.rand(1, 3, *size, requires_grad=True)
    logits = model(image)
    assert logits.shape == (1, 1, *size)
    logits.square().sum().backward()
    assert (image.grad.abs().sum(1) > 0).all()
    # Neighbours within a folded square get logits of their own.
    assert logits.unique().numel() > 0.99 * logits.numel()


def test_the_notebooks_parameters_make_a_network():
    parameters = {"architecture": "unet", "widths": [4, 8], "norm": "batch", "fold": 2}
    parameters |= {"activation": "relu", "seed": 0}
    model = models.build_model(*models.network_of(parameters, 3))
    assert model.settings["c_in"] == 3 and model.settings["fold"] == 2
    other = models.build_model(*models.network_of(parameters | {"architecture": "unet256"}, 1))
    assert other.settings == {"c_in": 1, "base_width": 4, "norm": "batch"}


def test_the_input_is_left_as_it_was():
    image = torch.rand(2, 1, 32, 32)
    before = image.clone()
    for architecture in models.ARCHITECTURES:
        small(architecture)(image)
    assert torch.equal(image, before)


def test_outputs_are_logits_not_probabilities():
    for architecture in models.ARCHITECTURES:
        logits = small(architecture)(10 * torch.randn(2, 1, 64, 64))
        assert logits.min() < 0


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_every_weight_gets_a_gradient(architecture):
    model = small(architecture)
    model(torch.rand(2, 1, 256, 256)).square().sum().backward()
    idle = [
        name
        for name, p in model.named_parameters()
        if p.grad is None or (name.endswith("weight") and not p.grad.any())
    ]
    assert idle == []


@pytest.mark.parametrize("norm", models.NORMS)
def test_a_small_unet_memorises_one_patch(norm):
    model = small("unet", norm=norm, activation="leaky_relu")
    image = torch.rand(2, 1, 32, 32)
    vessels, fov = (image > 0.8).float(), torch.ones_like(image)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = bce_dice_loss(model(image), vessels, fov)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_bfloat16_and_channels_last_run_and_agree_roughly():
    model, image = small("unet").eval(), torch.rand(1, 1, 30, 30)
    expected = model(image)
    model, image = (x.to(memory_format=torch.channels_last) for x in (model, image))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (model(image) - expected).abs().max() < 0.1


def test_unet256_normalises_and_drops_where_pix2pix_does():
    model = models.UNet256(base_width=2)
    normalised = [isinstance(block[1], nn.BatchNorm2d) for block in model.down]
    assert normalised == [False] + 6 * [True] + [False]
    assert [block[-1].p for block in model.up] == 4 * [0.0] + 3 * [0.5]  # finest to deepest


@pytest.mark.parametrize(
    ("architecture", "settings", "message"),
    [
        ("u-net", {}, "architecture: unknown 'u-net'; choose one of unet, unet256"),
        (
            "unet",
            {"width": [4]},
            "unet has no 'width'; it has c_in, widths, norm, activation, fold",
        ),
        ("unet", {"norm": "layer"}, "norm: unknown 'layer'; choose one of batch, instance, group"),
        ("unet256", {"norm": None}, "norm: unknown None"),
        ("unet", {"activation": "gelu"}, "activation: unknown 'gelu'"),
        ("unet", {"widths": []}, "widths: expected positive whole numbers"),
        ("unet", {"widths": [8, 0]}, r"got \[8, 0\]"),
        ("unet", {"c_in": 1.0}, "c_in: expected positive whole numbers"),
        ("unet256", {"base_width": -1}, "base_width: expected positive"),
    ],
)
def test_wrong_settings_are_refused_by_name(architecture, settings, message):
    with pytest.raises(ValueError, match=message):
        models.build_model(architecture, settings)


def test_an_image_without_a_batch_axis_is_refused():
    with pytest.raises(ValueError, match=r"\(N, C, H, W\), got shape \(1, 32, 32\)"):
        small("unet")(torch.rand(1, 32, 32))
