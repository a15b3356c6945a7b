"""One page about one run, for a reader who never opens a notebook: ``outputs/<run>/report.html``.

The page is a single file: pictures, charts and the threshold slider are inside it, nothing is
loaded from elsewhere. Every score is counted again from the probability maps and the annotations,
and a page is written only if it agrees with what 04_evaluate recorded.

Here the facts are gathered; the words are in ``report.html.j2``.
"""

import io
import math
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from retina_utils import RetinaError, metrics
from retina_utils.data import Splits, read_splits
from retina_utils.datasets.catalogue import photographs
from retina_utils.evaluate import Case, Measured, Results, load_case, measure
from retina_utils.machine import runs
from retina_utils.machine.files import read_csv, read_json, sha256, write_text
from retina_utils.measures.compare import FEWEST, TRUSTED
from retina_utils.show import figures, pictures
from retina_utils.show.pages import TEMPLATES, data_uri
from retina_utils.show.tables import HEADINGS, WIDTHS, Table, as_text, mean_sd
from retina_utils.show.viewer import viewer_html

MAX_BYTES = 14_000_000  # of the whole page; fewer photographs go into the slider to stay below
PANEL = 640  # pixels: the longer side of a photograph in the best, middle and worst rows
VIEWER = Markup("<!-- the threshold slider -->")
# Colours of the charts that follow the page into dark mode.
INKS = {
    pictures.INK: "currentColor",
    pictures.GREY: "var(--soft)",
    pictures.BLUE: "var(--blue)",
    pictures.GREEN: "var(--green)",
    pictures.VERMILLION: "var(--vermillion)",
}


class Run(NamedTuple):
    """Everything a page is written from."""

    folder: Path
    data_dir: Path  # where the photographs are
    manifests: dict[str, dict]  # by notebook
    results: Results
    model: dict  # architecture, settings, parameters
    history: list[dict]  # empty where the weights were given
    splits: Splits
    measured: dict[str, Measured]


class Row(NamedTuple):
    """One of the extreme photographs and its pictures, as data URIs."""

    label: str  # of Measured.extremes
    name: str
    scores: dict[str, float]
    panels: dict[str, str]  # what is seen -> picture


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all, and say where it is.

    Raises
    ------
    RetinaError
        If a notebook has not run yet or a file was changed since, or if the probability maps do
        not give the scores in ``metrics.json``; the message names the notebook to run.
    """
    run = read_run(Path(run_folder))
    path = run.folder / "report.html"
    with plt.style.context(figures.STYLE):
        write_text(path, _written(run))
    return path


def read_run(folder: Path) -> Run:
    """The files of a run, checked, with every split's pixels counted again."""
    if not folder.is_dir():
        raise RetinaError(
            f"{folder}: no such run folder. Expected outputs/<run>; make one with: make run-all"
        )
    last = folder / "04_evaluate.json"
    given = last.exists() and runs.read_manifest(last)["parameters"].get("weights")
    # On given weights nothing was built or trained in this run.
    steps = ("01_data", "04_evaluate") if given else runs.NOTEBOOKS[:4]
    manifests = {name: runs.require(folder, name) for name in steps}
    results = Results.read(folder)
    root = Path(manifests["01_data"]["results"]["data_dir"])
    if not root.is_dir():
        raise RetinaError(
            f"{root}: the photographs of this run are gone. Put them back, or run 01_data.ipynb "
            "again with data_dir set to where they are."
        )
    splits = read_splits(folder / "splits.csv", root)
    measured = {split: measure(folder, getattr(splits, split)) for split in results.splits}
    for split, counted in measured.items():
        if lacking := metrics.SCORES.keys() - results.splits[split].pooled.keys():
            raise RetinaError(
                f"{folder / 'metrics.json'}: has no {' and '.join(sorted(lacking))}, so another "
                "version of this code wrote it. Run 04_evaluate.ipynb again."
            )
        recorded = results.splits[split].pooled["dice"]
        found = counted.scores(results.threshold.value).pooled["dice"]
        if not math.isclose(found, recorded, abs_tol=5e-4) and not math.isnan(found):
            raise RetinaError(
                f"{folder / 'metrics.json'}: says pooled Dice {recorded:.4f} for {split}, but the "
                f"maps in probability/{split} give {found:.4f}. They belong to different runs: run "
                "04_evaluate.ipynb again."
            )
    return Run(
        folder=folder,
        data_dir=root,
        manifests=manifests,
        results=results,
        model=results.network if given else read_json(folder / "model.json"),
        history=[] if given else read_csv(folder / "history.csv"),
        splits=splits,
        measured=measured,
    )


def _written(run: Run) -> str:
    """The whole document; the slider comes last, into the room that the rest has left."""
    split = "test" if "test" in run.measured else next(iter(run.measured))
    chosen, by_eye = run.results.threshold.value, run.folder / "threshold_by_eye.json"
    intervals, humans = {}, {}
    for name, found in run.measured.items():
        intervals[name] = metrics.bootstrap_intervals(found.counts(chosen), found.people)
        humans[name] = metrics.scores(found.second_pooled) if found.second else {}
    page = TEMPLATES.get_template("report.html.j2", globals=WORDS).render(
        run=run,
        split=split,
        intervals=intervals,
        humans=humans,
        finding=[  # which an earlier version did not tell by who drew
            {"drawn by": who} | found
            for who, found in run.results.vessel_width.items()
            if isinstance(found, dict)
        ],
        best_epoch=max(run.history, key=lambda r: float(r["validation_dice"]), default=None),
        everything=metrics.scores(metrics.confusion_at(run.measured[split].pooled, 0))["dice"],
        by_eye=read_json(by_eye) if by_eye.exists() else None,
        charts=_charts(run, split),
        rows=list(_rows(run, split)),
        viewer=VIEWER,
    )
    return page.replace(VIEWER, _viewer(run, split, max(MAX_BYTES - len(page.encode()), 1)))


