"""Small tables: HTML in a notebook, aligned text in a terminal and in a log; and some rows."""

import math
import numbers
import statistics
from collections.abc import Sequence
from functools import partial

import torch
from torch import nn

from retina_utils.data import SPLITS, Sample, Splits
from retina_utils.evaluate import SplitScores
from retina_utils.metrics import SCORES
from retina_utils.models import build_model, count_parameters
from retina_utils.show.pages import TEMPLATES

OF_A_DECISION = dict(list(SCORES.items())[:5])  # that a threshold gives
# What measures.widths.by_width tells, in words.
WIDTHS = {
    "thin": "recall, thin vessels",
    "thick": "recall, thick vessels",
    "cldice": "clDice",
    "found": "found",
    "on_vessel": "on a vessel",
    "width_ratio": "drawn / annotated width",
}
HEADINGS = {key: words[0].upper() + words[1:] for key, words in SCORES.items()}


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
        return TEMPLATES.get_template("table.html.j2").render(table=self)

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
    mean, sd = (math.nan if value is None else float(value) for value in (mean, sd))
    return f"{as_text(mean, digits)} ± {as_text(sd, digits)}"


def mean_by(rows: Sequence[dict], by: Sequence[str], scores: Sequence[str]) -> list[dict]:
    """The mean of some columns for each choice: a row for each combination of the columns ``by``.

    ``rows`` may be those of a CSV, numbers as their text; a cell without one makes the mean nan.
    """
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in by), []).append(row)
    return [
        dict(zip(by, choice, strict=True))
        | {key: statistics.fmean(float(row[key] or "nan") for row in some) for key in scores}
        for choice, some in groups.items()
    ]


def _is_number(value) -> bool:
    """Numbers, missing numbers and "mean ± sd" stand on the right of their column."""
    return value is None or isinstance(value, numbers.Real) or "±" in str(value)


def split_table(splits: Splits) -> list[dict]:
    """One row for each split: photographs, people, and how many of each."""
    return [
        {
            "split": name,
            "photographs": len(pairs),
            "people": len({p.person for p in pairs}),
            "names": ", ".join(p.name for p in pairs[:4]) + (" …" if len(pairs) > 4 else ""),
        }
        for name, pairs in zip(SPLITS, splits, strict=True)
    ]


def sample_row(sample: Sample) -> dict:
    """Size, and how much of a photograph is FOV and of that vessel: a row of a table."""
    height, width = sample.fov.shape
    size = {"name": sample.name, "size": f"{width} × {height}"}
    return size | {
        "FOV share": sample.fov.mean(),
        "vessels in FOV": sample.vessels[sample.fov].mean(),
    }


def level_table(model: nn.Module, height: int, width: int) -> list[dict]:
    """What each stage of the network puts out for a photograph of this size, in running order.

    Rows of ``stage`` ("down 1" is the finest), ``height``, ``width``, ``channels`` and
    ``parameters``. Nothing is computed: the shapes come from a copy without values.
    """
    with torch.device("meta"):
        twin = build_model(model.architecture, model.settings)
        image = torch.zeros(1, model.settings["c_in"], height, width)
    rows = []

    def record(stage, module, _, out):
        _, channels, high, wide = out.shape
        size = {"height": high, "width": wide, "channels": channels}
        rows.append({"stage": stage, **size, "parameters": count_parameters(module)})

    stages = {}
    for name, child in twin.named_children():  # a list of parts is numbered, finest first
        parts = enumerate(child, start=1) if isinstance(child, nn.ModuleList) else [("", child)]
        stages |= {f"{name} {i}".strip(): part for i, part in parts}
    for stage, module in stages.items():
        module.register_forward_hook(partial(record, stage))
    twin(image)
    return rows
