"""Every file format gives the same pixels, and a bad file gives a sentence."""

import io
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib

import numpy as np
import pytest
import tifffile
from conftest import ROOT, save
from PIL import Image

from retina_utils import images
from retina_utils.images import ImageError, read_binary, read_photograph, write_png
from retina_utils.intake import decode, listing
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


def deep(path, values):
    """Values of more than eight bits in a file of the kind that the name says."""
    kind = path.stem.split("_")[0]
    if kind == "rgb" and path.suffix == ".png":
        return png_16_bit_rgb(path, values.astype(np.uint16))
    if kind == "rgb":
        tifffile.imwrite(path, values.astype(np.uint16), photometric="rgb", compression="zlib")
        return path
    dtype = {"grey": np.uint16, "int": np.int32, "float": np.float32}[kind]
    return save(path, values[..., 0].astype(dtype))


KINDS = ["rgb.png", "rgb.tif", "grey.png", "grey.tif", "int.tif", "float.tif"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_range_really_used_decides(tmp_path, caplog, bits, kind):
    expected = PHOTOGRAPH if kind.startswith("rgb") else np.repeat(PHOTOGRAPH[..., :1], 3, -1)
    values = np.rint(PHOTOGRAPH / 255 * (2**bits - 1))
    path = deep(tmp_path / kind, values)
    decode._say_once.cache_clear()
    for _ in range(2):
        assert np.array_equal(read_photograph(path), expected)
    said = [f"{path}: values up to {values.max():g} are read as {bits} bits (0–{2**bits - 1})"]
    assert [r.getMessage() for r in caplog.records] == (said if bits < 16 else [])


def test_floats_up_to_one_are_a_photograph(tmp_path):
    found = read_photograph(deep(tmp_path / "float.tif", PHOTOGRAPH / 255))
    assert np.array_equal(found[..., 0], PHOTOGRAPH[..., 0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_dark_16_bit_photograph_counts_as_the_range_it_reaches(tmp_path, kind):
    half = read_photograph(deep(tmp_path / kind, PHOTOGRAPH / 255 * 30_000))
    assert 115 < half.max() < 118
    dark = read_photograph(deep(tmp_path / kind, PHOTOGRAPH / 255 * 3000))
    assert 185 < dark.max() < 188


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("highest", [10, 300, 1500, 6000])
def test_an_ambiguous_range_is_refused(tmp_path, highest, kind):
    path = deep(tmp_path / kind, PHOTOGRAPH / 255 * highest + 1)
    with pytest.raises(ImageError, match=rf"{kind}: values reach .* save it with 8 bits"):
        read_photograph(path)


def test_a_few_marks_do_not_make_the_range(tmp_path):
    values = np.repeat(np.repeat(PHOTOGRAPH, 10, 0), 10, 1) / 255 * 4000
    values[0, :5] = 65535
    with pytest.raises(ImageError, match="nearly all of them far less"):
        read_photograph(deep(tmp_path / "grey.png", values))


def test_16_bit_rgb_whose_lower_bytes_are_out_of_reach_is_refused(tmp_path):
    planes = (PHOTOGRAPH.astype(np.uint16) * 16).transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageError, match=r"a\.tif: .* one plane for each colour"):
        read_photograph(tmp_path / "a.tif")
    body = (PHOTOGRAPH.astype(np.uint16) * 16).astype(">u2").tobytes()
    (tmp_path / "a.ppm").write_bytes(b"P6 30 20 65535\n" + body)
    with pytest.raises(ImageError, match=r"a\.ppm: its values reach 16 of 255"):
        read_photograph(tmp_path / "a.ppm")


def test_the_transparent_colour_and_the_alpha_of_16_bits_become_black(tmp_path):
    rgba = np.dstack([PHOTOGRAPH, np.full((20, 30), 255)]).astype(np.uint16) * 257
    rgba[:10, :, 3] = 0
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    found = read_photograph(tmp_path / "a.tif")
    assert not found[:10].any()
    assert np.array_equal(found[10:], PHOTOGRAPH[10:])
    grey = PHOTOGRAPH[..., 0].astype(np.uint16) * 257
    found = read_photograph(save(tmp_path / "b.png", grey, transparency=int(grey.max())))
    assert np.array_equal(found[..., 0], np.where(grey == grey.max(), 0, PHOTOGRAPH[..., 0]))


def test_a_wholly_transparent_file_is_refused(tmp_path):
    path = save(tmp_path / "a.png", np.dstack([PHOTOGRAPH, np.zeros((20, 30), np.uint8)]))
    for read in (read_photograph, read_binary):
        with pytest.raises(ImageError, match=r"a\.png: every pixel is transparent"):
            read(path)


LARGE = np.zeros((200, 300), np.uint8)
LARGE[40:80, 20:280] = 1
LARGE[120:126, 20:280] = 1


@pytest.mark.parametrize("third", [1, 30, 100, 128, 250, 254])
@pytest.mark.parametrize("ending", ["png", "tif", "gif"])
@pytest.mark.parametrize("what", ["vessels", "fov"])
def test_an_ignore_label_is_refused_whatever_its_value(tmp_path, third, ending, what):
    labels = LARGE * 255
    labels[120:126] = np.minimum(labels[120:126], third)
    with pytest.raises(ImageError, match=rf"more than two clusters.*such as {third}\)"):
        read_binary(save(tmp_path / f"a.{ending}", labels), what)


def test_three_labels_are_refused_as_floats_colours_and_in_jpeg(tmp_path):
    labels = np.where(LARGE, 255, 0)
    labels[120:126] = np.minimum(labels[120:126], 30)
    palette = np.array([[0, 0, 0], [255, 255, 255], [0, 0, 255], [97, 0, 0]], np.uint8)
    files = {
        "float.tif": (labels / 255).astype(np.float32),
        "deep.png": labels.astype(np.uint16) * 257,
        "white and blue.png": palette[LARGE + (labels == 30)],
        "blue as dark as red.png": palette[2 * LARGE + (labels == 30)],
        "a.jpg": np.where(LARGE & (labels == 255), 30, 255 * (labels > 0)).astype(np.uint8),
    }
    for name, array in files.items():
        with pytest.raises(ImageError, match=f"{name}: more than two clusters"):
            read_binary(save(tmp_path / name, array))


@pytest.mark.parametrize("quality", [75, 90, 95, 100])
def test_two_values_that_jpeg_blurred_are_two_values(tmp_path, quality):
    vessels = read_binary(ROOT / "data/tiny/training/masks/img_0001_mask.png")
    for drawn in (LARGE > 0, vessels):
        path = save(tmp_path / "a.jpg", drawn.astype(np.uint8) * 255, quality=quality)
        found = read_binary(path)
        assert np.array_equal(found, drawn)
        again = save(tmp_path / "b.png", np.asarray(Image.open(path)))
        assert np.array_equal(read_binary(again), found)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused(tmp_path, value):
    array = LARGE.astype(np.float32)
    array[0, :3] = value
    path = save(tmp_path / "a.tif", array)
    for read in (read_photograph, read_binary):
        with pytest.raises(ImageError, match=r"a\.tif: 3 of 60000 values are NaN or infinite"):
            read(path)


def test_a_tiff_in_which_white_is_zero_is_turned_or_refused(tmp_path):
    path = tmp_path / "a.tif"
    for array in (255 - 255 * LARGE, LARGE == 0):  # as it is stored
        tifffile.imwrite(path, array, photometric="miniswhite")
        assert np.array_equal(read_binary(path), LARGE > 0)
    for dtype in (np.uint16, np.float32):
        tifffile.imwrite(path, LARGE.astype(dtype), photometric="miniswhite")
        for read in (read_photograph, read_binary):
            with pytest.raises(ImageError, match=r"a\.tif: .* white is zero"):
                read(path)


@pytest.mark.parametrize("pixels", [1, 20])
def test_a_fov_of_a_few_pixels_is_refused(tmp_path, pixels):
    array = np.zeros((200, 300), np.uint8)
    array[100, :pixels] = 255
    with pytest.raises(ImageError, match=f"field of view covers {pixels} pixels"):
        read_binary(save(tmp_path / "a.png", array), "fov")


@pytest.mark.parametrize("ending", ["webp", "jp2", "jfif", "mpo"])
def test_other_formats_of_photographs_are_read(tmp_path, ending):
    smooth = np.asarray(Image.fromarray(PHOTOGRAPH).resize((300, 200)))
    more = [Image.fromarray(smooth[::-1].copy())] if ending == "mpo" else []
    options = {"save_all": True, "append_images": more} if more else {}
    path = save(tmp_path / f"a.{ending}", smooth, quality=95, **options)
    assert listing.list_images(tmp_path) == [path]
    assert np.abs(read_photograph(path).astype(int) - smooth).mean() < 3


@pytest.mark.parametrize("ending", ["webp", "gif", "png"])
def test_films_are_refused(tmp_path, ending):
    more = [Image.fromarray(PHOTOGRAPH[::-1].copy())]
    path = save(tmp_path / f"a.{ending}", PHOTOGRAPH, save_all=True, append_images=more)
    with pytest.raises(ImageError, match="holds 2 frames"):
        read_photograph(path)


def test_what_is_not_read_is_named_but_for_a_systems_files(tmp_path):
    for name in (
        "a.png",
        "b.dcm",
        "IM000001",
        "c.eps",
        "notes.docx",
        "Thumbs.db",
        ".DS_Store",
        "._a.png",
    ):
        (tmp_path / name).touch()
    for name in ("@eaDir", "__MACOSX", "more"):
        (tmp_path / name).mkdir()
    (tmp_path / "gone.png").symlink_to(tmp_path / "nothing.png")
    (tmp_path / "linked").symlink_to(tmp_path / "more")
    assert [f.name for f in listing.list_images(tmp_path)] == ["a.png", "b.dcm"]
    found = [f.name for f in listing.list_unread(tmp_path)]
    assert found == ["IM000001", "c.eps", "gone.png", "linked", "notes.docx"]
    assert listing.is_system("@eaDir") and not listing.is_system("more")


@pytest.mark.parametrize(
    "error", [struct.error("short"), TypeError(), MemoryError(), OverflowError(), KeyError(3)]
)
def test_whatever_a_decoder_raises_is_that_files_failure(tmp_path, monkeypatch, error):
    path = save(tmp_path / "a.png", PHOTOGRAPH)

    def fail(image):
        raise error

    monkeypatch.setattr(decode.ImageOps, "exif_transpose", fail)
    for read in (read_photograph, read_binary, images.read_probability):
        with pytest.raises(ImageError, match=r"a\.png: cannot be read as an image \(\w+\)"):
            read(path)


def test_broken_headers_are_named_and_nothing_else_is_said(tmp_path):
    whole = save(tmp_path / "a.tif", PHOTOGRAPH).read_bytes()
    assert whole.count(b"\x00\x01\x04\x00\x01\x00\x00\x00") == 1  # the tag of the width
    (tmp_path / "a.tif").write_bytes(whole.replace(b"\x00\x01\x04\x00", b"\xff\x00\x04\x00"))
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "b.png", PHOTOGRAPH, exif=exif.tobytes()[:12])
    save(tmp_path / "c.jpg", PHOTOGRAPH, exif=exif.tobytes()[:-3])  # Pillow warns
    code = (
        "import sys; from retina_utils.images import *\n"
        "for f in sys.argv[1:]:\n  try: read_photograph(f)\n  except ImageError as e: print(e)"
    )
    command = [sys.executable, "-c", code, *sorted(tmp_path.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
    for name in ("a.tif", "b.png"):
        assert f"{name}: cannot be read as an image (" in done.stdout


def test_a_name_that_no_console_takes_is_written_out(tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/M\xfcller \x1b[2J\n.png")
    with open(path, "w") as file:
        file.write("no picture")
    with pytest.raises(ImageError) as caught:
        read_photograph(path)
    assert r"/M\udcfcller \x1b[2J\n.png: cannot" in str(caught.value)
    assert images.printable("Größe 1/日本.png") == "Größe 1/日本.png"


def test_more_pixels_than_any_camera_takes_are_refused(tmp_path):
    for side in (10_001, 30_000):  # the second is above Pillow's own limit
        header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        chunk = b"IHDR" + header
        chunk = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + b"\0\0\0\0IDAT\0\0\0\0")
        with pytest.raises(ImageError, match=r"a\.png: has more than 100 megapixels"):
            read_binary(tmp_path / "a.png")


def test_a_mask_is_never_held_in_floats(tmp_path):
    mask = np.zeros((3000, 3000), bool)
    mask[:900] = True
    path = save(tmp_path / "a.png", mask)
    tracemalloc.start()
    assert np.array_equal(read_binary(path), mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * mask.size


def test_a_map_saved_again_with_8_bits_is_refused(tmp_path):
    with pytest.raises(ImageError, match=r"a\.png: a probability map in mode L"):
        images.read_probability(save(tmp_path / "a.png", PHOTOGRAPH[..., 0]))


def test_300_damaged_files_are_read_or_named(tmp_path):
    rng = np.random.default_rng(7)
    seeds = [png_16_bit_rgb(tmp_path / "a.png", PHOTOGRAPH * np.uint16(16)).read_bytes()]
    for kind in ("PNG", "JPEG", "TIFF", "GIF", "BMP", "PPM", "WEBP", "JPEG2000"):
        for array in (PHOTOGRAPH, LARGE[:50, :40] * 255):
            stream = io.BytesIO()
            Image.fromarray(array).save(stream, kind)
            seeds.append(stream.getvalue())
    path, ends = tmp_path / "a.png", []
    for number in range(300):
        damaged = bytearray(seeds[number % len(seeds)])
        for _ in range(rng.integers(1, 5)):
            place = int(rng.integers(min(len(damaged), rng.choice([60, 300, 10**6]))))
            cut = place + rng.choice([0, 1, 4])
            damaged[place:cut] = rng.bytes(rng.choice([0, 1, 4]))
        path.write_bytes(damaged)
        for read, what in ((read_photograph, (20, 30, 3)), (read_binary, (50, 40))):
            try:
                ends.append(read(path).ndim == len(what))
            except ImageError as error:
                assert str(error).startswith(f"{path}: ")
                ends.append(None)
    assert ends.count(False) == 0 and min(ends.count(True), ends.count(None)) > 50
