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
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from retina_utils import RetinaError, metrics
from retina_utils.data import Splits, read_splits
from retina_utils.evaluate import Case, Measured, Results, load_case, measure
from retina_utils.machine import runs
from retina_utils.machine.files import read_csv, read_json, sha256, write_text
from retina_utils.show import figures, pictures
from retina_utils.show.pages import TEMPLATES, data_uri
from retina_utils.show.tables import Table, as_text, mean_sd
from retina_utils.show.viewer import viewer_html

MAX_BYTES = 14_000_000  # of the whole page; fewer photographs go into the slider to stay below
PANEL = 640  # pixels: the longer side of a photograph in the best, middle and worst rows
LABELS = {key: words[0].upper() + words[1:] for key, words in metrics.SCORES.items()}
DECIDES = {
    "train": "the weights",
    "validation": "the learning rate, the epoch kept, the threshold",
    "test": "this report, once",
}
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
    manifests: dict[str, dict]  # by notebook
    results: Results
    model: dict  # architecture, settings, parameters
    history: list[dict]  # empty where the weights were given
    splits: Splits
    measured: dict[str, Measured]

    @property
    def threshold(self) -> float:
        """The chosen one; ``results.threshold`` says on what."""
        return self.results.threshold.value

    @property
    def data_dir(self) -> Path:
        """Where the photographs are."""
        return Path(self.manifests["01_data"]["results"]["data_dir"])

    @property
    def weights(self) -> str:
        """The weights that were given: "pretrained" or a path; "" for those trained in this run."""
        return self.manifests["04_evaluate"]["parameters"].get("weights", "")

    @property
    def seed(self) -> int | str:
        """The seed of the training run."""
        trained = self.results.network if self.weights else self.manifests["03_train"]["parameters"]
        seed = trained.get("seed")
        return "not recorded" if seed is None else seed

    @property
    def headline(self) -> str:
        """The split that is reported: test, or the only one there is."""
        return "test" if "test" in self.measured else next(iter(self.measured))

    def setting(self, split: str) -> str:
        """The line without which no number is printed."""
        pairs = getattr(self.splits, split)
        people = len({pair.person for pair in pairs})
        return (
            f"{self.data_dir.name}, {split} split: {count(len(pairs), 'photograph')} of "
            f"{count(people, 'person', 'people')}, inside the field of view, at native size"
        )


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
    with plt.rc_context(figures.STYLE):
        write_text(path, _written(run))
    return path


def read_run(folder: Path) -> Run:
    """The files of a run, checked, with every split's pixels counted again."""
    if not folder.is_dir():
        raise RetinaError(
            f"{folder}: no such run folder. Expected outputs/<run>; make one with: make run-all"
        )
    last = folder / "04_evaluate.json"
    given = last.exists() and read_json(last)["parameters"].get("weights")
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
    _require_agreement(folder, measured, results)
    return Run(
        folder=folder,
        manifests=manifests,
        results=results,
        model=results.network if given else read_json(folder / "model.json"),
        history=[] if given else read_csv(folder / "history.csv"),
        splits=splits,
        measured=measured,
    )


def _require_agreement(folder: Path, measured: dict[str, Measured], results: Results) -> None:
    """Raise if the maps on disk are not those that were scored."""
    for split, counted in measured.items():
        recorded = results.splits[split].pooled["dice"]
        found = _dice(counted, results.threshold.value)
        if not math.isclose(found, recorded, abs_tol=5e-4) and not math.isnan(found):
            raise RetinaError(
                f"{folder / 'metrics.json'}: says pooled Dice {recorded:.4f} for {split}, but the "
                f"maps in probability/{split} give {found:.4f}. They belong to different runs: run "
                "04_evaluate.ipynb again."
            )


# The facts of the page --------------------------------------------------------------------------


