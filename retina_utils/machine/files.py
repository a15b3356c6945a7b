"""Files, whole or not at all: JSON, CSV and checksums."""

import csv
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A path beside ``path`` that takes its name if the block succeeds; else the old file stays."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


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
    """What :func:`write_json` wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_json(path: str | Path, content: dict | list) -> None:
    """Write JSON; nan becomes null, so that every reader takes it."""
    text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a CSV file by their headings."""
    with Path(path).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write_csv(path: str | Path, rows: Iterable[dict], columns: Sequence[str] = ()) -> None:
    """Write rows of equal keys as CSV, to six digits; ``columns`` where there may be no rows."""
    rows = list(rows)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(columns or rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


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