def _charts(run: Run, split: str) -> dict[str, Figure]:
    """The charts there are data for: "history", "thresholds", "curves" and "calibration"."""
    chosen = run.results.threshold.value
    pooled, second = run.measured[split].pooled, run.measured[split].second_pooled
    charts = {
        "curves": figures.plot_curves(pooled, chosen, second),
        "calibration": figures.plot_calibration(pooled, second),
    }
    if run.history:
        charts["history"] = figures.plot_history(run.history)
    if "validation" in run.measured and split == "test":
        validation = run.measured["validation"]
        human = {"validation": validation.second_pooled, "test": second}
        charts["thresholds"] = figures.plot_thresholds(validation.pooled, chosen, pooled, human)
    return charts


def _rows(run: Run, split: str) -> Iterator[Row]:
    """The extreme photographs with their errors."""
    threshold = run.results.threshold.value
    for label, pair in run.measured[split].extremes(threshold).items():
        case = load_case(run.folder, pair)
        decision, scores = figures.decide(case, threshold)
        size = pictures.size_within(case.fov.shape, min(PANEL, max(case.fov.shape)))
        detail = pictures.worst_window((decision ^ case.vessels) & case.fov)
        small = pictures.error_map(decision, case.vessels, case.fov, size)
        errors = pictures.error_map(decision, case.vessels, case.fov)
        panels = {
            "photograph": data_uri(pictures.shrink(case.image, size), "JPEG"),
            "errors": data_uri(small, "PNG"),
            "detail with most errors": data_uri(case.image[detail], "JPEG"),
            "errors of the detail": data_uri(errors[detail], "PNG"),
        }
        yield Row(label, pair.name, scores, panels)


def _viewer(run: Run, split: str, room: int) -> str:
    """The threshold viewer: worst, middle and best photograph, then the others."""
    measured, threshold = run.measured[split], run.results.threshold
    dice = {pair: value for value, pair in measured.ranked(threshold.value)}
    extremes = measured.extremes(threshold.value)
    labels = {pair: f", {label}" for label, pair in reversed(extremes.items()) if label != "only"}

    def cases() -> Iterator[Case]:
        for pair in dict.fromkeys([*labels, *measured.pairs]):
            title = f"{pair.name} (Dice {dice[pair]:.3f}{labels.get(pair, '')})"
            yield load_case(run.folder, pair)._replace(name=title)

    marks = {"chosen": threshold.value}
    if split == "test":
        marks["best"] = threshold.best_test
    whole = f"{photographs(len(measured.pairs), split)}, pooled"
    return viewer_html(cases(), marks, measured.pooled, whole, max_bytes=room)


def svg(fig: Figure, label: str) -> Markup:
    """A chart as inline SVG whose text is text and whose ink follows the page's colours."""
    buffer = io.StringIO()
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}):
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        fig.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    plt.close(fig)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r' id="[a-zA-Z0-9.]+_\d+"', "", svg)  # names of parts, the same in every chart
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', 'role="img"', svg, count=1)
    for colour, ink in INKS.items():
        svg = svg.replace(colour.lower(), ink)
    return Markup(svg.replace("<svg ", f'<svg aria-label="{escape(label)}" ', 1))


def verdict(pooled: dict[str, float], everything: float) -> str:
    """The scores in a sentence; ``everything`` is the Dice of marking every pixel."""
    least = min(pooled["precision"], pooled["recall"])
    if not pooled["dice"] > everything:
        return "The vessels were not found: marking every pixel would have scored as well."
    if not pooled["auc"] >= 0.75:
        return "The network hardly tells vessels from background."
    if not least >= 0.6:
        missed = pooled["recall"] == least
        return (
            "The vessels were found in part: many were missed."
            if missed
            else "The vessels were found, and much beside them was marked that is none."
        )
    return "Most of the vessels were found, and most of what was marked is vessel."


def auc_in_words(auc: float) -> str:
    """How far an area under the ROC curve is from guessing."""
    words = {0.6: "close to guessing", 0.75: "weak", 0.9: "moderate", 0.97: "good"}
    if math.isnan(auc):
        return "not defined here"
    word = next((words[limit] for limit in words if auc < limit), "very good")
    return f"{word}; guessing gives 0.5"


def date(iso: str) -> str:
    """A day and time as it is printed: "22 November 2026, 12:31 UTC"."""
    when = datetime.fromisoformat(iso)
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


# What the template may call by name.
WORDS = {
    "svg": svg,
    "verdict": verdict,
    "auc_in_words": auc_in_words,
    "date": date,
    "sha256": sha256,
    "table": Table,
    "text": as_text,
    "mean_sd": mean_sd,
    "headings": HEADINGS,
    "widths": WIDTHS,
    "colours": pictures.ERROR_COLOURS,
    "resamples": metrics.RESAMPLES,
    "fewest": FEWEST,
    "trusted": TRUSTED,
    "panel": PANEL,
}
