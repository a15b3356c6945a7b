"""The notebooks' parameters by name: their defaults, under a preset, with changes typed in."""

import ast
import difflib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import papermill
import yaml

from retina_utils import RetinaError, train
from retina_utils.data import Pair
from retina_utils.machine.compute import autocast, choose_device

# Parameters that a benchmark has no use for: it keeps its own folders and validates on nobody.
UNUSED = ("data_dir", "outputs_dir", "run", "resume", "save_every", "validation_share")


def declared_parameters(notebook: Path) -> dict:
    """Names and defaults in the cell tagged ``parameters``, read without running it."""
    found = papermill.inspect_notebook(str(notebook))
    return {name: ast.literal_eval(entry["default"]) for name, entry in found.items()}


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
    return yaml.safe_load(path.read_text(encoding="utf-8")) or {}


def check_known(name: str, declared: Iterable[str], where: str) -> None:
    """Refuse a parameter that no notebook declares, and suggest the nearest that one does."""
    if name in declared:
        return
    near = difflib.get_close_matches(name, declared, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    known = ", ".join(sorted(declared))
    raise RetinaError(f"{where}: unknown parameter {name}. {hint}The notebooks know: {known}.")


def cast(name: str, value, default):
    """``value`` in the type of the parameter's default; a RetinaError if it cannot be.

    Text from the command line is read as YAML, except where text is wanted, so that ``false`` is
    False, ``1e-4`` a number, ``[8, 16]`` a list and a run called ``001`` keeps its zeros.
    """
    wanted = type(default)
    if wanted is str:
        return str(value)
    if isinstance(value, str):
        text = value.strip()
        value = yaml.safe_load(text)
        if isinstance(value, str):  # YAML 1.1 takes 1e-4 for text
            with suppress(ValueError):
                value = float(value)
    if wanted is float and type(value) is int:
        return float(value)
    if wanted is int and type(value) is float and value.is_integer():
        return int(value)
    if type(value) is not wanted:
        kinds = {bool: "true or false", list: "a list", int: "a whole number", float: "a number"}
        raise RetinaError(
            f"parameter {name}: found {value!r}, expected {kinds[wanted]} such as {default!r}."
        )
    return value


def read_recipe(notebooks: Path, preset: str, changes: Sequence[tuple[str, str]] = ()) -> dict:
    """All that 01 to 03 set for a training, and ``flips`` of 04: one benchmark's recipe.

    Every photograph that is not tested on is trained on, so nothing is validated: a rate that
    follows the validation loss ("plateau") becomes "cosine", and no training stops early.
    """
    declared = declared_by(notebooks, ("01_data", "02_model", "03_train"))
    declared["flips"] = declared_by(notebooks, ["04_evaluate"])["flips"]
    recipe = dict(declared)
    for name, value in [*read_preset(notebooks / "presets", preset).items(), *changes]:
        check_known(name, declared, f"preset {preset} or command line")
        recipe[name] = cast(name, value, declared[name])
    recipe["patience"] = 0
    if recipe["schedule"] == "plateau":
        recipe["schedule"] = "cosine"
    return {name: value for name, value in recipe.items() if name not in UNUSED}


def preset_of(names: Sequence[str], presets: Path) -> str:
    """The data set's own recipe; that of the network in the box for several, or without one."""
    alone = len(names) == 1 and (presets / f"{names[0]}.yaml").exists()
    return names[0] if alone else "pretrained"


def require_trainable(recipe: dict, pairs: Sequence[Pair]) -> None:
    """Refuse values that no training takes, by making ready for one on some photographs."""
    try:
        device = choose_device(recipe["device"])
        autocast(device, recipe["precision"])
        train.assemble(recipe, pairs, device)
    except (ValueError, TypeError, IndexError) as error:
        raise RetinaError(f"recipe: {error}") from error
