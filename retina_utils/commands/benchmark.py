"""One honest table: cross-validation by person, then cameras never seen, then a second human.

    make benchmark DATASET=chase_db1
    make benchmark DATASET="chase_db1 hrf" ARGS="--ship network.pt"
    make benchmark DATASET="chase_db1 hrf stare" ARGS=--leave-one-out
    make pretrained

Data sets are read from ``data/<name>`` (after ``make import-data``), the recipe from
``notebooks/presets/<name>.yaml`` over the notebooks' own defaults, so this trains what the
notebooks train. Every fold trains on all of its training people for a set number of epochs: no
photograph decides when to stop, and the threshold comes from the training people alone.
"""

import functools
import math
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import torch
from scipy.stats import spearmanr

from retina_utils import RetinaError, metrics, train
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands import card
from retina_utils.commands.recipe import preset_of, read_recipe, require_trainable
from retina_utils.data import FILES, Pair, load_data, load_sample
from retina_utils.datasets import ledger
from retina_utils.datasets.catalogue import SOURCES
from retina_utils.frame import fov_diameter
from retina_utils.images import read_binary
from retina_utils.intake import scale
from retina_utils.machine import files
from retina_utils.machine.compute import choose_device
from retina_utils.machine.runs import provenance
from retina_utils.measures import calibration, promise
from retina_utils.measures.widths import by_width
from retina_utils.models import count_parameters
from retina_utils.predict import predict_image, width_seen

HERE = Path(__file__).parent
FINDING = ("found", "on_vessel", "width_ratio")


class Test(NamedTuple):
    """Photographs to show to a trained network, and how large."""

    pairs: list[Pair]
    fov_diameter: int  # pixels across the FOV; 0 keeps the native scale


class Job(NamedTuple):
    """One training, on what, and what it is tested on: both by data set."""

    name: str
    train: dict[str, list[Pair]]
    tests: dict[str, Test]
    recipe: dict
    folder: Path

    @property
    def pairs(self) -> list[Pair]:
        """All photographs it is trained on."""
        return [pair for pairs in self.train.values() for pair in pairs]

    @property
    def result(self) -> dict:
        """What is recorded of it once it is done; empty before."""
        path = self.folder / "result.json"
        return files.read_json(path) if path.exists() else {}

    @property
    def training(self) -> str:
        """A digest of all that decides its weights, the bytes of all files included."""
        return files.fingerprint([self.recipe, self.diameters, list(map(contents, self.pairs))])

    @property
    def fingerprint(self) -> str:
        """The same of all that decides its result."""
        tests = {k: [list(map(contents, t.pairs)), t.fov_diameter] for k, t in self.tests.items()}
        return files.fingerprint([self.training, tests])

    @property
    def diameters(self) -> dict[str, int]:
        """Pixels across the FOV in training, by data set: vessels of all are equally wide."""
        usual = self.recipe["fov_diameter"]
        if len(self.train) == 1 or not usual:
            return dict.fromkeys(self.train, usual)
        drawn = {name: list(map(drawn_in, pairs)) for name, pairs in self.train.items()}
        return scale.matching_diameters(usual, drawn)

    def ledger(self, threshold: Sequence[Pair] = ()) -> dict:
        """Of who takes part; the ``threshold`` photographs, if not those of its own, choose it."""
        names = self.result.get("threshold_from", [])
        threshold = threshold or [pair for pair in self.pairs if pair.name in names]
        shown = [pair for test in self.tests.values() for pair in test.pairs]
        return ledger.write_down(training=self.pairs, threshold=threshold, others=shown)

    def took_part(self, name: str, threshold: Sequence[Pair] = ()) -> list[str]:
        """What each photograph of a test was in the training."""
        book, shown = ledger.Ledger.of_facts(self.ledger(threshold)), self.tests[name].pairs
        return book.compare([*shown, *self.pairs])[: len(shown)]

    def finding(self, name: str) -> list[dict[str, float]]:
        """By_width of its maps at its threshold, alike; none where an earlier version trained."""
        kept = self.result.get("finding", {})
        found = (kept.get(f"{name}/{p.name}", {}) for p in self.tests[name].pairs)
        return [{k: math.nan if v is None else v for k, v in one.items()} for one in found if one]

    def histograms(self, name: str) -> list[metrics.Histogram]:
        """What it gave for one of its tests, in the order of the photographs."""
        with np.load(self.folder / "histograms.npz") as arrays:
            return [metrics.Histogram(*arrays[f"{name}/{p.name}"]) for p in self.tests[name].pairs]


