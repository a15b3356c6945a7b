"""``summary.csv``: what became of each photograph, kept through kills, written in linear time.

Each outcome goes to a journal, ``OUT/.summary.journal``, and to the disk; the table itself is
written anew each time it has grown by a tenth, and at the end. A call that was killed leaves its
journal, and the next one takes it up. Nobody else opens the journal, so a person may have the
table open in a spreadsheet, or save it, meanwhile.
"""

import csv
import errno
import json
import os
import sys
from collections.abc import Callable, Mapping
from itertools import count as numbers
from pathlib import Path
from typing import NamedTuple

from retina_utils import printable
from retina_utils.intake.listing import stem_of
from retina_utils.machine.files import read_csv, write_csv
from retina_utils.show.folder_page import read_judged

STATUSES = ("done", "left out", "failed")
NUMBERS = (
    "width",
    "height",
    "fov_area",
    "fov_share",
    "vessel_share",
    "threshold",
    "expected_dice",
    "expected_dice_low",
    "expected_dice_high",
    "seconds",
)
FOR_DICOM = ("laterality", "pixel_spacing_mm", "patient")  # columns only where there is one
FOR_JUDGED = ("judged", "note")  # and where a person has judged
CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)  # of some shares


class Outcome(NamedTuple):
    """What became of one photograph: a line of ``summary.csv``."""

    name: str  # path below the folder of photographs
    status: str  # "done", "left out" (a mask among the photographs) or "failed"
    flags: str = ""  # what to look at, from `quality`; empty if nothing
    width: int | str = ""  # pixels
    height: int | str = ""
    fov_area: int | str = ""  # pixels
    fov_share: float | str = ""  # of the photograph
    vessel_share: float | str = ""  # of the FOV
    threshold: float | str = ""
    expected_dice: float | str = ""  # at its best threshold, if its probabilities are honest
    expected_dice_low: float | str = ""  # of the 90 % interval around it
    expected_dice_high: float | str = ""
    seconds: float | str = ""
    message: str = ""  # why there is no map
    fingerprint: str = ""  # of the photograph's file and all that decides its map
    laterality: str = ""  # of a DICOM photograph: "R" or "L"
    pixel_spacing_mm: str = ""  # of a DICOM photograph: between rows and between columns
    patient: str = ""  # of a DICOM photograph: a pseudonym, by the key in OUT/patients.key
    seen: str = ""  # what it was in the network's training, from its ledger; empty if nothing
    measures: dict[str, str] | str = ""  # its line of measures.csv, if it was measured


