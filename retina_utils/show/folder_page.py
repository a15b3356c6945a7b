"""One page about a folder of photographs and their maps: ``OUT/index.html``, opened from disk.

A browser lets a page from disk read no other file, but load scripts and pictures. So the table of
all photographs is in the page, and what the viewer shows of each is a script and two JPEG files in
``OUT/index_files``, loaded when it is looked at: ten thousand photographs stay light. All pictures
are written from arrays, without what a camera noted in its files.

Here the facts are gathered; the words are in ``folder.html.j2``.
"""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import numpy as np

from retina_utils import RetinaError, images, metrics, printable
from retina_utils.evaluate import Case
from retina_utils.machine.files import read_csv, write_text
from retina_utils.show import pictures
from retina_utils.show.pages import TEMPLATES
from retina_utils.show.viewer import OWN, RAMP, embed, marks_on, threshold_levels

PARTS = "index_files"
LONGEST = 2048  # pixels, of a photograph in the viewer
THUMBNAIL = 144  # pixels, twice what the table shows
JUDGEMENTS = ("good", "doubtful", "not usable")
KEYS = ("photograph", "name")  # headings of the column that tells the photograph
UNTOLD = ("fingerprint",)
COLUMNS = ("expected_dice", "vessel_share")  # in the table, where they are
MEASURES = 3  # and so many of measures.csv; the others stand beside the photograph
LABELS = {
    "expected_dice": "expected Dice",
    "vessel_share": "vessel share",
    "fov_share": "FOV share",
}


class Parts(NamedTuple):
    """The files of a photograph beside the page."""

    script: Path  # what the viewer shows
    photograph: Path
    thumbnail: Path  # the photograph, and its vessels drawn over it


def parts_of(out: Path, name: str) -> Parts:
    """Where the parts of the photograph ``name``, a path below its folder, lie."""
    path = out / PARTS / name
    return Parts(*(path.with_name(path.name + end) for end in (".js", ".jpg", ".small.jpg")))


def write_parts(out: Path, case: Case, threshold: float, own: bool = False) -> None:
    """Write what the page shows of a photograph; ``own`` if the threshold is that of it alone."""
    counts = np.bincount(metrics.to_levels(case.probability[case.fov]), minlength=metrics.LEVELS)
    marks = {"chosen": threshold}
    levels, parts = threshold_levels(marks, counts), parts_of(out, case.name)
    entry, picture = embed(case, levels, LONGEST)
    reached = np.cumsum(counts[::-1])[::-1] / max(counts.sum(), 1)
    shares = reached[[*map(metrics.lowest_level, levels)]]
    entry |= {
        "photograph": quote(f"{PARTS}/{case.name}.jpg"),
        "levels": levels.tolist(),
        "marks": marks_on(levels, marks),
        "scores": {"share": shares.round(4).tolist()},
    }
    if own:
        entry["marks"]["chosen"]["label"] = OWN
    images.write_jpeg(parts.photograph, picture)
    vessels = metrics.decide(case.probability, threshold) & case.fov
    size = pictures.size_within(vessels.shape, THUMBNAIL)
    small = pictures.shrink(picture, size)
    images.write_jpeg(
        parts.thumbnail, np.hstack([small, pictures.overlay(small, vessels, size=size)])
    )
    write_text(parts.script, f"retinaPhotograph({json.dumps(entry, separators=(',', ':'))});\n")


def write_page(out: Path, record: Mapping, left: int = 0) -> Path:
    """Write ``index.html`` from ``summary.csv`` and, where it is, ``measures.csv``.

    ``record`` is that of ``predict.json``; ``left`` photographs are not done yet.
    """
    rows, measures = read_csv(out / "summary.csv"), _by_photograph(out / "measures.csv")
    found = [row | measures.get(row["name"], {}) | row for row in rows]
    columns = [
        key for key in dict.fromkeys(key for row in found for key in row) if key not in UNTOLD
    ]
    numeric = [key for key in columns if _is_numeric(row.get(key, "") for row in found)]
    of_measures = [key for key in numeric if key not in (rows[0] if rows else ())]
    few = [key for key in of_measures if not key.endswith(("_low", "_high"))][:MEASURES]
    data = {
        "columns": columns,
        "rows": [[row.get(key, "") for key in columns] for row in found],
        "numeric": numeric,
        "shown": [*(key for key in COLUMNS if key in numeric), *few],
        "labels": {key: LABELS.get(key, key.replace("_", " ")) for key in columns},
        "judgements": JUDGEMENTS,
        "fingerprints": [row.get("fingerprint", "") for row in found],
        "parts": PARTS,
    }
    viewer = {"ramp": RAMP, "cases": [], "scores": {"share": "Vessels, share of it"}}
    viewer |= {"curve": "share", "note": "", "whole": None, "whole_label": ""}
    page = TEMPLATES.get_template("folder.html.j2").render(
        data=data, viewer=viewer, record=record, left=left, measured=bool(measures)
    )
    write_text(out / "index.html", page)
    return out / "index.html"


def read_judged(out: Path) -> tuple[dict[str, dict[str, str]], list[str]]:
    """``judged.csv``, as the page saves it and a spreadsheet may have, by photograph.

    Each has "judged", one of JUDGEMENTS or empty, "note", and "map", the fingerprint of what was
    judged, empty where the list was written by hand. Beside them every problem in a sentence.
    """
    path, judged, problems = out / "judged.csv", {}, []
    try:
        rows = read_csv(path) if path.exists() else []
        if rows and not {"photograph", "judged"} <= rows[0].keys():
            raise RetinaError(f"found the columns {', '.join(rows[0])[:80]!r}")
    except (ValueError, csv.Error) as error:
        return {}, [f"{path}: not read ({error}). Expected columns photograph,judged,note."]
    for row in rows:
        name, word = row["photograph"], " ".join(row["judged"].split()).casefold()
        if word not in (*JUDGEMENTS, ""):
            words = f"{path}: {name} is judged {word[:40]!r}; expected {', '.join(JUDGEMENTS)}."
            problems.append(words)
        elif name in judged:
            problems.append(f"{path}: {name} comes twice; its first line counts.")
        else:
            judged[name] = {"judged": word, "note": row.get("note", "")}
            judged[name]["map"] = row.get("map", "").lstrip(
                "#"
            )  # which keeps it from being a number
    return judged, [printable(problem) for problem in problems]


def _by_photograph(path: Path) -> dict[str, dict[str, str]]:
    """The rows of another table in the folder by photograph; none if it cannot be read."""
    try:
        rows = read_csv(path) if path.exists() else []
    except (ValueError, csv.Error):
        return {}
    key = next((key for key in KEYS if rows and key in rows[0]), None)
    return {row.pop(key): row for row in rows} if key else {}


def _is_numeric(cells) -> bool:
    """Whether all cells of a column that say something are numbers."""
    try:
        return bool([float(cell) for cell in cells if cell])
    except ValueError:
        return False