def contents(pair: Pair) -> list[str | None]:
    """The name of a photograph and the checksums of its files."""
    paths = [getattr(pair, part) for part in FILES]
    return [pair.name, *(path and checksum(path, path.stat().st_mtime_ns) for path in paths)]


@functools.cache
def checksum(path: Path, modified: int) -> str:
    """Checksum of a file last ``modified`` then: read once, though many jobs share it."""
    return files.sha256(path)


def read_photographs(folder: Path) -> list[Pair]:
    """All photographs of an imported data set, whatever split they are in, by name."""
    if not folder.is_dir():
        raise RetinaError(
            f"{folder}: no such data set. Import it first: "
            f"make import-data DATASET={folder.name} SRC=<download>"
        )
    return sorted((p for split in load_data(folder) for p in split), key=lambda p: p.name)


def folds_by_person(pairs: Sequence[Pair], n_folds: int) -> list[set[str]]:
    """The people held out in each fold: every ``n_folds``-th of the sorted names together."""
    people = sorted({pair.person for pair in pairs})
    if not 2 <= n_folds <= len(people):
        raise RetinaError(
            f"{n_folds} folds of {len(people)} people: expected 2 to {len(people)} folds"
        )
    return [set(people[k::n_folds]) for k in range(n_folds)]


def plan(
    names: Sequence[str], root: Path, others: Sequence[str], recipe: dict, n_folds: int, out: Path
) -> list[Job]:
    """The trainings: one for each fold, and one on all photographs for the other cameras.

    Trained on one data set, the network is shown those of another at the same number of pixels
    for a degree of the eye, or at the same diameter where an angle of view is not known. Trained
    on several, each with its FOV at the same diameter, it knows several scales and needs no angle.
    """
    photographs = {name: read_photographs(root / name) for name in (*names, *others)}
    folds = {name: folds_by_person(photographs[name], n_folds) for name in names if n_folds}
    diameter, jobs = recipe["fov_diameter"], []
    for k in range(n_folds):
        kept, tests = {}, {}
        for name, people in folds.items():
            kept[name] = [p for p in photographs[name] if p.person not in people[k]]
            held = [p for p in photographs[name] if p.person in people[k]]
            tests[name] = Test(held, diameter)
        jobs.append(Job(f"fold {k + 1}", kept, tests, recipe, out / f"fold_{k + 1}"))
    everything = {name: photographs[name] for name in names}
    tests = {}
    for name in others:
        known = len(names) == 1 and {name, *names} <= set(SOURCES)
        angle = SOURCES[name].fov_degrees / SOURCES[names[0]].fov_degrees if known else 1
        tests[name] = Test(photographs[name], round(diameter * angle))
    return [*jobs, Job("all", everything, tests, recipe, out / "all")]


def plan_cameras(names: Sequence[str], root: Path, recipe: dict, out: Path) -> list[Job]:
    """One training for each data set, on all photographs of the others: it never met its camera.

    Every photograph has its FOV at the same diameter, since of a new camera nothing else is known.
    The last training is on all, to be passed on.
    """
    if len(names) < 2:
        raise RetinaError(f"--leave-one-out with {names[0]} alone: expected two data sets or more")
    photographs = {name: read_photographs(root / name) for name in names}
    jobs = []
    for name in names:
        kept = {other: pairs for other, pairs in photographs.items() if other != name}
        tests = {name: Test(photographs[name], recipe["fov_diameter"])}
        jobs.append(Job(f"without {name}", kept, tests, recipe, out / f"without_{name}"))
    return [*jobs, Job("all", photographs, {}, recipe, out / "all")]


# --- One training ---------------------------------------------------------------------------------


