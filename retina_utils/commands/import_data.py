"""Import the official download of a public data set into ``data/<name>/``.

make import-data DATASET=chase_db1 SRC=CHASEDB1.zip
make import-data DATASET=stare SRC=downloads/STARE    # the three tar files lie in it
make import-data DATASET=hrf SRC=downloads/HRF ARGS="--out data/hrf --test-people 05"
"""

import argparse
import re
import sys
from collections.abc import Sequence

from retina_utils.commands import run_command
from retina_utils.datasets.catalogue import SOURCES
from retina_utils.datasets.download import import_data


def main(arguments: Sequence[str] | None = None) -> int:
    """Import as the command line says; gives the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m retina_utils.commands.import_data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("dataset", help=", ".join(SOURCES))
    add("source", help="the download: a folder, or a zip or tar file")
    add("--out", help="target folder; default data/<dataset>")
    people = {"type": lambda text: re.findall(r"[^,\s]+", text), "metavar": "01,02", "default": ()}
    add("--test-people", help="instead of the usual test people", **people)
    add("--validation-people", help="instead of the default", **people)
    add("--force", action="store_true", help="replace an earlier import")
    return run_command(parser, lambda options: print(import_data(**vars(options))), arguments)


if __name__ == "__main__":
    sys.exit(main())
