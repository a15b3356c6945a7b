"""Drawings that cannot be right, those that are another eye's, and the same eye twice."""

import shutil
from contextlib import suppress

import numpy as np
import pytest
from conftest import TINY
from PIL import Image, ImageOps
from scipy import ndimage

from retina_utils import data, images
from retina_utils.data import DataError, load_data
from retina_utils.intake import checks, likeness

TURNS = {"mirrored": ImageOps.mirror, "upside down": lambda image: image.rotate(180)}


def redraw(file, change):
    """Change a picture in its file."""
    with Image.open(file) as image:
        changed = change(image.copy())
    changed.save(file)


def swap(one, other):
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def test_right_drawings_follow_dark_vessels_and_nothing_is_doubtful(sample):
    look = checks.look_closely(sample.image, sample.fov, sample.vessels, sample.vessels)
    assert look.fits and not look.wrong and not look.doubts


def test_bright_vessels_of_an_angiogram_fit_too(sample):
    negative = np.where(sample.fov[..., None], 255 - sample.image, 0).astype(np.uint8)
    assert checks.look_closely(negative, sample.fov, sample.vessels).fits


@pytest.mark.parametrize("turn", TURNS)
def test_a_mask_that_is_mirrored_or_turned_is_named(tiny, capsys, turn):
    redraw(tiny / "training" / "masks" / "img_0003_mask.png", TURNS[turn])
    load_data(tiny)
    out = capsys.readouterr().out
    assert out.count("does not lie on the photograph's vessels") == 1
    assert "img_0003_mask.png: does not lie" in out and "Mirrored or turned it does" in out


def test_two_masks_that_are_swapped_are_both_named(tiny, capsys):
    masks = tiny / "training" / "masks"
    swap(masks / "img_0003_mask.png", masks / "img_0004_mask.png")
    load_data(tiny)
    out = capsys.readouterr().out
    assert all(f"img_000{n}_mask.png: does not lie" in out for n in (3, 4))
    assert out.count("does not lie") == 2 and "another eye" in out


def test_a_second_observers_mask_of_another_eye_is_named(tiny, capsys):
    for split in ("training", "validation", "test"):
        (tiny / split / "second").mkdir()
        for file in (tiny / split / "masks").iterdir():
            second = tiny / split / "second" / file.name.replace("_mask", "_second")
            shutil.copy(file, second)
    second = tiny / "test" / "second"
    swap(second / "img_0011_second.png", second / "img_0012_second.png")
    load_data(tiny)
    assert "img_0011_second.png: does not lie" in capsys.readouterr().out


def test_a_split_most_of_whose_masks_are_mirrored_is_refused(tiny):
    for name in ("img_0011", "img_0012", "img_0013"):
        redraw(tiny / "test" / "masks" / f"{name}_mask.png", ImageOps.mirror)
    with pytest.raises(DataError, match="test split: 3 of 4 drawings lie on no vessels") as e:
        load_data(tiny)
    assert "img_0013_mask.png" in str(e.value)


def vessels_as_fov(folder):
    shutil.copy(folder / "masks" / "img_0011_mask.png", folder / "fov" / "img_0011_fov.png")


def one_pixel(folder):
    fov = np.zeros((312, 280), bool)
    fov[150, 140] = True
    images.write_png(folder / "fov" / "img_0011_fov.png", fov)


def inverted(folder):
    redraw(folder / "fov" / "img_0011_fov.png", lambda image: ImageOps.invert(image.convert("L")))


def other_vessels_as_fov(folder):
    shutil.copy(folder / "masks" / "img_0012_mask.png", folder / "fov" / "img_0011_fov.png")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (vessels_as_fov, "looks like a drawing of vessels"),
        (other_vessels_as_fov, "looks like a drawing of vessels"),
        (one_pixel, "covers 1 pixels"),
        (inverted, "it is inverted"),
    ],
)
def test_a_fov_that_is_none_is_refused_by_name(tiny, spoil, words):
    spoil(tiny / "test")
    with pytest.raises(DataError, match=rf"img_0011_fov\.png: .*{words}"):
        load_data(tiny)


def test_a_fov_on_a_white_page_is_not_inverted(sample):
    page = np.where(sample.fov[..., None], sample.image * 0.4, 255).astype(np.uint8)
    assert not checks.look_closely(page, sample.fov, sample.vessels).wrong


