"""Run the five notebooks in order with papermill: ``python -m retina_utils.series``.

With weights given (``-p weights pretrained``) nothing is trained: 02 and 03 are left out.

Adds to papermill what a person expects: unknown and ill-typed parameters stop before anything
runs, ``false`` is false, a failed notebook stays readable, and the next run goes on from it.
"""

import argparse
import ast
import difflib
import hashlib
import json
import math
import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path

import papermill
import yaml
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError
from traitlets.config import Config

from retina_utils.models import PRETRAINED
from retina_utils.runs import NOTEBOOKS, RunError, open_run, require, sha256, write_json
from retina_utils.sources import SOURCES
from retina_utils.tables import mean_sd

WITHOUT_TRAINING = ("01_data", "04_evaluate", "05_visualize")


class SeriesError(RuntimeError):
    """The series cannot run as asked; the message says what to change."""


def main(arguments: list[str] | None = None) -> int:
    """Run the series as the command line says; gives the exit status."""
    options = parse_arguments(arguments)
    try:
        folder = find_notebooks(options.notebooks)
        chosen = collect_parameters(folder, options)
        steps = notebooks_for(chosen)
        run = open_run(chosen["outputs_dir"], chosen["run"])
        os.environ["RETINA_COMMAND"] = shlex.join(["make", "run-all"]) + _as_make(options)
        os.environ["RETINA_QUIET"] = "1"
        if sys.stderr.isatty() and hasattr(os, "ttyname"):
            os.environ["RETINA_TERMINAL"] = os.ttyname(sys.stderr.fileno())
        if len(steps) < len(NOTEBOOKS):
            left_out = " and ".join(name for name in NOTEBOOKS if name not in steps)
            print(f"{left_out} are left out: the weights are given ({chosen['weights']}).")
        ran = [
            run_notebook(folder, steps, i, run, chosen, options.fresh) for i in range(len(steps))
        ]
    except (SeriesError, RunError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    if not any(ran):
        count = "five" if len(steps) == 5 else "three"
        print(f"All {count} are up to date. To run them again all the same: FRESH=1.")
    print(closing_words(run))
    return 0


def parse_arguments(arguments: list[str] | None) -> argparse.Namespace:
    """The command line as a namespace."""
    parser = argparse.ArgumentParser(prog="python -m retina_utils.series", description=__doc__)
    add = parser.add_argument
    add("--preset", default="tiny", help="parameters in notebooks/presets/PRESET.yaml")
    add("--data", help="data folder; the preset's own if not given")
    add("--run", help="name of the folder under outputs; the preset's name if not given")
    add("--notebooks", default="notebooks", help="folder of the notebooks")
    add("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    add("--fresh", action="store_true", help="run notebooks that are up to date as well")
    return parser.parse_args(arguments)


# --- Parameters -----------------------------------------------------------------------------------


def find_notebooks(folder: str) -> Path:
    """The notebooks' folder, if all five are in it."""
    path = Path(folder).resolve()
    missing = [name for name in NOTEBOOKS if not (path / f"{name}.ipynb").exists()]
    if missing:
        raise SeriesError(
            f"{path}: {', '.join(missing)} not found. Expected the five notebooks; "
            "run this from the repository's top folder."
        )
    return path


def collect_parameters(folder: Path, options: argparse.Namespace) -> dict:
    """Every parameter the preset and the command line set, checked against the notebooks."""
    declared = {}
    for name in NOTEBOOKS:
        declared |= declared_parameters(folder / f"{name}.ipynb")
    chosen = read_preset(folder / "presets", options.preset)
    for name, value in chosen.items():
        check_known(name, declared, f"preset {options.preset}")
        chosen[name] = cast(name, value, declared[name])
    given = dict(options.p)
    given |= {"data_dir": str(Path(options.data).resolve())} if options.data else {}
    given |= {"run": options.run} if options.run else {}
    for name, text in given.items():
        check_known(name, declared, "command line")
        chosen[name] = cast(name, text, declared[name])
    weights = chosen.get("weights", "")
    chosen["weights"] = find_weights(weights, folder)
    # What was trained keeps its own folder, so that both can be compared.
    chosen.setdefault(
        "run", f"{options.preset}_{Path(weights).stem}" if weights else options.preset
    )
    if weights:
        check_used(options.p, folder, chosen)
    # Relative paths are meant as the notebooks mean them: from their own folder.
    for name in ("outputs_dir", "data_dir"):
        chosen[name] = str((folder / chosen.get(name, declared[name])).resolve())
    check_data_folder(Path(chosen["data_dir"]))
    return chosen


def notebooks_for(chosen: dict) -> tuple[str, ...]:
    """The notebooks to run: with given weights, those that build and train nothing."""
    return WITHOUT_TRAINING if chosen.get("weights") else NOTEBOOKS


def find_weights(weights: str, folder: Path) -> str:
    """ "" and "pretrained" as they are; a path from here, or else from the notebooks, in full."""
    if not weights or (weights == "pretrained" and PRETRAINED.is_file()):
        return weights
    for place in (Path.cwd(), folder):
        if (place / weights).is_file():
            return str((place / weights).resolve())
    hint = "Expected pretrained or a file such as outputs/tiny/weights/unet_best.pth."
    if weights == "pretrained":
        hint = f"Expected {PRETRAINED}, which comes with the package: install it again."
    raise SeriesError(f"parameter weights: {weights} not found. {hint}")


def check_used(given: list, folder: Path, chosen: dict) -> None:
    """Refuse parameters of notebooks that given weights leave out: they would change nothing."""
    used = {}
    for name in notebooks_for(chosen):
        used |= declared_parameters(folder / f"{name}.ipynb")
    unused = [name for name, _ in given if name not in used]
    if unused:
        raise SeriesError(
            f"command line: {', '.join(unused)} would change nothing, for with given weights "
            "nothing is trained. Leave it out, or leave out weights."
        )


def declared_parameters(notebook: Path) -> dict:
    """Names and defaults in the cell tagged ``parameters``, read without running it."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}


def read_preset(folder: Path, name: str) -> dict:
    """The parameters of ``notebooks/presets/<name>.yaml``."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise SeriesError(f"PRESET={name}: no such preset. Expected one of {known}.")
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def check_known(name: str, declared: dict, where: str) -> None:
    """Refuse a parameter that no notebook declares, and suggest the nearest that one does."""
    if name in declared:
        return
    near = difflib.get_close_matches(name, declared, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    known = ", ".join(sorted(declared))
    raise SeriesError(f"{where}: unknown parameter {name}. {hint}The notebooks know: {known}.")


def cast(name: str, value, default):
    """``value`` in the type of the parameter's default.

    Text from the command line is read as YAML, except where text is wanted, so that ``false`` is
    False, ``1e-4`` a number, ``[8, 16]`` a list and a run called ``001`` keeps its zeros.
    """
    wanted = type(default)
    if wanted is str:
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        value = yaml.safe_load(text)
        if isinstance(value, str):  # YAML 1.1 takes 1e-4 for text
            with suppress(ValueError):
                value = float(value)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not wanted:
        kinds = {bool: "true or false", list: "a list", int: "a whole number", float: "a number"}
        raise SeriesError(
            f"parameter {name}: found {value!r}, expected {kinds[wanted]} such as {default!r}."
        )
    return value


def check_data_folder(folder: Path) -> None:
    """Refuse a data folder that is not there, before anything runs."""
    if folder.is_dir():
        return
    hint = "Check DATA=..."
    if folder.name in SOURCES:
        command = f"make import-data DATASET={folder.name} SRC=<folder or archive>"
        hint = f"Import the download first: {command}"
    raise SeriesError(f"{folder}: no such data folder. {hint}")


# --- Running --------------------------------------------------------------------------------------


def run_notebook(
    folder: Path, steps: tuple[str, ...], i: int, run: Path, chosen: dict, fresh: bool
) -> bool:
    """Run the ``i``-th of the notebooks unless it is up to date; True if it ran."""
    name = steps[i]
    source = folder / f"{name}.ipynb"
    finished = run / "notebooks" / f"{name}.ipynb"
    unfinished = finished.with_suffix(".failed.ipynb")
    declared = declared_parameters(source)
    parameters = {key: value for key, value in chosen.items() if key in declared}
    before = run / "notebooks" / f"{steps[i - 1]}.done" if i else None
    mark = fingerprint(source, parameters, before)
    if not fresh and finished.exists() and is_current(run, name, mark):
        print(f"{name}: up to date")
        return False
    forget_from(run, name)
    finished.parent.mkdir(exist_ok=True)
    print(f"\n{name}: {heading(source)}", flush=True)
    try:
        papermill.execute_notebook(
            source,
            unfinished,
            parameters,
            kernel_name="python3",
            cwd=folder,
            progress_bar=False,
            stdout_file=sys.stdout,
            coalesce_streams=True,
            config=Config({"KernelManager": {"transport_encryption": "auto"}}),
        )
    except (PapermillExecutionError, DeadKernelError) as error:
        raise SeriesError(failure(error, name, unfinished)) from error
    unfinished.replace(finished)
    write_json(run / "notebooks" / f"{name}.done", {"fingerprint": mark})
    return True


def fingerprint(source: Path, parameters: dict, before: Path | None) -> str:
    """What a notebook's result depends on: its code, parameters, data, weights, what ran before.

    ``before`` is the mark of the notebook that ran before it, None for the first. The package's
    own code is left out, so that mending a picture does not cost a training; FRESH=1 runs
    everything again.
    """
    cells = json.loads(source.read_text(encoding="utf-8"))["cells"]
    parts = [parameters, [cell["source"] for cell in cells if cell["cell_type"] == "code"]]
    if weights := parameters.get("weights"):
        parts.append(sha256(PRETRAINED if weights == "pretrained" else Path(weights)))
    if before is None:
        data = Path(parameters["data_dir"])
        parts += [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in sorted(data.rglob("*"))]
    else:
        parts.append(json.loads(before.read_text(encoding="utf-8")))
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()


def is_current(run: Path, name: str, mark: str) -> bool:
    """Whether a notebook finished with this fingerprint and its files are as it left them."""
    done = run / "notebooks" / f"{name}.done"
    if not done.exists() or json.loads(done.read_text())["fingerprint"] != mark:
        return False
    try:
        require(run, name)
    except RunError:
        return False
    return True


def forget_from(run: Path, name: str) -> None:
    """Take back the marks of a notebook and all after it, which are about to change."""
    for later in NOTEBOOKS[NOTEBOOKS.index(name) :]:
        (run / "notebooks" / f"{later}.done").unlink(missing_ok=True)


def failure(error: Exception, name: str, notebook: Path) -> str:
    """What went wrong, where it can be read, and how to go on, without a traceback."""
    if isinstance(error, PapermillExecutionError):
        what = f"{error.ename} in cell {error.exec_count}: {error.evalue}"
    else:
        what = "the kernel died, most often for want of memory: halve batch_size"
    return (
        f"{name} stopped. {what}\n\n"
        f"As far as it came: {_short(notebook)}\n"
        f"Earlier notebooks are kept; the same command goes on from {name}."
    )


def heading(notebook: Path) -> str:
    """The title in a notebook's first line."""
    first = json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"]
    return "".join(first).splitlines()[0].lstrip("# ")


def closing_words(run: Path) -> str:
    """Scores of the run, with what they mean, and where to look."""
    report = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    test, protocol = report["splits"]["test"], report["protocol"]
    spread = mean_sd(test["mean"]["dice"], math.nan if test["n"] == 1 else test["sd"]["dice"])
    return "\n".join(
        [
            "",
            f"{protocol['data']}, test split, {test['n']} photographs, {protocol['counted']}:",
            f"  Dice {spread} per image (mean ± SD), {test['pooled']['dice']:.3f} pooled",
            f"  IoU {test['pooled']['iou']:.3f}, ROC-AUC {test['pooled']['auc']:.4f}, "
            f"average precision {test['pooled']['ap']:.3f} pooled",
            f"  threshold {report['threshold']['value']:.3f} ({protocol['threshold']})",
            *([f"  {protocol['weights']}"] if protocol.get("weights") else []),
            "",
            "Where to look:",
            f"  {_short(run / 'report.html')}  the whole run on one page: open it in a browser",
            f"  {_short(run / 'notebooks')}/   the notebooks as they ran",
            f"  {_short(run / 'metrics.csv')}  scores of every photograph",
            f"  {_short(run / 'overlays')}/    predicted vessels over the photographs",
        ]
    )


def _short(path: Path) -> str:
    """A path from here, where that is shorter."""
    return os.path.relpath(path) if Path.cwd() in path.parents else str(path)


def _as_make(options: argparse.Namespace) -> str:
    """The options as ``make run-all`` takes them, to be recorded with the numbers."""
    words = [f"PRESET={options.preset}"]
    words += [f"DATA={shlex.quote(options.data)}"] if options.data else []
    words += [f"RUN={shlex.quote(options.run)}"] if options.run else []
    extra = " ".join(f"-p {name} {shlex.quote(value)}" for name, value in options.p)
    words += [f'ARGS="{extra}"'] if extra else []
    return " " + " ".join(words)


if __name__ == "__main__":
    sys.exit(main())
