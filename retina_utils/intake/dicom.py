"""DICOM photographs of the eye -> arrays, with what may be known of the patient and no more.

Needs an extra: ``pip install 'retina-utils[dicom]'``. Errors quote nothing that tells of a person.
"""

import hmac
import logging
import os
import secrets
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from retina_utils import RetinaError
from retina_utils.intake.decode import LARGEST_PIXELS as MOST_PIXELS
from retina_utils.intake.decode import ImageError

# Ophthalmic Photography (8 and 16 bit, wide field), VL Photographic, Secondary Capture.
PHOTOGRAPHS = "77.1.5.1", "77.1.5.2", "77.1.5.5", "77.1.5.6", "77.1.4", "7", "7.2", "7.3", "7.4"
COLOURS = ["MONOCHROME1", "MONOCHROME2", "PALETTE COLOR", "RGB"]
COLOURS += ["YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT"]
# Who decodes a transfer syntax: all refuse a truncated stream, which pylibjpeg's libjpeg, that
# pydicom may choose by itself, fills up without a word.
DECODERS = {"": "", ".1": "", ".2": "", ".5": "pydicom"}  # uncompressed, RLE
DECODERS |= dict.fromkeys((".4.50", ".4.51", ".4.90", ".4.91"), "pillow")  # JPEG, JPEG 2000
DECODERS |= dict.fromkeys((".4.57", ".4.70", ".4.80", ".4.81"), "gdcm")  # lossless JPEG, JPEG-LS
DECODERS = {f"1.2.840.10008.1.2{end}": plugin for end, plugin in DECODERS.items()}
# GDCM ends the process that gives it a damaged file, so it has one of its own.
GDCM = """
import io, sys, numpy
from pydicom.pixels import pixel_array
file = io.BytesIO()
numpy.save(file, pixel_array(sys.argv[1], decoding_plugin="gdcm", correct_unused_bits=False))
sys.stdout.buffer.write(file.getvalue())
"""
INSTALL = "pip install 'retina-utils[dicom]'"
EYE = (1, 60)  # mm that a photograph may span on the retina; a whole eye is 24 mm long


class DicomError(ImageError):
    """A DICOM file that is not one photograph of an eye; the message says what to do."""


class DicomPhotograph(NamedTuple):
    """What :func:`read_dicom` gives back."""

    image: np.ndarray  # (H, W, 3) uint8
    laterality: str  # "R", "L", or "" if not said, said of both eyes, or contradictory
    pixel_spacing: tuple[float, float] | None  # mm between rows, between columns
    patient: str  # pseudonym; "" without a key or a PatientID


def is_dicom(path: str | Path) -> bool:
    """Whether a file begins as DICOM files do (``DICM`` at byte 128), whatever its ending."""
    with suppress(OSError), Path(path).open("rb") as file:
        return file.read(132)[128:] == b"DICM"
    return False


def read_dicom(path: str | Path, key: bytes | None = None) -> DicomPhotograph:
    """A photograph of an eye, its side, its scale and, by a :func:`patients_key`, a pseudonym.

    Values are scaled by BitsStored, MONOCHROME1 is inverted, palettes and YBR become RGB. A
    DicomError says if the file is damaged, no photograph, of no or several frames, of a transfer
    syntax or colours not read here (12-bit lossy JPEG is one), of values that BitsStored does not
    explain, or of a scale that no eye has.
    """
    with refused(path):
        dataset = open_dicom(path)
        image, spacing = _eight_bits(dataset, _pixels(dataset)), _spacing(dataset)
        sides = {dataset.get("ImageLaterality"), dataset.get("Laterality")} - {None, ""}
        side = sides.pop() if len(sides) == 1 else ""
        patient = pseudonym(dataset, key) if key else ""
        return DicomPhotograph(image, side if side in ("R", "L") else "", spacing, patient)


def open_dicom(path: str | Path, pixels: bool = True):
    """pydicom's Dataset of a file, which without ``pixels`` need not be a photograph."""
    with refused(path):
        _refuse(not is_dicom(path), "is no DICOM file. Expected DICM at byte 128; export it again.")
        from pydicom import dcmread
        from pydicom.filereader import read_file_meta_info

        # It would quote values that it does not understand, names too.
        warnings.filterwarnings("ignore", module="pydicom")
        logging.getLogger("pydicom").setLevel(logging.CRITICAL)
        syntax = read_file_meta_info(path).TransferSyntaxUID  # a deflated file may hold anything
        _refuse(
            pixels and syntax not in DECODERS,
            f"transfer syntax {syntax.name} is not read. Export it uncompressed.",
        )
        return dcmread(path, stop_before_pixels=not pixels)


@contextmanager
def refused(path: str | Path) -> Iterator[None]:
    """Any failure of the block as a DicomError that names the file and quotes nothing of it."""
    try:
        yield
    except DicomError as error:
        raise DicomError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from None
    except ImportError:
        raise DicomError(f"{path}: is DICOM, read after {INSTALL}") from None
    except Exception as error:
        said = f"{path}: cannot be read ({type(error).__name__})"
        raise DicomError(f"{said}. Get the whole file, or export it uncompressed.") from error


