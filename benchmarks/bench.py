"""The benchmarks, one table: ``make bench``, or ``make bench ARGS="scores topology"``.

Each file here with a ``rows()`` measures one kind of work. Results go to
``benchmarks/results/NAME.json`` with the machine's description; times never leave the table: no
test depends on them. ``--slow`` adds what takes many minutes.
"""

import argparse
import json
import os
import platform
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from retina_utils.machine.files import write_json

HERE = Path(__file__).parent
NAMES = ("training", "prediction", "folder", "scores", "topology")
SLOW = ("series",)
HEAD = f"{'work':46} {'ours':>9} {'baseline':>9} {'ratio':>8} {'ceiling':>8} {'spread':>7}  note"


def run(names: list[str], results: Path = HERE / "results") -> list[dict]:
    """Measure, print and keep the benchmarks of these names."""
    print(", ".join(f"{key} {value}" for key, value in machine().items()), HEAD, sep="\n")
    kept = []
    for name in names:
        try:
            found = import_module(name).rows()
        except ModuleNotFoundError as error:
            print(f"{name}: {error}")
            continue
        rows = []
        for row in map(with_ratio, found):
            print(as_line(row), flush=True)
            rows.append(row)
        write_json(results / f"{name}.json", {"machine": machine(), "rows": rows})
        kept += rows
    return kept


def with_ratio(row: dict) -> dict:
    """The row, its ratio everywhere the same thing: how many times as fast as the baseline."""
    known = row["baseline"] is not None and row["ours"] > 0
    return row | {"ratio": row["baseline"] / row["ours"] if known else None}


def as_line(row: dict) -> str:
    """One row in words, seconds with three figures."""
    ours, baseline = (
        f"{row[key]:9.3g}" if row[key] is not None else f"{'none':>9}"
        for key in ("ours", "baseline")
    )
    times = f"{row['ratio']:7.2f}x" if row["ratio"] is not None else 8 * " "
    share = "" if row["ceiling_share"] is None else f"{row['ceiling_share']:.0%}"
    spread = f"{row['spread']:.0%}"
    return f"{row['work']:46} {ours} {baseline} {times} {share:>8} {spread:>7}  {row['note']}"


def machine() -> dict:
    """What ran it, in general words: no names of hosts or users."""
    can = getattr(torch.cpu, "get_capabilities", dict)()
    wide = [name for name in ("avx2", "avx512_f", "avx512_bf16", "amx_bf16") if can.get(name)]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processor": f"{platform.machine()} {' '.join(wide)}",
        "gpu": gpu,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help=f"of {', '.join(NAMES + SLOW)}; all if none")
    parser.add_argument("--slow", action="store_true", help="also what takes many minutes")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON at the end")
    args = parser.parse_args()
    os.environ.setdefault("RETINA_QUIET", "1")  # no bars between the rows
    known = NAMES + SLOW
    if unknown := set(args.names) - set(known):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    found = run(args.names or [*NAMES, *(SLOW if args.slow else ())])
    if args.json:
        print(json.dumps(found))


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\nStopped.")
