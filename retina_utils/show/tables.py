"""Small tables: HTML in a notebook, aligned text in a terminal and in a log."""

import math
import numbers
from collections.abc import Sequence
from html import escape

from retina_utils.evaluate import SplitScores
from retina_utils.metrics import SCORES


class Table:
    """Rows of names and numbers, shown by ending a cell with it.

    Parameters
    ----------
    rows : list of dicts
        One dict per row; a missing key, None or nan is shown as an en dash.
    columns : list of keys, or dict of key -> heading; all keys of the rows if not given
    digits : decimals of floats; integers are shown without
    caption : one line above the table
    """

    def __init__(
        self,
        rows: Sequence[dict],
        columns: Sequence[str] | dict[str, str] | None = None,
        digits: int = 3,
        caption: str = "",
    ):
        columns = columns or list(dict.fromkeys(key for row in rows for key in row))
        if not isinstance(columns, dict):
            columns = {key: key for key in columns}
        self.caption = caption
        self.headings = [str(heading) for heading in columns.values()]
        self.cells = [[as_text(row.get(key), digits) for key in columns] for row in rows]
        self.numeric = [all(_is_number(row.get(key)) for row in rows) for key in columns]

    def __repr__(self) -> str:
        lines = [self.headings, *self.cells]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = [self.caption] if self.caption else []
        for line in [self.headings, ["-" * width for width in widths], *self.cells]:
            cells = zip(line, widths, self.numeric, strict=True)
            text.append("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in cells).rstrip())
        return "\n".join(text)

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str) -> str:
            sides = ("right" if numeric else "left" for numeric in self.numeric)
            return "".join(
                f'<{tag} style="padding:2px 8px;text-align:{side}">{escape(cell)}</{tag}>'
                for cell, side in zip(cells, sides, strict=True)
            )

        caption = '<caption style="text-align:left;caption-side:top">' + escape(self.caption)
        return (
            f"<table>{caption + '</caption>' if self.caption else ''}"
            f"<thead><tr>{line(self.headings, 'th')}</tr></thead><tbody>"
            + "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in self.cells)
            + "</tbody></table>"
        )

    __html__ = _repr_html_  # a template takes it as it is


def as_text(value, digits: int = 3) -> str:
    """A value as it is printed: 1,234 or 0.812 or –, anything else as it prints itself."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real | None):
        return str(value)
    if value is None or math.isnan(value):
        return "–"
    return f"{value:,}" if isinstance(value, numbers.Integral) else f"{float(value):.{digits}f}"


def spread(found: SplitScores) -> dict[str, str]:
    """The mean ± SD of the scores that are quoted most, by their headings."""
    keys = ("dice", "iou", "precision", "recall", "auc")
    return {SCORES[key]: mean_sd(found.mean[key], found.sd[key]) for key in keys}


def mean_sd(mean: float, sd: float, digits: int = 3) -> str:
    """Mean and standard deviation as they are printed: "0.812 ± 0.015"."""
    return f"{as_text(float(mean), digits)} ± {as_text(float(sd), digits)}"


def _is_number(value) -> bool:
    """Numbers, missing numbers and "mean ± sd" stand on the right of their column."""
    return value is None or isinstance(value, numbers.Real) or "±" in str(value)
