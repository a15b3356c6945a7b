"""Does a run come out again? ``make verify RUN=name``: run anew from its record, and compared.

Value for value where the same kind of processor, threads and versions made both. Elsewhere one
seed gives other weights: sums are rounded in another order, and a training carries that on. Two
kinds of processor gave pooled Dice .835 and .817 for one seed. There the scores are judged by
``SCORES_WITHIN``, whatever no rounding touches has to be the same, and the rest is only told.
"""

import csv
import json
import math
import os
import re
import shutil
from collections import defaultdict
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from retina_utils import RetinaError
from retina_utils.checkpoint import load_network, read_checkpoint
from retina_utils.commands.series import WITHOUT_TRAINING, find_notebooks, find_weights, run_series
from retina_utils.data import files_read
from retina_utils.machine.runs import NOTEBOOKS, changed_files, close_run, open_run, read_manifest
from retina_utils.show.tables import Table

SCORES_WITHIN = 0.03
SCORES = re.compile(r"splits\.\w+\.(pooled|mean)\.\w+")  # in metrics.json, judged by it
FREE = ("history.csv", "network.sha256")  # early stopping and checksums follow the rounding
DECIDES = ("processor", "cpu", "device", "threads", "python", "versions")  # of the provenance
VERDICTS = ("not judged", "within", "outside")


class Difference(NamedTuple):
    """A place in a result that did not come out again; of an array, where it is furthest off."""

    file: str
    place: str
    recorded: object
    now: object
    size: float  # inf where they are no numbers, or not as many


def verify_run(*, run: str, outputs: str, notebooks: str) -> int:
    """Run a finished run anew beside it, tell what differs; 0 if nothing does, else 1.

    A RetinaError says if it cannot be done: no such run, unfinished, or of other data by now. What
    differs is kept in ``outputs/<run>_verify``; the same command goes on there if it was stopped.
    """
    folder = Path(outputs).resolve() / run
    if not (folder / "01_data.json").is_file():
        known = sorted(path.parent.name for path in Path(outputs).glob("*/01_data.json"))
        raise RetinaError(
            f"{folder}: no such run. Expected one of {', '.join(known) or 'those of make run-all'}."
        )
    open_run(outputs, run)  # nobody shall change it meanwhile
    try:
        return _verify(folder, notebooks)
    finally:
        close_run(folder)


def _verify(run: Path, notebooks: str) -> int:
    manifests = read_record(run)
    parameters = recorded_parameters(run, manifests)
    require_inputs(run, manifests, find_weights(parameters["weights"], find_notebooks(notebooks)))
    again = run.with_name(f"{run.name}_verify")
    if (again / f"{NOTEBOOKS[-1]}.json").exists():
        raise RetinaError(f"{again}: is left from an earlier check. Remove it: rm -r '{again}'")
    data = manifests["01_data"]["results"]["data_dir"]
    print(f"{run.name} is run anew in {again.name}, as it was recorded.")
    run_series(
        preset="",
        data=data,
        run=again.name,
        notebooks=notebooks,
        parameters=[*parameters.items(), ("outputs_dir", str(run.parent))],
        fresh=False,
    )
    remade = read_record(again)
    exact = tell_makers(manifests, remade)
    files = sorted({name for manifest in manifests.values() for name in manifest["files"]})
    found = [*altered(run, manifests)]
    found += [one for name in files for one in differences(run / name, again / name, name)]
    if not tell(found, len(files), exact):
        shutil.rmtree(again)
        return 0
    print(f"What came out now is kept to look at: {again}")
    return 1


# --- What is recorded -----------------------------------------------------------------------------


def read_record(run: Path) -> dict[str, dict]:
    """The manifests of a finished run, by notebook."""
    last = run / "04_evaluate.json"
    given = last.exists() and read_manifest(last)["parameters"].get("weights")
    names = WITHOUT_TRAINING if given else NOTEBOOKS
    for name in names:
        stopped = (run / "notebooks" / f"{name}.failed.ipynb").exists()
        if stopped or not (run / f"{name}.json").exists():
            raise RetinaError(
                f"{run}: unfinished, for {name} has not run to its end. Give the command that "
                "began it again, and verify it then."
            )
    return {name: read_manifest(run / f"{name}.json") for name in names}


