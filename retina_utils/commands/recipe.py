"""The notebooks' parameters as one recipe, and whether a training takes it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from retina_utils import RetinaError, train
from retina_utils.augment import make_augment
from retina_utils.commands.parameters import cast, check_known, declared_by, read_preset
from retina_utils.data import Pair
from retina_utils.losses import make_loss
from retina_utils.machine.compute import autocast, choose_device
from retina_utils.models import build_model, network_of
from retina_utils.patches import Preparation

# Parameters that a benchmark has no use for: it keeps its own folders and validates on nobody.
UNUSED = ("data_dir", "outputs_dir", "run", "resume", "save_every", "validation_share")


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
