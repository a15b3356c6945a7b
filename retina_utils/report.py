"""One page about one run, for a reader who never opens a notebook: ``outputs/<run>/report.html``.

The page is a single file: pictures, charts and the threshold slider are inside it, nothing is
loaded from elsewhere. Every score is counted again from the probability maps and the annotations,
and a page is written only if it agrees with what 04_evaluate recorded.

Command line: ``python -m retina_utils.report outputs/<run>``.
"""

import argparse
import base64
import csv
import html
import io
import itertools
import json
import math
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image
from torch import nn

from retina_utils import data, figures, images, metrics, models, runs
from retina_utils.figures import Case
from retina_utils.sources import SOURCES
from retina_utils.tables import Table, mean_sd
from retina_utils.viewer import viewer_html

MAX_BYTES = 14_000_000  # of the whole page; fewer photographs go into the slider to stay below
PANEL = 640  # pixels: the longer side of a photograph in the best, median and worst rows
RESAMPLES = 2000
SCORES = {
    "dice": "Dice",
    "iou": "IoU",
    "precision": "Precision",
    "recall": "Recall",
    "specificity": "Specificity",
    "accuracy": "Accuracy",
    "auc": "ROC area",
    "ap": "Average precision",
}
COUNTS = ("tp", "fp", "fn", "tn")
MADE_BY = {
    "splits.csv": "01_data",
    "model.json": "02_model",
    "history.csv": "03_train",
    "metrics.json": "04_evaluate",
    "metrics.csv": "04_evaluate",
}
# Colours of the charts that follow the page into dark mode.
INKS = {
    figures.INK: "currentColor",
    figures.GREY: "var(--soft)",
    figures.BLUE: "var(--blue)",
    figures.GREEN: "var(--green)",
    figures.VERMILLION: "var(--vermillion)",
}


class Measured(NamedTuple):
    """What the files of one split say, counted inside the field of view at native size."""

    pairs: list[data.Pair]
    counts: list[dict[str, int]]  # of each photograph, at the chosen threshold
    pooled: metrics.Histogram
    second: list[dict[str, int]]  # a second observer's, where every photograph has one


class Run(NamedTuple):
    """Everything a page is written from."""

    folder: Path
    manifests: dict[str, dict]
    metrics: dict
    model: dict
    history: list[dict]  # empty where the weights were given
    rows: list[dict]  # metrics.csv
    splits: data.Splits
    measured: dict[str, Measured]

    @property
    def threshold(self) -> float:
        """The chosen one; :attr:`chosen_on` says on what."""
        return self.metrics["threshold"]["value"]

    @property
    def data_name(self) -> str:
        """The data folder's name."""
        return Path(self.manifests["01_data"]["results"]["data_dir"]).name

    @property
    def synthetic(self) -> bool:
        """Whether the photographs were drawn by a program."""
        return bool(self.manifests["01_data"]["results"].get("synthetic"))

    @property
    def weights(self) -> str:
        """The weights that were given: "pretrained" or a path; "" for those trained in this run."""
        return self.manifests["04_evaluate"]["parameters"].get("weights", "")

    @property
    def seed(self):
        """The seed of the training run."""
        if self.weights:
            return self.metrics["network"].get("seed") or "not recorded"
        return self.manifests["03_train"]["parameters"].get("seed", "not recorded")

    @property
    def chosen_on(self) -> str:
        """The photographs the threshold was chosen on, in words."""
        return self.metrics["threshold"]["chosen_on"]

    def about(self, split: str) -> str:
        """The line without which no number is printed."""
        pairs = getattr(self.splits, split)
        people = len({pair.person for pair in pairs})
        return (
            f"{self.data_name}, {split} split: {_count(len(pairs), 'photograph')} of "
            f"{_count(people, 'person', 'people')}, inside the field of view, at native size"
        )


def write_report(run_folder: str | Path) -> Path:
    """Write ``report.html`` into a run folder, whole or not at all, and say where it is.

    Raises
    ------
    RunError
        If a notebook has not run yet or a file was changed since, or if the probability maps do
        not give the scores in ``metrics.json``; the message names the notebook to run.
    """
    run = read_run(Path(run_folder))
    path = run.folder / "report.html"
    with images.atomic_path(path) as temporary, plt.rc_context(figures.STYLE):
        temporary.write_text(_page(run), encoding="utf-8")
    return path


