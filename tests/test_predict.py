"""Whole photographs: no seam, any size, nothing outside the FOV."""

import numpy as np
import pytest
import torch
from torch import nn

from retina_utils import predict
from retina_utils.checkpoint import Network, load_network
from retina_utils.machine.compute import OutOfMemory
from retina_utils.metrics import histogram, roc_auc
from retina_utils.models import UNet
from retina_utils.patches import Preparation
from retina_utils.predict import patch_weight, predict_image


class Pixelwise(nn.Module):
    """Says "vessel" for dark pixels and looks at nothing else, so that patches cannot differ."""

    def __init__(self):
        super().__init__()
        self.slope = nn.Parameter(torch.tensor(-1.0))

    def forward(self, image):
        return self.slope * image[:, :1]


class Edgy(Pixelwise):
    """Right in the middle of a patch and wrong in its corner, like a network short of context."""

    def forward(self, image):
        logits = super().forward(image).clone()
        logits[..., :8, :] = 20.0
        return logits


def net(model, **preparation):
    return Network(model, Preparation(**preparation))


def photograph(height, width, seed=0):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)
    return image, np.ones((height, width), bool)


@pytest.mark.parametrize("shape", [(100, 90), (256, 256), (300, 411)])
def test_a_pixelwise_network_leaves_no_seam(shape):
    image, fov = photograph(*shape)
    found = predict_image(net(Pixelwise()), image, fov, precision="float32")
    green = image[..., 1] / 255
    expected = 1 / (1 + np.exp((green - green.mean()) / green.std()))
    assert found.shape == shape and found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-5


def test_patch_borders_count_less_than_middles():
    image, fov = photograph(400, 400)
    right, found = (
        predict_image(net(model, patch_size=128, stride=64), image, fov)
        for model in (Pixelwise(), Edgy())
    )
    inner = np.abs(found - right)[100:300, 100:300]
    assert inner.max() < 0.15  # a plain mean would be off by up to a half
    assert patch_weight(128).min() > 0


def test_a_network_of_surroundings_gets_all_at_once_and_any_other_its_own_patches(sample):
    seen = []
    for norm in ("batch", "instance"):
        model = UNet(widths=(4, 8), norm=norm)
        model.register_forward_pre_hook(lambda model, given: seen.append(tuple(given[0].shape)))
        predict_image(net(model, patch_size=64, stride=32), sample.image, sample.fov)
    assert seen[0][0] == 1 and min(seen[0][2:]) > max(sample.fov.any(0).sum(), 200)
    assert {shape[2:] for shape in seen[1:]} == {(64, 64)}


def test_a_photograph_too_large_to_be_given_at_once_leaves_no_seam(sample, monkeypatch):
    torch.manual_seed(0)
    model = UNet(widths=(4, 8)).eval()
    nn.init.normal_(model.head.weight)
    options = {"fov": sample.fov, "precision": "float32"}
    network = net(model, patch_size=64, stride=32)
    whole = predict_image(network, sample.image, **options)
    monkeypatch.setattr(predict, "LARGEST", 200)
    tiled = predict_image(network, sample.image, **options)
    assert 0 < np.abs(tiled - whole).max() < 0.02


def test_nothing_is_predicted_outside_the_fov(sample):
    found = predict_image(net(UNet(widths=(4, 8))), sample.image, sample.fov)
    assert found.shape == sample.fov.shape
    assert not found[~sample.fov].any() and found[sample.fov].any()
    assert found.min() >= 0 and found.max() <= 1


def test_a_missing_fov_is_found(sample):
    given = predict_image(net(Pixelwise()), sample.image, sample.fov)
    found = predict_image(net(Pixelwise()), sample.image)
    assert np.abs(given - found)[sample.fov].mean() < 0.02


def test_batch_size_changes_nothing(sample):
    network = net(UNet(widths=(4, 8)).eval(), patch_size=64, stride=32)
    maps = [
        predict_image(network, sample.image, sample.fov, batch_size=n, precision="float32")
        for n in (1, 16)
    ]
    assert np.abs(maps[0] - maps[1]).max() < 1e-5


