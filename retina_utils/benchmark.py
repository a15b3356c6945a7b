"""One honest table: cross-validation by person, then cameras never seen, then a second human.

    python -m retina_utils.benchmark chase_db1
    python -m retina_utils.benchmark chase_db1 hrf --ship retina_utils/weights/pretrained.pt

Data sets are read from ``data/<name>`` (after ``make import-data``), the recipe from
``notebooks/presets/<name>.yaml`` over the notebooks' own defaults, so this trains what the
notebooks train. Every fold trains on all of its training people for a set number of epochs: no
photograph decides when to stop, and the threshold comes from the training people alone.
"""

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from retina_utils import (
    augment,
    data,
    losses,
    metrics,
    models,
    predict,
    report,
    runs,
    series,
    train,
)
from retina_utils.images import atomic_path
from retina_utils.sources import SOURCES

SCORES = ("dice", "iou", "recall", "specificity", "auc")


class BenchmarkError(ValueError):
    """A benchmark that cannot be run; the message says why and what to do."""


class Job(NamedTuple):
    """One training and what it is tested on."""

    name: str
    train: list[data.Pair]
    tests: dict[str, tuple[list[data.Pair], int]]  # name -> photographs, FOV diameter (pixels)
    recipe: dict
    folder: Path
    threads: int = 0  # 0 leaves it to torch


# --- What to do ---------------------------------------------------------------------------------


def read_recipe(notebooks: Path, preset: str, changes: Sequence[tuple[str, str]] = ()) -> dict:
    """The notebooks' parameters under a preset, with changes from the command line.

    All photographs that are not tested on are trained on, so a rate that follows the validation
    loss ("plateau") becomes "cosine".
    """
    known = {}
    for name in ("01_data", "02_model", "03_train"):
        known |= series.declared_parameters(notebooks / f"{name}.ipynb")
    known["flips"] = series.declared_parameters(notebooks / "04_evaluate.ipynb")["flips"]
    recipe = dict(known)
    for name, value in [*series.read_preset(notebooks / "presets", preset).items(), *changes]:
        series.check_known(name, known, f"preset {preset} or command line")
        recipe[name] = series.cast(name, value, known[name])
    if recipe["schedule"] == "plateau":  # no validation loss is at hand that could stand still
        recipe["schedule"] = "cosine"
    aside = ("data_dir", "outputs_dir", "run", "resume", "save_every", "validation_share")
    return {name: value for name, value in recipe.items() if name not in aside}


def preset_of(names: Sequence[str], presets: Path) -> str:
    """The data set's own recipe; that of the network in the box for several, or without one."""
    alone = len(names) == 1 and (presets / f"{names[0]}.yaml").exists()
    return names[0] if alone else "pretrained"


def read_photographs(folder: Path) -> list[data.Pair]:
    """All photographs of an imported data set, whatever split they are in, by name."""
    if not folder.is_dir():
        raise BenchmarkError(
            f"{folder}: no such data set. Import it first: "
            f"make import-data DATASET={folder.name} SRC=<download>"
        )
    return sorted((p for split in data.load_data(folder) for p in split), key=lambda p: p.name)


def folds_by_person(pairs: Sequence[data.Pair], n_folds: int) -> list[set[str]]:
    """The people held out in each fold: every ``n_folds``-th of the sorted names together."""
    people = sorted({pair.person for pair in pairs})
    if not 2 <= n_folds <= len(people):
        raise BenchmarkError(
            f"{n_folds} folds of {len(people)} people: expected 2 to {len(people)} folds"
        )
    return [set(people[k::n_folds]) for k in range(n_folds)]


