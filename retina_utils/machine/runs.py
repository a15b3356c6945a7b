"""A run's folder and its manifests: what makes a run repeatable, and readable later."""

import importlib.metadata
import os
import platform
import re
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from subprocess import DEVNULL, SubprocessError, check_output

import torch

from retina_utils import RetinaError
from retina_utils.machine.compute import choose_device, peak_memory_gib
from retina_utils.machine.files import atomic_path, read_json, sha256, write_json

NOTEBOOKS = ("01_data", "02_model", "03_train", "04_evaluate", "05_visualize")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "matplotlib", "ipywidgets")
STARTED = time.monotonic()


def open_run(outputs_dir: str | Path, run: str) -> Path:
    """The folder ``outputs_dir/run``, made if needed; an error if outside, or not to be written."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(run)):
        raise RetinaError(
            f"run={run!r}: expected letters, digits, dots, dashes and underscores, such as chase_01"
        )
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
    return folder


def require(run: Path, notebook: str) -> dict:
    """The manifest of an earlier notebook; an error if it or a file it names is not as written."""
    path = run / f"{notebook}.json"
    if not path.exists():
        raise RetinaError(
            f"{run.name}: {notebook} has not run yet in {run}. Run {notebook}.ipynb first "
            "(with the same run and outputs_dir), or all five: make run-all."
        )
    manifest = read_json(path)
    for name, digest in manifest["files"].items():
        there = (run / name).exists()
        if not there or sha256(run / name) != digest:
            state = "was changed" if there else "is missing"
            raise RetinaError(
                f"{run / name} {state} since {notebook} wrote it. Run {notebook}.ipynb again."
            )
    return manifest


def record(
    run: Path, notebook: str, parameters: dict, results: dict | None = None, files: Iterable = ()
) -> dict:
    """Write ``<notebook>.json``: parameters, results, checksums of files, and what made them.

    ``results`` are what the next notebooks need to know, ``files`` paths in ``run`` they will read.
    """
    paths = sorted({(run / f).relative_to(run).as_posix() for f in files})
    manifest = {
        "notebook": notebook,
        "parameters": parameters,
        "results": results or {},
        "files": {name: sha256(run / name) for name in paths},
        "provenance": provenance(parameters.get("device", "cpu")),
    }
    write_json(run / f"{notebook}.json", manifest)
    return manifest


def parameters_of(variables: dict) -> dict:
    """A notebook's parameters by name: its annotated variables. Pass ``globals()``."""
    return {name: variables[name] for name in variables["__annotations__"]}


def keep_threshold(run: Path, threshold: float, reason: str) -> None:
    """Write a threshold chosen by eye into the run, marked as such, with its reason."""
    choice = {"threshold": threshold, "chosen": "by eye", "reason": reason, **provenance()}
    write_json(run / "threshold_by_eye.json", choice)


def provenance(device: str = "cpu") -> dict:
    """Command, commit, versions, processor and time: what made these numbers on ``device``."""
    used = choose_device(device)
    return {
        "command": os.environ.get("RETINA_COMMAND", "run in Jupyter"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name(used) if used.type == "cuda" else used.type,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - STARTED, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _commit() -> str:
    """The commit of the package's checkout, marked "-dirty" if changed; "unknown" elsewhere."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return check_output(git, text=True, timeout=10, stderr=DEVNULL).strip()
    except (OSError, SubprocessError):
        return "unknown"
