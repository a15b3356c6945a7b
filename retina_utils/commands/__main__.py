"""The command line of all that the Makefile calls: ``python -m retina_utils.commands NAME``.

It is read before anything large is imported, so that a slip of the pen is answered at once.
"""

import argparse
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from retina_utils import RetinaError, printable

GOES_ON = "The same command goes on from here."


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options; ``work`` is the function that takes them by name."""
    top = argparse.ArgumentParser("python -m retina_utils.commands")
    commands = top.add_subparsers(dest="command", metavar="NAME", required=True)

    def command(name: str, work: str, words: str) -> Callable:
        parser = commands.add_parser(name, help=words, description=words)
        parser.set_defaults(work=work)
        return parser.add_argument

    parameter = {"nargs": 2, "action": "append", "default": [], "metavar": ("NAME", "VALUE")}
    parameter |= {"dest": "parameters", "help": "a parameter of the notebooks"}

    add = command("run-all", "commands.series:run_series", "run the five notebooks in order")
    add("--preset", default="tiny", help="parameters in notebooks/presets/PRESET.yaml")
    add("--data", help="data folder; the preset's own if not given")
    add("--run", help="name of the folder under outputs; the preset's name if not given")
    add("--notebooks", default="notebooks", help="folder of the notebooks")
    add("-p", **parameter)
    add("--fresh", action="store_true", help="run notebooks that are up to date as well")

    # No --run: torchrun would take it for one of its own; -p run NAME says the same.
    add = command("train", "commands.train:train_together", "03's training, started by torchrun")
    add("--preset", default="tiny", help="parameters in notebooks/presets/PRESET.yaml")
    add("--data", help="data folder; the preset's own if not given")
    add("--notebooks", default="notebooks", help="folder of the notebooks")
    add("-p", **parameter)

    add = command("predict", "commands.folder:predict_and_tell", "vessel maps of photographs")
    add("photographs", help="a folder of photographs, with its sub-folders, or one file")
    add("--out", required=True, help="folder for the results")
    add("--weights", default="pretrained", help="a checkpoint; the network in the box by default")
    add(
        "--threshold", type=threshold_of, help="a number, usual, or expected: each photograph's own"
    )
    flips = "average over mirror images; --no-flips is a quarter of the work, a little worse"
    add("--flips", action=argparse.BooleanOptionalAction, default=True, help=flips)
    add("--fov", metavar="FOLDER", dest="fov_folder", help="FOV masks, named after photographs")
    add("--device", default="auto", help="auto, cuda, mps or cpu")
    add("--force", action="store_true", help="do again what has been done")
    add("--dicom-seg", action="store_true", help="a DICOM Segmentation beside each DICOM's maps")
    words = "measures.csv: widths, lengths, forks, tortuosity; it takes as long as the network"
    add("--measures", action=argparse.BooleanOptionalAction, default=True, help=words)
    add("--spacing", type=float, metavar="UM", help="micrometres of a pixel, for measures.csv")
    where = "on the workers of Dask: local:2 for two processes, or a scheduler's tcp://host:8786"
    add("--cluster", metavar="ADDRESS", help=where)

    words = "fit a network to a camera by 2 to 20 annotated photographs"
    add = command("adapt", "commands.adapt:adapt_and_tell", words)
    add("data", help="folder with images/ and masks/, or a data folder with splits")
    add("--run", required=True, help="name of the folder under outputs")
    add("--weights", default="pretrained", help="the start; the network in the box by default")
    add("--outputs", default="outputs", help="folder of the runs")

    add = command("onnx", "commands.onnx:write_onnx", "a network as one ONNX file, checked")
    add("--weights", default="pretrained", help="a checkpoint; the network in the box by default")
    add("--out", default="outputs/onnx/network.onnx", help="the file to write")

    add = command("page", "commands.onnx:write_page", "a network as one HTML file, used offline")
    add("--weights", default="pretrained", help="a checkpoint; the network in the box by default")
    add("--out", default="outputs/page/vessels.html", help="the file to write")

    add = command("benchmark", "commands.benchmark:run_benchmark", "one table by cross-validation")
    add("datasets", nargs="+", help="names of folders in --data; several are trained on together")
    add("--data", default="data", type=Path, help="where the imported data sets lie")
    add("--others", nargs="*", help="data sets to test on; all others imported if not given")
    add("--preset", help="recipe in notebooks/presets; if not given: the data set's, or pretrained")
    add("--folds", default=5, type=int, help="0: only the training on everything, no table")
    left = "train on all data sets but one and test on that one, each in turn, in place of folds"
    add("--leave-one-out", action="store_true", help=left)
    add("--jobs", default=0, type=int, help="trainings at once; 0: one a core without a GPU")
    add("--notebooks", default="notebooks", type=Path, help="folder of the notebooks")
    add("--out", default="outputs/benchmark", type=Path, help="folder for the results")
    add("-p", **parameter)
    add("--ship", type=Path, help="write the network trained on everything here, with its card")
    add("--only", nargs="+", help="only these trainings, such as fold_1 or all; no table yet")

    add = command("import-data", "datasets.download:import_data", "an official download into data/")
    add("dataset", help="fives, chase_db1, hrf, drive or stare")
    add("source", help="the download: a folder, or a zip or tar file")
    add("--out", help="target folder; default data/<dataset>")
    people = {"type": lambda text: re.findall(r"[^,\s]+", text), "metavar": "01,02", "default": ()}
    add("--test-people", help="instead of the usual test people", **people)
    add("--validation-people", help="instead of the default", **people)
    add("--force", action="store_true", help="replace an earlier import")

    add = command("tiny", "datasets.synthetic:write_tiny", "draw the photographs of data/tiny")
    add("folder", type=Path, help="where to write; must be empty or not exist")
    add("--seed", type=int, default=0, help="other seeds draw other persons")
    add("--force", action="store_true", help="write into a non-empty folder")

    add = command("verify", "commands.verify:verify_run", "run a finished run anew and compare")
    add("run", help="its name, a folder in --outputs")
    add("--outputs", default="outputs", help="folder of the runs")
    add("--notebooks", default="notebooks", help="folder of the notebooks")

    add = command("compare", "commands.compare:compare_runs", "is run B better than run A?")
    add("a", help="name of a finished run, a folder in --outputs")
    add("b", help="another, tested on the same photographs")
    add("--outputs", default="outputs", help="folder of the runs")

    add = command("report", "show.report:write_report", "write the page of a finished run anew")
    add("run_folder", type=Path, help="outputs/<run>")

    add = command("site", "commands.site:build_site", "the series as pages to read")
    add("out", type=Path, help="folder to write, replaced as a whole")
    add("--run", type=Path, default="outputs/tiny", help="whose report is the sample")
    return top


def threshold_of(text: str) -> float | str:
    """A threshold as typed: a number from 0 to 1, "usual" or "expected"."""
    if text in ("usual", "expected"):
        return text
    with suppress(ValueError):
        if 0 <= float(text) <= 1:
            return float(text)
    words = f"found {text!r}, expected a number between 0 and 1, usual or expected"
    raise argparse.ArgumentTypeError(words)


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the command line, do the work, and give the exit status, without a traceback.

    0 is done, 1 is done but for what was named, 2 is refused or stopped, 130 is Ctrl-C. The
    command is recorded with whatever it makes: in the Makefile's words where it was called there.
    """
    options = vars(build_parser().parse_args(arguments))
    name, (module, function) = options.pop("command"), options.pop("work").split(":")
    given = shlex.join(sys.argv[1:] if arguments is None else arguments)
    in_own_words = "RETINA_COMMAND" not in os.environ
    typed = os.environ.get("RETINA_COMMAND", f"python -m retina_utils.commands {given}")
    os.environ["RETINA_COMMAND"] = without_places(typed, options.values())
    for stream in (sys.stdout, sys.stderr):  # of a console that knows fewer letters than names do
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        if {"parameters", "device"} & options.keys():  # before torch, which takes seconds
            import_module("retina_utils.commands.parameters").check_typed(**options)
        done = getattr(import_module(f"retina_utils.{module}"), function)(**options)
        if isinstance(done, str | Path):
            print(printable(done))
        return done if isinstance(done, int) else 0
    except RetinaError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"Stopped, {printable(error)}. {GOES_ON}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. {GOES_ON}", file=sys.stderr)
        return 130
    finally:
        if in_own_words:  # a second command of this process has its own
            del os.environ["RETINA_COMMAND"]
        else:
            os.environ["RETINA_COMMAND"] = typed


def without_places(command: str, values: Iterable) -> str:
    """A command to record: of absolute paths among its ``values`` the names, of others no home."""
    for value in sorted(map(str, values), key=len, reverse=True):
        if Path(value).is_absolute() and Path(value).name:
            command = command.replace(value, f".../{Path(value).name}")
    return printable(command.replace(str(Path.home()), "~"))


if __name__ == "__main__":
    sys.exit(main())
