"""The five notebooks on the embedded photographs, anew, as ``make run-all`` runs them.

    python benchmarks/series.py        (minutes; in the table with --slow)

Ours is what the preset says; the baseline is the same series with PyTorch's default float32.
Whole series are timed once: a notebook's row has no spread.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import make_row

from retina_utils.machine.runs import NOTEBOOKS

ROOT = Path(__file__).parent.parent


def rows() -> list[dict]:
    """The whole, and each notebook by papermill's own watch."""
    ours, notebooks = run_series()
    plain, plain_notebooks = run_series("-p", "precision", "float32")
    found = [make_row("the series, make run-all", [ours], [plain], "once; against float32")]
    for name in NOTEBOOKS:
        taken = [notebooks[name]], [plain_notebooks[name]]
        found.append(make_row(f"  notebook {name}", *taken, "without what is between notebooks"))
    return found


def run_series(*more: str) -> tuple[float, dict[str, float]]:
    """Seconds of the command, and of each notebook, in an outputs folder that is gone after."""
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "-m", "retina_utils.commands", "run-all", "--preset", "tiny"]
        command += ["--fresh", "-p", "outputs_dir", outputs, *more]
        passive = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # as the Makefile
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=passive, check=True, capture_output=True)
        taken = time.perf_counter() - start
        ran = {name: Path(outputs) / "tiny" / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS}
        told = {name: json.loads(path.read_text("utf-8")) for name, path in ran.items()}
    return taken, {n: told[n]["metadata"]["papermill"]["duration"] for n in NOTEBOOKS}


if __name__ == "__main__":
    from bench import run

    run(["series"])
