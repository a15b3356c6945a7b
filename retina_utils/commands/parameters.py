"""What is asked of the notebooks: the parameters they declare, a preset's and those typed in.

Nothing here imports torch, which takes seconds: a slip of the pen is answered at once.
"""

import ast
import difflib
import math
import reprlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import yaml

import retina_utils
from retina_utils import RetinaError
from retina_utils.machine.files import read_json
from retina_utils.machine.runs import NOTEBOOKS, check_values

# Parameters that take one of some names: the tables of the lesson that hold them, or the names.
CHOICES = {
    "loss": "losses.LOSSES",
    "optimizer": "train.OPTIMIZERS",
    "schedule": "train.SCHEDULES",
    "architecture": "models.ARCHITECTURES",
    "norm": "models.NORMS",
    "activation": "models.ACTIVATIONS",
    "channels": "patches.CHANNELS",
    "mode": "patches.MODES",
    "normalisation": "patches.NORMALISATIONS",
    "augment": "augment.STRENGTHS",
    "split_to_show": "data.SPLITS",
    "choose_by": ("dice", "iou", "accuracy"),
    "precision": ("auto", "bfloat16", "float32"),
    "device": ("auto", "cuda", "mps", "cpu"),
}
BESIDE = {"augment": ("none", "cameras")}  # names that are no line of the table


def check_typed(*, notebooks: str | Path = "", preset: str | None = None, **options) -> None:
    """Refuse names, types and values of a command line that no notebook takes."""
    check_choices({name: options[name] for name in CHOICES.keys() & options.keys()})
    if "parameters" in options:
        read_parameters(find_notebooks(notebooks), preset, dict(options["parameters"]))


def find_notebooks(folder: str | Path) -> Path:
    """The notebooks' folder, if all five are in it."""
    path = Path(folder).resolve()
    missing = [name for name in NOTEBOOKS if not (path / f"{name}.ipynb").exists()]
    if missing:
        raise RetinaError(
            f"{path}: {', '.join(missing)} not found. Expected the five notebooks; "
            "run this from the repository's top folder."
        )
    return path


def read_parameters(folder: Path, preset: str | None, given: dict) -> tuple[dict, dict]:
    """The notebooks' defaults, and what a preset and the command line set, checked against them."""
    declared, chosen = declared_by(folder, NOTEBOOKS), {}
    presets = {f"preset {preset}": read_preset(folder / "presets", preset)} if preset else {}
    for where, values in (presets | {"command line": given}).items():
        for name, value in values.items():
            check_known(name, declared, where)
            chosen[name] = cast(name, value, declared[name])
    check_choices(chosen)
    check_values(declared | chosen)
    return declared, chosen


def check_choices(parameters: dict) -> None:
    """Refuse a name that is none of its parameter's, and suggest the nearest."""
    for name in CHOICES.keys() & parameters.keys():
        known, found = names_of(name), str(parameters[name])
        if known and (found.split(":")[0] if name == "device" else found) not in known:
            hint = did_you_mean(found, known)
            raise RetinaError(f"{name}={found!r}: expected one of {', '.join(known)}.{hint}")


def names_of(parameter: str) -> list[str]:
    """The names a parameter takes, read from the lesson's source; none where that cannot tell."""
    if not isinstance(place := CHOICES[parameter], str):
        return list(place)
    module, table = place.split(".")
    source = Path(retina_utils.__file__).with_name(f"{module}.py").read_text(encoding="utf-8")
    found = next(
        line.value
        for line in ast.parse(source).body
        if isinstance(line, ast.Assign) and line.targets[0].id == table
    )
    keys = found.keys if isinstance(found, ast.Dict) else found.elts
    if not all(isinstance(key, ast.Constant) for key in keys):
        return []
    return [*BESIDE.get(parameter, ()), *(key.value for key in keys)]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest of the ``known`` names; empty if none is near."""
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {near[0]}?" if near else ""


def declared_parameters(notebook: Path) -> dict:
    """Names and defaults in the cell tagged ``parameters``, read without running it."""
    cells = [cell for cell in read_json(notebook)["cells"] if cell["cell_type"] == "code"]
    tagged = (cell for cell in cells if "parameters" in cell["metadata"].get("tags", []))
    lines = ast.parse("".join(next(tagged, {"source": ""})["source"])).body
    named = (line for line in lines if isinstance(line, ast.AnnAssign))
    return {line.target.id: ast.literal_eval(line.value) for line in named}


def declared_by(folder: Path, names: Iterable[str]) -> dict:
    """Names and defaults of the parameters of some notebooks together."""
    declared = {}
    for name in names:
        declared |= declared_parameters(folder / f"{name}.ipynb")
    return declared


def read_preset(folder: Path, name: str) -> dict:
    """The parameters of ``<folder>/<name>.yaml``; a RetinaError names the presets there are."""
    path = folder / f"{name}.yaml"
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yaml")))
        raise RetinaError(f"PRESET={name}: no such preset. Expected one of {known}.")
    found = read_yaml(path.read_bytes(), str(path)) or {}
    if not isinstance(found, dict):
        raise RetinaError(
            f"{path}: expected lines such as `epochs: 30`, found {reprlib.repr(found)}"
        )
    return found


def read_yaml(text: str | bytes, where: str):
    """The lists and names in a YAML text, all else as it is written: YAML takes 010 for eight.

    A RetinaError where it makes nothing of it.
    """
    try:
        return yaml.load(text, yaml.BaseLoader)  # which builds nothing but lists, dicts and text
    except (yaml.YAMLError, ValueError, AttributeError, TypeError, RecursionError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RetinaError(f"{where}: cannot be read as YAML ({reason[:200]}).") from error


def check_known(name: str, declared: Iterable[str], where: str) -> None:
    """Refuse a parameter that no notebook declares, and suggest the nearest that one does."""
    if name in declared:
        return
    known = ", ".join(sorted(declared))
    hint = did_you_mean(name, declared)
    raise RetinaError(f"{where}: unknown parameter {name}.{hint} The notebooks know: {known}.")


def cast(name: str, value, default):
    """``value`` in the type of the parameter's default; a RetinaError if it cannot be.

    A preset's values come as text, as those of the command line do, and mean the same: ``false`` is
    False, ``[8, 16]`` a list, 010 ten, and a run called ``001`` keeps its zeros. Numbers have to be
    finite, and all of a list like those of its default.
    """
    wanted = type(default)
    if wanted is str:
        return str(value)
    if isinstance(value, str) and wanted in (int, float):
        for number in (int, float):
            with suppress(ValueError, TypeError):
                value = number(value) if isinstance(value, str) else value
    elif isinstance(value, str) and wanted is bool:
        value = yaml.SafeLoader.bool_values.get(value.strip().lower(), value)
    elif isinstance(value, str):
        value = read_yaml(value.strip(), f"parameter {name}")
    if wanted is float and type(value) is int:
        with suppress(OverflowError):
            value = float(value)
    if wanted is int and type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not wanted or (wanted is float and not math.isfinite(value)):
        kinds = {bool: "true or false", list: "a list", int: "a whole number", float: "a number"}
        raise RetinaError(
            f"parameter {name}: found {reprlib.repr(value)}, expected {kinds[wanted]} such as "
            f"{default!r}."
        )
    return [cast(name, item, default[0]) for item in value] if wanted is list and default else value