def describe_network(model: nn.Module, weights: str, facts: dict) -> dict:
    """What is recorded of the network that was evaluated, with a checksum of its weights.

    Parameters
    ----------
    model, facts : of ``models.load_model``
    weights : "pretrained" or a path; "" for the weights trained in this run
    """
    card = facts.get("card") or {}
    return {
        "weights": weights,
        "sha256": models.weights_digest(model),
        "architecture": model.architecture,
        "settings": model.settings,
        "parameters": models.count_parameters(model),
        "seed": (card.get("recipe") or facts).get("seed"),
        "trained_on": trained_on(facts) or "not recorded",
    }


def trained_on(facts: dict) -> str:
    """The photographs that weights were trained on, in words; "" where the file does not say."""
    card = facts.get("card") or {}
    words = []
    for key, names in card.get("photographs", {}).items():
        title = SOURCES[key].title if key in SOURCES else key
        words.append(f"{_count(len(names), 'photograph')} of {title}, {min(names)} to {max(names)}")
    return "; and ".join(words) or facts.get("data", "")


def seen_in_training(facts: dict, title: str, names: Sequence[str]) -> str:
    """A sentence about photographs that given weights may have been trained on.

    Parameters
    ----------
    facts : of ``models.load_model``; its card lists the photographs of each data set
    title : of ``published.dataset_of``: "" where the folder is no imported data set
    names : of the test photographs
    """
    card = facts.get("card") or {}
    known = trained_on(facts) or "photographs they do not name"
    source = next((key for key, entry in SOURCES.items() if entry.title == title), None)
    used = set(card.get("photographs", {}).get(source, ()))
    seen = [name for name in names if name in used]
    if seen:
        return (
            f"These weights were trained on {known}. {len(seen)} of these {len(names)} test "
            "photographs are among them: the scores on those are not a test."
        )
    if source and "photographs" in card:
        return f"These weights were trained on {known}. None of these test photographs is there."
    return f"These weights were trained on {known}. Scores on photographs from there are no test."


def require_weights(summary: dict, weights: str) -> None:
    """Raise a RunError unless ``metrics.json`` holds the scores of these weights."""
    scored = summary.get("network", {}).get("weights", "")
    if scored != weights:
        names = [repr(name) if name else "the run's own" for name in (scored, weights)]
        raise runs.RunError(
            f"metrics.json holds the scores of {names[0]} weights, and {names[1]} are asked for. "
            "Run 04_evaluate.ipynb with the same weights first."
        )


def count_observer(pairs: Sequence[data.Pair]) -> list[dict[str, int]]:
    """Counts of each photograph's second observer; none unless every photograph has one.

    Part of the photographs would not be comparable with a network scored on all of them.
    """
    if not pairs or not all(pair.second for pair in pairs):
        return []
    counts = []
    for pair in pairs:
        sample = data.load_sample(pair)
        counts.append(metrics.confusion(images.read_binary(pair.second), *sample[2:]))
    return counts