def recorded_parameters(run: Path, manifests: dict[str, dict]) -> dict:
    """The parameters of all notebooks together, and as many threads as it had; no places."""
    found = {"weights": ""}
    for manifest in manifests.values():
        found |= manifest["parameters"]
    for name, manifest in manifests.items():
        for key, value in manifest["parameters"].items():
            if key not in ("data_dir", "outputs_dir", "run") and value != found[key]:
                raise RetinaError(
                    f"{run}: {name} ran with {key}={value!r}, a later notebook with "
                    f"{found[key]!r}. The series takes one value for all: it cannot repeat this."
                )
    if not found.get("threads", 1):
        found["threads"] = made_by(manifests)["threads"]
    found["weights"] = os.path.expanduser(found["weights"])
    return {k: v for k, v in found.items() if k not in ("data_dir", "outputs_dir", "run")}


def require_inputs(run: Path, manifests: dict[str, dict], weights: str) -> None:
    """Refuse data and given weights that are not those the run read, by name."""
    about = manifests["01_data"]["results"]
    if "data_files" not in about:
        raise RetinaError(
            f"{run}: an earlier version made it, without checksums of its photographs. Only a new "
            "run can be verified: make run-all FRESH=1."
        )
    root, recorded = Path(about["data_dir"]), about["data_files"]
    odd = changed_files(recorded, root)
    if root.is_dir():
        now = {path.relative_to(root).as_posix() for path in files_read(root)}
        odd |= dict.fromkeys(sorted(now - recorded.keys()), "is new")
    if odd:
        some = ", ".join(f"{name} {state}" for name, state in [*odd.items()][:6])
        more = ", ..." if len(odd) > 6 else ""
        count = f"{len(odd)} of {len(recorded.keys() | odd.keys())}"
        raise RetinaError(
            f"{root}: {count} files are not as {run.name} read them: {some}{more}. "
            "Put them back, or run on the new data: make run-all."
        )
    recorded = manifests["04_evaluate"]["results"].get("weights_sha256")
    if weights and load_network(weights).sha256 != recorded:
        raise RetinaError(
            f"{weights}: not the weights that {run.name} was made with. Put them back."
        )


def made_by(manifests: dict[str, dict]) -> dict:
    """What made a run's numbers: the provenance of its training, or else of its evaluation."""
    return manifests.get("03_train", manifests["04_evaluate"])["provenance"]


def tell_makers(recorded: dict[str, dict], remade: dict[str, dict]) -> bool:
    """Print in what two runs' makers differ; True if both should give the same values."""
    old, new = made_by(recorded), made_by(remade)
    rows = [
        {"made by": key, "recorded": str(old.get(key)), "now": str(new.get(key))}
        for key in (*DECIDES, "commit")
        if old.get(key) != new.get(key)
    ]
    exact = all(row["made by"] == "commit" for row in rows)
    if rows:
        print("\n", Table(rows), sep="")
    print(
        "\nThe same kind of processor, threads and versions made both: no value may differ."
        if exact
        else f"\nOther makers round otherwise: scores may differ by {SCORES_WITHIN}; the other "
        "numbers that a training leads to are told and not judged."
    )
    return exact


# --- Comparing ------------------------------------------------------------------------------------


def altered(run: Path, manifests: dict[str, dict]) -> list[Difference]:
    """Files of a run that are no longer as their notebook wrote them."""
    return [
        Difference(name, "", f"as {notebook} wrote it", state, math.inf)
        for notebook, manifest in manifests.items()
        for name, state in changed_files(manifest["files"], run).items()
    ]


def differences(recorded: Path, now: Path, name: str = "") -> list[Difference]:
    """Where two files of results differ: weights, JSON, CSV and pictures by value, else bytes."""
    old, new = values(recorded), values(now)
    pairs = ((place, old.get(place), new.get(place)) for place in old | new)
    found = (Difference(name, place, *_apart(first, second)) for place, first, second in pairs)
    return [difference for difference in found if difference.size]


