"""Published results with the protocol behind each, to set a run beside.

Two Dice values can be compared if they count the same pixels at a threshold chosen in the same
way. So every row says what was trained on, which pixels were counted and where the threshold came
from; a cell is "Dice" or "Dice / ROC-AUC".
"""

from pathlib import Path

from retina_utils.sources import SOURCES

SETS = ("DRIVE", "CHASE_DB1", "STARE", "HRF", "FIVES")
COLUMNS = ("method", "parameters", "trained on", "counted", "threshold from", *SETS, "source")
INSIDE, WHOLE, TRAINING = "inside the FOV", "whole image", "training"

ROWS = (
    {
        "method": "second human observer",
        "trained on": "–",
        "counted": INSIDE,
        "threshold from": "–",
        "DRIVE": ".788",
        "CHASE_DB1": ".777 (all 28)",
        "STARE": ".740",
        "source": "recomputed from the annotations",
    },
    {
        "method": "Little W-Net (Galdran et al., Sci Rep 2022)",
        "parameters": "68 k",
        "trained on": "each set's own",
        "counted": INSIDE,
        "threshold from": TRAINING,
        "DRIVE": ".828 / .981",
        "CHASE_DB1": ".820",
        "STARE": ".839",
        "HRF": ".814 (half size)",
        "FIVES": ".857",
        "source": "DRIVE recomputed; FIVES by the Berens lab; others by Idiap",
    },
    {
        "method": "the same weights on other cameras",
        "parameters": "68 k",
        "trained on": "DRIVE",
        "counted": INSIDE,
        "threshold from": TRAINING,
        "CHASE_DB1": ".759 / .972 (all 28)",
        "STARE": ".792 / .980 (all 20)",
        "HRF": ".687–.754 / .954–.976 (27)",
        "source": "recomputed; HRF fed at 512 to 1024 pixels",
    },
    {
        "method": "U-Net, VGG-16 encoder (Idiap, deepdraw)",
        "parameters": "25.8 M",
        "trained on": "each set's own",
        "counted": INSIDE,
        "threshold from": TRAINING,
        "DRIVE": ".825",
        "CHASE_DB1": ".807",
        "STARE": ".828",
        "HRF": ".811",
        "source": "its authors",
    },
    {
        "method": "the same at 768 pixels, on other cameras",
        "parameters": "25.8 M",
        "trained on": "CHASE_DB1",
        "counted": INSIDE,
        "threshold from": TRAINING,
        "DRIVE": ".774",
        "STARE": ".800",
        "HRF": ".730",
        "source": "its authors",
    },
    {
        "method": "the same at 768 pixels, on other cameras",
        "parameters": "25.8 M",
        "trained on": "HRF",
        "counted": INSIDE,
        "threshold from": TRAINING,
        "DRIVE": ".712",
        "CHASE_DB1": ".648",
        "STARE": ".769",
        "source": "its authors",
    },
    {
        "method": "U-Net, ResNet-34 encoder, 512 pixels (Berens lab, 2024)",
        "parameters": "24 M",
        "trained on": "FIVES",
        "counted": WHOLE,
        "threshold from": "not checked",
        "FIVES": ".9015 / .991",
        "source": "its authors",
    },
    {
        "method": "FR-UNet (JBHI 2022)",
        "parameters": "5.7 M",
        "trained on": "each set's own",
        "counted": WHOLE,
        "threshold from": "fixed: .5 (.3 where connected)",
        "DRIVE": ".8316 / .989",
        "CHASE_DB1": ".805–.815",
        "STARE": ".813–.833",
        "FIVES": ".904",
        "source": "quoted by others",
    },
)


def dataset_of(data_dir: str | Path) -> str:
    """The title of the public data set in an imported folder ("CHASE_DB1"); "" for any other."""
    page = Path(data_dir) / "SOURCE.md"
    if not page.is_file():
        return ""
    first = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").strip()
    return first if first in {entry.title for entry in SOURCES.values()} else ""


def beside(
    own: dict, title: str, pooled: dict, second: dict | None = None, synthetic: bool = False
) -> list[dict]:
    """The published rows, and under them this run's.

    Parameters
    ----------
    own : what stands in the columns ``parameters``, ``trained on`` and ``threshold from``
    title : of :func:`dataset_of`; "" puts the scores into a column "these photographs"
    pooled : ``dice`` and ``auc`` of this run's test photographs
    second : scores of their second observer, optional
    synthetic : bool
        Scores of drawn photographs never stand beside real ones: the row has none.

    Returns
    -------
    rows : list of dict, with the keys of ``COLUMNS`` (and "these photographs")
    """
    rows = [{column: row.get(column, "–") for column in COLUMNS} for row in ROWS]
    blank = dict.fromkeys(COLUMNS, "–")
    if synthetic:
        text = "this run: synthetic photographs, stands apart"
        return [*rows, blank | {"method": text}]
    column = next((name for name in SETS if title.startswith(name)), "these photographs")
    shared = {"counted": INSIDE, "source": "this notebook"}
    mine = blank | own | shared | {"method": "this run"}
    rows.append(mine | {column: f"{_short(pooled['dice'])} / {_short(pooled['auc'])}"})
    if second:
        human = {"method": "second observer, the same photographs"}
        rows.append(blank | shared | human | {column: _short(second["dice"])})
    return rows


def _short(score: float) -> str:
    """As papers print it: .788"""
    return f"{score:.3f}".removeprefix("0")
