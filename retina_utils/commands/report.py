"""Write a run's report anew: one page, ``outputs/<run>/report.html``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retina_utils.commands import run_command
from retina_utils.show.report import write_report


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line: ``python -m retina_utils.commands.report outputs/<run>``."""
    parser = argparse.ArgumentParser("python -m retina_utils.commands.report", description=__doc__)
    parser.add_argument("run_folder", type=Path, help="outputs/<run>")
    return run_command(parser, _write, arguments)


def _write(options: argparse.Namespace) -> None:
    path = write_report(options.run_folder)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    sys.exit(main())