def _written(run: Run) -> str:
    """The whole document."""
    split = run.headline
    measured = run.measured[split]
    by_eye = run.folder / "threshold_by_eye.json"
    facts = {
        "run": run,
        "split": split,
        "measured": measured,
        "scores": run.results.splits[split],
        "interval": _intervals(run, split)["dice"],
        "human": _human(measured),
        "best_epoch": max(run.history, key=lambda r: float(r["validation_dice"]), default=None),
        "by_eye": read_json(by_eye) if by_eye.exists() else None,
        "split_table": _split_table(run),
        "score_table": _score_table(run, split),
        "other_tables": [_score_table(run, name) for name in run.measured if name != split],
        "charts": _charts(run, split),
        "dice_at": lambda value: _dice(measured, value),
        "rows": list(_rows(run, split)),
        "photographs": _photographs(run, split),
        "provenance": _provenance(run),
    }
    template = TEMPLATES.get_template("report.html.j2", globals=WORDS)
    room = MAX_BYTES - len(template.render(facts, viewer="").encode())
    return template.render(facts, viewer=Markup(_viewer(run, split, max(room, 1))))


def _dice(measured: Measured, threshold: float) -> float:
    """The pooled Dice at any threshold."""
    return metrics.scores(metrics.confusion_at(measured.pooled, threshold))["dice"]


def _human(measured: Measured) -> dict[str, float]:
    """The second observer's scores; empty if there is none."""
    return metrics.scores(measured.second_pooled) if measured.second else {}


def _intervals(run: Run, split: str) -> dict[str, tuple[float, float]]:
    """Score -> 95 % interval of the pooled score, by people."""
    measured = run.measured[split]
    return metrics.bootstrap_intervals(measured.counts(run.threshold), measured.people)


def _split_table(run: Run) -> Table:
    """What each split holds and decides."""
    rows = []
    for split, pairs in run.splits._asdict().items():
        share, use = None, DECIDES[split]
        if split in run.measured:
            vessel, background = (counts.sum() for counts in run.measured[split].pooled)
            share = float(vessel / (vessel + background))
        if run.weights and split != "test":
            use = "nothing: the weights were given"
        row = {"Split": split, "Photographs": len(pairs), "People": len({p.person for p in pairs})}
        rows.append(row | {"Vessel share of the field of view": share, "Decides": use})
    return Table(rows)


def _score_table(run: Run, split: str) -> Table:
    """Every score of one split: pooled, its interval, per photograph, and a human's."""
    recorded, human = run.results.splits[split], _human(run.measured[split])
    intervals, rows = _intervals(run, split), []
    for key, label in LABELS.items():
        interval = " to ".join(map(as_text, intervals[key])) if key in intervals else None
        row = {split: label, "pooled": recorded.pooled[key], "95 % interval": interval}
        row["mean ± SD"] = mean_sd(recorded.mean[key], recorded.sd[key])
        rows.append(row | ({"2nd observer": human.get(key)} if human else {}))
    return Table(rows, caption=run.setting(split))


def _charts(run: Run, split: str) -> dict[str, Markup]:
    """The charts there are data for: "history", "thresholds", "curves" and "calibration"."""
    pooled, second = run.measured[split].pooled, run.measured[split].second_pooled
    curves = figures.plot_curves(pooled, run.threshold, second)
    charts = {
        "curves": _svg(curves, "ROC and precision–recall curves"),
        "calibration": _svg(figures.plot_calibration(pooled, second), "Calibration"),
    }
    if run.history:
        history = figures.plot_history(run.history)
        charts["history"] = _svg(history, "Losses and scores over the epochs")
    if "validation" in run.measured and split == "test":
        validation = run.measured["validation"]
        human = {"validation": validation.second_pooled, "test": second}
        human = {name: counts for name, counts in human.items() if counts}
        chart = figures.plot_thresholds(validation.pooled, run.threshold, pooled, human)
        charts["thresholds"] = _svg(chart, "Scores against the threshold")
    return charts


