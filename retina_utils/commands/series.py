"""Run the five notebooks in order with papermill: ``make run-all``.

With weights given (``-p weights pretrained``) nothing is trained: 02 and 03 are left out.

Adds to papermill what a person expects: unknown and ill-typed parameters stop before anything
runs, ``false`` is false, a failed notebook stays readable, and the next run goes on from it.
"""

import os
import socket
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import papermill
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from papermill.exceptions import PapermillExecutionError

from retina_utils import RetinaError, printable
from retina_utils.checkpoint import PRETRAINED
from retina_utils.commands.parameters import (
    declared_by,
    declared_parameters,
    find_notebooks,
    read_parameters,
)
from retina_utils.commands.recipe import check_recipe
from retina_utils.data import files_read
from retina_utils.datasets.catalogue import SOURCES, photographs
from retina_utils.evaluate import Results
from retina_utils.machine.files import fingerprint, read_json, sha256, write_json
from retina_utils.machine.runs import (
    LENT,
    NOTEBOOKS,
    close_run,
    open_run,
    read_manifest,
    require,
)
from retina_utils.show.tables import as_text, mean_sd

WITHOUT_TRAINING = ("01_data", "04_evaluate", "05_visualize")
# Seconds on the embedded photographs, for a first guess; how fast this machine is, it shows itself.
USUAL = dict(zip(NOTEBOOKS, (8, 13, 42, 9, 8), strict=True))
PATHS = {"data_dir", "outputs_dir", "weights"}


# What all notebooks import; the line leaves no name behind.
WARM = "None if __import__('retina_utils.train') and __import__('retina_utils.show.figures') else 0"


class OwnKernel(AsyncKernelManager):
    """A kernel of this very interpreter, whatever else is called python3 on Jupyter's paths.

    What the kernel's process says outside of the notebook is noise (its threads complain while
    they are closed), and the last words of a kernel that died; ``said`` keeps it.
    """

    said = None  # of this kernel
    waiting = None  # a kernel for the next notebook, which imports while the one before works

    def __init__(self, **options):
        super().__init__(
            kernel_name="python3",
            kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),
            transport_encryption="auto",
            **options,
        )

    @classmethod
    def take(cls, folder: Path) -> "OwnKernel":
        """A running kernel in this folder: the one that waits, or else a new one."""
        kernel, cls.waiting = cls.waiting, None
        if kernel is None:
            kernel, said = cls(), tempfile.TemporaryFile()  # noqa: SIM115 (as long as the kernel)
            kernel.said = said
            warm = [f"--IPKernelApp.exec_lines={WARM}"]
            run_sync(kernel.start_kernel)(extra_arguments=warm, cwd=str(folder), stderr=said)
        return kernel

    @classmethod
    def prepare(cls, folder: Path) -> None:
        """Have one wait."""
        cls.waiting = cls.take(folder)

    @classmethod
    def dismiss(cls) -> None:
        """Stop the one that waits."""
        if cls.waiting is not None:
            cls.waiting.stop()
            cls.waiting = None

    def stop(self) -> None:
        """End the process."""
        run_sync(self.shutdown_kernel)(now=True)

    def last_words(self) -> str:
        """The last line the kernel's process wrote, in brackets; empty where there is none."""
        self.said.seek(0)
        lines = self.said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f" (its last words: {printable(last[:200])})" if last else ""


def run_series(
    *, preset: str, data: str, run: str, notebooks: str, parameters: list, fresh: bool
) -> str:
    """Check everything, run the notebooks that are not up to date, and tell of the scores."""
    folder, given = find_notebooks(notebooks), dict(parameters)
    given |= {"data_dir": str(Path(data).resolve())} if data else {}
    given |= {"run": run} if run else {}
    chosen, names = collect_parameters(folder, preset, given)
    run = open_run(chosen["outputs_dir"], chosen["run"])
    os.environ[LENT] = str(run)
    try:
        return _run_all(folder, run, chosen, names, fresh)
    finally:
        OwnKernel.dismiss()
        del os.environ[LENT]
        close_run(run)


def _run_all(folder: Path, run: Path, chosen: dict, names: tuple[str, ...], fresh: bool) -> str:
    """The notebooks one after the other, in a run's folder that is ours."""
    os.environ["RETINA_QUIET"] = "1"
    if sys.stderr.isatty() and hasattr(os, "ttyname"):
        os.environ["RETINA_TERMINAL"] = os.ttyname(sys.stderr.fileno())
    if len(names) < len(NOTEBOOKS):
        left_out = " and ".join(name for name in NOTEBOOKS if name not in names)
        print(f"{left_out} are left out: the weights are given ({chosen['weights']}).")
    ran, before = [], None
    expected, spent = expected_seconds(run, chosen), {}
    for number, name in enumerate(names, start=1):
        place = f"{number} of {len(names)}{time_left(names[number - 1 :], expected, spent)}"
        began = time.monotonic()
        ran.append(run_notebook(folder / f"{name}.ipynb", run, chosen, before, fresh, place))
        if ran[-1]:
            spent[name] = time.monotonic() - began
        before = run / "notebooks" / f"{name}.done"
    if not any(ran):
        count = "five" if len(names) == 5 else "three"
        print(f"All {count} are up to date. To run them again all the same: FRESH=1.")
    return closing_words(run)


