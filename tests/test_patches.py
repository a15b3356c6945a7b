"""Patches cover, repeat, and never turn annotations grey; augmentation moves all together."""

import math

import numpy as np
import pytest
import torch
from conftest import TINY

from retina_utils import data, images
from retina_utils.augment import STRENGTHS, make_augment
from retina_utils.data import load_data
from retina_utils.patches import Preparation, RetinaDataset, patch_grid


def dataset_of(sample, count, strength, seed=0):
    """Some augmented patches of one photograph."""
    augment = make_augment(strength)
    options = {"patches_per_image": count, "augment": augment, "seed": seed}
    return RetinaDataset([sample], Preparation(), **options)


@pytest.mark.parametrize(
    "wrong, words",
    [
        ({"channels": "grey"}, "one of green, luminance, rgb"),
        ({"mode": "tiles"}, "expected one of patches, whole"),
        ({"patch_size": 8}, "at least 16"),
        ({"stride": 300}, "never be seen"),
        ({"fov_diameter": -1}, "or 0 for native"),
    ],
)
def test_a_senseless_preparation_is_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        Preparation(**wrong)


@pytest.mark.parametrize("shape", [(512, 512), (257, 700), (256, 256), (100, 90), (960, 999)])
def test_the_grid_covers_every_pixel_and_stays_inside(shape):
    covered = np.zeros(shape, int)
    for top, left in patch_grid(*shape, size=256, stride=128):
        assert top >= 0 and left >= 0
        assert top + 256 <= max(shape[0], 256) and left + 256 <= max(shape[1], 256)
        covered[top : top + 256, left : left + 256] += 1
    assert covered.min() >= 1


def test_a_512_pixel_photograph_makes_nine_patches():
    assert len(patch_grid(512, 512, 256, 128)) == 9


def test_each_photograph_can_have_a_diameter_of_its_own(sample):
    preparation = Preparation(fov_diameter=200, patch_size=64, stride=64)
    dataset = RetinaDataset([sample, sample, sample], preparation, diameters=[200, 400, 100])
    plain = RetinaDataset([sample], preparation)
    assert [p.statistics.diameter for p in dataset.photographs] == [200, 400, 100]
    assert (dataset.photographs[0].image == plain.photographs[0].image).all()
    with pytest.raises(ValueError, match="2 diameters for 1 photographs"):
        RetinaDataset([sample], preparation, diameters=[200, 400])


@pytest.mark.parametrize("channels, count", [("green", 1), ("luminance", 1), ("rgb", 3)])
def test_channels_are_those_of_the_photograph(sample, channels, count):
    preparation = Preparation(channels=channels)
    seen, fov = preparation.view(sample.image, sample.fov)
    assert seen.shape == (count, *fov.shape) and preparation.n_channels == count
    framed = preparation.frame(sample.fov).view(sample.image).astype(float)
    weights = {"green": [0, 1, 0], "luminance": [0.299, 0.587, 0.114], "rgb": [1, 0, 0]}[channels]
    assert np.abs(seen[0] - framed @ weights).max() <= 1


def test_the_network_sees_a_standardised_photograph(sample):
    item = RetinaDataset([sample], Preparation(patch_size=512, stride=512))[0]
    inside = item["image"][:, item["fov"][0] > 0]
    assert abs(inside.mean()) < 1e-3 and abs(inside.std() - 1) < 1e-2
    assert not item["image"][:, item["fov"][0] == 0].any()


def test_whole_mode_shows_the_whole_photograph_in_one_patch(sample):
    dataset = RetinaDataset([sample], Preparation(mode="whole", patch_size=128, stride=64))
    assert len(dataset) == 1
    fov = dataset[0]["fov"][0]
    assert fov[4:-4, 4:-4].mean() == pytest.approx(np.pi / 4, abs=0.03)  # a disc in its square
    assert fov.sum() == fov[4:-4, 4:-4].sum()


