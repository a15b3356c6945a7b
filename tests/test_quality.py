"""Flags for photographs and maps: the good pass, each fault is named, and only that one."""

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from retina_utils.commands import quality
from retina_utils.datasets.synthetic import draw_fundus
from retina_utils.fov import find_fov


@pytest.fixture(scope="module")
def drawn():
    drawing = draw_fundus(3, (512, 512))
    return drawing.image, drawing.vessels, find_fov(drawing.image)


def changed(image, how):
    if how == "blurred":
        return ndimage.gaussian_filter(image, (7, 7, 0))
    if how == "too dark":
        return (image * 0.15).astype(np.uint8)
    mean = image.reshape(-1, 3).mean(0)
    return (mean + (image - mean) * 0.1).astype(np.uint8)


def test_a_good_photograph_has_no_flag_at_any_size_and_in_grey(drawn):
    image, _, _ = drawn
    grey = np.repeat(image[..., 1:2], 3, axis=2)
    small = np.asarray(Image.fromarray(image).reduce(2))
    large = np.asarray(Image.fromarray(image).resize((1500, 1500), Image.Resampling.BICUBIC))
    for picture in (image, grey, small, large, np.rot90(image)):
        picture = np.ascontiguousarray(picture)
        assert quality.photograph_flags(picture, find_fov(picture)) == []


@pytest.mark.parametrize("fault", ["blurred", "too dark", "low contrast"])
def test_each_fault_is_named(drawn, fault):
    image, _, fov = drawn
    assert fault in quality.photograph_flags(changed(image, fault), fov)


def test_implausible_maps_are_named(drawn):
    _, vessels, fov = drawn
    sure = np.where(vessels, 0.9, 0.01).astype(np.float32)
    assert quality.map_flags(sure, vessels & fov, fov) == []
    nothing = np.zeros_like(vessels)
    assert quality.map_flags(sure, nothing, fov) == ["hardly any vessels"]
    everywhere = ndimage.binary_dilation(vessels, iterations=6)
    assert quality.map_flags(np.where(everywhere, 0.9, 0), everywhere, fov) == ["too many vessels"]
    assert quality.map_flags(np.where(vessels, 0.7, 0.1), vessels & fov, fov) == ["unsure"]


def test_masks_are_told_from_photographs(drawn):
    image, vessels, fov = drawn
    for mask in (vessels, fov):
        for colour in ([255, 255, 255], [255, 0, 0], [0, 0, 255], [0, 90, 0]):
            picture = mask[..., None] * np.array(colour, np.uint8)
            assert quality.is_drawing(picture)
    assert quality.is_drawing(np.where(vessels[..., None], [255, 0, 0], [0, 0, 255]).astype("u1"))
    assert not quality.is_drawing(image)
    assert not quality.is_drawing((image * 0.1).astype(np.uint8))
    assert not quality.is_drawing(image * np.array([0, 1, 0], np.uint8))
    assert not quality.is_drawing(np.zeros_like(image))