def train_all(job: Job, recipe: dict) -> train.Training:
    """All epochs on all photographs of a job; no validation, so the last weights are taken."""
    across = job.diameters
    diameters = [across[name] for name, pairs in job.train.items() for _ in pairs]
    device = choose_device(recipe["device"])
    training = train.assemble(recipe, job.pairs, device, diameters=diameters)
    for epoch in training.epochs_left():
        row = train.train_epoch(training)
        train.finish_epoch(training, row)
        if epoch % max(1, recipe["epochs"] // 5) == 0:
            print(f"{job.name}: epoch {epoch}, loss {row['train_loss']:.3f}", flush=True)
    return training


def train_once(job: Job, recipe: dict) -> Network:
    """The trained network, from ``trained.pt`` where it is there: hours are not spent twice."""
    path, kept = job.folder / "trained.pt", {}
    if path.exists():
        network = load_network(path, choose_device(recipe["device"]))
        if network.facts.get("training") == job.training:
            return network
    # Before anything is read: what is changed while this trains is to count as changed.
    kept["training"], start = job.training, time.monotonic()
    training = train_all(job, recipe)
    kept["loss"] = [row["train_loss"] for row in training.history]
    kept["train_seconds"] = round(time.monotonic() - start)
    network = training.network(**kept, made=provenance(recipe["device"]))
    save_network(path, network)
    return network


@functools.cache
def drawn_in(pair: Pair) -> scale.Drawn:
    """How wide the widest vessels are drawn, and how large."""
    sample = load_sample(pair)
    native = fov_diameter(sample.fov)
    return scale.Drawn(scale.widest(sample.vessels & sample.fov, native), native)


def seeing(network: Network, diameter: int) -> Network:
    """The network with photographs at another diameter of the FOV."""
    return replace(network, preparation=replace(network.preparation, fov_diameter=diameter))


def learned_width(network: Network, job: Job) -> float:
    """How wide vessels are in what it learned from, for :func:`retina_utils.intake.scale`.

    A share of the usual diameter of the FOV.
    """
    widths, options = [], {"batch_size": 8, "precision": "auto"}
    for name, diameter in job.diameters.items():
        there, pairs = seeing(network, diameter), job.train[name]
        some = [pairs[k] for k in np.linspace(0, len(pairs) - 1, 5).astype(int)]  # tell its scale
        seen = [width_seen(there, s.image, s.fov, **options) for s in map(load_sample, some)]
        widths.append(np.multiply(seen, diameter / job.recipe["fov_diameter"]))
    return scale.typical(widths)


def measure(
    network: Network, pairs: Sequence[Pair], recipe: dict, threshold: float | None = None
) -> tuple[list[metrics.Histogram], list[dict[str, float]]]:
    """For each photograph one histogram of probabilities inside the FOV; at a threshold, how far
    vessels are found apart from how they are drawn, too."""
    settings = {name: recipe[name] for name in ("flips", "batch_size", "precision")}
    histograms, finds = [], []
    for sample in map(load_sample, pairs):
        probability = predict_image(network, sample.image, sample.fov, **settings)
        histograms.append(metrics.histogram(probability, sample.vessels, sample.fov))
        if threshold is not None:
            drawn = metrics.decide(probability, threshold)
            finds.append(by_width(drawn, sample.vessels, sample.fov))
    return histograms, finds


def run_job(job: Job, threads: int = 0) -> str:
    """Train, choose the threshold on the training people, test; keep all in the job's folder.

    ``threads`` is for a job that runs beside others; 0 leaves it to the recipe. Gives a line of
    scores to print.
    """
    os.environ["RETINA_QUIET"] = "1"
    if threads:
        torch.set_num_threads(threads)  # a network that is trained already sets none
    result, start = {"fingerprint": job.fingerprint}, time.monotonic()
    network = train_once(job, job.recipe | ({"threads": threads} if threads else {}))
    about, facts = network.facts, {}
    if len(job.train) > 1 and network.preparation.fov_diameter:
        facts["learned_width"] = learned_width(network, job)
    network = replace(network, facts=facts)
    # Half a dozen photographs place the threshold to a hundredth, all of them no better.
    some = job.pairs[:: max(1, len(job.pairs) // 6)]
    chosen = measure(network, some, job.recipe)[0]
    threshold = metrics.best_threshold(chosen, weigh="photographs")
    words = [f"{job.name}: trained in {about['train_seconds']} s", f"threshold {threshold:.2f}"]
    arrays, result["finding"] = {}, {}
    for name, test in job.tests.items():
        shown = seeing(network, test.fov_diameter)
        histograms, finds = measure(shown, test.pairs, job.recipe, threshold)
        for pair, histogram, found in zip(test.pairs, histograms, finds, strict=True):
            arrays[f"{name}/{pair.name}"] = np.stack(histogram)
            result["finding"][f"{name}/{pair.name}"] = found
        row = network_row("", name, histograms, [threshold] * len(histograms))
        line = "{tested_on} Dice {dice:.3f}, AUC {auc:.4f}, best possible {best_dice:.3f}"
        words.append(line.format_map(row))
    network = replace(network, threshold=threshold, facts=facts | {"ledger": job.ledger(some)})
    save_network(job.folder / "network.pt", network)
    with (
        files.atomic_path(job.folder / "histograms.npz") as temporary,
        temporary.open("wb") as file,
    ):
        np.savez_compressed(file, **arrays)
    result |= {
        "threshold": threshold,
        "threshold_from": [p.name for p in some],
        "trained_on": [p.name for p in job.pairs],
        "seconds": round(time.monotonic() - start),
        "parameters": count_parameters(network.model),
        **facts,
        **{name: about[name] for name in ("loss", "train_seconds", "made")},
    }
    files.write_json(job.folder / "result.json", result)
    return "; ".join(words)


def run_jobs(jobs: Sequence[Job], at_once: int) -> None:
    """Run what has no result yet, several at once on a machine without a GPU.

    A small network keeps one core busy and two cores less than twice as much, so one training a
    core is the fastest way to several trainings.
    """
    waiting = [job for job in jobs if job.result.get("fingerprint") != job.fingerprint]
    waiting.sort(key=lambda job: -len(job.pairs))  # the longest first: no core waits for it alone
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings have their results already")
    if at_once == 1:
        for job in waiting:
            print(run_job(job), flush=True)
        return
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(run_job, job, threads=1) for job in waiting]
        for task in as_completed(tasks):
            print(task.result(), flush=True)


# --- The table ------------------------------------------------------------------------------------


def held_out_threshold(folds: Sequence[Job]) -> float:
    """The threshold for a network trained on everybody: from photographs held out of the folds."""
    held = [h for job in folds for name in job.tests for h in job.histograms(name)]
    return metrics.best_threshold(held, weigh="photographs")


def table_row(trained_on: str, tested_on: str, counts: list[dict[str, int]]) -> dict:
    """One line of the table: scores of summed counts, and mean and SD of Dice over photographs.

    Empty are the cells of a threshold that can be moved: a person has none.
    """
    pooled = metrics.scores(metrics.add_counts(counts))
    each = metrics.summarise([metrics.scores(found) for found in counts])
    row = {"trained_on": trained_on, "tested_on": tested_on, "photographs": len(counts)}
    row |= {key: round(pooled[key], 4) for key in ("dice", "iou", "recall", "specificity")}
    row["auc"] = ""
    row |= {f"dice_{key}": round(each[key]["dice"], 4) for key in ("mean", "sd")}
    row |= {"threshold": "", "best_dice": "", "own_dice": "", "took_part": ""}
    return row | {"calibration_error": ""}


def with_finding(row: dict, finds: Sequence[dict[str, float]]) -> dict:
    """A line and the means of what was found, on a vessel, and how wide; empty if not known."""
    mean = metrics.summarise(finds)["mean"] if len(finds) == row["photographs"] else {}
    return row | {k: round(mean[k], 4) if k in mean else "" for k in FINDING}


def network_row(
    trained_on: str, tested_on: str, histograms: list[metrics.Histogram], thresholds: list[float]
) -> dict:
    """A line of photographs, each at the threshold of the network that it was shown to.

    AUC, calibration error and the best possible Dice are those of all histograms together;
    ``own_dice`` is theirs with the threshold that belongs to each photograph, for which no
    annotation is needed.
    """
    together = metrics.pool(histograms)
    counts = list(map(metrics.confusion_at, histograms, thresholds))
    row = table_row(trained_on, tested_on, counts)
    row["threshold"] = " to ".join(sorted({f"{t:.2f}" for t in (min(thresholds), max(thresholds))}))
    best = dice_at(together, metrics.best_threshold([together]))
    own = [metrics.expect(h.vessel + h.background).threshold for h in histograms]
    own = metrics.scores(metrics.add_counts(map(metrics.confusion_at, histograms, own)))
    row |= {"best_dice": round(best, 4), "own_dice": round(own["dice"], 4)}
    row["calibration_error"] = round(metrics.calibration_error(together), 4)
    return row | {"auc": round(metrics.roc_auc(together), 4)}


def photograph_rows(jobs: Sequence[Job]) -> list[dict]:
    """What each tested photograph expected of itself, and what came true."""
    rows = []
    for job in jobs:
        for name, test in job.tests.items():
            shown = zip(test.pairs, job.histograms(name), job.took_part(name), strict=True)
            for pair, histogram, took_part in shown:
                expected = metrics.expect(histogram.vessel + histogram.background)
                thresholds = {"dice": job.result["threshold"], "own_dice": expected.threshold}
                thresholds["best_dice"] = metrics.best_threshold([histogram])
                row = {"training": job.name, "tested_on": name, "photograph": pair.name}
                row["expected_dice"] = round(expected.dice, 4)
                row |= {k: round(dice_at(histogram, t), 4) for k, t in thresholds.items()}
                row["own_threshold"] = round(expected.threshold, 4)
                rows.append(row | {"took_part": took_part})
    return rows


def promised(rows: Sequence[dict]) -> dict:
    """How far the expected Dice lay from the true one on cameras left out."""
    cameras = {}
    for row in rows:
        cameras.setdefault(row["tested_on"], []).append((row["expected_dice"], row["own_dice"]))
    misses = {name: np.diff(pairs)[:, 0] for name, pairs in cameras.items()}
    pairs = np.concatenate([*cameras.values()])
    return {
        "margin": round(promise.margin(misses), 4),
        "covered": promise.covered(misses) if len(misses) > 2 else {},
        "error": float(np.abs(np.diff(pairs)).mean()),
        "rank_correlation": rank_correlation(pairs),
        "within": {name: rank_correlation(pairs) for name, pairs in cameras.items()},
    }


def rank_correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's, of three pairs or more; None of fewer, or where all are alike."""
    found = spearmanr(*np.transpose(pairs)).statistic if len(pairs) > 2 else math.nan
    return None if math.isnan(found) else float(found)


def in_digits(correlation: float | None) -> str:
    return "unknown" if correlation is None else f"{correlation:.2f}"


def calibration_rows(jobs: Sequence[Job]) -> list[dict]:
    """How honest probabilities are on each camera left out, as they come and once calibrated.

    The temperature and bias are fitted on the other cameras, each as it was when left out.
    """
    shown = {name: job.histograms(name) for job in jobs for name in job.tests}
    rows = []
    for name, found in shown.items():
        others = [h for other, each in shown.items() if other != name for h in each]
        fitted = calibration.fit_calibration(others, prior=0)
        row = {"tested_on": name} | fitted._asdict()
        after = [calibration.calibrated(h, fitted) for h in found]
        for when, each in (("before", found), ("after", after)):
            row[f"error_{when}"] = metrics.calibration_error(metrics.pool(each))
            row[f"entropy_{when}"] = float(np.mean([*map(calibration.cross_entropy, each)]))
            row[f"own_dice_{when}"] = network_row("", name, each, [0.5] * len(each))["own_dice"]
        rows.append({k: v if isinstance(v, str) else round(v, 4) for k, v in row.items()})
    return rows


def in_words(found: dict) -> str:
    """The same as sentences below the table."""
    shares = ", ".join(f"{card.title(k)} {share:.0%}" for k, share in found["covered"].items())
    held = (
        f"; intervals made from the other cameras hold the true one for {shares}" if shares else ""
    )
    within = ", ".join(f"{card.title(k)} {in_digits(r)}" for k, r in found["within"].items())
    return (
        f"\nThe expected Dice is off by {found['error']:.3f} on average, its rank correlation with "
        f"the true one is {within} on photographs of one camera, "
        f"{in_digits(found['rank_correlation'])} on all{held}. A new camera's interval is "
        f"±{found['margin']:.3f}.\n"
    )


def dice_at(histogram: metrics.Histogram, threshold: float) -> float:
    """Dice of one photograph at a threshold."""
    return metrics.scores(metrics.confusion_at(histogram, threshold))["dice"]


def count_observer(pair: Pair) -> tuple[dict[str, int], dict[str, float]]:
    """Right and wrong pixels of a photograph's second observer, and what was found."""
    sample = load_sample(pair)
    maps = (read_binary(pair.second), sample.vessels, sample.fov)
    return metrics.confusion(*maps), by_width(*maps)


def observer_rows(title: str, pairs: Sequence[Pair]) -> list[dict]:
    """The line of a data set's second observer; none where there is nobody."""
    counts = [count_observer(pair) for pair in pairs if pair.second]
    if not counts:
        return []
    counts, finds = zip(*counts, strict=True)
    return [with_finding(table_row("second human observer", title, counts), finds)]


def collect(jobs: Sequence[Job], names: Sequence[str]) -> list[dict]:
    """All lines of the table from finished jobs."""
    where, rows = " + ".join(map(card.title, names)), []
    *folds, everything = jobs
    for name in names:
        title = card.title(name)
        histograms = [h for job in folds for h in job.histograms(name)]
        held = [pair for job in folds for pair in job.tests[name].pairs]
        thresholds = [job.result["threshold"] for job in folds for _ in job.tests[name].pairs]
        row = network_row(f"{where}, {len(folds)}-fold", title, histograms, thresholds)
        rows.append(with_finding(row, [found for job in folds for found in job.finding(name)]))
        words = [word for job in folds for word in job.took_part(name)]
        rows[-1]["took_part"] = ledger.in_short(words)
        rows += observer_rows(title, held)
    threshold = held_out_threshold(folds)
    for name, test in everything.tests.items():
        shown = everything.histograms(name), [threshold] * len(test.pairs)
        rows.append(with_finding(network_row(where, card.title(name), *shown), []))
        words = everything.took_part(name, everything.pairs)  # held out, all chose the threshold
        rows[-1]["took_part"] = ledger.in_short(words)
    return rows


def collect_cameras(jobs: Sequence[Job]) -> list[dict]:
    """A line for each camera that was left out, and its second observer's."""
    rows = []
    for job in jobs:
        ((name, test),) = job.tests.items()
        where, title = " + ".join(map(card.title, job.train)), card.title(name)
        thresholds = [job.result["threshold"]] * len(test.pairs)
        row = network_row(where, title, job.histograms(name), thresholds)
        rows.append(with_finding(row, job.finding(name)))
        rows[-1]["took_part"] = ledger.in_short(job.took_part(name))
        rows += observer_rows(title, test.pairs)
    return rows


def write_tables(
    out: Path, jobs: Sequence[Job], names: Sequence[str], cameras: bool = False
) -> str:
    """``table.csv``, ``.json`` and ``.md``, ``photographs.csv``; gives the text of the table."""
    rows = collect_cameras(jobs) if cameras else collect(jobs, names)
    recipe, made = jobs[0].recipe, provenance()
    results = {job.name: job.result | {"tests": list(job.tests)} for job in jobs}
    shown = {*names, *jobs[-1].tests}
    unknown = sorted(shown - set(SOURCES)) if len(names) == 1 < len(shown) else []
    facts = {"recipe": recipe, "results": results, "made": made, "unknown": unknown}
    facts["cameras"] = cameras
    protocol = files.render(HERE / "protocol.md.j2", **facts)
    page = files.render(HERE / "table.md.j2", rows=rows, protocol=protocol)
    content = {"rows": rows, "protocol": protocol, "recipe": recipe, "jobs": results}
    content["provenance"] = made
    each = photograph_rows(jobs)
    if cameras:
        content["promise"] = promised(each)
        content["calibration"] = calibration_rows(jobs)
        page += in_words(content["promise"])
        files.write_csv(out / "calibration.csv", content["calibration"])
    files.write_csv(out / "table.csv", rows)
    files.write_csv(out / "photographs.csv", each)
    files.write_json(out / "table.json", content)
    files.write_text(out / "table.md", page)
    return page


# --- The command ----------------------------------------------------------------------------------


def require_places(out: Path, ship: Path | None) -> None:
    """Refuse places that cannot be written, before hours of training."""
    if ship and (ship.suffix not in (".pt", ".pth") or ship.is_dir()):
        raise RetinaError(f"--ship {ship}: expected a file ending in .pt; its card becomes .md")
    for folder in [out, *([ship.parent] if ship else [])]:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            what = f"{folder}: cannot be written ({error.strerror})."
            raise RetinaError(f"{what} Name another with --out or --ship.") from error


def run_benchmark(**options) -> None:
    """Plan, train, and write the table, as the command line says; see ``__main__``."""
    asked = SimpleNamespace(**options)
    names, others = asked.datasets, asked.others
    places = [asked.out / name for name in ("+".join(names), *names)]
    if others is None:
        others = [n for n in SOURCES if n not in names and (asked.data / n).is_dir()]
    if asked.jobs < 0:
        raise RetinaError(f"--jobs {asked.jobs}: expected 1 or more, or 0 for one a core")
    if twice := [name for name in names if (names + others).count(name) > 1]:
        raise RetinaError(f"{twice[0]} is named twice: what is trained on is no test. Name it once")
    preset = asked.preset or preset_of(names, asked.notebooks / "presets")
    recipe = read_recipe(asked.notebooks, preset, asked.parameters)
    if asked.leave_one_out:
        places = [asked.out / ("left_out-" + "+".join(names))]
        jobs = plan_cameras(names, asked.data, recipe, places[0])
        jobs = jobs if asked.ship else jobs[:-1]
    else:
        jobs = plan(names, asked.data, others, recipe, asked.folds, places[0])
    if asked.only:
        known = {job.folder.name: job for job in jobs}
        if unknown := [name for name in asked.only if name not in known]:
            words = f"no such training. Expected some of {', '.join(known)}."
            raise RetinaError(f"--only {' '.join(unknown)}: {words}")
        jobs = [job for name, job in known.items() if name in asked.only]
    require_places(places[0], asked.ship)
    require_trainable(recipe, jobs[0].pairs[:2])
    at_once = asked.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    run_jobs(jobs, min(at_once, len(jobs)))
    if (asked.folds or asked.leave_one_out) and not asked.only:
        shown = [job for job in jobs if job.tests or not asked.leave_one_out]
        print(write_tables(places[0], shown, names, asked.leave_one_out))
        print(f"Written to {places[0]}: table.md, .csv and .json, photographs.csv")
    if asked.ship and not asked.only:
        *folds, everything = jobs
        network = load_network(everything.folder / "network.pt")
        if folds:  # else its threshold is that of its training photographs
            network = replace(network, threshold=held_out_threshold(folds))
        if asked.leave_one_out:
            facts = {"promise": files.read_json(places[0] / "table.json")["promise"]["margin"]}
            network = replace(network, facts=network.facts | facts)
        card.ship(
            asked.ship,
            network,
            photographs={k: [p.name for p in pairs] for k, pairs in everything.train.items()},
            ledger=everything.ledger(everything.pairs if folds else ()),
            threshold_from=card.HELD_OUT[asked.leave_one_out] if folds else card.OWN,
            recipe=recipe,
            result=everything.result,
            tables=[place / "table.json" for place in places],
        )
        print(f"Written: {asked.ship}, and its card beside it")
