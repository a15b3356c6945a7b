"""Image files <-> arrays: photographs, two-valued maps, probabilities.

Reads PNG, JPEG, TIFF, BMP, GIF, PPM, WebP and JPEG 2000 in 8 or 16 bits, RGB, RGBA, grey or
palette, and gives back one of two things: a photograph ``(H, W, 3) uint8`` or a decision
``(H, W) bool``. Whatever is wrong with a file, it ends in an ImageError that names it.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from retina_utils.intake.decode import (
    ImageError,
    eight_bits,
    named,
    opaque_rgb,
    open_image,
    printable,
    refuse_nan,
)
from retina_utils.intake.dicom import is_dicom, read_dicom
from retina_utils.machine import files, png

# Vessels cover about a tenth of a photograph; a "vessel" share above this is an inverted file.
LARGEST_VESSEL_SHARE = 0.5
# A circle of a ninth of the photograph's width: nothing to segment in less.
SMALLEST_FOV_SHARE = 0.01


def read_photograph(path: str | Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8, whatever its file format, bit depth and palette.

    Transparent pixels become black, grey becomes three equal channels, and a camera's EXIF
    rotation is applied. Of an MPO (a camera's stereo or preview file) the first picture counts.

    More than 8 bits are scaled by the range the file uses, not by the one it could hold, since
    cameras keep 8 to 14 bits in 16: the smallest of 255, 1023, 4095, 16383 and 65535 that holds
    the largest value becomes 255 (floats up to 1: 1 does), and the log names the file and the
    range unless it is the full one. So a 16-bit photograph that reaches 3,000 of 65,535 counts as
    12 bits and comes out sixteen times as bright: taken at its word it would be black. Refused
    as ambiguous are a largest value in the lower half of 10, 12 or 14 bits (a dark photograph, or
    a smaller range and a little over?), and files in which fewer than one pixel in a thousand is
    above a sixteenth of the range (a black photograph, or a few marks brighter than its range?).

    An ImageError says if the file is missing, truncated, not an image, ambiguous, wholly
    transparent, above 100 megapixels, has NaN or infinite values, or holds several frames.
    """
    if is_dicom(path) or Path(path).suffix.lower() == ".dcm":
        return read_dicom(path).image
    with named(path):
        image = open_image(path)
        if image.mode.startswith(("I", "F")):
            grey = eight_bits(np.asarray(image), image.info.get("transparency"), path)
            return np.repeat(grey[..., None], 3, axis=-1)
        if image.info["swapped"]:
            upper, lower = np.asarray(image), np.asarray(open_image(path, lower=True))[..., :3]
            rgb = np.left_shift(upper[..., :3], 8, dtype=np.uint16)
            rgb |= lower
            rgb = eight_bits(rgb, image.info.get("transparency"), path)
            image = Image.fromarray(np.dstack([rgb, upper[..., 3:]]))
        rgb = np.array(opaque_rgb(image, path))
        if image.info.get("cut") and rgb.max() < 64:
            raise ImageError(
                f"{printable(path)}: its values reach {rgb.max()} of 255, as if 8 to 14 bits were "
                "kept in 16. Expected values that use their range; save it with 8 bits."
            )
        return rgb


