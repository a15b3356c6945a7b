"""The five notebooks on the embedded photographs, anew, as ``make run-all`` runs them.

    python benchmarks/series.py        (minutes; in the table with --slow)

Once, and without a baseline: nobody else runs this series.
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
    with tempfile.TemporaryDirectory() as outputs:
        command = [sys.executable, "-m", "retina_utils.commands", "run-all", "--preset", "tiny"]
        command += ["--fresh", "-p", "outputs_dir", outputs]
        passive = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # as the Makefile
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=passive, check=True, capture_output=True)
        found = [make_row("the series, make run-all", [time.perf_counter() - start], [], "once")]
        for name in NOTEBOOKS:
            path = Path(outputs) / "tiny" / "notebooks" / f"{name}.ipynb"
            ran = json.loads(path.read_text(encoding="utf-8"))["metadata"]["papermill"]
            found.append(
                make_row(f"  notebook {name}", [ran["duration"]], [], "its kernel included")
            )
    return found


if __name__ == "__main__":
    from bench import run

    run(["series"])
