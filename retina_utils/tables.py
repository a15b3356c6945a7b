"""Small tables: HTML in a notebook, aligned text in a terminal and in a log."""

import math
import numbers
from collections.abc import Sequence
from html import escape


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
        if columns is None:
            columns = list(dict.fromkeys(key for row in rows for key in row))
        if not isinstance(columns, dict):
            columns = {key: key for key in columns}
        self.caption = caption
        self.headings = [str(heading) for heading in columns.values()]
        self.cells = [[_text(row.get(key), digits) for key in columns] for row in rows]
        self.numeric = [all(_is_number(row.get(key)) for row in rows) for key in columns]

    def __repr__(self) -> str:
        lines = [self.headings, *self.cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.headings))]
        rule = ["-" * width for width in widths]
        text = [self.caption] if self.caption else []
        for line in [self.headings, rule, *self.cells]:
            cells = zip(line, widths, self.numeric, strict=True)
            text.append("  ".join(c.rjust(w) if n else c.ljust(w) for c, w, n in cells).rstrip())
        return "\n".join(text)

    def _repr_html_(self) -> str:
        def line(cells: list[str], tag: str) -> str:
            pairs = zip(cells, self.numeric, strict=True)
            look = "padding:2px 8px;text-align:"
            cells = [
                f'<{tag} style="{look}{"right" if numeric else "left"}">{escape(cell)}</{tag}>'
                for cell, numeric in pairs
            ]
            return f"<tr>{''.join(cells)}</tr>"

        caption = '<caption style="text-align:left;caption-side:top">' + escape(self.caption)
        return (
            f"<table>{caption + '</caption>' if self.caption else ''}"
            f"<thead>{line(self.headings, 'th')}</thead>"
            f"<tbody>{''.join(line(cells, 'td') for cells in self.cells)}</tbody></table>"
        )


def mean_sd(mean: float, sd: float, digits: int = 3) -> str:
    """Mean and standard deviation as they are printed.

    >>> mean_sd(0.8124, 0.0151)
    '0.812 ± 0.015'
    """
    return f"{_text(float(mean), digits)} ± {_text(float(sd), digits)}"


def _text(value, digits: int) -> str:
    """One cell: 1,234 or 0.812 or –, anything else as it prints."""
    if value is None or (isinstance(value, numbers.Real) and math.isnan(value)):
        return "–"
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        return f"{int(value):,}"
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        return f"{float(value):.{digits}f}"
    return str(value)


def _is_number(value) -> bool:
    """Numbers, missing numbers and "mean ± sd" stand on the right of their column."""
    return value is None or isinstance(value, numbers.Real) or "±" in str(value)
