"""Downloads as they come: a folder or an archive, with archives and gzipped images inside.

:func:`open_download` gives every file by the name it has once everything is unpacked. Nothing
can be written outside a temporary folder, and an archive that is damaged is refused as a whole.
"""

import gzip
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from retina_utils import RetinaError
from retina_utils.images import EXTENSIONS

ARCHIVE = re.compile(r"(?P<stem>.+?)\.(?:zip|tar|tar\.gz|tgz|tar\.bz2|tar\.xz)", re.IGNORECASE)
NOT_READ = re.compile(r".+\.(?:rar|7z)", re.IGNORECASE)
NOT_READ_STARTS = (b"Rar!", b"7z\xbc\xaf\x27\x1c")  # also under another name


class _Member(NamedTuple):
    name: str
    size: int  # bytes once unpacked
    is_plain: bool  # a file or folder: no link, no device


@contextmanager
def open_download(source: str | Path, parts: Sequence[str] = ()) -> Iterator[dict[str, Path]]:
    """The files of a download as {name: path}; what was unpacked goes when the block ends.

    ``source`` is a folder, or a zip or tar file (also compressed) that counts as a folder of its
    name. ``parts`` are archives to look into, one level deep, by name without ending: wherever it
    lies, ``("training",)`` opens a ``training.zip`` or ``training.tar``, as a gzipped image is.
    A file that is there unpacked as well counts once. An archive that is damaged, of another kind,
    holds links or would write outside its folder is refused (RetinaError).
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
                files[plain] = _gunzip(path, scratch, name)
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
    target = Path(tempfile.mkdtemp(dir=scratch))
    kind = "zip" if path.suffix.lower() == ".zip" else "tar"
    try:
        with zipfile.ZipFile(path) if kind == "zip" else tarfile.open(path) as archive:
            members = _members(archive)
            _check_members(members, called, shutil.disk_usage(target).free)
            names = [m.name.removeprefix("./") for m in members]
            own = f"{match['stem']}/"
            has_own = all(f"{name}/".startswith(own) for name in names if name not in ("", "."))
            archive.extractall(target if has_own else target / own)
    except RetinaError:
        raise
    except Exception as error:  # a damaged file raises a dozen kinds, an encrypted one another
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise RetinaError(
            f"{called}: not a complete {kind} file ({reason.rstrip(':')}). Download it again; "
            "other archives have to be unpacked first, then give the folder."
        ) from error
    return _files(target)


def _members(archive: zipfile.ZipFile | tarfile.TarFile) -> list[_Member]:
    """What an archive holds; an error if a tar file does not end with its end mark."""
    if isinstance(archive, zipfile.ZipFile):
        return [
            _Member(m.filename, m.file_size, not stat.S_ISLNK(m.external_attr >> 16))
            for m in archive.infolist()
        ]
    archive.extraction_filter = getattr(tarfile, "data_filter", None)  # trusts nothing
    members = [_Member(m.name, m.size, m.isreg() or m.isdir()) for m in archive.getmembers()]
    archive.fileobj.seek(archive.offset)  # tarfile takes a damaged header for the end
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without its end mark")
    return members


def _check_members(members: list[_Member], called: str | Path, free: int) -> None:
    """Refuse members that point outside, links, and more bytes than the disk has free."""
    outside, odd = [], []
    for member in members:
        parts = member.name.replace("\\", "/").split("/")
        if member.name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0]:
            outside.append(f"{called}: {member.name!r} would be written outside")
        if not member.is_plain:
            odd.append(f"{called}: {member.name!r} is a link or a device")
    raise_all(outside + odd)
    total = sum(m.size for m in members)
    if total > free:
        raise RetinaError(
            f"{called}: unpacked it takes {total / 1e9:.1f} GB, but {tempfile.gettempdir()} has "
            f"{free / 1e9:.1f} GB free. Set TMPDIR to a larger disk, or unpack it yourself."
        )


def _gunzip(path: Path, scratch: Path, called: str) -> Path:
    """The contents of a gzipped file, under its own name in a new folder."""
    target = Path(tempfile.mkdtemp(dir=scratch)) / path.name.removesuffix(".gz")
    try:
        with gzip.open(path) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (OSError, EOFError, zlib.error) as error:
        raise RetinaError(
            f"{called}: not a complete gzip file ({error}). Download it again."
        ) from error
    return target


def raise_all(problems: list[str]) -> None:
    """Raise one RetinaError that lists all problems, if there are any."""
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise RetinaError(f"{len(problems)} problem(s), nothing was written:{listed}")