@pytest.mark.parametrize("mode", ["patches", "whole"])
def test_the_fov_never_meets_the_edge_of_what_the_network_is_given(sample, mode):
    preparation = Preparation(patch_size=512, stride=512, mode=mode)
    taught = RetinaDataset([sample], preparation)[0]["fov"][0].numpy() > 0
    _, predicted = preparation.view(sample.image, sample.fov)
    for fov in (taught, predicted):
        assert fov.any() and not (fov[0].any() or fov[:, 0].any())
    assert not (predicted[-1].any() or predicted[:, -1].any())


@pytest.mark.parametrize("strength", ["none", *STRENGTHS])
def test_masks_stay_black_and_white_through_every_change(sample, strength):
    dataset = RetinaDataset(
        [sample], Preparation(), patches_per_image=4, augment=make_augment(strength)
    )
    for index in range(4):
        item = dataset[index]
        for key in ("vessels", "fov"):
            assert item[key].shape == (1, 256, 256)
            assert set(item[key].unique().tolist()) <= {0.0, 1.0}
        assert item["image"].dtype == torch.float32


@pytest.mark.parametrize("strength", ["full", "cameras"])
def test_image_and_vessels_move_together(sample, strength):
    # A photograph that *is* its annotation has to stay so through rotation, scale and bend.
    picture = np.repeat(sample.vessels[..., None], 3, axis=2).astype(np.uint8) * 255
    twin = sample._replace(image=picture, fov=np.ones_like(sample.fov))
    augment = make_augment(strength)
    augment.light = augment.unsharp = augment.squeezed = 0.0
    dataset = RetinaDataset([twin], Preparation(), patches_per_image=6, augment=augment)
    for index in range(6):
        item = dataset[index]
        dark, bright = item["image"].min(), item["image"].max()
        seen = (item["image"] - dark) / (bright - dark) > 0.5
        agreement = (seen == (item["vessels"] > 0.5)).float().mean()
        assert agreement > 0.96


@pytest.mark.parametrize("strength", ["full", "cameras"])
def test_augmentation_keeps_the_vessels_share(sample, strength):
    plain = RetinaDataset([sample], Preparation(), patches_per_image=40, seed=1)
    changed = RetinaDataset(
        [sample], Preparation(), patches_per_image=40, seed=1, augment=make_augment(strength)
    )
    shares = [
        sum(d[i]["vessels"].sum().item() for i in range(40))
        / sum(d[i]["fov"].sum().item() for i in range(40))
        for d in (plain, changed)
    ]
    assert shares[1] == pytest.approx(shares[0], rel=0.15)


@pytest.mark.parametrize("strength", ["full", "cameras"])
def test_a_patch_depends_on_seed_epoch_and_index_alone(sample, strength):
    def make(seed=0):
        return RetinaDataset(
            [sample], Preparation(), patches_per_image=4, augment=make_augment(strength), seed=seed
        )

    first, again, other = make(), make(), make(seed=1)
    torch.rand(5)  # the global generator plays no part
    assert torch.equal(first[2]["image"], again[2]["image"])
    assert not torch.equal(first[2]["image"], first[1]["image"])
    assert not torch.equal(first[2]["image"], other[2]["image"])
    again.set_epoch(1)
    assert not torch.equal(first[2]["image"], again[2]["image"])


def test_another_camera_changes_the_light_but_not_what_standardising_takes_away(sample):
    green = np.repeat(sample.image[..., 1:2], 3, axis=2)
    coloured = sample._replace(image=green)
    plain = RetinaDataset([coloured], Preparation(channels="rgb"), patches_per_image=8, seed=2)
    changed = RetinaDataset(
        [coloured],
        Preparation(channels="rgb"),
        patches_per_image=8,
        augment=make_augment("cameras"),
        seed=2,
    )
    grey, seen = plain[0]["image"], [changed[i] for i in range(8)]
    assert torch.equal(grey[0], grey[2])
    assert any((item["image"][0] - item["image"][2]).abs().max() > 0.2 for item in seen)
    for item in seen:
        inside = item["image"][:, item["fov"][0] > 0]
        assert inside.mean(1).abs().max() < 1.5 and inside.std(1).min() > 0.2


