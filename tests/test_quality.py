"""Flags for photographs and maps: the good pass, each fault is named, and only that one."""

import numpy as np
import pytest
from conftest import ROOT
from PIL import Image, ImageDraw
from scipy import ndimage

from retina_utils import images
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


def cropped(image):
    """The square within the disc."""
    height, width = image.shape[:2]
    return image[height // 6 : height * 5 // 6, width // 6 : width * 5 // 6]


@pytest.mark.parametrize("gap", [0, 40])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("share", [1, 2])
def test_two_eyes_on_one_picture_are_named(drawn, gap, axis, share):
    image, other = drawn[0], draw_fundus(8, (512, 512)).image
    second = np.zeros_like(image)
    small = np.asarray(Image.fromarray(other).resize((512 * 2 // (1 + share),) * 2))
    second[: len(small), : len(small)] = small
    black = np.zeros((gap, 512, 3) if axis == 0 else (512, gap, 3), np.uint8)
    both = np.concatenate([image, black, second], axis)
    for picture in (both, np.repeat(both[..., 1:2], 3, 2)):
        assert quality.photograph_flags(picture, find_fov(picture)) == [TWO]
    page = np.pad(both, ((60, 60), (60, 60), (0, 0)), constant_values=255)
    assert TWO in quality.photograph_flags(page, find_fov(page))
    alone = np.pad(image, ((60, 60), (60, 60), (0, 0)), constant_values=255)
    assert TWO not in quality.photograph_flags(alone, find_fov(alone))
    whole = np.concatenate([cropped(image), cropped(other)], axis)
    assert quality.photograph_flags(whole, find_fov(whole)) == [SQUARE]


TWO = "bright beside the FOV (two eyes?)"
SQUARE, PALE = "not round (no retina?)", "not red (no retina?)"
PLAIN = "one plain colour (no retina?)"


def landscape(rng):
    """Sky, hills, trees and a sun, 400 x 600."""
    picture = Image.new("RGB", (600, 400), (120, 170, 240))
    pen = ImageDraw.Draw(picture)
    pen.ellipse((400, 40, 470, 110), fill=(255, 240, 180))
    for layer in range(3):
        top = 180 + 60 * layer + rng.normal(0, 6, 41).cumsum()
        ridge = [(15 * x, y) for x, y in enumerate(top)]
        green = (90 - 20 * layer, 130 - 20 * layer, 60)
        pen.polygon([(0, 400), *ridge, (600, 400)], fill=green)
    for x, y in rng.integers((0, 250), (600, 380), (25, 2)).tolist():
        pen.ellipse((x - 15, y - 40, x + 15, y), fill=(30, 90, 30))
    return np.asarray(picture)


def page(ground, ink):
    """Lines of text, 600 x 800."""
    picture = Image.new("RGB", (800, 600), ground)
    pen = ImageDraw.Draw(picture)
    for y in range(40, 560, 20):
        pen.text((50, y), "The quick brown fox jumps over the lazy dog. " * 2, fill=ink)
    return np.asarray(picture)


def negatives():
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (400, 600, 3)).astype(np.uint8)
    soft = ndimage.gaussian_filter(rng.normal(size=(400, 600, 3)), (6, 6, 0))
    ramp = np.linspace(0, 1, 600) * np.ones((400, 1))
    yield "noise", noise, PALE
    yield "grey noise", np.repeat(noise[..., :1], 3, 2), SQUARE
    yield "soft noise", ((soft - soft.min()) / np.ptp(soft) * 255).astype(np.uint8), PALE
    yield "gradient", np.repeat((ramp * 255)[..., None], 3, 2).astype(np.uint8), "low contrast"
    reds = np.stack([100 + ramp * 155, 60 + ramp * 100, 30 + ramp * 50], -1)
    yield "red gradient", reds.astype(np.uint8), "low contrast"
    yield "page", page((240, 225, 190), (60, 40, 30)), PALE
    yield "grey page", page((190, 190, 190), (40, 40, 40)), PLAIN
    yield "landscape", landscape(rng), PALE
    grey = np.repeat(landscape(rng)[..., 1:2], 3, 2)
    yield "grey landscape", grey, SQUARE
    disc = np.hypot(*np.mgrid[-200:200, -200:200]) < 190
    for name, picture in (("noise", noise), ("landscape", landscape(rng))):
        yield f"{name} in a disc", picture[:400, :400] * disc[..., None], PALE


@pytest.mark.parametrize(
    ("name", "picture", "flag"), [pytest.param(*case, id=case[0]) for case in negatives()]
)
def test_pictures_that_are_no_retina_are_named(name, picture, flag):
    assert flag in quality.photograph_flags(picture, find_fov(picture))


def test_the_synthetic_photographs_have_no_flag():
    for file in sorted(ROOT.glob("data/tiny/*/images/*.png")):
        image = images.read_photograph(file)
        assert quality.photograph_flags(image, find_fov(image)) == []
