"""Draw the 14 synthetic photographs of ``data/tiny`` into a folder."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from retina_utils.commands import run_command
from retina_utils.datasets.synthetic import write_tiny


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw as the command line says; gives the exit status."""
    parser = argparse.ArgumentParser("python -m retina_utils.commands.tiny", description=__doc__)
    add = parser.add_argument
    add("folder", type=Path, help="where to write; must be empty or not exist")
    add("--seed", type=int, default=0, help="other seeds draw other persons")
    add("--force", action="store_true", help="write into a non-empty folder")
    return run_command(parser, lambda options: print(write_tiny(**vars(options))), arguments)


if __name__ == "__main__":
    sys.exit(main())