def test_scaled_vessels_are_the_share_of_each_pixel(sample):
    half = Preparation(fov_diameter=128, patch_size=160, stride=128)
    vessels = RetinaDataset([sample], half)[0]["vessels"]
    frame = half.frame(sample.fov)
    whole = sample.vessels[slice(*frame.rows), slice(*frame.columns)].mean()
    assert vessels[0, 16:-16, 16:-16].mean() == pytest.approx(whole, rel=0.01)
    assert len(vessels.unique()) > 20  # not two-valued
    share = RetinaDataset([sample], half).vessel_prevalence()
    assert share == pytest.approx(sample.vessels[sample.fov].mean(), rel=0.03)


def test_local_normalisation_takes_away_light_and_gain(sample):
    local = Preparation(normalisation="local")
    light = np.linspace(0.5, 0.9, sample.fov.shape[1])[:, None]  # darker to the left
    lit = sample._replace(image=(sample.image * light).astype(np.uint8))
    pictures = {}
    for preparation in (local, Preparation()):
        pair = [RetinaDataset([s], preparation)[0] for s in (sample, lit)]
        inside = pair[0]["fov"] > 0
        difference = (pair[0]["image"] - pair[1]["image"])[inside].abs().mean()
        pictures[preparation.normalisation] = difference.item()
        values = pair[0]["image"][inside]
        assert abs(values.mean()) < 0.15 and 0.7 < values.std() < 1.3
        assert not pair[0]["image"][~inside].any()
    assert pictures["local"] < 0.4 * pictures["photograph"]
    with pytest.raises(ValueError, match="expected one of photograph, local"):
        Preparation(normalisation="global")


def test_augmentation_leaves_the_global_generator_alone(sample):
    dataset = RetinaDataset(
        [sample], Preparation(), patches_per_image=1, augment=make_augment("full")
    )
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    dataset[0]
    assert torch.equal(torch.rand(3), expected)


def test_balanced_sampling_centres_patches_on_vessels(sample):
    def centre_is_vessel(share):
        dataset = RetinaDataset(
            [sample],
            Preparation(patch_size=32, stride=32),
            patches_per_image=60,
            vessel_share=share,
        )
        return np.mean([dataset[i]["vessels"][0, 16, 16].item() for i in range(60)])

    assert centre_is_vessel(0.0) < 0.35
    assert centre_is_vessel(1.0) > 0.8


def test_each_photograph_is_decoded_once(monkeypatch):
    pairs = load_data(TINY).validation
    calls = []
    read = images.read_photograph
    monkeypatch.setattr(data, "read_photograph", lambda path: calls.append(path) or read(path))
    dataset = RetinaDataset(pairs, Preparation(), patches_per_image=5)
    for _ in range(2):
        [dataset[i] for i in range(len(dataset))]
    assert sorted(calls) == sorted(pair.image for pair in pairs)


def test_prevalence_counts_inside_the_fov(sample):
    expected = sample.vessels[sample.fov].mean()
    assert RetinaDataset([sample], Preparation()).vessel_prevalence() == pytest.approx(expected)


def test_unknown_augmentation_and_no_photographs_are_refused():
    with pytest.raises(ValueError, match="expected one of none, flips, light, full, cameras"):
        make_augment("wild")
    with pytest.raises(ValueError, match="no photographs given"):
        RetinaDataset([], Preparation())


@pytest.mark.parametrize("strength", ["flips", "light", "full", "cameras"])
@pytest.mark.parametrize("size", [32, 256])
def test_only_real_pixels_are_turned_in(strength, size):
    augment = make_augment(strength)
    reach = math.ceil(size * (augment.context - 1) / 2) + augment.margin
    wide = size + 2 * reach
    window = {"image": np.full((1, wide, wide), 200, np.uint8), "fov": np.ones((wide, wide), bool)}
    window["vessels"] = np.zeros((wide, wide), np.uint8)
    for seed in range(40):
        assert augment(window, size, seed)["fov"].min() == 1
