"""Finding the field of view on drawn discs, and bringing photographs to one scale and back."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from retina_utils.datasets.synthetic import draw_fundus
from retina_utils.fov import find_fov


def circle(height=480, width=500, radius=210, cy=240, cx=250):
    """(H, W) bool disc."""
    y, x = np.ogrid[:height, :width]
    return np.hypot(y + 0.5 - cy, x + 0.5 - cx) < radius


def photograph(disc, colour=(170, 70, 30), noise=3):
    """A retina-coloured disc with a vignette and sensor noise on black."""
    rng = np.random.default_rng(0)
    x = np.linspace(0.6, 1, disc.shape[1])
    image = disc[..., None] * np.array(colour) * x[:, None]
    return (image + rng.normal(0, noise, image.shape)).clip(0, 255).astype(np.uint8)


def jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


def test_a_disc_on_black_is_found():
    disc = circle()
    found = find_fov(photograph(disc))
    assert found.dtype == bool and found.shape == disc.shape
    assert iou(found, disc) > 0.99


def test_a_disc_cut_off_at_the_top_and_bottom_keeps_its_sides():
    disc = circle(height=300, radius=220, cy=150)
    assert iou(find_fov(photograph(disc)), disc) > 0.99


def test_a_disc_off_centre_and_cut_off_on_one_side_is_found():
    disc = circle(cx=150)
    assert iou(find_fov(photograph(disc)), disc) > 0.99


def test_straight_black_bars_are_not_part_of_the_fov():
    disc = circle()
    disc[:90] = disc[400:] = False
    assert iou(find_fov(photograph(disc)), disc) > 0.99


@pytest.mark.parametrize("value", [(0, 0, 0), (170, 70, 30)], ids=["notch", "tab"])
def test_a_notch_or_tab_on_the_rim_does_not_bend_the_circle(value):
    disc = circle()
    image = photograph(disc)
    image[220:260, 0 if any(value) else 30 : 55] = value
    found = find_fov(image)
    assert iou(found, disc) > 0.99
    assert not found[240, 30] and found[240, 50]


def test_a_text_label_in_the_corner_is_not_part_of_the_fov():
    disc = circle()
    image = photograph(disc)
    image[5:25, 5:120:3] = 255
    found = find_fov(image)
    assert iou(found, disc) > 0.99
    assert not found[:25, :120].any()


RIMS = {
    "bright": (230, 220, 255),
    "purple": (90, 20, 140),
    "blue": (20, 20, 200),
    "dim": (4, 3, 40),
}


@pytest.mark.parametrize("width", [3, 15])
@pytest.mark.parametrize("colour", RIMS.values(), ids=RIMS)
def test_a_coloured_rim_belongs_to_the_fov(colour, width):
    disc = circle()
    image = photograph(disc)
    image[disc & ~circle(radius=210 - width)] = colour
    assert iou(find_fov(image), disc) > 0.99


def test_light_that_fades_outside_the_disc_does_not_belong_to_the_fov():
    disc = circle()
    y, x = np.ogrid[:480, :500]
    glow = 60 * np.exp(-np.maximum(0, np.hypot(y - 240, x - 250) - 210) / 8)
    image = np.where(disc[..., None], photograph(disc), glow[..., None].astype(np.uint8))
    assert iou(find_fov(image), disc) > 0.985


@pytest.mark.parametrize(("sigma", "pixels"), [(1, 0.5), (2, 0.7), (3, 1.6)])
def test_the_edge_of_a_blurred_disc_is_where_half_the_light_is(sigma, pixels):
    disc = circle(300, 300, 130, 150, 150)
    soft = ndimage.gaussian_filter(disc.astype(float), sigma)[..., None] * [170, 70, 30]
    found = find_fov(soft.astype(np.uint8))
    assert abs(np.sqrt(found.sum() / np.pi) - 130) < pixels


@pytest.mark.parametrize("degrees", [20, 37, 90, 135])
@pytest.mark.parametrize("cut", [0, 60], ids=["whole", "cut off"])
def test_a_turned_photograph_is_found_with_its_straight_sides(cut, degrees):
    disc = circle()
    disc[: 30 + cut] = disc[450 - cut :] = False
    turned = Image.fromarray(photograph(disc, noise=0)).rotate(degrees, expand=True)
    expected = np.asarray(Image.fromarray(disc).rotate(degrees, expand=True))
    assert iou(find_fov(np.asarray(turned)), expected) > 0.985


@pytest.mark.parametrize("factor", [2, 4])
def test_a_smaller_copy_gives_the_same_fov(factor):
    disc = circle(2 * 480, 2 * 500, 420, 480, 500)
    size = (1000 // factor, 960 // factor)
    small = np.asarray(Image.fromarray(photograph(disc)).resize(size, Image.Resampling.BICUBIC))
    y, x = np.ogrid[: size[1], : size[0]]
    expected = np.hypot(y + 0.5 - 480 / factor, x + 0.5 - 500 / factor) < 420 / factor
    assert iou(find_fov(small), expected) > 0.985


@pytest.mark.parametrize("share", [0.3, 0.15])
def test_a_dim_drawn_fundus_gives_the_same_fov(share):
    drawn = draw_fundus(3, (400, 420))
    dim = (drawn.image * share).astype(np.uint8)
    assert iou(find_fov(drawn.image), drawn.fov) > 0.985
    assert iou(find_fov(dim), drawn.fov) > 0.985


def test_dark_photographs_and_noise_in_the_surround_are_coped_with():
    disc = circle()
    assert iou(find_fov(jpeg(photograph(disc, (30, 12, 5), noise=1), 40)), disc) > 0.98
    assert iou(find_fov(jpeg(photograph(disc), 10)), disc) > 0.98
    raised = (photograph(disc) * 0.8 + 30).astype(np.uint8)
    assert iou(find_fov(raised), disc) > 0.99


def test_a_side_that_fades_into_the_surround_is_completed_by_the_circle():
    disc = circle()
    fade = np.clip(np.linspace(0, 2, disc.shape[1]), 0.05, 1)
    image = (photograph(disc, noise=0) * fade[:, None]).astype(np.uint8)
    assert iou(find_fov(image), disc) > 0.97


@pytest.mark.parametrize("channel", [0, 1])
def test_grey_and_single_channel_photographs_are_read(channel):
    disc = circle()
    grey = photograph(disc)[..., 0]
    assert iou(find_fov(grey), disc) > 0.99
    assert iou(find_fov(np.repeat(grey[..., None], 3, axis=-1)), disc) > 0.99
    single = np.zeros((*grey.shape, 3), np.uint8)
    single[..., channel] = grey
    assert iou(find_fov(single), disc) > 0.99


def test_without_a_dark_surround_the_fov_is_the_whole_image():
    everywhere = np.ones((300, 400), bool)
    assert find_fov(photograph(everywhere)).all()
    y, x = np.ogrid[-1:1:300j, -1:1:400j]
    vignette = (photograph(everywhere) * np.exp(-(y**2 + x**2))[..., None]).astype(np.uint8)
    assert find_fov(vignette).all()


def test_black_corners_alone_are_enough_to_find_the_circle():
    disc = circle()[65:415, 75:425]
    assert 0.9 < disc.mean() < 0.99
    assert iou(find_fov(photograph(disc)), disc) > 0.99


@pytest.mark.parametrize("surround", ["black", "white"])
def test_a_white_page_around_a_photograph_is_not_part_of_the_fov(surround):
    disc = circle()
    image = photograph(disc)
    if surround == "white":
        image[~disc] = 255
    page = np.pad(image, ((60, 90), (80, 40), (0, 0)), constant_values=255)
    expected = np.pad(disc, ((60, 90), (80, 40)))
    assert iou(find_fov(page), expected) > 0.985
    assert iou(find_fov(jpeg(page, 75)), expected) > 0.985


def test_a_bright_disc_touching_the_border_is_no_page():
    disc = circle(height=300, radius=220, cy=150)
    image = photograph(disc)
    image[:, 200:300] = 250  # overexposed from the top to the bottom of the photograph
    assert iou(find_fov(image), disc) > 0.99


def test_a_squeezed_disc_is_an_ellipse_and_found_as_one():
    squeezed = np.asarray(Image.fromarray(photograph(circle())).resize((500, 320)))
    found = find_fov(squeezed)
    y, x = np.ogrid[:320, :500]
    ellipse = ((x - 249.5) / 210) ** 2 + ((y - 159.5) / 140) ** 2 < 1
    assert iou(found, ellipse) > 0.98


@pytest.mark.parametrize("size", [64, 32])
def test_very_small_photographs_work(size):
    disc = circle(size, size, 0.42 * size, size / 2, size / 2)
    assert iou(find_fov(photograph(disc)), disc) > 0.9


def test_a_large_photograph_keeps_a_fine_edge():
    disc = circle(2336, 3504, 1630, 1168, 1757)
    image = np.zeros((*disc.shape, 3), np.uint8)
    image[disc] = (170, 70, 30)
    assert iou(find_fov(image), disc) > 0.995


def test_a_black_image_is_refused():
    with pytest.raises(ValueError, match="95 % of the pixels are darker"):
        find_fov(np.zeros((100, 100, 3), np.uint8))


def test_scattered_bright_spots_are_refused():
    spots = sum(circle(300, 400, 25, 150, 35 + 65 * k) for k in range(6)).astype(bool)
    with pytest.raises(ValueError, match="neither a disc nor one compact region"):
        find_fov(photograph(spots, noise=0))


def test_anything_but_bytes_is_refused():
    with pytest.raises(ValueError, match="float64"):
        find_fov(np.zeros((100, 100, 3)))


def barred(glow, fading=False, shape=(480, 560), radius=250):
    """A disc that a glowing film frame cuts off at top and bottom, and what is seen of it."""
    rng = np.random.default_rng(0)
    disc = circle(*shape, radius=radius, cy=shape[0] / 2, cx=shape[1] / 2)
    seen = disc.copy()
    seen[:40] = seen[-30:] = False
    across = np.linspace(1, 0.55, shape[1]) ** 2 if fading else np.ones(shape[1])
    light = np.array((150, 80, 45)) * across[:, None]
    middle = 1 - np.abs(np.linspace(-1, 1, shape[1])) / 2  # it glows most amid
    image = np.where(seen[..., None], light, glow * middle[:, None] * np.array((0.5, 1, 0.5)))
    image[:8] = image[-8:] = 0
    return (image + rng.normal(0, 3, image.shape)).clip(0, 255).astype(np.uint8), seen


@pytest.mark.parametrize("fading", [False, True], ids=["even", "a side in shadow"])
@pytest.mark.parametrize("glow", [0, 15, 30])
def test_bars_that_cut_the_disc_off_are_not_part_of_it_however_they_glow(glow, fading):
    image, seen = barred(glow, fading)
    found = find_fov(image)
    assert not found[:39].any() and not found[-29:].any()
    assert iou(found, seen) > (0.96 if fading else 0.99)


@pytest.mark.parametrize("glow", [15, 45])
def test_bars_at_the_left_and_right_are_found_alike(glow):
    image, seen = barred(glow)
    assert iou(find_fov(np.rot90(image)), np.rot90(seen)) > 0.99


@pytest.mark.parametrize("light", [15, 30])
def test_a_dim_rim_is_no_bar(light):
    disc, rim = circle(radius=210), circle(radius=210) & ~circle(radius=195)
    image = photograph(disc)
    image[rim] = (light * 2, light, light)
    assert iou(find_fov(image), disc) > 0.99


@pytest.mark.parametrize("glow", [0, 20, 30])
def test_a_glowing_surround_between_black_bars_is_not_the_fov(glow):
    disc = circle(height=480, width=560, radius=250, cy=240, cx=280)
    bars, stops = np.ones_like(disc), np.ones_like(disc)
    bars[:14], bars[-14:] = False, False
    stops[:40], stops[-40:] = False, False  # cut the disc off amid the glow
    seen = disc & stops
    image = np.zeros((*disc.shape, 3), np.uint8)
    image[bars] = (glow // 2, glow, glow // 2)
    image[seen] = (130, 80, 50)
    noise = np.random.default_rng(0).integers(0, 8, image.shape)
    found = find_fov((image + noise).astype(np.uint8))
    assert (found & seen).sum() > 0.95 * (found | seen).sum()
