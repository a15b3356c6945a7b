"""Published results with the protocol behind each (``published.csv``), to set a run beside.

Two Dice values can be compared if they count the same pixels at a threshold chosen in the same
way. So every row says what was trained on, which pixels were counted and where the threshold came
from; a cell is "Dice" or "Dice / ROC-AUC", and empty where there is none.
"""

from pathlib import Path

from retina_utils.machine.files import read_csv

_TABLE = read_csv(Path(__file__).with_suffix(".csv"))
COLUMNS = tuple(_TABLE[0])
ROWS = [{column: cell for column, cell in row.items() if cell} for row in _TABLE]
SETS = ("DRIVE", "CHASE_DB1", "STARE", "HRF", "FIVES")  # those of the columns that hold scores


def beside(
    own: dict, title: str, pooled: dict, second: dict | None = None, synthetic: bool = False
) -> list[dict]:
    """The published rows, and under them this run's; all have the keys of ``COLUMNS``.

    ``own`` fills the columns ``parameters``, ``trained on`` and ``threshold from``; ``pooled``
    holds ``dice`` and ``auc`` of this run's test photographs, ``second`` the ``dice`` of their
    second observer. ``title`` is of ``catalogue.dataset_of``: "" puts the scores into a column
    "these photographs". Scores of ``synthetic`` ones never stand beside real ones.
    """
    blank = dict.fromkeys(COLUMNS, "–")
    rows = [blank | row for row in ROWS]
    if synthetic:
        return [*rows, blank | {"method": "this run: synthetic photographs, stands apart"}]
    column = next((name for name in SETS if title.startswith(name)), "these photographs")
    shared = {"counted": "inside the FOV", "source": "this notebook"}
    scores = f"{_short(pooled['dice'])} / {_short(pooled['auc'])}"
    rows.append(blank | own | shared | {"method": "this run", column: scores})
    if second:
        human = {"method": "second observer, the same photographs"}
        rows.append(blank | shared | human | {column: _short(second["dice"])})
    return rows


def _short(score: float) -> str:
    """As papers print it: .788"""
    return f"{score:.3f}".removeprefix("0")