def add_counts(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    """Counts of several photographs together."""
    counts = list(counts)
    return {key: sum(row[key] for row in counts) for key in COUNTS}


def bootstrap_intervals(
    counts: Sequence[dict[str, int]], people: Sequence[str], seed: int = 0
) -> dict[str, tuple[float, float]]:
    """95 % intervals of pooled scores, by resampling whole people.

    Two eyes of one person are alike, so people are drawn with replacement, not photographs
    (2000 times; percentile interval, Efron & Tibshirani, 1993). With the photographs' own names
    as ``people`` photographs are drawn, which is too narrow where eyes are alike. Training is not
    repeated: the interval tells of other photographs, not of another training run.

    Parameters
    ----------
    counts : "tp", "fp", "fn", "tn" of each photograph
    people : whose each photograph is

    Returns
    -------
    intervals : score -> (low, high); nan for a single person
    """
    names = sorted(set(people))
    table = np.zeros((len(names), len(COUNTS)), np.int64)
    for person, row in zip(people, counts, strict=True):
        table[names.index(person)] += [row[key] for key in COUNTS]
    draws = np.random.default_rng(seed).integers(len(names), size=(RESAMPLES, len(names)))
    totals = table[draws].sum(axis=1)  # (RESAMPLES, 4)
    scores = metrics.scores(dict(zip(COUNTS, totals.T, strict=True)))
    if len(names) == 1:
        return dict.fromkeys(scores, (math.nan, math.nan))
    return {key: tuple(np.nanpercentile(value, [2.5, 97.5])) for key, value in scores.items()}


# --- Reading a run ------------------------------------------------------------------------------


def read_run(folder: Path) -> Run:
    """The files of a run, checked, with every split's pixels counted again."""
    if not folder.is_dir():
        raise runs.RunError(
            f"{folder}: no such run folder. Expected outputs/<run>; make one with: make run-all"
        )
    steps = runs.NOTEBOOKS[:4]
    if _has_given_weights(folder):
        steps = ("01_data", "04_evaluate")  # nothing was built or trained in this run
    manifests = {name: runs.require(folder, name) for name in steps}
    for name, notebook in MADE_BY.items():
        if notebook in steps:
            _need(folder / name, notebook)
    summary = _read_json(folder / "metrics.json")
    trained = "03_train" in steps
    model = _read_json(folder / "model.json") if trained else summary["network"]
    root = Path(manifests["01_data"]["results"]["data_dir"])
    if not root.is_dir():
        raise runs.RunError(
            f"{root}: the photographs of this run are gone. Put them back, or run 01_data.ipynb "
            "again with data_dir set to where they are."
        )
    splits = data.read_splits(folder / "splits.csv", root)
    threshold = summary["threshold"]["value"]
    measured = {}
    for split, recorded in summary["splits"].items():
        measured[split] = _measure(folder, getattr(splits, split), threshold)
        _require_agreement(folder, split, measured[split], recorded["pooled"]["dice"])
    history = _read_csv(folder / "history.csv") if trained else []
    rows = _read_csv(folder / "metrics.csv")
    return Run(folder, manifests, summary, model, history, rows, splits, measured)


def _has_given_weights(folder: Path) -> bool:
    """Whether 04_evaluate ran on weights that this run did not train."""
    path = folder / "04_evaluate.json"
    return path.exists() and bool(_read_json(path)["parameters"].get("weights"))


def _read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def _need(path: Path, notebook: str) -> None:
    """Raise where a file is missing, naming the notebook that writes it."""
    if not path.exists():
        raise runs.RunError(f"{path} is missing. {notebook} writes it: run {notebook}.ipynb.")


def _read_csv(path: Path) -> list[dict]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def load_case(folder: Path, pair: data.Pair) -> Case:
    """A photograph with its probability map."""
    path = folder / "probability" / pair.split / f"{pair.name}.png"
    _need(path, "04_evaluate")
    sample = data.load_sample(pair)
    probability = images.read_probability(path)
    return Case(sample.name, sample.image, probability, sample.vessels, sample.fov)


def _measure(folder: Path, pairs: list[data.Pair], threshold: float) -> Measured:
    """Count a split, one photograph in memory at a time."""
    counts, pooled = [], None
    for pair in pairs:
        case = load_case(folder, pair)
        counted = metrics.histogram(case.probability, case.vessels, case.fov)
        pooled = metrics.pool([pooled, counted]) if pooled else counted
        counts.append(metrics.confusion_at(counted, threshold))
    return Measured(pairs, counts, pooled, count_observer(pairs))


def _require_agreement(folder: Path, split: str, measured: Measured, recorded: float) -> None:
    """Raise if the maps on disk are not those that were scored."""
    found = metrics.scores(add_counts(measured.counts))["dice"]
    if not math.isclose(found, _number(recorded), abs_tol=5e-4) and not math.isnan(found):
        raise runs.RunError(
            f"{folder / 'metrics.json'}: says pooled Dice {recorded:.4f} for {split}, but the maps "
            f"in probability/{split} give {found:.4f}. They belong to different runs: run "
            "04_evaluate.ipynb again."
        )


# --- The page -----------------------------------------------------------------------------------


def _page(run: Run) -> str:
    """The whole document."""
    split = _headline_split(run)
    before = [_opening(run, split), _training(run), _scores(run), _charts(run, split)]
    before.append(_extremes(run, split))
    after = [_every_photograph(run, split), _limits(run, split), _provenance(run)]
    room = MAX_BYTES - sum(len(part.encode()) for part in before + after)
    slider = _slider(run, split, room)
    content = _number_figures("".join([*before, slider, *after]))
    title = f"{run.folder.name}: retinal vessels in {run.data_name}"
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{_text(title)}</title>
<style>{style}</style>
</head>
<body><main>
{content}
<footer>For research and teaching, not for diagnosis. Written from the files of the run
<code>{_text(run.folder.name)}</code>; the page needs no network.</footer>
</main>
<script>addEventListener("beforeprint", () => {{
  for (const part of document.querySelectorAll("details")) part.open = true;
}});</script>
</body></html>
"""


def _number_figures(page: str) -> str:
    """Figures numbered as they come: a page on given weights has no training curves."""
    numbers = itertools.count(1)
    return re.sub(r"<b>Figure \d+\.</b>", lambda _: f"<b>Figure {next(numbers)}.</b>", page)


def _headline_split(run: Run) -> str:
    """The split that is reported: test, or the only one there is."""
    return "test" if "test" in run.measured else next(iter(run.measured))


def _opening(run: Run, split: str) -> str:
    """Title, verdict and four numbers with everything needed to read them."""
    measured, recorded = run.measured[split], run.metrics["splits"][split]
    pooled, mean, sd = recorded["pooled"], recorded["mean"], recorded["sd"]
    low, high = _intervals(measured)["dice"]
    n, people = len(measured.pairs), len({pair.person for pair in measured.pairs})
    threshold = run.metrics["threshold"]
    interval = f"95 % interval {_score(low)} to {_score(high)}"
    verdict = (
        f"On {_count(n, f'{split} photograph')} of {_text(run.data_name)} "
        f"({_count(people, 'person', 'people')}), "
        f"{_text(_network(run))} reaches a pooled Dice of <b>{_score(pooled['dice'])}</b> "
        f"({interval}); per photograph it is {mean_sd(_number(mean['dice']), _number(sd['dice']))}"
        f" (mean ± SD). It finds {_score(pooled['recall'])} of the annotated vessel pixels, and "
        f"{_score(pooled['precision'])} of the pixels it marks are annotated. "
        f"{_second_sentence(measured, low, high)}"
    )
    numbers = {
        "Dice, pooled": (pooled["dice"], interval),
        "Recall": (pooled["recall"], "share of vessel pixels found"),
        "Precision": (pooled["precision"], "share of marked pixels that are vessel"),
        "Area under the ROC curve": (pooled["auc"], "needs no threshold"),
    }
    cells = "".join(
        f"<div><span>{name}</span><b>{_score(value)}</b><span>{note}</span></div>"
        for name, (value, note) in numbers.items()
    )
    command = run.manifests["04_evaluate"]["provenance"]["command"]
    banner = ""
    if run.synthetic:
        banner = (
            '<p class="banner" role="note"><b>Synthetic photographs.</b> A program drew the '
            "images and the vessels of this run. The scores show that the pipeline works; they "
            "say nothing about real photographs.</p>"
        )
    if run.weights:
        seen = run.metrics["protocol"].get("weights", "")
        banner += (
            f'<p class="banner" role="note"><b>Nothing was trained in this run.</b> {_text(seen)}'
            "</p>"
        )
    return f"""<p class="kicker">Retinal-vessel segmentation · run {_text(run.folder.name)} ·
{_date(run.manifests["04_evaluate"]["provenance"]["finished"])}</p>
<h1>How well were the vessels of {_text(run.data_name)} found?</h1>
{banner}
<p class="verdict">{verdict}</p>
<div class="lead-numbers">{cells}</div>
<p class="protocol">{_text(run.about(split))}; pooled over all pixels. Threshold
{threshold["value"]:.4f}, chosen for the best {_text(SCORES.get(threshold["by"], threshold["by"]))}
on {_text(threshold["chosen_on"])} photographs and not moved afterwards. One training run, seed
{_text(run.seed)}. Command: <code>{_text(command)}</code></p>
{_choice_by_eye(run)}
"""


def _choice_by_eye(run: Run) -> str:
    """What a reader chose with the slider, if anybody did; it never replaces the threshold."""
    path = run.folder / "threshold_by_eye.json"
    if not path.exists():
        return ""
    choice = json.loads(path.read_text(encoding="utf-8"))
    return (
        f'<p class="protocol">A reader chose another threshold by eye, {choice["threshold"]:.3f}: '
        f"“{_text(choice['reason'])}”. The scores on this page keep to the one above.</p>"
    )


def _second_sentence(measured: Measured, low: float, high: float) -> str:
    """How far a second human observer agrees with the first, if there is one."""
    if not measured.second:
        return "These photographs have no second observer, so human agreement is not known here."
    human = metrics.scores(add_counts(measured.second))["dice"]
    where = "inside" if low <= human <= high else "above" if human > high else "below"
    return (
        f"A second human observer, scored against the same annotation, reaches {human:.3f}, "
        f"{where} that interval."
    )


def _training(run: Run) -> str:
    """What was trained, on what, and how it went."""
    rows = []
    for split, pairs in run.splits._asdict().items():
        row = {
            "split": split,
            "photographs": len(pairs),
            "people": len({pair.person for pair in pairs}),
            "use": _use_of(split, run.weights),
        }
        if split in run.measured:
            vessel, background = (counts.sum() for counts in run.measured[split].pooled)
            row["share"] = float(vessel / (vessel + background))
        rows.append(row)
    columns = {
        "split": "Split",
        "photographs": "Photographs",
        "people": "People",
        "share": "Vessel share of the field of view",
        "use": "Decides",
    }
    table = f'<div class="scroll">{Table(rows, columns)._repr_html_()}</div>\n<p></p>'
    if run.weights:
        return f"<h2>What was tested, and on what</h2>\n{table}{_facts(_given_facts(run))}"
    parameters = run.manifests["03_train"]["parameters"]
    best = max(run.history, key=lambda row: _number(row["validation_dice"]))
    facts = {
        "Network": f"{_network(run)}; {_settings(run.model['settings'])}",
        "Training": _settings(
            {k: v for k, v in parameters.items() if k not in ("outputs_dir", "run", "run_name")}
        ),
        "Epochs": f"{len(run.history)} run; the weights of epoch {best['epoch']} were kept, with "
        f"validation Dice {_number(best['validation_dice']):.3f}",
    }
    chart = _svg(figures.plot_history(run.history), "Losses and scores over the epochs")
    return f"""<h2>What was trained, and on what</h2>
{table}{_facts(facts)}
{
        _figure(
            1,
            chart,
            f"Training and validation over the epochs, on the training and validation "
            f"photographs of {run.data_name}. The dotted line is the epoch whose weights were "
            "kept: that with the highest validation Dice. A validation loss that rises while the "
            "training loss falls would be overfitting.",
        )
    }"""


def _use_of(split: str, weights: str) -> str:
    """What the photographs of a split decide."""
    if weights:
        return "this report, once" if split == "test" else "nothing: the weights were given"
    return {
        "train": "the weights",
        "validation": "the learning rate, the epoch kept, the threshold",
        "test": "this report, once",
    }[split]


def _given_facts(run: Run) -> dict[str, str]:
    """The network and where its given weights come from."""
    return {
        "Network": f"{_network(run)}; {_settings(run.model['settings'])}",
        "Weights": f"{run.weights}, SHA-256 of the values {run.model['sha256']}",
        "Trained on": run.model["trained_on"],
    }


def _scores(run: Run) -> str:
    """A table for every split, the reported one first."""
    first, *others = sorted(run.measured, key=lambda split: split != _headline_split(run))
    tables = [_score_table(run, split) for split in others]
    protocol = "; ".join(f"{key}: {value}" for key, value in run.metrics["protocol"].items())
    return f"""<h2>The scores, pooled and per photograph</h2>
<p>Pooled scores put all pixels of a split together; mean ± SD is over photographs, which weighs
each alike. The interval is for the pooled score: people are drawn again with replacement
{RESAMPLES:,} times (seed 0), because two eyes of one person are alike. It tells what other
photographs might give, not what another training run might.</p>
<div class="scroll scores">{_score_table(run, first)}</div>
<div class="wide pair scores">{"".join(f'<div class="scroll">{t}</div>' for t in tables)}</div>
<p class="protocol">{_text(run.data_name)}; threshold {run.threshold:.4f}, from
{_text(run.metrics["threshold"]["chosen_on"])} photographs; seed {_text(run.seed)}.
{_text(protocol)}. {"" if run.weights else "The network has seen the training photographs."}</p>
"""


def _score_table(run: Run, split: str) -> str:
    """Every score of one split: pooled, its interval, per photograph, and a human's."""
    measured, recorded = run.measured[split], run.metrics["splits"][split]
    intervals, rows = _intervals(measured), []
    human = metrics.scores(add_counts(measured.second)) if measured.second else {}
    for key, name in SCORES.items():
        pooled, mean, sd = (_number(recorded[part].get(key)) for part in ("pooled", "mean", "sd"))
        row = {"name": name, "pooled": pooled, "each": mean_sd(mean, sd), "human": human.get(key)}
        if key in intervals:
            row["interval"] = " to ".join(_score(bound) for bound in intervals[key])
        rows.append(row)
    columns = {"name": split, "pooled": "pooled", "interval": "95 % interval", "each": "mean ± SD"}
    if human:
        columns["human"] = "2nd observer"
    return Table(rows, columns, caption=run.about(split))._repr_html_()


def _charts(run: Run, split: str) -> str:
    """Threshold, ROC and precision–recall, calibration."""
    measured = run.measured[split]
    second = add_counts(measured.second) if measured.second else None
    best = run.metrics["threshold"]["best_test"]
    parts = ["<h2>The threshold was chosen before the test photographs were scored</h2>"]
    if "validation" in run.measured and split == "test":
        chosen, possible = (
            metrics.scores(metrics.confusion_at(measured.pooled, t))["dice"]
            for t in (run.threshold, best)
        )
        people = {
            name: add_counts(run.measured[name].second)
            for name in ("validation", "test")
            if run.measured[name].second
        }
        chart = figures.plot_thresholds(
            run.measured["validation"].pooled, run.threshold, measured.pooled, people
        )
        caption = (
            f"Pooled Dice, precision and recall against the threshold on {run.data_name}, "
            f"validation (left) and test (right), inside the field of view. The solid line is the "
            f"threshold chosen on {run.chosen_on} photographs. The dashed line is the best "
            f"possible one on test, which nobody can know beforehand: it would give {possible:.3f} "
            f"instead of "
            f"{chosen:.3f}." + (" The dotted line is the second observer's Dice." if people else "")
        )
        parts.append(_figure(2, _svg(chart, "Scores against the threshold"), caption))
    curves = _svg(
        figures.plot_curves(measured.pooled, run.threshold, second),
        "ROC and precision–recall curves",
    )
    human = " The diamond is the second human observer." if second else ""
    parts.append(
        _figure(
            3,
            curves,
            f"Every threshold at once: ROC curve (left; the inset enlarges its corner) and "
            f"precision–recall curve (right) of {run.about(split)}, pooled. The circle is the "
            f"chosen threshold.{human} Since vessels are about a tenth of the pixels, the right "
            "chart shows differences that the left one hides.",
        )
    )
    calibration = _svg(figures.plot_calibration(measured.pooled, second), "Calibration")
    parts.append(
        "<h2>Can a probability be taken at its word?</h2>"
        + _figure(
            4,
            calibration,
            f"Share of annotated vessel pixels against predicted probability: "
            f"{run.about(split)}, pooled. On the diagonal a probability of 0.7 means that seven "
            "pixels of ten are vessel; a curve below it is too sure of vessels. The bars say how "
            "many pixels stand behind each point."
            + (" The diamonds: what the second observer left out, and drew." if second else ""),
            wide=False,
        )
    )
    return "".join(parts)


def _extremes(run: Run, split: str) -> str:
    """Best, median and worst photograph with their errors."""
    ranked = _ranked(run, split)
    rows = []
    for label, pair in _named_extremes(ranked).items():
        case = load_case(run.folder, pair)
        decision = metrics.decide(case.probability, run.threshold) & case.fov
        size = figures.fit(case.fov.shape, min(PANEL, max(case.fov.shape)))
        errors = figures.error_map(decision, case.vessels, case.fov)
        detail = figures.worst_window((decision ^ case.vessels) & case.fov)
        score = metrics.scores(metrics.confusion(decision, case.vessels, case.fov))
        panels = {
            "photograph": figures.shrink(case.image, size),
            "error map": figures.error_map(decision, case.vessels, case.fov, size),
            "detail with most errors": case.image[detail],
            "the same, as errors": errors[detail],
        }
        rows.append(
            f"<p><b>{label}: {_text(pair.name)}</b> · Dice {score['dice']:.3f}, precision "
            f"{score['precision']:.3f}, recall {score['recall']:.3f}</p>"
        )
        for i, (name, array) in enumerate(panels.items()):
            shown = f"<span>{name}</span>" if label == "Best" else ""
            rows.append(
                f'<figure>{shown}<img class="{"pixels" if i > 1 else ""}" '
                f'src="{_picture(array, i % 2)}" alt="{_text(pair.name)}: {name}"></figure>'
            )
    key = " ".join(
        f'<span class="swatch" style="background:{colour}"></span>{name}'
        for name, colour in figures.ERROR_COLOURS.items()
    )
    caption = (
        f"Best, median and worst photograph by Dice: {run.about(split)}, threshold "
        f"{run.threshold:.3f}. Pictures are reduced to at most {PANEL} pixels; the details show "
        "native pixels. Colours of the errors: "
    )
    return f"""<h2>The best, the median and the worst photograph</h2>
<figure class="wide"><div class="panels">{"".join(rows)}</div>
<figcaption><b>Figure 5.</b> {_text(caption)}{key}.</figcaption></figure>
"""


def _slider(run: Run, split: str, room: int) -> str:
    """The threshold viewer, extremes first, then the others by name."""
    ranked = _ranked(run, split)
    extremes = {pair.name: label for label, pair in reversed(_named_extremes(ranked).items())}
    dice = {pair.name: value for value, pair in ranked}
    first = [pair for name in extremes for _, pair in ranked if pair.name == name]
    order = first + [pair for pair in run.measured[split].pairs if pair.name not in extremes]

    def cases() -> Iterator[Case]:
        for pair in order:
            which = f", {extremes[pair.name].lower()}" if pair.name in extremes else ""
            yield load_case(run.folder, pair)._replace(
                name=f"{pair.name} (Dice {dice[pair.name]:.3f}{which})"
            )

    thresholds = {"chosen": run.threshold}
    if split == "test":
        thresholds["best"] = run.metrics["threshold"]["best_test"]
    viewer = viewer_html(
        cases(),
        thresholds,
        run.measured[split].pooled,
        whole_label=f"{split}, {len(order)} pooled",
        max_bytes=max(room, 1),
    )
    return f"""<h2>Move the threshold yourself</h2>
<p>A lower threshold finds more thin vessels and raises more false alarms. The slider decides every
pixel again, in this page; the curves above it show Dice at each threshold. Scroll over the picture
after a click, or pinch, to zoom in to native pixels.</p>
<figure class="wide">{viewer}
<figcaption><b>Figure 6.</b> {_text(run.about(split))}. Scores come from counts of all native
pixels. The marks are one half, the threshold chosen on {_text(run.chosen_on)} photographs, and
(dashed) the best possible one, for comparison only.</figcaption></figure>
"""


def _every_photograph(run: Run, split: str) -> str:
    """One row for each photograph, worst first."""
    rows = [row for row in run.rows if row["split"] == split]
    rows = [{"name": row["name"], **{key: _number(row.get(key)) for key in SCORES}} for row in rows]
    rows.sort(key=lambda row: row["dice"])
    table = Table(rows, {"name": "Photograph", **SCORES})._repr_html_()
    table = f'<div class="wide scroll">{table}</div>'
    if len(rows) > 30:
        table = f'<details class="wide"><summary>Show all {len(rows)}</summary>{table}</details>'
    return f"""<h2>Every {split} photograph, worst first</h2>
<p class="protocol">{_text(run.about(split))}; threshold {run.threshold:.4f}; seed
{_text(run.seed)}.</p>
{table}
"""


def _limits(run: Run, split: str) -> str:
    """What these numbers cannot say."""
    measured = run.measured[split]
    people = len({pair.person for pair in measured.pairs})
    items = [
        "For research and teaching, not for diagnosis.",
        f"One training run with one seed ({_text(run.seed)}): how much the scores vary from run "
        "to run is not measured here.",
        f"One camera and one group of people ({_text(run.data_name)}). On another camera, age or "
        "disease the scores may be much lower, and another threshold may be right.",
        "The annotation is one observer's judgement; at the thinnest vessels two observers "
        "disagree, and a false alarm may be a vessel the observer left out.",
        "Pixel scores hide broken thin vessels, for they hold few pixels.",
    ]
    if people < 10:
        items.insert(
            2,
            f"Only {_count(people, 'person', 'people')} in the {split} split: the 95 % interval "
            "is itself rough, and probably too narrow.",
        )
    if not all(pair.fov for pair in measured.pairs):
        items.append(
            "The field of view was found in the photographs themselves, for no masks came with "
            "the data; a pixel or two at its rim may be counted differently elsewhere."
        )
    if run.synthetic:
        items.insert(0, "<b>The photographs are synthetic: no score carries over to real ones.</b>")
    return f"<h2>Limits</h2><ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _provenance(run: Run) -> str:
    """Commands, versions, parameters and checksums."""
    steps = [{"notebook": name, **m["provenance"]} for name, m in run.manifests.items()]
    columns = {
        "notebook": "Notebook",
        "finished": "Finished",
        "seconds": "Seconds",
        "device": "Device",
        "cpu": "CPU",
        "threads": "Threads",
        "commit": "Commit",
        "command": "Command",
    }
    for step in steps:
        step["finished"] = _date(step["finished"])
    last = run.manifests["04_evaluate"]["provenance"]
    versions = ", ".join(f"{k} {v}" for k, v in {"Python": last["python"]}.items()) + ", "
    versions += ", ".join(f"{k} {v}" for k, v in last["versions"].items())
    parameters = {name: _settings(m["parameters"]) for name, m in run.manifests.items()}
    checks = [
        {"file": name, "sha256": digest}
        for manifest in run.manifests.values()
        for name, digest in manifest["files"].items()
    ]
    root = Path(run.manifests["01_data"]["results"]["data_dir"])
    sources = [
        {
            "split": pair.split,
            "file": path.relative_to(root).as_posix(),
            "sha256": runs.sha256(path),
        }
        for pairs in run.splits
        for pair in pairs
        for path in pair[3:]
        if path
    ]
    return f"""<h2>Where these numbers come from</h2>
<div class="wide scroll">{Table(steps, columns, digits=1)._repr_html_()}</div>
<p></p><dl class="facts"><dt>Versions</dt><dd>{_text(versions)}</dd></dl>
<details><summary>All parameters</summary>{_facts(parameters)}</details>
<details><summary>Checksums of the run's files ({len(checks)})</summary>
<div class="scroll">{Table(checks)._repr_html_()}</div></details>
<details><summary>Checksums of the data ({len(sources)} files)</summary>
<div class="scroll">{Table(sources)._repr_html_()}</div></details>
"""


# --- Small pieces -------------------------------------------------------------------------------


def _ranked(run: Run, split: str) -> list[tuple[float, data.Pair]]:
    """Dice and pair of each photograph, best first; undefined scores last."""
    measured = run.measured[split]
    dice = [metrics.scores(counts)["dice"] for counts in measured.counts]
    ranked = zip(dice, measured.pairs, strict=True)
    return sorted(ranked, key=lambda row: (math.isnan(row[0]), -row[0], row[1].name))


def _named_extremes(ranked: list[tuple[float, data.Pair]]) -> dict[str, data.Pair]:
    """Best, median and worst; fewer where there are fewer than three photographs."""
    places = {"Best": 0, "Worst": len(ranked) - 1, "Median": (len(ranked) - 1) // 2}
    names = {place: name for name, place in places.items()}  # one photograph, one name
    return {names[place]: ranked[place][1] for place in sorted(names)}


def _intervals(measured: Measured) -> dict[str, tuple[float, float]]:
    return bootstrap_intervals(measured.counts, [pair.person for pair in measured.pairs])


def _network(run: Run) -> str:
    """The network in words: "a unet with 482,625 parameters"."""
    names = {"unet": "a U-Net", "unet256": "a 256-pixel U-Net (pix2pix)"}
    architecture = run.model["architecture"]
    name = names.get(architecture, f"the network {architecture}")
    return f"{name} with {run.model['parameters']:,} parameters"


def _settings(settings: dict) -> str:
    """Parameters in one line."""
    return ", ".join(f"{key} = {value}" for key, value in settings.items())


def _facts(facts: dict) -> str:
    """A list of terms and what they are."""
    rows = (f"<dt>{_text(key)}</dt><dd>{_text(value)}</dd>" for key, value in facts.items())
    return f'<dl class="facts">{"".join(rows)}</dl>'


def _figure(number: int, content: str, caption: str, wide: bool = True) -> str:
    """A chart with a caption that can be understood alone."""
    return (
        f'<figure class="{"wide " if wide else ""}chart"><div class="scroll">{content}</div>'
        f"<figcaption><b>Figure {number}.</b> {_text(caption)}</figcaption></figure>"
    )


def _svg(fig: Figure, label: str) -> str:
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
    return svg.replace("<svg ", f'<svg aria-label="{_text(label)}" ', 1)


def _picture(array: np.ndarray, sharp: bool) -> str:
    """A data URI: PNG for maps of few colours, JPEG for photographs."""
    buffer = io.BytesIO()
    kind = "png" if sharp else "jpeg"
    Image.fromarray(array).save(buffer, kind, optimize=True, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _text(value) -> str:
    return html.escape(str(value))


def _number(value) -> float:
    """A number from JSON or CSV; null and empty are nan."""
    return math.nan if value in (None, "") else float(value)


def _score(value) -> str:
    """Three decimals, or a dash."""
    value = _number(value)
    return "–" if math.isnan(value) else f"{value:.3f}"


def _count(n: int, one: str, many: str = "") -> str:
    """ "1 person", "3 people"."""
    return f"{n} {one if n == 1 else many or one + 's'}"


def _date(iso: str) -> str:
    """22 November 2026, 12:31 UTC."""
    when = datetime.fromisoformat(iso)
    return f"{when.day} {when:%B %Y, %H:%M} {when.tzname() or ''}".strip()


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the report of one run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m retina_utils.report", description=__doc__)
    parser.add_argument("run_folder", type=Path, help="outputs/<run>")
    try:
        path = write_report(parser.parse_args(arguments).run_folder)
    except (runs.RunError, images.ImageError) as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
