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

    Parameters
    ----------
    source : path
        A folder, or a zip or tar file (also compressed), whose contents are named as if they
        had been unpacked into a folder of its name.
    parts : sequence of str
        Archives to look into, one level deep, by name without ending: ``("training", "test")``
        opens a ``training.zip`` or ``test.tar`` wherever it lies in the download. A gzipped image
        is opened wherever it lies. A file that is there unpacked as well counts once.

    Raises
    ------
    RetinaError
        If there is no such download, or if an archive is damaged, is of another kind, holds
        links, or would write outside its folder.
    """
    source = Path(source)
    if not source.exists():
        raise RetinaError(
            f"{source}: no such folder or archive (zip, tar). Download the data set first."
        )
    with tempfile.TemporaryDirectory(prefix="retina-import-") as temporary:
        scratch = Path(temporary)
        files = _files(source if source.is_dir() else _unpack(source, scratch / "download"))
        for number, (name, path) in enumerate(sorted(files.items())):
            match = ARCHIVE.fullmatch(path.name)
            if match and match["stem"] in parts:
                beside = PurePosixPath(name).parent
                for inner, file in _files(_unpack(path, scratch / f"{number}", name)).items():
                    files.setdefault((beside / inner).as_posix(), file)
        for number, (name, path) in enumerate(sorted(files.items())):
            plain = name.removesuffix(".gz")
            if plain.lower().endswith(EXTENSIONS) and plain not in files:
                files[plain] = _gunzip(path, scratch / "images" / f"{number}", name)
        yield files


def _files(folder: Path) -> dict[str, Path]:
    """The files below a folder by name; hidden ones and what macOS adds to zip files are not."""
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        hidden = any(p.startswith(".") or p == "__MACOSX" for p in relative.parts)
        if path.is_file() and not hidden:
            files[relative.as_posix()] = path
    return files


def _unpack(path: Path, target: Path, called: str | Path = "") -> Path:
    """Unpack an archive into ``target``, below a folder of its name; gives ``target``."""
    called = called or path
    with path.open("rb") as file:
        start = file.read(6)
    match = ARCHIVE.fullmatch(path.name)
    if not match or start.startswith(NOT_READ_STARTS):
        raise RetinaError(
            f"{called}: this kind of archive is not read here, only zip and tar. Unpack it "
            "first, then give the folder."
        )
    target.mkdir(parents=True)
    kind = "zip" if path.suffix.lower() == ".zip" else "tar"
    try:
        with zipfile.ZipFile(path) if kind == "zip" else tarfile.open(path) as archive:
            members = _zip_members(archive) if kind == "zip" else _tar_members(archive)
            _check_members(members, called, shutil.disk_usage(target).free)
            names = [m.name.removeprefix("./") for m in members]
            own = f"{match['stem']}/"
            has_own = all(f"{name}/".startswith(own) for name in names if name not in ("", "."))
            archive.extractall(target if has_own else target / own)
    except RetinaError:
        raise
    except Exception as error:  # a damaged file raises a dozen kinds, an encrypted one another
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RetinaError(
            f"{called}: not a complete {kind} file ({reason.rstrip(':')}). Download it again; "
            "other archives have to be unpacked first, then give the folder."
        ) from error
    return target


def _zip_members(archive: zipfile.ZipFile) -> list[_Member]:
    return [
        _Member(m.filename, m.file_size, not stat.S_ISLNK(m.external_attr >> 16))
        for m in archive.infolist()
    ]


def _tar_members(archive: tarfile.TarFile) -> list[_Member]:
    """The members of a tar file; an error if they do not end with its end mark."""
    archive.extraction_filter = getattr(tarfile, "data_filter", None)  # trusts nothing
    members = [_Member(m.name, m.size, m.isreg() or m.isdir()) for m in archive.getmembers()]
    archive.fileobj.seek(archive.offset)  # tarfile takes a damaged header for the end
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("it ends without its end mark")
    return members


def _check_members(members: list[_Member], called: str | Path, free: int) -> None:
    """Refuse members that point outside, links, and more bytes than the disk has free."""
    raise_all(
        [f"{called}: {m.name!r} would be written outside" for m in members if not is_inside(m.name)]
        + [f"{called}: {m.name!r} is a link or a device" for m in members if not m.is_plain]
    )
    total = sum(m.size for m in members)
    if total > free:
        raise RetinaError(
            f"{called}: unpacked it takes {total / 1e9:.1f} GB, but {tempfile.gettempdir()} has "
            f"{free / 1e9:.1f} GB free. Set TMPDIR to a larger disk, or unpack it yourself."
        )


def _gunzip(path: Path, folder: Path, called: str) -> Path:
    """The contents of a gzipped file, under its own name in a folder."""
    folder.mkdir(parents=True)
    target = folder / path.name.removesuffix(".gz")
    try:
        with gzip.open(path) as packed, target.open("wb") as file:
            shutil.copyfileobj(packed, file)
    except (OSError, EOFError, zlib.error) as error:
        raise RetinaError(
            f"{called}: not a complete gzip file ({error}). Download it again."
        ) from error
    return target


def is_inside(name: str) -> bool:
    """Whether a member's name stays below the folder it is unpacked into."""
    parts = name.replace("\\", "/").split("/")
    return not (name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0])


def raise_all(problems: list[str]) -> None:
    """Raise one RetinaError that lists all problems, if there are any."""
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise RetinaError(f"{len(problems)} problem(s), nothing was written:{listed}")
