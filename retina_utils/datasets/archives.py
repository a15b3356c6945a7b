"""Downloads as they come: a folder or an archive, with archives and gzipped images inside.

:func:`open_download` gives every file by the name it has once everything is unpacked. Nothing
can be written outside a temporary folder, and an archive that is damaged is refused as a whole.
"""

import bz2
import gzip
import io
import lzma
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from retina_utils import RetinaError
from retina_utils.intake.listing import EXTENSIONS

ARCHIVE = re.compile(r"(?P<stem>.+?)\.(?:zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz)", re.IGNORECASE)
NOT_READ = re.compile(r".+\.(?:rar|7z)", re.IGNORECASE)
NOT_READ_STARTS = (b"Rar!", b"7z\xbc\xaf\x27\x1c")  # also under another name
COMPRESSED = {b"\x1f\x8b": gzip.open, b"BZ": bz2.open, b"\xfd7": lzma.open}  # by their starts

# What is unpacked here: FIVES, the largest, takes 2 GB, and no photograph shrinks a hundredfold.
LARGEST = 64 * 10**9  # bytes
RATIO = 200  # times the archive
ALWAYS = 256 * 10**6  # bytes, whatever the ratio
MOST = 100_000  # files


class _Member(NamedTuple):
    name: str  # a folder's ends with /
    size: int  # bytes once unpacked
    is_plain: bool  # a file or folder: no link, no device


@contextmanager
def open_download(source: str | Path, parts: Sequence[str] = ()) -> Iterator[dict[str, Path]]:
    """The files of a download as {name: path}; what was unpacked goes when the block ends.

    ``source`` is a folder, or a zip or tar file (also compressed) that counts as a folder of its
    name. ``parts`` are archives to look into, one level deep, by name without ending: wherever it
    lies, ``("training",)`` opens a ``training.zip`` or ``training.tar``, as a gzipped image is.
    A file that is there unpacked as well counts once. A RetinaError refuses an archive that is
    damaged, of another kind, holds links or a file twice, would write outside its folder, or
    takes more than 64 GB or 200 times its size (and 256 MB) once unpacked.
    """
    source = Path(source)
    if not source.exists():
        raise RetinaError(
            f"{source}: no such folder or archive (zip, tar). Download the data set first."
        )
    with tempfile.TemporaryDirectory(prefix="retina-import-") as temporary:
        scratch = Path(temporary)
        files = _files(source) if source.is_dir() else _unpack(source, scratch, source)
        for name, path in sorted(files.items()):
            match = ARCHIVE.fullmatch(path.name)
            if match and match["stem"] in parts:
                beside = PurePosixPath(name).parent
                for inner, file in _unpack(path, scratch, name).items():
                    files.setdefault((beside / inner).as_posix(), file)
        for name, path in sorted(files.items()):
            plain = name.removesuffix(".gz")
            if plain.lower().endswith(EXTENSIONS) and plain not in files:
                with _complete("gzip", name):
                    files[plain] = _expand(path, scratch, name, gzip.open)
        yield files


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by name; hidden ones and what macOS adds to zip files are not."""
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        name.as_posix(): path
        for name, path in files.items()
        if not any(part.startswith(".") or part == "__MACOSX" for part in name.parts)
    }


def _unpack(path: Path, scratch: Path, called: str | Path) -> dict[str, Path]:
    """The files of an archive, unpacked below a folder of its name into a new one."""
    with path.open("rb") as file:
        start = file.read(6)
    match = ARCHIVE.fullmatch(path.name)
    if not match or start.startswith(NOT_READ_STARTS):
        raise RetinaError(
            f"{called}: this kind of archive is not read here, only zip and tar. Unpack it "
            "first, then give the folder."
        )
    kind = "zip" if path.suffix.lower() == ".zip" else "tar"
    with _complete(kind, called):
        packed = path.stat().st_size
        if kind == "tar" and start[:2] in COMPRESSED:
            path = _expand(path, scratch, called, COMPRESSED[start[:2]])
        target = Path(tempfile.mkdtemp(dir=scratch))
        with (
            _InPieces(path) as file,
            _open_zip(file) if kind == "zip" else tarfile.open(fileobj=file, mode="r:") as archive,
        ):
            members = _members(archive)
            _check_members(members, called)
            _check_size(sum(m.size for m in members), packed, called, _free())
            names = [m.name.removeprefix("./") for m in members]
            own = f"{match['stem']}/"
            has_own = all(f"{name}/".startswith(own) for name in names if name not in ("", "."))
            archive.extractall(
                target if has_own else target / own,
                archive.infolist() if kind == "zip" else archive.getmembers(),
            )
    return _files(target)


@contextmanager
def _complete(kind: str, called: str | Path) -> Iterator[None]:
    """A damaged file raises a dozen kinds of errors, an encrypted one another: one for all."""
    try:
        yield
    except RetinaError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RetinaError(
            f"{called}: not a complete {kind} file ({reason.rstrip(':')}). Download it again; "
            "other archives have to be unpacked first, then give the folder."
        ) from error


class _InPieces(io.FileIO):
    """A file of which nobody reads more than 16 MB at once: headers are read as a whole."""

    def read(self, size=-1):
        if size > 1 << 24:
            raise OSError(f"it has a header of {size / 1e6:.0f} MB")
        return super().read(size)


def _open_zip(file: io.FileIO) -> zipfile.ZipFile:
    """A zip file whose names are read as UTF-8 or GBK before they count as DOS', with / alone."""
    for coding in ("utf-8", "gbk", "cp437"):  # of names that do not say so themselves
        with suppress(UnicodeDecodeError):
            archive = zipfile.ZipFile(file, metadata_encoding=coding)
            break
    for member in archive.infolist():
        member.filename = member.filename.replace("\\", "/")
    return archive


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> list[_Member]:
    """What an archive holds; an error if a tar file does not end with its end mark."""
    if isinstance(archive, zipfile.ZipFile):
        return [
            _Member(m.filename, m.file_size, not stat.S_ISLNK(m.external_attr >> 16))
            for m in archive.infolist()
        ]
    archive.extraction_filter = getattr(tarfile, "data_filter", None)  # trusts nothing
    members = [
        _Member(m.name + "/" * m.isdir(), m.size, m.isdir() or (m.isreg() and not m.issparse()))
        for m in archive.getmembers()
    ]
    archive.fileobj.seek(archive.offset)  # tarfile takes a damaged header for the end
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without its end mark")
    return members