def patients_key(folder: str | Path) -> bytes:
    """The secret of a folder's pseudonyms: made once, kept in it as ``patients.key``, mode 600.

    Whoever holds it can try patients' numbers, so it is not handed on; a copy of it gives another
    folder the same pseudonyms. A RetinaError says if it is damaged.
    """
    path, flags = Path(folder) / "patients.key", os.O_CREAT | os.O_EXCL | os.O_WRONLY
    with suppress(FileExistsError), os.fdopen(os.open(path, flags, 0o600), "w") as file:
        file.write(secrets.token_hex(32))
    if len(key := path.read_bytes().strip()) != 64:
        raise RetinaError(f"{path}: holds {len(key)} characters, expected a key of 64. Delete it.")
    return key


def pseudonym(dataset, key: bytes) -> str:
    """HMAC-SHA256 of PatientID, cut to 16 digits; "" if the file names no patient."""
    number = str(dataset.get("PatientID") or "").strip()
    digest = hmac.new(key, number.encode(), "sha256").hexdigest()
    return f"p{digest[:16]}" if number else ""  # p: a spreadsheet might take it for a number


def _refuse(wrong: bool, words: str) -> None:
    if wrong:
        raise DicomError(words)


def _pixels(dataset) -> np.ndarray:
    """(H, W) grey or (H, W, 3) RGB as stored, palette applied."""
    from pydicom.encaps import get_frame, parse_basic_offsets
    from pydicom.pixels import apply_color_lut, get_decoder, pixel_array

    get, syntax = dataset.get, dataset.file_meta.TransferSyntaxUID
    kind = str(get("SOPClassUID")).removeprefix("1.2.840.10008.5.1.4.1.1.")
    size, bits, stored = get("Rows", 0) * get("Columns", 0), get("BitsAllocated"), get("BitsStored")
    usual = bits in (8, 16) and get("HighBit") == stored - 1 and get("PixelRepresentation") == 0
    colours, plugin, in_rgb = get("PhotometricInterpretation", ""), DECODERS[syntax], False
    _refuse(kind not in PHOTOGRAPHS, "is no photograph. Leave it out.")
    _refuse("PixelData" not in dataset or not size, "holds no pixels. Expected a photograph.")
    _refuse(size > MOST_PIXELS, f"{size} pixels, at most {MOST_PIXELS} are read. Make it smaller.")
    _refuse(colours not in COLOURS, f"colours {colours}. Export it as RGB.")
    _refuse(not usual, f"{stored} bits in {bits}. Expected the lower ones of 8 or 16, unsigned.")
    data, one = dataset.PixelData, size * dataset.SamplesPerPixel * bits // 8
    found = len(parse_basic_offsets(data)) if plugin else len(data) // one  # also if it is not said
    frames = max(int(get("NumberOfFrames") or 1), found)
    _refuse(frames > 1, f"holds {frames} frames, expected one; export one by itself.")
    if plugin and plugin not in get_decoder(syntax).available_plugins:
        raise ImportError
    if plugin == "pillow":  # after Adobe's marker it gives RGB, which pydicom would turn once more
        with Image.open(BytesIO(get_frame(data, 0, number_of_frames=1))) as frame:
            in_rgb = "adobe_transform" in frame.info
    if plugin == "gdcm":
        command = [sys.executable, "-c", GDCM, str(dataset.filename)]
        child = subprocess.run(command, capture_output=True, timeout=60)
        values = np.load(BytesIO(child.stdout))
    else:  # what stands in bits that are not used would be dropped without a word
        options = {"decoding_plugin": plugin, "correct_unused_bits": False}
        values = pixel_array(dataset, raw=in_rgb, **options)
    return apply_color_lut(values, dataset) if colours == "PALETTE COLOR" else values


def _eight_bits(dataset, values: np.ndarray) -> np.ndarray:
    """The photograph as (H, W, 3) uint8."""
    colours, bits, most = dataset.PhotometricInterpretation, dataset.BitsStored, int(values.max())
    if colours == "PALETTE COLOR":  # 8-bit entries kept in 16 are common
        bits = 16 if most > 255 else 8
    full = 2**bits - 1
    unlikely = most > full or (bits > 8 and most <= full // 4)
    _refuse(unlikely, f"reaches {most}, which {bits} bits do not explain. Export it in 8 bits.")
    values = np.rint(values * np.float32(255 / full)) if bits != 8 else values
    values = (255 - values if colours == "MONOCHROME1" else values).astype(np.uint8)
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=-1)


def _spacing(dataset) -> tuple[float, float] | None:
    """Millimetres between rows and between columns, or None; an impossible eye is refused."""
    if not dataset.get("PixelSpacing"):
        return None
    rows, columns = (float(value) for value in dataset.PixelSpacing)
    high, wide = rows * dataset.Rows, columns * dataset.Columns
    said = f"an eye of {wide:g} x {high:g} mm by its PixelSpacing, expected {EYE[0]} to {EYE[1]}"
    possible = all(EYE[0] <= span <= EYE[1] for span in (high, wide))
    _refuse(not possible, f"{said}. Correct or remove PixelSpacing.")
    return rows, columns