def values(path: Path) -> dict[str, object]:
    """What a file holds, by the place in it; of one that cannot be read, its bytes."""
    if not path.is_file():
        return {}
    with suppress(ValueError, TypeError, AttributeError, OSError, RecursionError, csv.Error):
        if path.suffix in (".pt", ".pth"):
            content = read_checkpoint(path)
            weights = {name: tensor.numpy() for name, tensor in content.pop("weights").items()}
            return weights | _leaves(content)
        if path.suffix == ".json":
            return _leaves(json.loads(path.read_text(encoding="utf-8")))
        if path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                table = csv.DictReader(file)
                cells = {"headings": str(table.fieldnames)}
                for n, row in enumerate(table, 2):
                    cells |= {f"line {n}, {key}": _number(cell) for key, cell in row.items()}
                return cells
        if path.suffix == ".npz":
            with np.load(path) as arrays:
                return dict(arrays)
        if path.suffix == ".png":
            with Image.open(path) as picture:
                pixels = np.asarray(picture)
            return {"": pixels / 65535 if pixels.dtype == np.uint16 else pixels}
    return {"": path.read_bytes()}


def _leaves(value, place: str = "") -> dict[str, object]:
    """Numbers and words of nested dicts and lists by their dotted places."""
    if not isinstance(value, dict | list):
        return {place: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = {place: type(value).__name__} if not value else {}
    for key, item in items:
        found |= _leaves(item, f"{place}.{key}" if place else str(key))
    return found


def _number(text: str | None):
    """A cell as a number if it is one."""
    with suppress(ValueError, TypeError):
        return float(text)
    return text


def _apart(old, new) -> tuple[object, object, float]:
    """Two values, those furthest apart of arrays, and how far; 0 if they are the same."""
    first, second = np.atleast_1d(old), np.atleast_1d(new)
    if first.dtype.kind not in "biuf" or second.dtype.kind not in "biuf":
        return (
            old,
            new,
            0.0 if type(old) is type(new) and np.array_equal(first, second) else math.inf,
        )
    if first.shape != second.shape:
        return f"{first.shape}", f"{second.shape}", math.inf
    apart = np.abs(np.subtract(first, second, dtype=float))
    apart[np.isnan(first) & np.isnan(second)] = 0
    apart = np.nan_to_num(apart, nan=math.inf)
    if not apart.any():
        return old, new, 0.0
    where = np.unravel_index(apart.argmax(), apart.shape)
    return first[where].item(), second[where].item(), float(apart[where])


def judge(found: Difference, exact: bool) -> str:
    """ "outside", "within" or "not judged": what a difference means."""
    if exact or found.file in ("splits.csv", "model.json"):
        return "outside"
    if found.file == "metrics.json" and SCORES.fullmatch(found.place):
        return "within" if found.size <= SCORES_WITHIN else "outside"
    words = found.size == math.inf and not {found.file, found.place} & {*FREE}
    return "outside" if words else "not judged"


def tell(found: list[Difference], count: int, exact: bool) -> bool:
    """Print what differs, the worst place of each file; True if any is outside."""
    by_file = defaultdict(list)
    for one in found:
        path = Path(one.file)
        maps = path.suffix == ".png"
        by_file[path.parent.as_posix() if maps else one.file].append(
            one._replace(place=path.name) if maps else one
        )
    rows, differ = [], {one.file for one in found}
    for name, places in by_file.items():
        judged = [(VERDICTS.index(judge(one, exact)), one.size) for one in places]
        rank, worst = max(judged), places[judged.index(max(judged))]
        shown = {"recorded": worst.recorded, "now": worst.now, "difference": worst.size}
        shown = {key: _shown(value) for key, value in shown.items()}
        rows.append({"what": name, "places": len(places), "the worst": worst.place} | shown)
        rows[-1]["verdict"] = VERDICTS[rank[0]]
    print(f"{count - len(differ)} of {count} files came out again, value for value.")
    if rows:
        print("\n", Table(rows), "\n", sep="")
    return any(row["verdict"] == "outside" for row in rows)


def _shown(value) -> str:
    """A value in a narrow cell of the table."""
    if value is None or value == math.inf:
        return "–"
    return f"{value:.6g}" if isinstance(value, float) else str(value)[:40]
