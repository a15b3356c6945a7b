"""Photographs come to one scale and back, and vessels keep their area on the way."""

import numpy as np
import pytest
from skimage.transform import downscale_local_mean
from test_fov import circle, photograph

from retina_utils.frame import Frame, frame_of


def vessels_on(disc):
    """Curved lines 4 to 9 pixels wide, as (H, W) bool."""
    y, x = np.ogrid[: disc.shape[0], : disc.shape[1]]
    lines = [np.abs(y - c - 30 * np.sin(x / 60)) < w for c, w in ((90, 2), (200, 3), (330, 4.5))]
    return disc & (lines[0] | lines[1] | lines[2] | (np.abs(x - y) < 3))


def test_the_native_frame_only_crops():
    disc = circle()
    frame = frame_of(disc)
    image = photograph(disc)
    assert frame == Frame((480, 500), (30, 450), (40, 460), (420, 420))
    np.testing.assert_array_equal(frame.view(image), image[30:450, 40:460])
    vessels = vessels_on(disc)
    np.testing.assert_array_equal(frame.restore(frame.view(vessels).astype(np.float32)), vessels)


def test_the_diameter_is_the_larger_side_of_a_disc_cut_off_at_the_top_and_bottom():
    frame = frame_of(circle(height=300, radius=220, cy=150), diameter=220)
    assert frame.size == (150, 220)
    assert frame.view(np.zeros((300, 500, 3), np.uint8)).shape == (150, 220, 3)


@pytest.mark.parametrize("diameter", [250, 300, 389, 600, 1000])
def test_resampling_keeps_the_area_of_the_vessels(diameter):
    disc = circle()
    vessels, frame = vessels_on(disc), frame_of(disc, diameter)
    view = frame.view(vessels)
    assert view.dtype == bool and view.shape == (diameter, diameter)
    assert view.mean() == pytest.approx(vessels[30:450, 40:460].mean(), rel=0.04)


@pytest.mark.parametrize(("diameter", "least"), [(300, 0.95), (389, 0.97), (600, 0.99)])
def test_a_perfect_vessel_map_survives_the_way_there_and_back(diameter, least):
    disc = circle()
    vessels, frame = vessels_on(disc), frame_of(disc, diameter)
    restored = frame.restore(frame.view(vessels).astype(np.float32)) >= 0.5
    dice = 2 * (restored & vessels).sum() / (restored.sum() + vessels.sum())
    assert dice > least


def test_a_bool_map_is_averaged_over_area_as_scikit_image_does_it():
    vessels = np.random.default_rng(0).random((90, 120)) < 0.4
    frame = Frame((90, 120), (0, 90), (0, 120), (30, 40))
    np.testing.assert_array_equal(frame.view(vessels), downscale_local_mean(vessels, (3, 3)) >= 0.5)


def test_a_photograph_is_anti_aliased_when_it_shrinks():
    stripes = np.zeros((400, 400), np.uint8)
    stripes[::2] = 200  # one pixel wide: picking single pixels would give 0 or 200
    view = Frame((400, 400), (0, 400), (0, 400), (130, 130)).view(stripes)
    assert np.abs(view[2:-2].astype(int) - 100).max() < 15


def test_what_is_restored_stays_a_probability_and_is_zero_outside_the_crop():
    frame = frame_of(circle(), diameter=97)
    probability = np.random.default_rng(0).integers(0, 2, (97, 97)).astype(np.float64)
    restored = frame.restore(probability)
    assert restored.dtype == np.float32 and restored.shape == (480, 500)
    assert restored.min() == 0 and restored.max() == 1
    restored[30:450, 40:460] = 0
    assert not restored.any()


def test_frames_refuse_what_does_not_fit():
    frame = frame_of(circle(), diameter=100)
    with pytest.raises(ValueError, match="frame's photograph"):
        frame.view(np.zeros((10, 10), bool))
    with pytest.raises(TypeError, match="float32"):
        frame.view(np.zeros((480, 500), np.float32))
    with pytest.raises(ValueError, match=r"\(100, 100\)"):
        frame.restore(np.zeros((480, 500), np.float32))
    with pytest.raises(ValueError, match="at least one True"):
        frame_of(np.zeros((5, 5), bool))
    with pytest.raises(ValueError, match="-1"):
        frame_of(circle(), diameter=-1)


def test_a_margin_is_black_in_every_view_and_gone_on_the_way_back():
    disc = circle()
    bare, frame = frame_of(disc, diameter=200), frame_of(disc, diameter=200, margin=7)
    image, vessels = photograph(disc), vessels_on(disc)
    views = [(f.view(image), f.view(vessels), f.share(vessels)) for f in (bare, frame)]
    for plain, wide in zip(*views, strict=True):
        assert wide.shape[:2] == (214, 214) and wide.dtype == plain.dtype
        np.testing.assert_array_equal(wide[7:-7, 7:-7], plain)
        assert wide.sum(dtype=float) == plain.sum(dtype=float)
    probability = views[0][2] / 255
    np.testing.assert_array_equal(frame.restore(np.pad(probability, 7)), bare.restore(probability))
    with pytest.raises(ValueError, match=r"expected the frame's size \(214, 214\)"):
        frame.restore(probability)
