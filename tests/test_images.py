"""Every file format gives the same pixels, and a bad file gives a sentence."""

import struct
import zlib

import numpy as np
import pytest
from conftest import save
from PIL import Image

from retina_utils import images
from retina_utils.images import ImageError, read_binary, read_photograph, write_png
from retina_utils.machine.files import atomic_path

RNG = np.random.default_rng(0)
PHOTOGRAPH = RNG.integers(0, 256, (20, 30, 3)).astype(np.uint8)
VESSELS = np.zeros((20, 30), bool)
VESSELS[5:8] = True


def png_16_bit_rgb(path, array):
    """A 16-bit RGB PNG, which Pillow can read but not write."""
    height, width, _ = array.shape

    def chunk(kind, body):
        check = zlib.crc32(kind + body)
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", check)

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


@pytest.mark.parametrize("ending", ["png", "tif", "bmp", "ppm"])
def test_lossless_formats_give_the_same_photograph(tmp_path, ending):
    path = save(tmp_path / f"a.{ending}", PHOTOGRAPH)
    assert np.array_equal(read_photograph(path), PHOTOGRAPH)


def test_a_jpeg_is_close_to_the_photograph(tmp_path):
    smooth = np.asarray(Image.fromarray(PHOTOGRAPH).resize((300, 200)))
    path = save(tmp_path / "a.JPG", smooth, quality=95)
    assert np.abs(read_photograph(path).astype(int) - smooth).mean() < 3


def test_16_bit_rgb_keeps_the_full_range(tmp_path):
    path = png_16_bit_rgb(tmp_path / "a.png", PHOTOGRAPH.astype(np.uint16) * 257)
    assert np.array_equal(read_photograph(path), PHOTOGRAPH)


def test_16_bit_grey_becomes_three_equal_channels(tmp_path):
    grey = PHOTOGRAPH[..., 0].astype(np.uint16) * 257
    for ending in ("png", "tif"):
        found = read_photograph(save(tmp_path / f"a.{ending}", grey))
        assert np.array_equal(found, np.repeat(PHOTOGRAPH[..., :1], 3, axis=2))


def test_grey_and_palette_files_are_photographs_too(tmp_path):
    grey = read_photograph(save(tmp_path / "grey.png", PHOTOGRAPH[..., 0]))
    assert np.array_equal(grey[..., 2], PHOTOGRAPH[..., 0])
    colours = Image.fromarray(PHOTOGRAPH).quantize(16)
    colours.save(tmp_path / "palette.gif")
    assert np.array_equal(
        read_photograph(tmp_path / "palette.gif"), np.asarray(colours.convert("RGB"))
    )


def test_transparent_pixels_become_black(tmp_path):
    rgba = np.dstack([PHOTOGRAPH, np.full((20, 30), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    found = read_photograph(save(tmp_path / "a.png", rgba))
    assert not found[:10].any()
    assert np.array_equal(found[10:], PHOTOGRAPH[10:])


def test_exif_rotation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    save(tmp_path / "a.png", PHOTOGRAPH, exif=exif)
    assert read_photograph(tmp_path / "a.png").shape == (30, 20, 3)


@pytest.mark.parametrize("low, high", [(0, 1), (0, 255), (3, 7), (100, 200)])
def test_any_two_values_make_a_mask(tmp_path, low, high):
    path = save(tmp_path / "a.png", np.where(VESSELS, high, low).astype(np.uint8))
    assert np.array_equal(read_binary(path), VESSELS)


def test_masks_may_be_16_bit_one_bit_palette_or_rgb(tmp_path):
    files = {
        "deep.tif": VESSELS.astype(np.uint16) * 65535,
        "colour.png": np.where(VESSELS[..., None], [255, 0, 0], [0, 0, 40]).astype(np.uint8),
    }
    for name, array in files.items():
        assert np.array_equal(read_binary(save(tmp_path / name, array)), VESSELS), name
    Image.fromarray(VESSELS).save(tmp_path / "bit.png")
    Image.fromarray(VESSELS.astype(np.uint8) * 255).convert("P").save(tmp_path / "palette.gif")
    assert np.array_equal(read_binary(tmp_path / "bit.png"), VESSELS)
    assert np.array_equal(read_binary(tmp_path / "palette.gif"), VESSELS)


def test_three_clusters_of_values_are_refused(tmp_path):
    labels = VESSELS.astype(np.uint8) * 255
    labels[12:14] = 128
    with pytest.raises(ImageError, match=r"a\.png: more than two clusters.*128"):
        read_binary(save(tmp_path / "a.png", labels))


def test_an_all_black_mask_is_refused(tmp_path):
    with pytest.raises(ImageError, match="every pixel is 0, so it marks no vessels"):
        read_binary(save(tmp_path / "a.png", np.zeros((20, 30), np.uint8)))


def test_an_all_white_fov_is_the_whole_photograph(tmp_path):
    path = save(tmp_path / "a.png", np.full((20, 30), 255, np.uint8))
    assert read_binary(path, "fov").all()


def test_an_inverted_mask_is_refused(tmp_path):
    with pytest.raises(ImageError, match="looks inverted"):
        read_binary(save(tmp_path / "a.png", (~VESSELS).astype(np.uint8) * 255))


def test_a_truncated_file_a_text_file_and_a_missing_file_say_so(tmp_path):
    whole = save(tmp_path / "whole.png", PHOTOGRAPH).read_bytes()
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not a picture")
    for name in ("half.png", "text.png"):
        with pytest.raises(ImageError, match=f"{name}: cannot be read as an image"):
            read_photograph(tmp_path / name)
    with pytest.raises(ImageError, match=r"none\.png: no such file"):
        read_photograph(tmp_path / "none.png")


def test_several_frames_are_refused(tmp_path):
    first, second = Image.fromarray(PHOTOGRAPH), Image.fromarray(PHOTOGRAPH[::-1].copy())
    first.save(tmp_path / "film.tif", save_all=True, append_images=[second])
    with pytest.raises(ImageError, match="holds 2 frames"):
        read_photograph(tmp_path / "film.tif")


def test_a_probability_survives_its_file_to_16_bits(tmp_path):
    probability = RNG.random((20, 30), np.float32)
    images.write_probability(tmp_path / "new" / "p.png", probability)
    found = images.read_probability(tmp_path / "new" / "p.png")
    assert np.abs(found - probability).max() <= 0.5 / 65535 + 1e-7


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.png"
    write_png(path, PHOTOGRAPH)
    before = path.read_bytes()
    with pytest.raises(TypeError, match="got float64"):
        write_png(path, np.zeros((2, 2)))
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_bytes() == before
    assert [f.name for f in tmp_path.iterdir()] == ["a.png"]
