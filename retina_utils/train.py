"""One epoch of training, and what surrounds it.

``03_train`` owns the loop: each function here does one step of it and gives back numbers.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from retina_utils import RetinaError, metrics
from retina_utils.augment import make_augment
from retina_utils.checkpoint import Network, load_saved, save_network
from retina_utils.data import Pair
from retina_utils.losses import make_loss
from retina_utils.machine.compute import (
    autocast,
    explain_memory,
    progress,
    random_states,
    seed_everything,
)
from retina_utils.machine.files import atomic_path
from retina_utils.machine.runs import check_values
from retina_utils.models import build_model, network_of
from retina_utils.patches import KEYS, Preparation, RetinaDataset, make_loader

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("cosine", "onecycle", "plateau", "constant")
# Parameters of the notebooks that decide where things are kept and how fast they run, no result.
ASIDE = ("data_dir", "outputs_dir", "run", "save_every", "resume", "workers")

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass
class Training:
    """A training and all that changes while it runs; :func:`assemble` makes it from a recipe."""

    recipe: dict
    preparation: Preparation
    loader: DataLoader
    model: nn.Module
    loss: Loss
    optimizer: torch.optim.Optimizer
    scheduler: torch.optim.lr_scheduler.LRScheduler
    average: AveragedModel | None
    history: list[dict] = field(default_factory=list)  # a row an epoch

    @property
    def kept(self) -> nn.Module:
        """What is validated and saved: the running average of the weights, if there is one."""
        return self.average.module if self.average else self.model

    @property
    def best(self) -> int:
        """The epoch with the highest ``validation_dice``, the first of several."""
        dice = [row.get("validation_dice", 0.0) for row in self.history]
        return int(np.nan_to_num(dice, nan=-1).argmax()) + 1

    @property
    def is_stopped(self) -> bool:
        """Whether ``patience`` epochs have brought nothing better; a patience of 0 never stops."""
        return bool(self.history) and 0 < self.recipe["patience"] <= len(self.history) - self.best

    def epochs_left(self) -> Iterator[int]:
        """The epochs still to run, from 1 on; none after early stopping."""
        while len(self.history) < self.recipe["epochs"] and not self.is_stopped:
            epoch = len(self.history) + 1
            self.loader.dataset.set_epoch(epoch)
            yield epoch

    @property
    def rate(self) -> float:
        """The learning rate now."""
        return self.optimizer.param_groups[0]["lr"]

    def network(self, **facts) -> Network:
        """The network as it is after the last epoch, with what made it."""
        return Network(self.kept, self.preparation, None, facts)


def assemble(recipe: dict, pairs: Sequence[Pair], device: torch.device, **options) -> Training:
    """Everything one training needs, from the parameters of 01, 02 and 03 by name.

    The same recipe, photographs and device give the same weights, whoever calls: 03 and the
    benchmark do. Values that no training takes are refused by name; ``options`` go to the dataset.
    """
    check_values(recipe)
    seed_everything(recipe["seed"], recipe["threads"])
    preparation = Preparation.of(recipe)
    dataset = RetinaDataset(
        pairs,
        preparation,
        patches_per_image=recipe["patches_per_image"],
        vessel_share=recipe["vessel_share"],
        augment=make_augment(recipe["augment"]),
        seed=recipe["seed"],
        **options,
    )
    model = build_model(*network_of(recipe, preparation.n_channels))
    model = model.to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(recipe, model)
    return Training(
        recipe=recipe,
        preparation=preparation,
        loader=make_loader(dataset, recipe["batch_size"], True, recipe["workers"]),
        model=model,
        loss=make_loss(recipe["loss"], dataset.vessel_prevalence()),
        optimizer=optimizer,
        scheduler=make_scheduler(recipe, optimizer),
        average=make_average(model, recipe["ema"]),
    )


def make_optimizer(recipe: dict, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW or Adam over the model's parameters, by ``optimizer``, ``lr`` and ``weight_decay``."""
    name = recipe["optimizer"]
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name!r}: expected one of {', '.join(OPTIMIZERS)}")
    options = {key: recipe[key] for key in ("lr", "weight_decay")}
    return OPTIMIZERS[name](model.parameters(), fused=True, **options)


