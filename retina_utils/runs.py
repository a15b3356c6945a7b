"""What makes a run repeatable and readable later: seeds, run folders, manifests, provenance."""

import csv
import hashlib
import importlib.metadata
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from retina_utils.images import atomic_path

NOTEBOOKS = ("01_data", "02_model", "03_train", "04_evaluate", "05_visualize")
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scipy", "matplotlib", "ipywidgets")
STARTED = time.monotonic()


class RunError(RuntimeError):
    """A run folder that lacks something; the message names the notebook that makes it."""


# --- Before anything runs -----------------------------------------------------------------------


def seed_everything(seed: int, threads: int = 0) -> None:
    """Make every random choice follow from ``seed`` and keep torch to repeatable kernels.

    Parameters
    ----------
    seed : int
        Seeds Python, NumPy and torch.
    threads : int
        CPU threads for torch; 0 leaves torch's choice. The same bytes come out only for the same
        number of threads on the same kind of processor.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def choose_device(device: str = "auto") -> torch.device:
    """The device to compute on: "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    RunError
        If the one asked for is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        return torch.device(available[0])
    if device.split(":")[0] not in available:
        raise RunError(
            f"device={device!r}: not on this machine, which has {', '.join(available)}. "
            "Use device = 'auto'."
        )
    return torch.device(device)


def is_quiet() -> bool:
    """Whether progress bars are left out: set RETINA_QUIET=1 where nobody watches."""
    return os.environ.get("RETINA_QUIET", "") not in ("", "0")


# --- The run folder -----------------------------------------------------------------------------


def open_run(outputs_dir: str | Path, run: str) -> Path:
    """The folder ``outputs_dir/run``, made if needed.

    Raises
    ------
    RunError
        If the name would leave ``outputs_dir`` or the folder cannot be written.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", str(run)):
        raise RunError(
            f"run={run!r}: expected letters, digits, dots, dashes and underscores, such as chase_01"
        )
    folder = Path(outputs_dir).resolve() / run
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / ".writable"):
            pass
        (folder / ".writable").unlink()
    except OSError as error:
        raise RunError(
            f"{folder}: cannot be written ({error.strerror}). Make the folder writable, or set "
            "outputs_dir to one that is."
        ) from error
    return folder


def require(run: Path, notebook: str) -> dict:
    """The manifest of an earlier notebook, after checking the files it names.

    Raises
    ------
    RunError
        If that notebook has not run yet, or a file of it was changed or removed since.
    """
    path = run / f"{notebook}.json"
    if not path.exists():
        raise RunError(
            f"{run.name}: {notebook} has not run yet in {run}. Run {notebook}.ipynb first "
            "(with the same run and outputs_dir), or all five: make run-all."
        )
    manifest = json.loads(path.read_text(encoding="utf-8"))
    for name, digest in manifest["files"].items():
        if not (run / name).exists() or sha256(run / name) != digest:
            state = "was changed" if (run / name).exists() else "is missing"
            raise RunError(
                f"{run / name} {state} since {notebook} wrote it. Run {notebook}.ipynb again."
            )
    return manifest


def record(
    run: Path,
    notebook: str,
    parameters: dict,
    results: dict | None = None,
    files: Iterable[str | Path] = (),
) -> dict:
    """Write ``<notebook>.json``: parameters, results, checksums of files, and what made them.

    Parameters
    ----------
    run : path
        The run folder.
    notebook : str
        "01_data" to "05_visualize".
    parameters : dict
        The notebook's parameters.
    results : dict, optional
        Numbers and settings the next notebooks need.
    files : iterable of paths
        Files that later notebooks read, relative to ``run`` or inside it.
    """
    paths = sorted({(run / f).relative_to(run).as_posix() for f in files})
    manifest = {
        "notebook": notebook,
        "parameters": parameters,
        "results": results or {},
        "files": {name: sha256(run / name) for name in paths},
        "provenance": provenance(),
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


def provenance() -> dict:
    """Command, commit, versions, processor and time: what made these numbers."""
    return {
        "command": os.environ.get("RETINA_COMMAND", "run in Jupyter"),
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "seconds": round(time.monotonic() - STARTED, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory_gib() -> float:
    """The most memory this process has held, in GiB (0 where the system does not say)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _commit() -> str:
    """The commit of the package's checkout, marked "-dirty" if changed; "unknown" elsewhere."""
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        found = subprocess.run(git, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return found.stdout.strip() or "unknown"


# --- Files ----------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """Checksum of a file's bytes."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, content: dict | list) -> None:
    """Write JSON whole or not at all; nan becomes null, so that every reader takes it."""
    with atomic_path(path) as temporary:
        text = json.dumps(_plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def write_csv(path: Path, rows: list[dict]) -> None:
    """Write rows of equal keys as CSV, whole or not at all; numbers keep six digits."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, fieldnames=list(rows[0]))
        table.writeheader()
        for row in rows:
            table.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})


def _plain(value):
    """``value`` in JSON's types: NumPy numbers, paths and nan included."""
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return str(value) if isinstance(value, Path) else value