def _check_members(members: list[_Member], called: str | Path) -> None:
    """Refuse members that point outside, links, and names given twice."""
    outside, odd = [], []
    for member in members:
        parts = member.name.replace("\\", "/").split("/")
        if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            outside.append(f"{called}: {member.name!r} would be written outside")
        if not member.is_plain:
            odd.append(f"{called}: {member.name!r} is a link or a device")
    names = Counter(Path(m.name) for m in members if not m.name.endswith("/"))
    twice = [f"{called}: {str(name)!r} is there twice" for name in names if names[name] > 1]
    raise_all(outside + odd + twice)
    if len(members) > MOST:
        raise RetinaError(f"{called}: holds {len(members)} files, expected {MOST} at most.")


def _check_size(size: int, packed: int, called: str | Path, free: int) -> None:
    """Refuse ``size`` bytes from ``packed`` ones if that is no honest archive, or the disk full."""
    if size > min(LARGEST, max(ALWAYS, RATIO * packed)):
        raise RetinaError(
            f"{called}: unpacked it takes {size / 1e9:.1f} GB or more, from {packed / 1e6:.1f} MB. "
            f"Expected at most {LARGEST / 1e9:.0f} GB and {RATIO} times the archive. If you trust "
            "it, unpack it yourself and give the folder."
        )
    if size > free:
        raise RetinaError(
            f"{called}: unpacked it takes {size / 1e9:.1f} GB, but {tempfile.gettempdir()} has "
            f"{free / 1e9:.1f} GB free. Set TMPDIR to a larger disk, or unpack it yourself."
        )


def _free() -> int:
    """Bytes that the disk can still take."""
    return shutil.disk_usage(tempfile.gettempdir()).free


def _expand(path: Path, scratch: Path, called: str, opener) -> Path:
    """A compressed file read to its end, where the checksum is, as a file in a new folder."""
    target = Path(tempfile.mkdtemp(dir=scratch)) / path.name.removesuffix(".gz")
    packed, free, size = path.stat().st_size, _free(), 0
    with opener(path) as source, target.open("wb") as file:
        while block := source.read(1 << 20):
            size += len(block)
            _check_size(size, packed, called, free)
            file.write(block)
    return target


def raise_all(problems: list[str]) -> None:
    """Raise one RetinaError that lists all problems, if there are any."""
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise RetinaError(f"{len(problems)} problem(s), nothing was written:{listed}")
