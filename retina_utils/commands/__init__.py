"""What the Makefile calls: each file is one command, ``python -m retina_utils.commands.NAME``."""

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence

from retina_utils import RetinaError

GOES_ON = "The same command goes on from here."


def run_command(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace], int | None],
    arguments: Sequence[str] | None = None,
) -> int:
    """Read the command line, do the work, and give the exit status, without a traceback.

    0 is done, 1 is done but for what was named, 2 is refused or stopped, 130 is Ctrl-C. The
    command is recorded with whatever it makes: in the Makefile's words where it was called there.
    """
    options = parser.parse_args(arguments)
    given = sys.argv[1:] if arguments is None else arguments
    in_own_words = "RETINA_COMMAND" not in os.environ
    os.environ.setdefault("RETINA_COMMAND", f"{parser.prog} {shlex.join(given)}".rstrip())
    try:
        return work(options) or 0
    except RetinaError as error:
        print(f"{parser.prog.rpartition('.')[2]}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Stopped, {error}. {GOES_ON}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. {GOES_ON}", file=sys.stderr)
        return 130
    finally:
        if in_own_words:  # a second command of this process has its own
            del os.environ["RETINA_COMMAND"]