class Summary:
    """The outcomes in ``out`` by name, those of earlier calls with photographs in ``root`` too.

    As a context: what has been done is in ``summary.csv`` in the end, however the block ends.
    ``show``, if given, is called with the outcomes each time the table has been written.
    """

    def __init__(self, out: Path, root: Path, show: Callable[[dict], object] = len):
        self.out, self.journal, self.show = out, out / ".summary.journal", show
        self.judged, problems = read_judged(out)
        for problem in problems:
            print(problem, file=sys.stderr)
        told = read_summary(out) | read_journal(self.journal)
        self.outcomes = still_there(told, out, root)
        self.unwritten = len(self.outcomes)

    def __enter__(self) -> "Summary":
        if self.journal.exists():
            self._write()
        self.file = self.journal.open("w", encoding="utf-8")
        return self

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome: when this returns, no kill can lose it."""
        self.outcomes[outcome.name] = outcome
        self.file.write(json.dumps(outcome) + "\n")
        self.file.flush()
        try:
            os.fsync(self.file.fileno())
        except OSError as error:
            if error.errno not in CANNOT_SYNC:
                raise
        self.unwritten += 1
        if self.unwritten > len(self.outcomes) / 10:
            self._write()

    def __exit__(self, *error) -> None:
        self.file.close()
        self._write()
        self.journal.unlink()
        if left := self.judged.keys() - joined(self.judged, self.outcomes).keys():
            names = printable(", ".join(sorted(left)[:4]) + (" …" if len(left) > 4 else ""))
            print(f"{len(left)} lines of judged.csv left out, of no map as it is now here: {names}")

    def _write(self) -> None:
        write_summary(self.out, self.outcomes, self.judged)
        self.unwritten = 0
        self.show(self.outcomes)


def read_journal(path: Path) -> dict[str, Outcome]:
    """The outcomes that a killed call kept; a last line that a power cut tore is left out."""
    outcomes = {}
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        try:
            outcome = Outcome(*json.loads(line))
        except (ValueError, TypeError):
            break
        outcomes[outcome.name] = outcome
    return outcomes


def read_summary(out: Path) -> dict[str, Outcome]:
    """What summary.csv says, by name; a spreadsheet may have saved it again.

    What cannot be read is set aside, and all done again.
    """
    path = out / "summary.csv"
    try:
        rows = read_csv(path) if path.exists() else []
        found = [outcome_of(row) for row in rows if any(row.values())]
        if len({outcome.name for outcome in found}) < len(found):
            raise ValueError("a name comes twice")
    except (ValueError, csv.Error) as error:
        aside = next(p for n in numbers(1) if not (p := out / f"summary.unread-{n}.csv").exists())
        path.rename(aside)
        words = f"{path}: cannot be read ({error}), so it is now {aside.name} and all is done again"
        print(printable(words), file=sys.stderr)
        return {}
    measures = read_measures(out)
    return {o.name: o._replace(measures=measures.get(o.name, "")) for o in found}


def read_measures(out: Path) -> dict[str, dict[str, str]]:
    """The lines of measures.csv by photograph; what cannot be read is measured again."""
    path = out / "measures.csv"
    try:
        rows = read_csv(path) if path.exists() else []
        return {
            row.pop("photograph"): {k: v.replace(",", ".") for k, v in row.items()} for row in rows
        }
    except (ValueError, KeyError, csv.Error):
        return {}


def still_there(told: dict[str, Outcome], out: Path, root: Path) -> dict[str, Outcome]:
    """Those outcomes whose maps or photographs are still there."""
    kept, gone = {}, []
    for name, outcome in told.items():
        here = [root / name] if outcome.status != "done" else targets(out, name)
        if all(map(os.path.exists, here)):
            kept[name] = outcome
        elif not os.path.exists(root / name):
            gone.append(name)
    if gone:
        names = printable(", ".join(gone[:4]) + (" …" if len(gone) > 4 else ""))
        print(f"{len(gone)} lines of summary.csv left out, without photograph or maps: {names}")
    return kept


def outcome_of(row: dict[str, str]) -> Outcome:
    """A line of summary.csv as it was, also with decimal commas; a ValueError if it is spoilt."""
    if not {"name", "status", "fingerprint"} <= row.keys():
        raise ValueError(f"found the columns {', '.join(row)[:80]!r}")
    row = {key: row.get(key, "") for key in Outcome._fields}
    if not row["name"] or row["status"] not in STATUSES:
        raise ValueError(f"found a line of {row['name'][:80]!r} that is {row['status']!r}")
    for key in NUMBERS:
        row[key] = row[key].replace(",", ".")
        if row[key]:
            float(row[key])
    return Outcome(*(row[key] for key in Outcome._fields))


def joined(judged: Mapping[str, dict], outcomes: Mapping[str, Outcome]) -> dict[str, dict]:
    """What a person judged of maps that are still the same."""
    same = {outcome.name: (outcome.fingerprint, "") for outcome in outcomes.values()}
    return {name: told for name, told in judged.items() if told["map"] in same.get(name, ())}


def write_summary(
    out: Path, outcomes: dict[str, Outcome], judged: Mapping[str, dict] | None = None
) -> None:
    """One line for each photograph, by name, whatever the order in which they were done."""
    told = joined(judged or {}, outcomes)
    nothing = {"judged": "", "note": ""}
    rows = [outcomes[name]._asdict() | told.get(name, nothing) for name in sorted(outcomes)]
    optional = FOR_DICOM + FOR_JUDGED
    unused = ["measures", *(key for key in optional if not any(row[key] for row in rows))]
    columns = [key for key in (*Outcome._fields, *FOR_JUDGED) if key not in unused]
    write_csv(out / "summary.csv", ({k: row[k] for k in columns} for row in rows), columns)
    measured = [{"photograph": row["name"]} | row["measures"] for row in rows if row["measures"]]
    if columns := list(dict.fromkeys(key for row in measured for key in row)):
        write_csv(out / "measures.csv", measured, columns)


def targets(out: Path, name: str) -> list[Path]:
    """The three files written for a photograph."""
    path = out / name
    stem = stem_of(path)
    return [path.with_name(f"{stem}_{k}.png") for k in ("vessels", "probability", "overlay")]
