"""A foreign image file, opened: which decoders, how large, how deep; whatever fails, names it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

import retina_utils
from retina_utils import RetinaError

# Other decoders of Pillow start programs (EPS) or take text for a picture.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG2000")
# Cameras take up to 50 megapixels, and a small file can claim any number.
LARGEST_PIXELS = 100_000_000

# What systems and storage devices leave beside photographs.
SYSTEM_NAMES = ("thumbs.db", "desktop.ini", "ehthumbs.db", "__macosx", "lost+found")
SYSTEM_NAMES += ("$recycle.bin", "system volume information", "#recycle", "#snapshot")

# A damaged file ends in our sentence; Pillow's own remarks on it would only come on top.
warnings.filterwarnings("ignore", module=r"PIL\.", category=UserWarning)
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
logging.getLogger("PIL").setLevel(logging.CRITICAL)


class ImageError(RetinaError):
    """A file that is not the image it should be; the message says what to do."""


def printable(path: str | Path) -> str:
    """A file's name as any UTF-8 output takes it, on one line."""
    return retina_utils.printable(path).replace("\n", "\\n")


def is_system(name: str) -> bool:
    """Whether a file's or folder's name is a system's: hidden, a NAS's ``@eaDir``, Thumbs.db."""
    return name.startswith((".", "@", "~$")) or name.lower() in SYSTEM_NAMES


@contextmanager
def named(path: str | Path) -> Iterator[None]:
    """Whatever a decoder raises becomes an ImageError: one file's failure is that file's."""
    try:
        yield
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{printable(path)}: no such file.") from None
    except Image.DecompressionBombError:
        raise ImageError(
            f"{printable(path)}: has more than {LARGEST_PIXELS // 10**6} megapixels. Expected a "
            "photograph, a mask or a map; reduce it."
        ) from None
    except Exception as error:
        raise ImageError(
            f"{printable(path)}: cannot be read as an image ({_reason(error)}). Expected a "
            "complete PNG, JPEG, TIFF, BMP, GIF, PPM, WebP or JPEG 2000 file; get the file again."
        ) from error


def open_image(path: str | Path, *, lower: bool = False) -> Image.Image:
    """The decoded file, rotated as its EXIF says; call it within :func:`named`.

    Pillow keeps the upper byte of 16-bit RGB; ``lower`` gives the other one, by telling the
    decoder the opposite byte order. ``info`` says where that is possible ("swapped"), where
    the rest is lost ("cut"), and the file's "format".
    """
    with Image.open(path, formats=FORMATS) as image:
        frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
        if frames > 1:
            raise ImageError(
                f"{printable(path)}: holds {frames} frames, expected one; save one as PNG."
            )
        if image.width * image.height > LARGEST_PIXELS:
            raise Image.DecompressionBombError
        tags = getattr(image, "tag_v2", {})
        if image.mode.startswith(("I", "F")) and tags.get(262) == 0:
            raise _unlike(path, "a TIFF of more than 8 bits in which white is zero")
        if tags.get(284) == 2 and np.max(tags.get(258, 8)) > 8:
            raise _unlike(path, "a TIFF of more than 8 bits with one plane for each colour")
        args = image.tile[0][3] if image.tile else ()  # WebP and JPEG 2000 differ
        raw, *rest = args if args and isinstance(args, tuple) else (args,)
        raw = str(raw)
        swapped = raw[:-1] in ("RGB;16", "RGBA;16", "RGBX;16")
        deep = ";16" in raw or (image.format == "PPM" and rest and rest[0] > 255)
        facts = {"format": image.format, "swapped": swapped}
        facts["cut"] = not swapped and (deep or image.format == "JPEG2000")
        if lower:
            other = raw[:-1] + ("L" if raw.endswith("B") else "B")
            image.tile = [
                t._replace(args=(other, *t.args[1:]) if isinstance(t.args, tuple) else other)
                for t in image.tile
            ]
        image.load()
        image = ImageOps.exif_transpose(image)
        image.info.update(facts)
        return image


def _unlike(path: str | Path, what: str) -> ImageError:
    return ImageError(f"{printable(path)}: {what}, which is not read. Save it as PNG.")


def _reason(error: Exception) -> str:
    """The decoder's words without the path, which the message names already."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return "not an image" if "cannot identify" in text else printable(text.rstrip("."))[:200]


def opaque_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    """RGB, with transparent pixels turned black: outside the field of view is black too."""
    if "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        if image.getchannel("A").getextrema()[1] == 0:
            raise ImageError(
                f"{printable(path)}: every pixel is transparent. Expected a visible picture; "
                "save it without the alpha channel."
            )
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        black.info.update(image.info)
        image = Image.alpha_composite(black, image)
    return image.convert("RGB")


def refuse_nan(values: np.ndarray, path: str | Path) -> None:
    bad = 0 if values.dtype.kind != "f" else np.count_nonzero(~np.isfinite(values))
    if bad:
        raise ImageError(
            f"{printable(path)}: {bad} of {values.size} values are NaN or infinite. "
            "Expected numbers; replace them and save the file again."
        )


def eight_bits(values: np.ndarray, hidden: int | tuple | None, path: str | Path) -> np.ndarray:
    """Values of more than eight bits as uint8 (the rule: :func:`read_photograph`); those equal
    to the transparent value or colour ``hidden`` become black."""
    refuse_nan(values, path)
    name, low, high = printable(path), values.min(), values.max()
    if low < 0 or high > 65535:
        raise ImageError(
            f"{name}: grey values run from {low:g} to {high:g}. "
            "Expected 8 or 16 bits (0 to 65535); convert the file."
        )
    unit = values.dtype.kind == "f" and high <= 1
    full = 1 if unit else next(2**b - 1 for b in (8, 10, 12, 14, 16) if high <= 2**b - 1)
    dark = np.count_nonzero(values > full / 16) < values.size / 1000
    if dark or (255 < full < 65535 and high <= full / 2):
        raise ImageError(
            f"{name}: values reach {high:g}, nearly all of them far less, or too little to tell "
            "of which range. Expected well over half of 255, 1023, 4095, 16383 or 65535 (floats: "
            "of 1 or 255); scale it and save it with 8 bits."
        )
    if full not in (1, 65535):
        _say_once(f"{name}: values up to {high:g} are read as {full.bit_length()} bits (0–{full})")
    if hidden is not None:
        match = values == np.asarray(hidden)
        values = np.where(match.all(-1, keepdims=True) if values.ndim == 3 else match, 0, values)
    if values.dtype.kind == "f":
        return np.rint(values * (255 / full)).astype(np.uint8)
    table = np.rint(np.arange(full + 1) * (255 / full)).astype(np.uint8)
    return np.stack([table[row] for row in values])  # at once, the indices take 8 bytes each


@cache
def _say_once(line: str) -> None:
    """One line on the log (and so on stderr), however often the file is read."""
    logging.getLogger("retina_utils").warning(line)