def plan(
    names: Sequence[str], root: Path, others: Sequence[str], recipe: dict, n_folds: int, out: Path
) -> list[Job]:
    """The trainings: one for each fold, and one on all photographs for the other cameras.

    Trained on one data set, the network is shown those of another at the same number of pixels
    for a degree of the eye (``SOURCES[...].fov_degrees``). Trained on several, each with its FOV
    at the same diameter, it knows several scales and is given no angle.
    """
    photographs = {name: read_photographs(root / name) for name in (*names, *others)}
    folds = {name: folds_by_person(photographs[name], n_folds) for name in names if n_folds}
    diameter = recipe["fov_diameter"]
    jobs = []
    for k in range(n_folds):
        kept, tests = [], {}
        for name in names:
            kept += [p for p in photographs[name] if p.person not in folds[name][k]]
            held = [p for p in photographs[name] if p.person in folds[name][k]]
            tests[name] = (held, diameter)
        jobs.append(Job(f"fold {k + 1}", kept, tests, recipe, out / f"fold_{k + 1}"))
    everything = [p for name in names for p in photographs[name]]
    tests = {}
    for name in others:
        angle = SOURCES[name].fov_degrees / SOURCES[names[0]].fov_degrees if len(names) == 1 else 1
        tests[name] = (photographs[name], round(diameter * angle))
    return [*jobs, Job("all", everything, tests, recipe, out / "all")]


# --- One training ---------------------------------------------------------------------------------


