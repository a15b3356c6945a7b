"""A run's folder and its manifests: what makes a run repeatable, and readable later."""

import importlib.metadata
import numbers
import os
import platform
import re
import time
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL, SubprocessError, check_output

from retina_utils import RetinaError
from retina_utils.machine.files import (
    atomic_path,
    fingerprint,
    read_json,
    sha256,
    take_lock,
    write_json,
)

NOTEBOOKS = ("01_data", "02_model", "03_train", "04_evaluate", "05_visualize")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "matplotlib", "ipywidgets")
STARTED = time.monotonic()
LOCKS = {}  # by folder: those of the runs that this process works on
LENT = "RETINA_RUN_LOCKED"  # names the folder that the series has locked for its notebooks
# The lowest and the highest value of each parameter that is a number; whole ones want whole ones.
LIMITS = {
    "patch_size": (16, 8192),
    "stride": (1, 8192),
    "fov_diameter": (0, 65536),
    "patches_per_image": (1, 10**6),
    "vessel_share": (0.0, 1.0),
    "validation_share": (0.0, 1.0),
    "widths": (1, 4096),
    "epochs": (1, 10**6),
    "batch_size": (1, 65536),
    "lr": (1e-12, 1e3),
    "weight_decay": (0.0, 1e3),
    "schedule_patience": (0, 10**6),
    "patience": (0, 10**6),
    "threads": (0, 1024),
    "workers": (0, 1024),
    "save_every": (0, 10**6),
    "seed": (0, 2**32 - 1),
    "opacity": (0.0, 1.0),
}


def open_run(outputs_dir: str | Path, run: str) -> Path:
    """The folder ``outputs_dir/run``, made if needed, for this process alone.

    Nobody else may open it before :func:`record` or the end of the process. A RetinaError if it is
    outside, not to be written, or at work for somebody else.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(run)):
        raise RetinaError(
            f"run={run!r}: expected letters, digits, dots, dashes and underscores, such as chase_01"
        )
    global STARTED
    STARTED = time.monotonic()  # a kernel may have imported this long before its notebook's turn
    folder = Path(outputs_dir).resolve() / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / ".writable"):
            pass
        (folder / ".writable").unlink()
    except OSError as error:
        raise RetinaError(
            f"{folder}: cannot be written ({error.strerror}). Make the folder writable, or set "
            "outputs_dir to one that is."
        ) from error
    if os.environ.get(LENT) != str(folder):  # else it is ours by the series that runs us
        busy = (
            f"{folder}: another run is at work in this folder, and the two would mix. Wait until "
            "it is done, shut down the kernel of the notebook that opened it, or choose another "
            "run (RUN=...)."
        )
        if folder not in LOCKS:
            LOCKS[folder] = take_lock(folder / ".lock", busy)
    return folder


def close_run(folder: Path) -> None:
    """Let others open a run's folder."""
    if lock := LOCKS.pop(folder, None):
        lock.release()


def check_values(parameters: dict) -> None:
    """Refuse numbers among the notebooks' parameters that are out of their range, by name."""
    widths = parameters.get("widths", [1])
    if not isinstance(widths, list | tuple) or not 1 <= len(widths) <= 12:
        raise RetinaError(f"widths={widths!r}: expected a list of 1 to 12 whole numbers")
    for name, (low, high) in LIMITS.items():
        found = widths if name == "widths" else parameters.get(name, low)
        kind, words = numbers.Real, "a number"
        if isinstance(low, int):
            kind, words = numbers.Integral, "a whole number"
        for value in found if name == "widths" else [found]:
            if isinstance(value, bool) or not isinstance(value, kind) or not low <= value <= high:
                raise RetinaError(f"{name}={found!r}: expected {words} from {low} to {high}")
    if (stride := parameters.get("stride", 0)) > (size := parameters.get("patch_size", stride)):
        raise RetinaError(f"stride={stride}: expected 1 to patch_size={size} pixels")


def require(run: Path, notebook: str) -> dict:
    """The manifest of an earlier notebook; an error if it or a file it names is not as written."""
    path = run / f"{notebook}.json"
    if not path.exists():
        raise RetinaError(
            f"{run.name}: {notebook} has not run yet in {run}. Run {notebook}.ipynb first "
            "(with the same run and outputs_dir), or all five: make run-all."
        )
    manifest = read_manifest(path)
    for name, state in changed_files(manifest["files"], run).items():
        raise RetinaError(
            f"{run / name} {state} since {notebook} wrote it. Run {notebook}.ipynb again."
        )
    return manifest