def _rows(run: Run, split: str) -> Iterator[Row]:
    """The extreme photographs with their errors."""
    for label, pair in run.measured[split].extremes(run.threshold).items():
        case = load_case(run.folder, pair)
        decision = metrics.decide(case.probability, run.threshold) & case.fov
        size = pictures.size_within(case.fov.shape, min(PANEL, max(case.fov.shape)))
        detail = pictures.worst_window((decision ^ case.vessels) & case.fov)
        small = pictures.error_map(decision, case.vessels, case.fov, size)
        errors = pictures.error_map(decision, case.vessels, case.fov)
        panels = {
            "photograph": data_uri(pictures.shrink(case.image, size), "JPEG"),
            "error map": data_uri(small, "PNG"),
            "detail with most errors": data_uri(case.image[detail], "JPEG"),
            "the same, as errors": data_uri(errors[detail], "PNG"),
        }
        scores = metrics.scores(metrics.confusion(decision, case.vessels, case.fov))
        yield Row(label, pair.name, scores, panels)


def _viewer(run: Run, split: str, room: int) -> str:
    """The threshold viewer, extremes first, then the others by name."""
    measured = run.measured[split]
    dice = {pair: value for value, pair in measured.ranked(run.threshold)}
    extremes = measured.extremes(run.threshold)
    labels = {pair: label for label, pair in reversed(extremes.items())}
    order = [*labels, *(pair for pair in measured.pairs if pair not in labels)]

    def cases() -> Iterator[Case]:
        for pair in order:
            which = f", {labels[pair]}" if pair in labels and len(order) > 1 else ""
            title = f"{pair.name} (Dice {dice[pair]:.3f}{which})"
            yield load_case(run.folder, pair)._replace(name=title)

    thresholds = {"chosen": run.threshold}
    if split == "test":
        thresholds["best"] = run.results.threshold.best_test
    whole = f"{split}, {len(order)} pooled"
    return viewer_html(cases(), thresholds, measured.pooled, whole, max_bytes=room)


def _photographs(run: Run, split: str) -> Table:
    """One row for each photograph, worst first."""
    rows = sorted(run.measured[split].rows(run.threshold), key=lambda row: row["dice"])
    return Table(rows, {"name": "Photograph", **LABELS})


def _provenance(run: Run) -> dict[str, Table]:
    """The "steps", and checksums of the run's "files" and of the "data"."""
    steps = [{"notebook": name, **m["provenance"]} for name, m in run.manifests.items()]
    steps = [step | {"finished": date(step["finished"])} for step in steps]
    names = ("notebook", "finished", "seconds", "device", "cpu", "threads", "commit", "command")
    columns = {name: "CPU" if name == "cpu" else name.capitalize() for name in names}
    made = [item for manifest in run.manifests.values() for item in manifest["files"].items()]
    root = run.data_dir
    data = [
        {"split": p.split, "file": path.relative_to(root).as_posix(), "sha256": sha256(path)}
        for p in chain(*run.splits)
        for path in (p.image, p.vessels, p.fov, p.second)
        if path
    ]
    return {
        "steps": Table(steps, columns, digits=1),
        "files": Table([{"file": name, "sha256": digest} for name, digest in made]),
        "data": Table(data),
    }


# Small pieces -----------------------------------------------------------------------------------


def _svg(fig: Figure, label: str) -> Markup:
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


def count(n: int, one: str, many: str = "") -> str:
    """A number of things, with the thing in the singular or the plural: "3 people"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def date(iso: str) -> str:
    """A day and time as it is printed: "22 November 2026, 12:31 UTC"."""
    when = datetime.fromisoformat(iso)
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


# What the template may call by name.
WORDS = {
    "count": count,
    "date": date,
    "text": as_text,
    "mean_sd": mean_sd,
    "labels": LABELS,
    "colours": pictures.ERROR_COLOURS,
    "resamples": metrics.RESAMPLES,
    "panel": PANEL,
}