def make_scheduler(
    recipe: dict, optimizer: torch.optim.Optimizer
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's course, one step an epoch, by ``schedule``.

    "cosine" falls to a hundredth; "onecycle" rises from a tenth of the rate to all of it in about
    a seventh of the epochs and then falls to a thousandth (Smith and Topin, 2019), which allows
    higher rates; "plateau" falls to a fifth whenever validation stands still for
    ``schedule_patience`` epochs; "constant" stays.

    Refused are another name, and a ``patience`` that is over before "plateau" lowers the rate.
    """
    name, epochs = recipe["schedule"], recipe["epochs"]
    if name not in SCHEDULES:
        raise ValueError(f"schedule={name!r}: expected one of {', '.join(SCHEDULES)}")
    rate = optimizer.param_groups[0]["lr"]
    schedulers = torch.optim.lr_scheduler
    if name == "cosine":
        return schedulers.CosineAnnealingLR(optimizer, epochs, eta_min=rate / 100)
    if name == "onecycle":
        shape = {"pct_start": 0.15, "div_factor": 10, "final_div_factor": 100}
        shape |= {"total_steps": epochs + 1, "cycle_momentum": False}
        return schedulers.OneCycleLR(optimizer, rate, **shape)
    if name == "constant":
        return schedulers.ConstantLR(optimizer, factor=1.0)
    stop, wait = recipe["patience"], recipe["schedule_patience"]
    if stop and stop <= wait:
        raise ValueError(
            f"patience={stop} is not longer than schedule_patience={wait}: training would stop "
            f"before the learning rate ever dropped. Set patience to {2 * wait} or more."
        )
    return schedulers.ReduceLROnPlateau(optimizer, factor=0.2, patience=wait)


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """A running average of the weights, to validate and to keep; None for a ``decay`` of 0.

    Each step moves it by ``1 - decay`` towards the model (exponential moving average; early on by
    more, so that it soon forgets the random start). It sits in the middle of where a high learning
    rate throws the weights about, as if that rate had been lowered already. BatchNorm's
    statistics are averaged with the weights.
    """
    if not 0 <= decay < 1:
        raise ValueError(f"ema={decay}: expected 0 (no averaging) to below 1, such as 0.99")
    if decay == 0:
        return None

    @torch.no_grad()
    def follow(averages: list[torch.Tensor], values: list[torch.Tensor], steps: torch.Tensor):
        now = min(decay, (1 + int(steps)) / (10 + int(steps)))
        for kept, value in zip(averages, values, strict=True):
            if kept.is_floating_point():
                kept.lerp_(value, 1 - now)
            else:
                kept.copy_(value)  # how many batches BatchNorm has seen

    return AveragedModel(model, multi_avg_fn=follow, use_buffers=True)


# --- One epoch ----------------------------------------------------------------------------------


def train_epoch(training: Training) -> dict[str, float]:
    """One pass over the training patches; gives the mean ``train_loss`` per patch.

    A RetinaError stops it at the first loss that is not a finite number, before it reaches the
    weights, and when memory runs out, naming the parameters that save it.
    """
    model, loader = training.model.train(), training.loader
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for number, batch in enumerate(progress(loader, "training")):
        image, vessels, fov = _to(device, batch)
        with explain_memory(image.shape):
            with autocast(device, training.recipe["precision"]):
                logits = model(image)
            value = training.loss(logits.float(), vessels, fov)
            if not torch.isfinite(value):
                raise RetinaError(
                    f"The loss is {value.item()} at batch {number + 1} of {len(loader)}. The best "
                    "weights so far are kept. Try a lower lr, or precision = 'float32'."
                )
            training.optimizer.zero_grad(set_to_none=True)
            value.backward()
            training.optimizer.step()
            if training.average is not None:
                training.average.update_parameters(model)
        total, count = total + value.item() * len(image), count + len(image)
    return {"train_loss": total / count}


@torch.inference_mode()
def validate(training: Training, loader: DataLoader) -> dict[str, float]:
    """Loss and scores over the validation patches, pooled inside the FOV at threshold 0.5.

    Pixels that overlapping patches share count once for each patch, so these scores steer the
    training; the scores to report come from whole photographs in ``04_evaluate``.
    """
    model = training.kept.eval()
    device = next(model.parameters()).device
    total, count, counts = 0.0, 0, []
    for batch in progress(loader, "validation"):
        image, vessels, fov = _to(device, batch)
        with explain_memory(image.shape), autocast(device, training.recipe["precision"]):
            logits = model(image).float()
        total += training.loss(logits, vessels, fov).item() * len(image)
        count += len(image)
        if fov.any():
            arrays = (t.cpu().numpy().reshape(-1, t.shape[-1]) for t in (logits, vessels, fov))
            logits, vessels, fov = arrays
            probability = torch.from_numpy(logits).sigmoid().numpy()
            histogram = metrics.histogram(probability, vessels > 0.5, fov > 0.5)
            counts.append(metrics.confusion_at(histogram, 0.5))
    counts = metrics.add_counts(counts)
    row = {"validation_loss": total / count}
    for key in ("dice", "iou", "precision", "recall", "accuracy"):
        row[f"validation_{key}"] = metrics.scores(counts)[key]
    row["predicted_share"] = (counts["tp"] + counts["fp"]) / sum(counts.values())
    return row


def finish_epoch(training: Training, row: dict[str, float]) -> bool:
    """Move the learning rate on and keep the row; True if it is the best epoch so far."""
    if isinstance(training.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        training.scheduler.step(row["validation_loss"])
    else:
        training.scheduler.step()
    training.history.append(row)
    return training.best == len(training.history)


def collapse_warning(row: dict[str, float], vessel_share: float) -> str:
    """A plain sentence if nearly everything is called background, else an empty string."""
    if row["predicted_share"] >= 0.1 * vessel_share:
        return ""
    return (
        f"Warning: {row['predicted_share']:.2%} of the pixels are called vessel, the training data "
        f"has {vessel_share:.1%}. If this stays so after a few epochs: look at the probabilities "
        "before the threshold, raise lr, or take loss = 'weighted_bce'."
    )


def epoch_line(row: dict[str, float], is_best: bool) -> str:
    """One epoch in one line of fixed width, with a star if it is the best so far."""
    return (
        f"epoch {row['epoch']:3d}   loss {row['train_loss']:.3f}   "
        f"validation loss {row['validation_loss']:.3f}   "
        f"Dice {row['validation_dice']:.3f}{' *' if is_best else ''}"
    )


def _to(device: torch.device, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Image, vessels and FOV of a batch on the device, the image in the layout CPUs like best."""
    image, vessels, fov = (batch[key].to(device, non_blocking=True) for key in KEYS)
    return [image.contiguous(memory_format=torch.channels_last), vessels, fov]


# --- Keeping, stopping and going on --------------------------------------------------------------


def save_weights(folder: Path, training: Training, is_best: bool, facts: dict) -> None:
    """Keep the network after an epoch, if it is the best, each ``save_every``-th or the last one.

    A ``save_every`` of 0 keeps only the best and the last. Each file holds ``facts`` as well.
    """
    epoch, last = len(training.history), training.recipe["epochs"]
    every = training.recipe["save_every"] or last
    names = ["unet_best.pth"] * is_best
    names += [f"unet_epoch{epoch:02d}.pth"] * (epoch == last or (every > 0 and epoch % every == 0))
    for name in names:
        save_network(folder / name, training.network(epoch=epoch, **facts))


def forget_weights(folder: Path) -> None:
    """Remove the weights of an earlier training, which would mix with those of a new one."""
    for old in folder.glob("unet_epoch*.pth"):
        old.unlink()


def save_state(path: Path, training: Training, data: dict) -> None:
    """Write all that the next epoch depends on.

    ``data`` tells the photographs trained on: with the recipe it is what the state belongs to.
    """
    state = {"made_for": _made_for(training, data), "history": training.history}
    state["random"] = random_states()  # dropout draws from them
    state |= {name: part.state_dict() for name, part in _parts(training).items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def resume_state(path: Path, training: Training, data: dict) -> int:
    """Put a saved state back; gives its number of epochs, 0 if there is none of this recipe.

    One that is damaged or of another version is said, and leaves the training as it was.
    """
    if not path.exists():
        return 0
    before = {name: copy.deepcopy(part.state_dict()) for name, part in _parts(training).items()}
    before |= {"history": [], "random": random_states()}
    try:
        state = load_saved(path)
        if state["made_for"] == _made_for(training, data):
            _put_back(training, state)
    except Exception as error:  # torch and pickle raise a dozen kinds
        reason = str(error).partition("\n")[0]
        print(f"{path}: cannot be gone on from ({type(error).__name__}: {reason}); starting anew.")
        _put_back(training, before)
    return len(training.history)


def _put_back(training: Training, state: dict) -> None:
    for name, part in _parts(training).items():
        part.load_state_dict(state[name])
    training.history[:] = state["history"]
    torch.set_rng_state(state["random"][0])
    if torch.cuda.is_available() and len(state["random"]) > 1:
        torch.cuda.set_rng_state_all(state["random"][1:])


def _made_for(training: Training, data: dict) -> dict:
    """All that decides a training's result, to tell whether an interrupted one may go on."""
    recipe = {name: value for name, value in training.recipe.items() if name not in ASIDE}
    return {"recipe": recipe, "data": data}


def _parts(training: Training) -> dict:
    """What of a training has a state that torch can save, by name."""
    names = ("model", "optimizer", "scheduler", "average")
    return {name: part for name in names if (part := getattr(training, name)) is not None}
