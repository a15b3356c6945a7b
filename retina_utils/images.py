"""Image files <-> arrays: photographs, two-valued maps, probabilities.

Reads PNG, JPEG, TIFF, BMP, GIF and PPM in 8 or 16 bits, RGB, RGBA, grey or palette, and gives
back one of two things: a photograph ``(H, W, 3) uint8`` or a decision ``(H, W) bool``.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from retina_utils import RetinaError
from retina_utils.machine.files import atomic_path

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")

# Vessels cover about a tenth of a photograph; a "vessel" share above this is an inverted file.
LARGEST_VESSEL_SHARE = 0.5


class ImageError(RetinaError):
    """A file that is not the image it should be; the message says what to do."""


def read_photograph(path: str | Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8, whatever its file format, bit depth and palette.

    16-bit values are scaled by the full range (65535 becomes 255), transparent pixels become
    black, grey becomes three equal channels, and a camera's EXIF rotation is applied. An
    ImageError says if the file is missing, truncated, not an image, or holds several frames.
    """
    image = _open(path)
    if image.mode.startswith(("I", "F")):
        return np.repeat(_eight_bits(np.asarray(image), path)[..., None], 3, axis=-1)
    return np.asarray(_opaque_rgb(image)).copy()


def read_binary(path: str | Path, what: str = "vessels") -> np.ndarray:
    """A two-valued file as (H, W) bool, True for the brighter value.

    Any two values will do: 0/1, 0/255, two palette colours, 16 bits. ``what`` is "vessels" or
    "fov". An ImageError says if there is one value only, more than two clusters of values, or,
    for vessels, if the bright part covers most of the image (an inverted file).
    """
    image = _open(path)
    grey = image if image.mode.startswith(("I", "F")) else _opaque_rgb(image).convert("L")
    values = np.asarray(grey).astype(np.float64)
    low, high = values.min(), values.max()
    if low == high:
        if what == "fov" and high > 0:
            return np.ones(values.shape, bool)
        raise ImageError(
            f"{path}: every pixel is {low:g}, so it marks no {what}. "
            "Expected two values; replace the file or leave its photograph out."
        )
    bright = values > (low + high) / 2
    # Compression may blur a value a little; a third value is another matter.
    between = np.minimum(values - low, high - values) > 0.15 * (high - low)
    if between.sum() > 0.02 * bright.sum():
        found = np.unique(values[between])
        raise ImageError(
            f"{path}: more than two clusters of values: {between.mean():.1%} of the pixels lie "
            f"between {low:g} and {high:g} (such as {found[len(found) // 2]:g}). Expected two "
            f"values for {what}. Merge labels, or threshold a blurred file, and save it as PNG."
        )
    if what == "vessels" and bright.mean() > LARGEST_VESSEL_SHARE:
        raise ImageError(
            f"{path}: vessels cover {bright.mean():.0%} of the image, so the file looks inverted. "
            "Expected bright vessels on a dark ground; invert it."
        )
    return bright


def write_png(path: str | Path, array: np.ndarray) -> None:
    """Write a (H, W) bool, uint8 or uint16 or a (H, W, 3) uint8 array as a PNG, all or nothing.

    Booleans are written as 0 and 255, 16 bits as 16-bit grey.
    """
    if array.dtype == bool:
        array = array.astype(np.uint8) * 255
    if array.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"{path}: PNG takes bool, uint8 or uint16, got {array.dtype}")
    with atomic_path(path) as temporary:
        Image.fromarray(array).save(temporary, format="PNG", optimize=array.dtype == np.uint8)


def write_jpeg(path: str | Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 picture for looking at, whole or not at all."""
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="JPEG", quality=90)


def write_probability(path: str | Path, probability: np.ndarray) -> None:
    """Write a (H, W) probability in [0, 1] as a 16-bit grey PNG, 65535 meaning 1."""
    write_png(path, np.rint(probability * 65535).astype(np.uint16))


def read_probability(path: str | Path) -> np.ndarray:
    """A probability map written by :func:`write_probability`: (H, W) float32 in [0, 1]."""
    return np.asarray(_open(path)).astype(np.float32) / 65535


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder by name; hidden files and other endings are left out."""
    files = (f for f in folder.iterdir() if not f.name.startswith(".") and f.is_file())
    return sorted(f for f in files if f.suffix.lower() in EXTENSIONS)


def _open(path: str | Path) -> Image.Image:
    """The decoded file, rotated as its EXIF says, or an ImageError."""
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise ImageError(f"{path}: holds {frames} frames, expected one; save one as PNG.")
            image.load()
            return ImageOps.exif_transpose(image)
    except FileNotFoundError:
        raise ImageError(f"{path}: no such file.") from None
    except ImageError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path}: cannot be read as an image ({_reason(error)}). Expected a complete "
            f"{', '.join(e[1:].upper() for e in EXTENSIONS[:7])} or PPM file; get the file again."
        ) from error


def _reason(error: Exception) -> str:
    """The decoder's words without the path, which the message names already."""
    text = str(error)
    return "not an image" if "cannot identify" in text else text.rstrip(".")


def _opaque_rgb(image: Image.Image) -> Image.Image:
    """RGB, with transparent pixels turned black: outside the field of view is black too."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    return image.convert("RGB")


def _eight_bits(values: np.ndarray, path: str | Path) -> np.ndarray:
    """Grey values of more than eight bits as uint8."""
    if np.issubdtype(values.dtype, np.floating) and values.max() <= 1:
        values = values * 65535  # a float TIFF in [0, 1]
    if values.min() < 0 or values.max() > 65535 or not np.isfinite(values).all():
        raise ImageError(
            f"{path}: grey values run from {values.min():g} to {values.max():g}. "
            "Expected 8 or 16 bits (0 to 65535); convert the file."
        )
    return np.rint(values / 257).astype(np.uint8)