def read_binary(path: str | Path, what: str = "vessels") -> np.ndarray:
    """A two-valued file as (H, W) bool, True for the brighter value.

    Any two values will do: 0/1, 0/255, two palette colours, 16 bits, and two that JPEG has
    blurred. ``what`` is "vessels" or "fov". An ImageError says if there is one value only, a
    third value or colour (an "ignore" label, whatever its spacing), NaN or infinity, if vessels
    cover most of the image (an inverted file), or a field of view next to nothing of it.
    """
    name = printable(path)
    with named(path):
        image = open_image(path)
        colours = ()
        if not image.mode.startswith(("I", "F")):
            if image.mode not in ("1", "L") or "transparency" in image.info:
                image = opaque_rgb(image, path)
            colours = image.getcolors(3) or ()
        values = np.asarray(image if image.mode.startswith(("I", "F")) else image.convert("L"))
        refuse_nan(values, path)
        found, counts = np.unique(values, return_counts=True)
    low, high = float(found[0]), float(found[-1])
    if low == high:
        if what == "fov" and high > 0 and len(colours) < 2:
            return np.ones(values.shape, bool)
        raise ImageError(
            f"{name}: every pixel is {low:g}, so it marks no {what}. "
            "Expected two values; replace the file or leave its photograph out."
        )
    # Compression may blur a value a little; a third value is another matter.
    between = np.minimum(found - low, high - found) > 0.15 * (high - low)
    bright = found > (low + high) / 2
    clean = image.info["format"] not in ("JPEG", "MPO", "WEBP", "JPEG2000")
    third = None
    if clean and max(len(found), len(colours)) == 3:
        third = found[1]
    elif counts[between].sum() > 0.02 * counts[bright].sum():
        third = found[between][between.sum() // 2]
    elif len(found) > 2:
        apart = 0 if clean and len(found) <= 16 else 0.08 * (high - low)
        modes = [float(found[part][counts[part].argmax()]) for part in (~bright, bright)]
        labels = (float(label) for label in _labels(values, found, counts))
        third = next((v for v in labels if min(abs(v - mode) for mode in modes) > apart), None)
    if third is not None:
        raise ImageError(
            f"{name}: more than two clusters of values or colours: {low:g}, {high:g} and others "
            f'(such as {third:g}). Expected two values for {what}. Merge labels (an "ignore" '
            "label too), or threshold a blurred file, and save it as PNG."
        )
    decision = values >= found[bright][0]
    share = decision.mean()
    if what == "vessels" and share > LARGEST_VESSEL_SHARE:
        raise ImageError(
            f"{name}: vessels cover {share:.0%} of the image, so the file looks inverted. "
            "Expected bright vessels on a dark ground; invert it."
        )
    if what == "fov" and share < SMALLEST_FOV_SHARE:
        raise ImageError(
            f"{name}: the field of view covers {decision.sum()} pixels, {share:.2%}. Expected "
            f"at least {SMALLEST_FOV_SHARE:.0%}; replace the file or leave it out."
        )
    return decision


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write a (H, W) bool, uint8 or uint16 or a (H, W, 3) uint8 array as a PNG, all or nothing.

    Booleans are written as 0 and 255, 16 bits as 16-bit grey.
    """
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"{path}: PNG takes bool, uint8 or uint16, got {array.dtype}")
    with files.atomic_path(path) as temporary:
        temporary.write_bytes(png.encode(array))


def write_jpeg(path: str | Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 picture for looking at, whole or not at all."""
    with files.atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="JPEG", quality=90)


def write_probability(path: str | Path, probability: np.ndarray) -> None:
    """Write a (H, W) probability in [0, 1] as a 16-bit grey PNG, 65535 meaning 1."""
    write_png(path, np.rint(probability * 65535).astype(np.uint16))


def read_probability(path: str | Path) -> np.ndarray:
    """A probability map written by :func:`write_probability`: (H, W) float32 in [0, 1].

    An ImageError says if the file is damaged or was saved again with other than 16 bits.
    """
    with named(path):
        image = open_image(path)
        if not image.mode.startswith("I"):
            raise ImageError(
                f"{printable(path)}: a probability map in mode {image.mode}. Expected 16-bit grey "
                "as it was written; make it again."
            )
        return np.asarray(image).astype(np.float32) / 65535


def _labels(values: np.ndarray, found: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Those of the values ``found`` that were drawn, in rising order.

    Drawn values fill areas of one and the same value; of those that JPEG adds around edges
    (quality 50 to 100, real vessels) less than a fifth have three equal neighbours.
    """
    core = values[1:, 1:]
    flat = (core == values[:-1, 1:]) & (core == values[1:, :-1]) & (core == values[:-1, :-1])
    drawn, blocks = np.unique(core[flat], return_counts=True)
    share = blocks / counts[np.searchsorted(found, drawn)]
    return drawn[(share > 0.25) & (blocks > values.size / 2000)]