def expected_seconds(run: Path, chosen: dict) -> dict[str, float]:
    """How long each notebook should take: as last time in this folder, or as it usually does.

    Nobody knows it of a first run on other photographs, nor after a change of what is trained.
    """
    is_usual = chosen.keys() <= {*PATHS, "run", "seed"} and Path(chosen["data_dir"]).name == "tiny"
    found = dict(USUAL) if is_usual else {}
    for name in NOTEBOOKS:
        with suppress(RetinaError, FileNotFoundError, KeyError, TypeError):
            made = read_manifest(run / f"{name}.json")
            then = {key: made["parameters"][key] for key in made["parameters"].keys() - PATHS}
            if all(chosen.get(key, value) == value for key, value in then.items()):
                found[name] = float(made["provenance"]["seconds"])
    return found


def time_left(left: tuple[str, ...], expected: dict, spent: dict) -> str:
    """ " · about 2 min left", at the pace so far; nothing where it cannot be known."""
    if not expected.keys() >= {*left, *spent}:
        return ""
    usual = sum(expected[name] for name in spent)
    pace = sum(spent.values()) / usual if usual else 1
    minutes = round(pace * sum(expected[name] for name in left) / 60)
    return f" · about {minutes} min left" if minutes else " · less than a minute left"


# --- Parameters -----------------------------------------------------------------------------------


def collect_parameters(folder: Path, preset: str, given: dict) -> tuple[dict, tuple[str, ...]]:
    """Every parameter that is set, checked against the notebooks, and the notebooks to run."""
    declared, chosen = read_parameters(folder, preset, given)
    weights = chosen.get("weights", "")
    chosen["weights"] = find_weights(weights, folder)
    # What was trained keeps its own folder, so that both can be compared.
    chosen.setdefault("run", preset + (f"_{Path(weights).stem}" if weights else ""))
    names = WITHOUT_TRAINING if weights else NOTEBOOKS
    unused = set(given) - {"data_dir"} - set(declared_by(folder, names))
    if unused:
        raise RetinaError(
            f"command line: {', '.join(sorted(unused))} would change nothing, for with given "
            "weights nothing is trained. Leave it out, or leave out weights."
        )
    # Relative paths are meant as the notebooks mean them: from their own folder.
    for name in ("outputs_dir", "data_dir"):
        chosen[name] = str((folder / chosen.get(name, declared[name])).resolve())
    check_data_folder(Path(chosen["data_dir"]))
    check_recipe(declared_by(folder, names) | chosen)
    return chosen, names


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
    raise RetinaError(f"parameter weights: {weights} not found. {hint}")


def check_data_folder(folder: Path) -> None:
    """Refuse a data folder that is not there, before anything runs."""
    if folder.is_dir():
        return
    hint = "Check DATA=..."
    if (name := folder.name) in SOURCES:
        hint = f"Import it first: make import-data DATASET={name} SRC=<folder or archive>"
    raise RetinaError(f"{folder}: no such data folder. {hint}")


# --- Running --------------------------------------------------------------------------------------


