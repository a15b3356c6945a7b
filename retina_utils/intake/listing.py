"""The files of a folder that may be photographs, and what a person may miss of the others."""

import re
from pathlib import Path

from retina_utils.intake.decode import is_system
from retina_utils.intake.dicom import is_dicom

EXTENSIONS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm")
EXTENSIONS += (".pnm", ".jfif", ".jpe", ".mpo", ".webp", ".jp2", ".j2k", ".jpx")
EXTENSIONS += (".dcm",)  # and DICOM files of any name: intake/dicom.py


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder by name; a system's files and other endings are left out."""
    files = (f for f in folder.iterdir() if not is_system(f.name) and f.is_file())
    return sorted(f for f in files if f.suffix.lower() in EXTENSIONS or _is_unnamed_dicom(f))


def stem_of(path: Path) -> str:
    """A file's name without its ending, which a number such as 1.2.840.113619.5 has not."""
    return path.name if re.fullmatch(r"\.\d+", path.suffix) else path.stem


def _is_unnamed_dicom(file: Path) -> bool:
    """Cameras and archives name a file IM0001, or by its number, 1.2.840.113619.5."""
    unnamed = re.fullmatch(r"|\.\d+", file.suffix) and file.name != "DICOMDIR"  # a disc's contents
    return bool(unnamed) and is_dicom(file)


def list_unread(folder: Path) -> list[Path]:
    """What :func:`list_images` leaves out of a folder and a person may miss: files of other
    endings (DICOM, documents), dangling links, linked sub-folders; no system's files."""
    others = set(folder.iterdir()) - set(list_images(folder))
    others = (f for f in others if not is_system(f.name))
    return sorted(f for f in others if f.is_symlink() or not f.is_dir())