def test_a_fov_mask_among_the_masks_is_refused(tiny):
    size = (280, 312)
    for part, wide in {"masks/img_0011_mask": 0, "fov/img_0011_fov": 10}.items():
        y, x = np.ogrid[: size[1], : size[0]]
        disc = np.hypot(y - 156, x - 140) < 100 + wide
        images.write_png(tiny / "test" / f"{part}.png", disc)
    with pytest.raises(DataError, match=r"img_0011_mask\.png: marks 8\d% of the field of view"):
        load_data(tiny)


def test_an_unusual_share_and_vessels_outside_are_doubtful(sample):
    def doubts(fov, vessels):
        return "".join(why for _, why in checks.look_closely(sample.image, fov, vessels).doubts)

    thick = ndimage.binary_dilation(sample.vessels, iterations=3)
    assert "of the field of view; usual are 5 to 15" in doubts(sample.fov, thick)
    half = sample.fov & (np.arange(sample.fov.shape[0]) < 156)[:, None]
    assert "outside the field of view" in doubts(half, sample.vessels)


# --- The same eye twice ------------------------------------------------------------------------


def copy_of(tiny, target, change, people="p99"):
    """img_0001 once more in the split ``target`` under another name and person."""
    for part, end in {"masks": "_mask", "fov": "_fov"}.items():
        with Image.open(tiny / "training" / part / f"img_0001{end}.png") as drawn:
            change(drawn.convert("L"), drawn=True).convert("1").save(
                tiny / target / part / f"copy{end}.png"
            )
    with Image.open(tiny / "training" / "images" / "img_0001.png") as image:
        change(image.convert("RGB")).save(tiny / target / "images" / "copy.jpg", quality=40)
    with (tiny / "people.csv").open("a") as file:
        file.write(f"copy,{people}\n")


CHANGES = {
    "a JPEG": lambda image, drawn=False: image,
    "smaller": lambda image, drawn=False: image.resize((210, 234), 0 if drawn else 2),
    "darker": lambda image, drawn=False: image if drawn else image.point(lambda v: v * 0.6),
    "mirrored": lambda image, drawn=False: ImageOps.mirror(image),
    "turned": lambda image, drawn=False: image.transpose(Image.Transpose.ROTATE_90),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_photograph_saved_again_in_another_split_is_refused(tiny, change):
    copy_of(tiny, "test", CHANGES[change])
    with pytest.raises(DataError, match="saved again, or its mirror image, in test and train") as e:
        load_data(tiny)
    assert "img_0001.png" in str(e.value) and "copy.jpg" in str(e.value)
    assert len(e.value.problems) == 1


def test_inside_one_split_it_is_named(tiny, capsys):
    copy_of(tiny, "training", CHANGES["a JPEG"])
    load_data(tiny)
    out = capsys.readouterr().out
    assert "copy.jpg and" in out and "saved again" in out


def test_a_copy_does_not_get_from_training_into_a_validation_set_aside(tiny):
    shutil.rmtree(tiny / "validation")
    copy_of(tiny, "training", CHANGES["a JPEG"])
    for seed in range(9):  # who is set aside; one of the two and not the other at least once
        with suppress(DataError):
            assert {"copy", "img_0001"} & {
                p.name for p in load_data(tiny, seed=seed).validation
            } in (
                set(),
                {"copy", "img_0001"},
            )
    with pytest.raises(DataError, match="in train and validation"):
        for seed in range(9):
            load_data(tiny, seed=seed)


def test_a_mask_on_the_stored_pixels_of_a_photograph_that_exif_turns_is_named(tiny):
    path = tiny / "test" / "images" / "img_0011.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(path) as image:
        image.copy().save(path, exif=exif)
    with pytest.raises(
        DataError, match=r"img_0011_mask\.png: is 280x312 .* \(turned by its EXIF\?\)"
    ):
        load_data(tiny)


def test_different_eyes_never_look_the_same():
    pairs = [pair for split in load_data(TINY) for pair in split]
    looks = [data.check_pair(pair)[1] for pair in pairs]
    assert all(look.view is not None for look in looks) and not checks.same_eyes(looks)


def test_pictures_too_plain_to_be_compared_are_not_the_same(sample):
    faint = 100 + 0.01 * np.sin(np.arange(sample.fov.shape[1]) / 3) * sample.fov
    views = [likeness.view(faint.astype(np.float32), sample.fov)] * 2
    assert likeness.group(views, ["", "other"]) == [[0], [1]]