def read_manifest(path: Path) -> dict:
    """What :func:`record` wrote, with the data's folder as it is reached from here.

    A RetinaError says if it is damaged.
    """
    manifest = read_json(path)
    try:
        for part in ("parameters", "results", "files", "provenance"):
            dict.keys(manifest[part])
    except (KeyError, TypeError) as error:
        raise RetinaError(
            f"{path}: no record of a notebook. Remove it, and run {path.stem}.ipynb again."
        ) from error
    if place := manifest["results"].get("data_dir"):
        manifest["results"]["data_dir"] = os.path.normpath(path.parent.resolve() / place)
    return manifest


def changed_files(checksums: dict[str, str], folder: Path) -> dict[str, str]:
    """What "was changed" or "is missing" of a folder's files, by their :func:`checksums`."""
    found = {name: (folder / name).is_file() for name in checksums}
    return {
        name: "was changed" if there else "is missing"
        for name, there in found.items()
        if not there or sha256(folder / name) != checksums[name]
    }


def record(
    run: Path, notebook: str, parameters: dict, results: dict | None = None, files: Iterable = ()
) -> dict:
    """Write ``<notebook>.json``: parameters, results, checksums of files, and what made them.

    ``results`` are what the next notebooks need to know, ``files`` paths in ``run`` they will read.
    It ends a notebook's work, so the next one may open the run.
    """
    results = dict(results or {})
    if place := results.get("data_dir"):  # as seen from here: both can move
        with suppress(ValueError):  # on another drive
            results["data_dir"] = Path(os.path.relpath(place, run.resolve())).as_posix()
    manifest = {
        "notebook": notebook,
        "parameters": {k: without_place(v) for k, v in parameters.items()},
        "results": results,
        "files": checksums((run / file for file in files), run),
        "provenance": provenance(parameters.get("device", "cpu")),
    }
    write_json(run / f"{notebook}.json", manifest)
    close_run(run)
    return manifest


def checksums(files: Iterable[Path], folder: str | Path) -> dict[str, str]:
    """Checksums of files by their paths in ``folder``."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(set(files))}


def checksum(pairs: Iterable) -> str:
    """One checksum of all files of some pairs of photographs and annotations."""
    return fingerprint([sha256(file) for pair in pairs for file in pair if isinstance(file, Path)])


def parameters_of(variables: dict) -> dict:
    """A notebook's parameters by name: its annotated variables. Pass ``globals()``."""
    return {name: variables[name] for name in variables["__annotations__"]}


def keep_threshold(run: Path, threshold: float, reason: str) -> None:
    """Write a threshold chosen by eye into the run, marked as such, with its reason."""
    choice = {"threshold": threshold, "chosen": "by eye", "reason": reason, **provenance()}
    write_json(run / "threshold_by_eye.json", choice)


def provenance(device: str = "cpu") -> dict:
    """Command, commit, versions, processor and time: what made these numbers on ``device``."""
    import torch  # here: the command line reads LIMITS at once, and torch takes seconds

    from retina_utils.machine.compute import choose_device, peak_memory_gib

    used = choose_device(device)
    return {
        "command": without_home(os.environ.get("RETINA_COMMAND", "run in Jupyter").strip()),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(used) if used.type == "cuda" else used.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "processor": _processor(torch.cpu),
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - STARTED, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def without_home(value):
    """A text with ~ for this user's own folder, which often bears a name; other values as is."""
    home = os.path.expanduser("~")
    if not isinstance(value, str) or len(home) < 2:
        return value
    return re.sub(rf"(?<![\w./-]){re.escape(home)}(?![\w.-])", "~", value)


def without_place(value):
    """A full path as its name alone, or from ``~`` if it is at home; other values as they are."""
    value = without_home(value)
    is_place = isinstance(value, str) and os.path.isabs(value) and Path(value).name
    return f".../{Path(value).name}" if is_place else value


def _processor(cpu) -> str:
    """The processor's name: of one family, two kinds still round differently."""
    about = getattr(cpu, "get_capabilities", dict)()  # missing in older versions
    return about.get("cpu_name") or platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the package's checkout, marked "-dirty" if changed; "unknown" elsewhere."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return check_output(git, text=True, timeout=10, stderr=DEVNULL).strip()
    except (OSError, SubprocessError):
        return "unknown"