def run_notebook(
    source: Path, run: Path, chosen: dict, before: Path | None, fresh: bool, place: str = ""
) -> bool:
    """Run a notebook unless it is up to date; True if it ran.

    ``before`` holds the fingerprint of the notebook that ran before it, None for the first;
    ``place`` says which of how many it is.
    """
    name, declared = source.stem, declared_parameters(source)
    finished = run / "notebooks" / f"{name}.ipynb"
    unfinished = finished.with_suffix(".failed.ipynb")
    parameters = {key: value for key, value in chosen.items() if key in declared}
    current = fingerprint(what_decides(source, parameters, before))
    if not fresh and is_current(finished, current):
        print(f"{name}: up to date")
        return False
    require_loopback()
    for later in NOTEBOOKS[NOTEBOOKS.index(name) :]:  # all of these are about to change
        finished.with_name(f"{later}.done").unlink(missing_ok=True)
    finished.parent.mkdir(exist_ok=True)
    title = "".join(read_json(source)["cells"][0]["source"]).splitlines()[0].lstrip("# ")
    print(f"\n{name}: {title}{f'  [{place}]' if place else ''}", flush=True)
    # In the notebook paths are meant from its own folder: so told, they seldom name a user.
    told = {k: _seen_from(source.parent, v) if k in PATHS else v for k, v in parameters.items()}
    kernel = OwnKernel.take(source.parent)
    if name != NOTEBOOKS[-1]:
        OwnKernel.prepare(source.parent)
    try:
        papermill.execute_notebook(
            _short(source),
            _short(unfinished),
            told,
            kernel_name="python3",
            progress_bar=False,
            stdout_file=sys.stdout,
            coalesce_streams=True,
            km=kernel,
        )
    except (PapermillExecutionError, RuntimeError) as error:
        what = f"its kernel did not start ({error}). Try: {sys.executable} -m ipykernel --version"
        if isinstance(error, DeadKernelError):
            what = "the kernel died, most often for want of memory: halve batch_size"
            what += kernel.last_words()
        if isinstance(error, PapermillExecutionError):
            what = f"{error.ename} in cell {error.exec_count}: {error.evalue}"
        raise RetinaError(
            f"{name} stopped. {what}\n\nAs far as it came: {_short(unfinished)}\n"
            f"Earlier notebooks are kept; the same command goes on from {name}."
        ) from error
    finally:
        kernel.stop()
    unfinished.replace(finished)
    write_json(finished.with_suffix(".done"), {"fingerprint": current})
    return True


def require_loopback() -> None:
    """Refuse a machine that cannot speak with itself, where a kernel is waited for in vain."""
    try:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname(), timeout=5),
        ):
            pass
    except OSError as error:
        raise RetinaError(
            f"127.0.0.1: this machine cannot reach itself ({error.strerror or error}), and over it "
            "the series speaks with its notebooks. Switch its loopback on (ip link set lo up)."
        ) from error


def what_decides(source: Path, parameters: dict, before: Path | None) -> list:
    """What a notebook's result depends on: its code, parameters, data, weights, what ran before.

    The package's own code is left out, so that mending a picture does not cost a training;
    FRESH=1 runs everything again.
    """
    cells = read_json(source)["cells"]
    parts = [parameters, [cell["source"] for cell in cells if cell["cell_type"] == "code"]]
    if weights := parameters.get("weights"):
        parts.append(sha256(PRETRAINED if weights == "pretrained" else weights))
    if before:
        return [*parts, read_json(before)]
    stats = {file: file.stat() for file in files_read(parameters["data_dir"])}
    # Links are followed: one that leads elsewhere now is other data.
    found = [(f, f.resolve(), seen.st_size, seen.st_mtime_ns) for f, seen in stats.items()]
    return [*parts, *found]


def is_current(finished: Path, current: str) -> bool:
    """Whether a notebook finished with this fingerprint and its files are as it left them."""
    done = finished.with_suffix(".done")
    if not (finished.exists() and done.exists()):
        return False
    try:
        same = read_json(done) == {"fingerprint": current}
        return same and bool(require(finished.parents[1], finished.stem))
    except RetinaError as error:
        print(f"\n{finished.stem} is not up to date. {error}")
        return False


def closing_words(run: Path) -> str:
    """Scores of the run, with what they mean, and where to look."""
    results = Results.read(run)
    test, protocol = results.splits["test"], results.protocol
    spread = f"{mean_sd(test.mean['dice'], test.sd['dice'])} per photograph (mean ± SD)"
    places = {
        "report.html": "the whole run on one page: open it in a browser",
        "notebooks/": "the notebooks as they ran",
        "metrics.csv": "scores of every photograph",
        "overlays/": "predicted vessels over the photographs",
    }
    lines = [
        "",
        f"{protocol['data']}, test split, {photographs(test.n)}, {protocol['counted']}:",
        f"  Dice {as_text(test.pooled['dice'])}" + (f" pooled, {spread}" if test.n > 1 else ""),
        f"  IoU {as_text(test.pooled['iou'])}, ROC-AUC {as_text(test.pooled['auc'])}, "
        f"average precision {as_text(test.pooled['ap'])}" + (" pooled" if test.n > 1 else ""),
        f"  threshold {results.threshold.value:.3f} ({protocol['threshold']})",
        *([f"  {protocol['took_part']}"] if protocol.get("took_part") else []),
        "",
        "Where to look:",
        *(f"  {_short(run)}/{place:12} {words}" for place, words in places.items()),
    ]
    return "\n".join(lines)


def _seen_from(folder: Path, path: str) -> str:
    """A full path as seen from a folder, where there is a way; other words as they are."""
    if not os.path.isabs(path) or os.path.splitdrive(path)[0] != os.path.splitdrive(folder)[0]:
        return path
    return Path(os.path.relpath(path, folder)).as_posix()


def _short(path: Path) -> str:
    """A path from here, where that is shorter."""
    return os.path.relpath(path) if Path.cwd() in path.parents else str(path)