def test_flips_make_the_prediction_follow_a_flipped_photograph(sample):
    torch.manual_seed(0)
    model = UNet(widths=(4, 8))
    nn.init.normal_(model.head.weight)  # an untrained head says nearly the same everywhere
    network, options = net(model, fov_diameter=128), {"flips": True, "precision": "float32"}
    straight = predict_image(network, sample.image, sample.fov, **options)
    mirrored = predict_image(network, sample.image[:, ::-1], sample.fov[:, ::-1], **options)
    assert np.abs(straight - mirrored[:, ::-1]).mean() < 2e-3
    plain = predict_image(network, sample.image, sample.fov)
    assert np.abs(straight - plain).max() > 1e-3


@pytest.mark.parametrize("diameter", [0, 160, 500])
def test_the_map_comes_back_at_native_size_and_in_place(sample, diameter):
    found = predict_image(net(Pixelwise(), fov_diameter=diameter), sample.image, sample.fov)
    # Dark pixels are likelier vessels: the map has to lie on the photograph it came from.
    assert roc_auc(histogram(found, sample.vessels, sample.fov)) > 0.6


def test_where_memory_runs_out_half_as_many_patches_are_taken_at_a_time(sample):
    class Greedy(Pixelwise):
        holds = 3

        def forward(self, image):
            if len(image) > self.holds:
                raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
            return super().forward(image)

    fine = {"patch_size": 64, "stride": 32}
    expected = predict_image(net(Pixelwise(), **fine), sample.image, sample.fov)
    greedy = net(Greedy(), **fine)
    found = predict_image(greedy, sample.image, sample.fov, batch_size=8)
    assert np.array_equal(found, expected)
    greedy.model.holds = 0
    with pytest.raises(OutOfMemory, match="Out of memory"):
        predict_image(greedy, sample.image, sample.fov)


def test_training_mode_is_given_back(sample):
    model = UNet(widths=(4, 8)).train()
    predict_image(net(model), sample.image, sample.fov)
    assert model.training


def test_wrong_arrays_are_refused(sample):
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        predict_image(net(Pixelwise()), sample.image / 255, sample.fov)
    with pytest.raises(ValueError, match="with 0 pixels inside"):
        predict_image(net(Pixelwise()), sample.image, np.zeros_like(sample.fov))


def test_a_bare_model_does_not_say_what_it_was_taught_to_see(sample):
    with pytest.raises(TypeError, match=r"UNet, which does not say .*load_network\(path\)"):
        predict_image(UNet(), sample.image, sample.fov)


def test_the_network_in_the_box_sees_colour_without_being_told(sample):
    network = load_network("pretrained")
    assert network.preparation.channels == "rgb" and 0 < network.threshold < 1
    found = predict_image(network, sample.image, sample.fov)
    assert roc_auc(histogram(found, sample.vessels, sample.fov)) > 0.8


def crossed(width: int, size: int = 300):
    """A bright disc with two dark vessels of a width, and its FOV."""
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    fov = rows**2 + columns**2 < (size / 2) ** 2
    vessels = ((np.abs(rows) < width / 2) | (np.abs(columns) < width / 2)) & fov
    return np.where(vessels, 60, 200)[..., None].repeat(3, 2).astype(np.uint8) * fov[..., None], fov


@pytest.mark.parametrize(("width", "expected"), [(12, 200), (6, 400), (24, 200 / 2**0.5)])
def test_a_photograph_is_seen_at_the_scale_of_what_was_learned(width, expected, monkeypatch):
    seen, average = [], predict.average_views

    def spy(network, *arguments, **options):
        seen.append(network.preparation.fov_diameter)
        return average(network, *arguments, **options)

    monkeypatch.setattr(predict, "average_views", spy)
    network = net(Pixelwise(), fov_diameter=200, patch_size=64, stride=32)
    usual = predict_image(network, *crossed(width))
    assert seen == [200]
    network.facts["learned_width"] = 0.04  # 12 of 300 pixels
    found = predict_image(network, *crossed(width))
    assert seen[-1] == pytest.approx(expected, rel=0.12) and len(seen) <= 4
    assert found.shape == usual.shape


def test_a_photograph_with_hardly_a_vessel_keeps_the_usual_scale():
    image, fov = np.full((300, 300, 3), 200, np.uint8), np.ones((300, 300), bool)
    image[150:153, 150:153] = 60  # the one dark place
    network = net(Pixelwise(), fov_diameter=200, patch_size=64, stride=32)
    network.facts["learned_width"] = 0.04
    assert (
        predict.at_fitting_scale(network, image, fov, batch_size=1, precision="float32").preparation
        == network.preparation
    )
