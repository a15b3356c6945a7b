"""Files, whole or not at all: JSON, CSV and checksums."""

import csv
import errno
import functools
import hashlib
import json
import os
import re
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import zip_longest
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from retina_utils import RetinaError, printable
from retina_utils.machine.spreadsheet import read_table

UNFINISHED = (".retina-", ".tmp")  # how the names of files begin and end that a kill may leave
# A spreadsheet runs a cell that begins so, unless it is a number.
FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` that takes its name if the block succeeds; else the old file stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _sweep(path.parent.resolve())
    handle, name = tempfile.mkstemp(UNFINISHED[1], UNFINISHED[0], path.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with suppress(OSError):  # some shares refuse it, and need it not
            temporary.chmod(0o644)
        _to_disk(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    """Wait for the content, or a power cut could leave an empty file; some shares cannot say."""
    with path.open("rb+") as file:
        try:
            os.fsync(file.fileno())
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
                raise


@functools.cache
def _sweep(folder: Path) -> None:
    """Remove, once a process, what others left here unfinished more than a day ago."""
    for left in folder.glob("*".join(UNFINISHED)):
        with suppress(OSError):
            if left.stat().st_mtime < time.time() - 86_400:
                left.unlink()


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Keep other commands out of a folder, made if needed; a crash lets go of it, too.

    A RetinaError says if another command is at work in it; the log if its disk has no locks.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    busy = f"{folder}: another command is writing into it. Wait for it, or choose another folder."
    lock = take_lock(Path(folder) / ".retina.lock", busy)
    try:
        yield
    finally:
        lock.release()


def take_lock(path: Path, busy: str) -> FileLock:
    """The lock of a file, ours until it is released or this process ends.

    A RetinaError says ``busy`` if another process has it; the log if its disk has no locks.
    """
    lock = FileLock(path, timeout=0, mode=0o666, thread_local=False)  # for all who share it
    try:
        lock.acquire()
    except Timeout:
        raise RetinaError(busy) from None
    except (OSError, NotImplementedError) as error:
        known = (None, errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
        if getattr(error, "errno", None) not in known:
            raise  # else a share that has no locks, where people have to see to it
        folder = printable(path.parent)
        print(f"{folder}: cannot be locked; run one command at a time", file=sys.stderr)
    return lock


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def render(template: str | Path, **facts) -> str:
    """A text from a Jinja2 template, for people to read as it is: nothing in it is escaped."""
    loader, options = FileSystemLoader(Path(template).parent), {"undefined": StrictUndefined}
    pages = Environment(loader=loader, trim_blocks=True, keep_trailing_newline=True, **options)
    return pages.get_template(Path(template).name).render(facts)


def read_json(path: str | Path) -> dict | list:
    """What :func:`write_json` wrote; a RetinaError if it is damaged."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RetinaError(
            f"{path}: damaged ({error}). Remove it, and give the command that wrote it again."
        ) from error


def write_json(path: str | Path, content: dict | list) -> None:
    """Write JSON; nan becomes null, so that every reader takes it."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file by their headings, as :func:`write_csv` was given them.

    A spreadsheet may have saved it again: semicolons, tabs, and other encodings are read, too. A
    ValueError or csv.Error says if it is no table, or a row has more cells than there are headings.
    """
    head, *rows = read_table(path) or [[]]
    if long := [row for row in rows if any(row[len(head) :])]:
        raise RetinaError(f"{path}: {len(long[0])} cells in a row, expected {len(head)}")
    return [
        dict(zip_longest(head, map(_live, row[: len(head)]), fillvalue="")) for row in rows if row
    ]


def write_csv(path: str | Path, rows: Iterable[dict], columns: Sequence[str] = ()) -> None:
    """Write rows of equal keys as CSV; numbers keep six digits, None is empty.

    A text that a spreadsheet would take for a formula is given an apostrophe, as there.
    ``columns`` are the headings, needed only where there may be no rows.
    """
    rows = list(rows)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(columns or rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow({k: _defused(v) for k, v in row.items()})


def _defused(value):
    """A cell to write: text that a spreadsheet would run gets an apostrophe in front."""
    if isinstance(value, float):
        return f"{value:.6g}"
    runs = isinstance(value, str) and FORMULA.match(value) and not NUMBER.fullmatch(value)
    return f"'{value}" if runs else value


def _live(value):
    """A cell as it was before :func:`_defused`."""
    defused = isinstance(value, str) and value.startswith("'") and FORMULA.match(value)
    return value[1:] if defused else value


def sha256(path: str | Path) -> str:
    """Checksum of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(content) -> str:
    """Checksum of anything JSON can hold: equal content, equal fingerprint."""
    text = json.dumps(_plain(content), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value):
    """``value`` in JSON's types: NumPy numbers, paths and nan included."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