def fit(pairs: Sequence[data.Pair], recipe: dict, device: torch.device, label: str = ""):
    """Train a network on photographs by a recipe; no validation, the last weights are taken.

    Returns
    -------
    model : nn.Module
        In evaluation mode; the running average if the recipe has one (``ema``).
    preparation : Preparation
    loss : list of float
        Mean training loss of each epoch.
    """
    torch.manual_seed(recipe["seed"])
    known = data.Preparation.__dataclass_fields__
    preparation = data.Preparation(**{k: v for k, v in recipe.items() if k in known})
    dataset = data.RetinaDataset(
        pairs,
        preparation,
        recipe["patches_per_image"],
        recipe["vessel_share"],
        augment.make_augment(recipe["augment"]),
        recipe["seed"],
    )
    loader = train.make_loader(dataset, recipe["batch_size"], True, recipe["workers"])
    model = models.build_model(*models.network_of(recipe, preparation.n_channels))
    model = model.to(device, memory_format=torch.channels_last)
    loss = losses.make_loss(recipe["loss"], dataset.vessel_prevalence())
    optimizer = train.make_optimizer(
        recipe["optimizer"], model, recipe["lr"], recipe["weight_decay"]
    )
    scheduler = train.make_scheduler(recipe["schedule"], optimizer, recipe["epochs"], 0, 0)
    average = train.make_average(model, recipe["ema"])
    course = []
    for epoch in range(1, recipe["epochs"] + 1):
        dataset.set_epoch(epoch)
        row = train.train_epoch(model, loader, loss, optimizer, recipe["precision"], average)
        train.step_schedule(scheduler, 0.0)
        course.append(row["train_loss"])
        if label and (epoch % max(1, recipe["epochs"] // 5) == 0):
            print(f"{label}: epoch {epoch}, loss {course[-1]:.3f}", flush=True)
    return (average.module if average else model).eval(), preparation, course


def measure(model, pairs: Sequence[data.Pair], preparation: data.Preparation, recipe: dict) -> dict:
    """One histogram of probabilities inside the FOV for each photograph, by name."""
    found = {}
    for pair in pairs:
        sample = data.load_sample(pair)
        probability = predict.predict_image(
            model,
            sample.image,
            sample.fov,
            preparation,
            recipe["flips"],
            recipe["batch_size"],
            recipe["precision"],
        )
        found[pair.name] = metrics.histogram(probability, sample.vessels, sample.fov)
    return found


def run_job(job: Job) -> str:
    """Train, choose the threshold on the training people, test; keep all in the job's folder."""
    if job.threads:
        torch.set_num_threads(job.threads)
    os.environ["RETINA_QUIET"] = "1"
    start = time.monotonic()
    device = runs.choose_device(job.recipe["device"])
    model, preparation, course = fit(job.train, job.recipe, device, job.name)
    trained = time.monotonic() - start
    # Half a dozen photographs place the threshold to a hundredth, all of them no better.
    some = job.train[:: max(1, len(job.train) // 6)]
    threshold = best_threshold(measure(model, some, preparation, job.recipe).values())
    job.folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for name, (pairs, diameter) in job.tests.items():
        scaled = data.Preparation(**preparation.as_dict() | {"fov_diameter": diameter})
        found[name] = measure(model, pairs, scaled, job.recipe)
    arrays = {f"{name}/{p}": np.stack(h) for name, each in found.items() for p, h in each.items()}
    facts = {"preparation": preparation.as_dict(), "threshold": threshold}
    models.save_model(job.folder / "network.pt", model, **facts)
    with atomic_path(job.folder / "histograms.npz") as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    result = {
        "mark": mark_of(job),
        "threshold": threshold,
        "threshold_from": [p.name for p in some],
        "trained_on": [p.name for p in job.train],
        "loss": course,
        "train_seconds": round(trained),
        "seconds": round(time.monotonic() - start),
        "parameters": models.count_parameters(model),
        "made": runs.provenance(),
    }
    runs.write_json(job.folder / "result.json", result)
    words = [f"{job.name}: trained in {trained:.0f} s", f"threshold {threshold:.2f}"]
    for name, histograms in found.items():
        row = table_row("", name, [(histograms, threshold)])
        words.append(f"{name} Dice {row['dice']:.3f}, AUC {row['auc']:.4f}")
        words[-1] += f", best possible {row['best_dice']:.3f}"
    return "; ".join(words)


def best_threshold(histograms: Iterable[metrics.Histogram]) -> float:
    """The threshold with the best mean Dice over photographs, so that large ones weigh no more."""
    dice = np.mean([metrics.curves(h)["dice"] for h in histograms], axis=0)
    return float(np.argmax(dice)) / (metrics.LEVELS - 1)


def mark_of(job: Job) -> str:
    """A digest of all that decides a job's result, to tell whether it has been done already."""
    tests = {name: [[p.name for p in pairs], size] for name, (pairs, size) in job.tests.items()}
    content = [job.recipe, [p.name for p in job.train], tests]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def is_done(job: Job) -> bool:
    """Whether this very job has a result."""
    return (job.folder / "result.json").exists() and _result(job)["mark"] == mark_of(job)


def run_jobs(jobs: Sequence[Job], at_once: int) -> None:
    """Run what has no result yet, several at once on a machine without a GPU.

    A small network keeps one core busy and two cores less than twice as much, so one training a
    core is the fastest way to several trainings.
    """
    waiting = [job for job in jobs if not is_done(job)]
    if len(waiting) < len(jobs):
        print(f"{len(jobs) - len(waiting)} of {len(jobs)} trainings have their results already")
    if at_once == 1:
        for job in waiting:
            print(run_job(job), flush=True)
        return
    with ProcessPoolExecutor(at_once, mp_context=get_context("spawn")) as pool:
        tasks = [pool.submit(run_job, job._replace(threads=1)) for job in waiting]
        for task in as_completed(tasks):
            print(task.result(), flush=True)


# --- The table ------------------------------------------------------------------------------------


def read_histograms(job: Job, name: str) -> dict[str, metrics.Histogram]:
    """The histograms of one test of a finished job, by photograph."""
    with np.load(job.folder / "histograms.npz") as arrays:
        keys = [key for key in arrays if key.startswith(f"{name}/")]
        return {key.split("/", 1)[1]: metrics.Histogram(*arrays[key]) for key in keys}


def table_row(trained_on: str, tested_on: str, tests: Sequence[tuple[dict, float]]) -> dict:
    """Scores of one line of the table.

    ``tests`` holds, for each network, the histograms of the photographs it never saw and its own
    threshold. Counts are summed at each network's threshold; the AUC and the best possible Dice
    are those of all histograms together.
    """
    seen = [(h, threshold) for histograms, threshold in tests for h in histograms.values()]
    together = metrics.pool([h for h, _ in seen])
    counts = [metrics.confusion_at(h, threshold) for h, threshold in seen]
    row = {"trained_on": trained_on, "tested_on": tested_on}
    row |= score_cells(counts, {"auc": metrics.roc_auc(together)})
    thresholds = [threshold for _, threshold in tests]
    row["threshold"] = " to ".join(sorted({f"{t:.2f}" for t in (min(thresholds), max(thresholds))}))
    highest = metrics.best_threshold(together)
    row["best_dice"] = round(metrics.scores(metrics.confusion_at(together, highest))["dice"], 4)
    return row


def observer_row(tested_on: str, pairs: Sequence[data.Pair]) -> dict | None:
    """The second observer's drawings, scored like a network's; None if there are none."""
    counts = report.count_observer([pair for pair in pairs if pair.second])
    if not counts:
        return None
    row = {"trained_on": "second human observer", "tested_on": tested_on}
    return row | score_cells(counts, {"auc": ""}) | {"threshold": "", "best_dice": ""}


def score_cells(counts: Sequence[dict[str, int]], auc: dict) -> dict:
    """Pooled scores and the Dice of each photograph, from the counts of each photograph.

    ``auc`` is {"auc": value}, or {"auc": ""} for a person, who has no threshold to move.
    """
    pooled = metrics.scores(report.add_counts(counts)) | auc
    each = metrics.summarise([metrics.scores(found) for found in counts])
    cells = {key: round(pooled[key], 4) if pooled[key] != "" else "" for key in SCORES}
    spread = {f"dice_{key}": round(each[key]["dice"], 4) for key in ("mean", "sd")}
    return {"photographs": len(counts), **cells, **spread}


def collect(jobs: Sequence[Job], names: Sequence[str]) -> list[dict]:
    """All lines of the table from finished jobs."""
    where, rows = " + ".join(_title(name) for name in names), []
    *folds, everything = jobs
    for name in names:
        tests = [(read_histograms(job, name), _result(job)["threshold"]) for job in folds]
        rows.append(table_row(f"{where}, {len(folds)}-fold", _title(name), tests))
        held = [p for job in folds for p in job.tests[name][0]]
        rows += [row] if (row := observer_row(_title(name), held)) else []
    threshold = held_out_threshold(folds, names) if everything.tests else None
    for name in everything.tests:
        test = (read_histograms(everything, name), threshold)
        rows.append(table_row(where, _title(name), [test]))
    return rows


def _title(name: str) -> str:
    return SOURCES[name].title if name in SOURCES else name


def held_out_threshold(folds: Sequence[Job], names: Sequence[str]) -> float:
    """The threshold for a network trained on everybody: from photographs held out of the folds."""
    held = [h for job in folds for name in names for h in read_histograms(job, name).values()]
    return best_threshold(held)


def _result(job: Job) -> dict:
    return json.loads((job.folder / "result.json").read_text(encoding="utf-8"))


def as_markdown(rows: list[dict], about: str) -> str:
    """The table and how to read it, as Markdown."""
    head = (
        "| trained on | tested on | photographs | Dice | Dice per image | IoU | sensitivity "
        "| specificity | AUC | threshold | best possible Dice |\n" + "|---" * 11 + "|\n"
    )
    lines = []
    for row in rows:
        cells = [row["trained_on"], row["tested_on"], row["photographs"], row["dice"]]
        cells += [f"{row['dice_mean']:.3f} ± {row['dice_sd']:.3f}", row["iou"], row["recall"]]
        cells += [row["specificity"], row["auc"], row["threshold"], row["best_dice"]]
        shown = [f"{c:.3f}" if isinstance(c, float) else str(c) for c in cells]
        lines.append("| " + " | ".join(shown) + " |\n")
    return head + "".join(lines) + "\n" + about


def describe(jobs: Sequence[Job], made: dict) -> str:
    """The protocol of the table in a paragraph."""
    recipe, results = jobs[0].recipe, [_result(job) for job in jobs]
    minutes = [result["train_seconds"] / 60 for result in results]
    commits = " and ".join(sorted({result["made"]["commit"] for result in results}))
    return (
        f"Pooled over all pixels inside the FOV, at native size; folds by person; network of "
        f"{results[0]['parameters']:,} parameters, FOV diameter {recipe['fov_diameter']} pixels; "
        "threshold with the best Dice on photographs of the training people; "
        f"{'four mirror images' if recipe['flips'] else 'no mirror images'} averaged; "
        f"seed {recipe['seed']}. A training took {min(minutes):.0f} to {max(minutes):.0f} minutes. "
        f"Made by `{made['command']}`; trained at commit {commits}, "
        f"finished {made['finished'][:10]}.\n"
    )


def write_tables(out: Path, rows: list[dict], jobs: Sequence[Job], made: dict) -> None:
    """``table.csv``, ``table.json`` and ``table.md``."""
    runs.write_csv(out / "table.csv", rows)
    details = {job.name: _result(job) | {"tests": list(job.tests)} for job in jobs}
    content = {
        "rows": rows,
        "protocol": describe(jobs, made),
        "recipe": jobs[0].recipe,
        "jobs": details,
        "provenance": made,
    }
    runs.write_json(out / "table.json", content)
    with atomic_path(out / "table.md") as temporary:
        temporary.write_text(as_markdown(rows, describe(jobs, made)), encoding="utf-8")


# --- The network in the box -----------------------------------------------------------------------


def ship(path: Path, jobs: Sequence[Job], options: argparse.Namespace, made: dict) -> None:
    """Write the network trained on everything, with its card inside and beside it as Markdown.

    Its scores are those of the tables beside it, of its own folds and of each of its data sets
    alone, as far as they have been made. Without folds the threshold is that of the training
    photographs.
    """
    *folds, everything = jobs
    names, result = options.datasets, _result(everything)
    model, facts = models.load_model(everything.folder / "network.pt")
    facts["threshold"] = held_out_threshold(folds, names) if folds else result["threshold"]
    tables = [options.out / name / "table.json" for name in ("+".join(names), *names)]
    tables = [json.loads(t.read_text(encoding="utf-8")) for t in tables if t.exists()]
    photographs = {
        name: [p.name for p in everything.train if p.image.is_relative_to(options.data / name)]
        for name in names
    }
    facts["card"] = {
        "photographs": photographs,
        "licences": [
            f"{SOURCES[name].title}, {len(photographs[name])} photographs: "
            f"{SOURCES[name].licence}. {SOURCES[name].citation}"
            for name in names
        ],
        "threshold": "photographs held out of the folds" if folds else "its training photographs",
        "recipe": everything.recipe,
        "made": result["made"] | {"command": made["command"]},
        "minutes": round(result["train_seconds"] / 60),
        "scores": list({json.dumps(r): r for table in tables for r in table["rows"]}.values()),
        "protocol": [table["protocol"] for table in tables],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    models.save_model(path, model, **facts)
    with atomic_path(path.with_suffix(".md")) as temporary:
        page = card_page(facts, models.count_parameters(model), path.stat().st_size)
        temporary.write_text(page, encoding="utf-8")


def card_page(facts: dict, parameters: int, size: int) -> str:
    """The card as Markdown; ``size`` is that of the weights' file in bytes."""
    card = facts["card"]
    licences = "".join(f"- {line}\n" for line in card["licences"])
    recipe = "".join(f"| {name} | {value} |\n" for name, value in sorted(card["recipe"].items()))
    scores = "Not measured.\n"
    if card["scores"]:
        scores = as_markdown(card["scores"], "\n".join(card["protocol"]))
    return f"""# The network in the box

A U-Net of {parameters:,} parameters ({size / 1e6:.2f} MB, tensors only) that draws retinal vessels
in fundus photographs. `load_model("pretrained")` opens it, `make predict` uses it.

## Data

Trained on the first observer's annotations of all of these:

{licences}
## How it scores

Measured by networks of the same kind that had never seen the people they were tested on (the
network in the box was trained on all of them, so its own scores on these photographs mean
nothing). It has the field of view {card["recipe"]["fov_diameter"]} pixels across for every camera;
the tables say what theirs had.

{scores}
## Threshold

{facts["threshold"]:.3f}, the best mean Dice over {card["threshold"]}. No test photograph took part.

{LIMITS}
## Recipe

Trained in {card["minutes"]} minutes on {card["made"]["device"]} with seed {card["recipe"]["seed"]}
by `{card["made"]["command"]}`, at commit {card["made"]["commit"]}, {card["made"]["finished"][:10]}.

| parameter | value |
|---|---|
{recipe}"""


LIMITS = """## Limits

- For research and teaching; not a medical device.
- It has seen two cameras: children's eyes from one, and from the other adults with healthy eyes,
  glaucoma or diabetic retinopathy. Other diseases and cameras are new to it.
- It draws vessels as the annotators of these two data sets did, who differ in how wide they draw.
  Where the threshold matters, choose your own on a few annotated photographs of your camera.
- Bright lesions, laser scars, vessels of the choroid and the rim of the optic disc can be taken for
  vessels, and so can short pieces of the rim of the field of view where it is outermost; the
  thinnest vessels are the first to be missed.
"""


# --- The command ----------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``make benchmark``."""
    parser = argparse.ArgumentParser(prog="python -m retina_utils.benchmark", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("datasets", nargs="+", help="names of folders in --data; several are trained on together")
    add("--data", default="data", type=Path, help="where the imported data sets lie")
    add("--others", nargs="*", help="data sets to test on; all others imported if not given")
    add("--preset", help="recipe in notebooks/presets; if not given: the data set's, or pretrained")
    add("--folds", default=5, type=int, help="0: only the training on everything, no table")
    add("--jobs", default=0, type=int, help="trainings at once; 0: one a core without a GPU")
    add("--notebooks", default="notebooks", type=Path)
    add("--out", default="outputs/benchmark", type=Path)
    add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    add("--ship", type=Path, help="write the network trained on everything here, with its card")
    add("--only", nargs="*", help="only these trainings, such as fold_1 or all; no table")
    options = parser.parse_args(arguments)
    os.environ.setdefault("RETINA_COMMAND", _command(arguments))
    try:
        return run(options)
    except (BenchmarkError, data.DataError, series.SeriesError) as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 2


def run(options: argparse.Namespace) -> int:
    """Plan, train, and write the table."""
    names = options.datasets
    label = "+".join(names)
    others = options.others
    if others is None:
        others = [n for n in SOURCES if n not in names and (options.data / n).is_dir()]
    preset = options.preset or preset_of(names, options.notebooks / "presets")
    recipe = read_recipe(options.notebooks, preset, options.p)
    out = options.out / label
    jobs = plan(names, options.data, others, recipe, options.folds, out)
    if options.only is not None:
        jobs = [job for job in jobs if job.folder.name in options.only]
    at_once = options.jobs or (1 if torch.cuda.is_available() else os.cpu_count() or 1)
    run_jobs(jobs, min(at_once, len(jobs)))
    if options.only is not None:
        return 0
    made = runs.provenance()
    if options.folds:
        rows = collect(jobs, names)
        write_tables(out, rows, jobs, made)
        print(as_markdown(rows, describe(jobs, made)))
        print(f"Written to {out}: table.md, table.csv, table.json")
    if options.ship:
        ship(options.ship, jobs, options, made)
        print(f"Written: {options.ship}, and its card beside it")
    return 0


def _command(arguments: Sequence[str] | None) -> str:
    given = sys.argv[1:] if arguments is None else arguments
    return " ".join(["python -m retina_utils.benchmark", *given])


if __name__ == "__main__":
    sys.exit(main())
