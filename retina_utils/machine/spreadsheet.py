"""Tables as spreadsheets save them, in any of their encodings, and the names that stand in them."""

import codecs
import csv
import io
import os
import re
import unicodedata
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path


def plain_name(name: str, endings: Collection[str] = ()) -> str:
    """What spellings of a file's name share: no folder, no such ending, no case, one kind of é."""
    name = re.split(r"[\\/]", unicodedata.normalize("NFC", name).strip().casefold())[-1]
    stem, ending = os.path.splitext(name)
    return stem if ending in endings else name


def read_names(
    path: str | Path, columns: Sequence[str], endings: Collection[str] = ()
) -> tuple[dict[str, str], list[str]]:
    """A table of names and what belongs to them as {plain name: value}, and every problem of it.

    Commas, semicolons or tabs; UTF-8 or UTF-16 by its byte order mark, UTF-8, or Windows' letters;
    the two ``columns`` in any order and case, among others. Values that differ in case or spaces
    only are one value. No file gives no names. Problems are missing columns, empty cells, and lines
    that disagree.
    """
    if not Path(path).exists():
        return {}, []
    found, spelling, problems = {}, {}, []
    try:
        head, *rows = [[" ".join(cell.split()) for cell in row] for row in read_table(path)]
        name_at, value_at = ([cell.casefold() for cell in head].index(c) for c in columns)
    except (ValueError, csv.Error):
        wanted, begin = ",".join(columns), "".join(_read_text(Path(path)).splitlines()[:1])[:80]
        return {}, [f"{path}: begins with {begin!r}. Expected CSV with columns {wanted}."]
    for row in rows:
        if not any(row):
            continue
        row += [""] * (len(head) - len(row))
        name, value = row[name_at], row[value_at]
        if not name or not value:
            missing = columns[bool(name)]
            problems.append(f"{path}: the line {','.join(row)!r} has no {missing}; add it.")
            continue
        value = spelling.setdefault(unicodedata.normalize("NFC", value).casefold(), value)
        if (other := found.setdefault(plain_name(name, endings), value)) != value:
            problems.append(f"{path}: says {other} and {value} of {name}. Keep one of the lines.")
    return found, problems


def read_table(path: str | Path) -> list[list[str]]:
    """The cells of each line of a CSV file, whatever spreadsheet saved it; or a csv.Error."""
    text = _read_text(Path(path))
    text = text[len(sep[0]) if (sep := re.match("sep=.\r?(\n|$)", text)) else 0 :]
    head = (text.splitlines() or [""])[0]
    return list(csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count)))


def _read_text(path: Path) -> str:
    """The text of a file in the encodings that spreadsheets write."""
    raw = path.read_bytes()
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return raw.decode("utf-16", "replace")
    for encoding in ("utf-8-sig", "cp1252"):
        with suppress(UnicodeDecodeError):
            return raw.decode(encoding)
    return raw.decode("latin-1")  # which reads anything
