"""The notebooks' parameters by name: their defaults, under a preset, with changes typed in."""

import ast
import difflib
import math
import reprlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import papermill
import torch
import yaml

from retina_utils import RetinaError, train
from retina_utils.augment import make_augment
from retina_utils.data import SPLITS, Pair
from retina_utils.losses import make_loss
from retina_utils.machine.compute import autocast, choose_device
from retina_utils.machine.runs import check_values
from retina_utils.models import build_model, network_of
from retina_utils.patches import Preparation

# Parameters that a benchmark has no use for: it keeps its own folders and validates on nobody.
CHOICES = {"choose_by": ("dice", "iou", "accuracy"), "split_to_show": SPLITS}
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
    near = difflib.get_close_matches(name, declared, n=1)
    hint = f"Did you mean {near[0]}? " if near else ""
    known = ", ".join(sorted(declared))
    raise RetinaError(f"{where}: unknown parameter {name}. {hint}The notebooks know: {known}.")


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


def check_recipe(parameters: dict) -> None:
    """Refuse values that no notebook takes, by name, before any photograph is read.

    What a training is made of is built around a network without values; a series of notebooks of
    one's own need not declare all of it.
    """
    check_values(parameters)
    for name, known in CHOICES.items():
        if (found := parameters.get(name, known[0])) not in known:
            raise RetinaError(f"{name}={found!r}: expected one of {', '.join(known)}")
    try:
        if "device" in parameters:
            autocast(choose_device(parameters["device"]), parameters["precision"])
        if "stride" in parameters:
            channels = Preparation.of(parameters).n_channels
            make_augment(parameters["augment"])
        if "optimizer" in parameters:
            make_loss(parameters["loss"], 0.1)
            with torch.device("meta"):
                model = build_model(*network_of(parameters, channels))
            train.make_scheduler(parameters, train.make_optimizer(parameters, model))
            train.make_average(model, parameters["ema"])
    except (ValueError, TypeError, RuntimeError) as error:
        raise RetinaError(f"parameters: {error}") from error
