"""The pieces of the training loop that ``03_train`` puts together in the open.

Nothing here owns the loop: each function does one step of an epoch and gives back numbers.
"""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler
from tqdm import tqdm as text_tqdm
from tqdm.auto import tqdm

from retina_utils import metrics
from retina_utils.data import RetinaDataset
from retina_utils.images import atomic_path
from retina_utils.runs import is_quiet

OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}
SCHEDULES = ("cosine", "onecycle", "plateau", "constant")

Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class TrainingError(RuntimeError):
    """Training cannot go on; the message says why and what to change."""


# --- Before the first epoch ---------------------------------------------------------------------


class EpochShuffle(Sampler):
    """Another order of the dataset's items in every epoch, which follows from seed and epoch.

    torch's own shuffling depends on all epochs before, and so would a resumed training.
    """

    def __init__(self, dataset: RetinaDataset):
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.dataset.seed, self.dataset.epoch])
        return iter(rng.permutation(len(self.dataset)).tolist())

    def __len__(self) -> int:
        return len(self.dataset)


def make_loader(
    dataset: RetinaDataset, batch_size: int, shuffle: bool, workers: int = 0
) -> DataLoader:
    """Batches of a dataset, the same ones whatever the number of workers."""
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size}: expected at least 1")
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=EpochShuffle(dataset) if shuffle else None,
        num_workers=workers,
        # A last batch of one has no spread for BatchNorm to measure; the others lose little.
        drop_last=shuffle and len(dataset) > batch_size,
        pin_memory=torch.cuda.is_available(),
    )


def make_optimizer(
    name: str, model: nn.Module, lr: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW or Adam over the model's parameters."""
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer={name!r}: expected one of {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name](model.parameters(), lr=float(lr), weight_decay=float(weight_decay))


def make_scheduler(
    name: str,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    schedule_patience: int,
    patience: int,
) -> torch.optim.lr_scheduler.LRScheduler:
    """The learning rate's course, one step an epoch.

    "cosine" falls to a hundredth; "onecycle" rises from a tenth of the rate to all of it in the
    first sixth of the epochs and then falls to a thousandth (Smith and Topin, 2019), which allows
    higher rates; "plateau" falls whenever validation stands still; "constant" stays.

    Parameters
    ----------
    epochs : int
        Length of the course, for "cosine" and "onecycle".
    schedule_patience : int
        Epochs without improvement before "plateau" divides the rate by five.
    patience : int
        Epochs without improvement before early stopping (0 = never). It has to be the longer of
        the two, or training stops before the rate ever drops.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule={name!r}: expected one of {', '.join(SCHEDULES)}")
    if name == "cosine":
        last = optimizer.param_groups[0]["lr"] / 100
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(epochs, 1), eta_min=last)
    if name == "onecycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            optimizer.param_groups[0]["lr"],
            total_steps=max(epochs, 1) + 1,
            pct_start=0.15,
            div_factor=10,
            final_div_factor=100,
            cycle_momentum=False,
        )
    if name == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    if patience and patience <= schedule_patience:
        raise ValueError(
            f"patience={patience} is not longer than schedule_patience={schedule_patience}: "
            "training would stop before the learning rate ever dropped. "
            f"Set patience to {2 * schedule_patience} or more."
        )
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=0.2, patience=schedule_patience
    )


def make_average(model: nn.Module, decay: float) -> AveragedModel | None:
    """A running average of the weights, to validate and to keep; None for a ``decay`` of 0.

    Each step moves it by ``1 - decay`` towards the model (exponential moving average; early on by
    more, so that it soon forgets the random start). It sits in the middle of where a high learning
    rate throws the weights about, as if that rate had been lowered already. BatchNorm's
    statistics are averaged with the weights.

    Raises
    ------
    ValueError
        For a ``decay`` outside [0, 1).
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


def bfloat16_pays(device: torch.device) -> bool:
    """Whether this hardware multiplies bfloat16 faster than float32 (not merely at all)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


def autocast(device: torch.device, precision: str = "auto"):
    """The context in which the network runs: bfloat16 where it pays, losses in float32 outside.

    ``precision`` is "auto", "bfloat16" or "float32".
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"precision={precision!r}: expected auto, bfloat16 or float32")
    wanted = bfloat16_pays(device) if precision == "auto" else precision == "bfloat16"
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


# --- One epoch ----------------------------------------------------------------------------------


def train_epoch(
    model: nn.Module,
    loader: DataLoader,
    loss: Loss,
    optimizer: torch.optim.Optimizer,
    precision: str = "auto",
    average: AveragedModel | None = None,
) -> dict[str, float]:
    """One pass over ``loader``; gives the mean ``train_loss`` per patch.

    ``average`` follows the model after each step; see :func:`make_average`.

    Raises
    ------
    TrainingError
        At the first loss that is not a finite number, before it reaches the weights, and when
        memory runs out, naming the parameters that save it.
    """
    model.train()
    device = next(model.parameters()).device
    total, count = 0.0, 0
    for number, batch in enumerate(progress(loader, "training")):
        image, vessels, fov = _to(device, batch)
        with explain_memory(image.shape):
            with autocast(device, precision):
                logits = model(image)
            value = loss(logits.float(), vessels, fov)
            if not torch.isfinite(value):
                raise TrainingError(
                    f"The loss is {value.item()} at batch {number + 1} of {len(loader)}. The best "
                    "weights so far are kept. Try a lower lr, or precision = 'float32'."
                )
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
        total, count = total + value.item() * len(image), count + len(image)
    return {"train_loss": total / count}


@torch.inference_mode()
def validate(
    model: nn.Module, loader: DataLoader, loss: Loss, precision: str = "auto"
) -> dict[str, float]:
    """Loss and scores over the validation patches, pooled inside the FOV at threshold 0.5.

    Pixels that overlapping patches share count once for each patch, so these scores steer the
    training; the scores to report come from whole photographs in ``04_evaluate``.
    """
    model.eval()
    device = next(model.parameters()).device
    total, count, histograms = 0.0, 0, []
    for batch in progress(loader, "validation"):
        image, vessels, fov = _to(device, batch)
        with explain_memory(image.shape), autocast(device, precision):
            logits = model(image).float()
        total, count = total + loss(logits, vessels, fov).item() * len(image), count + len(image)
        if fov.any():
            arrays = (t.cpu().numpy().reshape(-1, t.shape[-1]) for t in (logits, vessels, fov))
            logits, vessels, fov = arrays
            probability = torch.from_numpy(logits).sigmoid().numpy()
            histograms.append(metrics.histogram(probability, vessels > 0.5, fov > 0.5))
    counts = metrics.confusion_at(metrics.pool(histograms), 0.5)
    row = {"validation_loss": total / count}
    for key in ("dice", "iou", "precision", "recall", "accuracy"):
        row[f"validation_{key}"] = metrics.scores(counts)[key]
    row["predicted_share"] = (counts["tp"] + counts["fp"]) / sum(counts.values())
    return row


def collapse_warning(row: dict[str, float], vessel_share: float) -> str:
    """A plain sentence if nearly everything is called background, else an empty string."""
    if row["predicted_share"] >= 0.1 * vessel_share:
        return ""
    return (
        f"Warning: {row['predicted_share']:.2%} of the pixels are called vessel, the training data "
        f"has {vessel_share:.1%}. If this stays so after a few epochs: look at the probabilities "
        "before the threshold, raise lr, or take loss = 'weighted_bce'."
    )


@dataclass
class EarlyStopping:
    """Remembers the best score and says when it is long past; ``patience`` 0 never stops."""

    patience: int
    best: float = -math.inf
    waited: int = 0

    def update(self, score: float) -> bool:
        """Take one epoch's score (higher is better); True if it is the best so far."""
        improved = score > self.best
        self.best = score if improved else self.best
        self.waited = 0 if improved else self.waited + 1
        return improved

    @property
    def is_over(self) -> bool:
        """Whether ``patience`` epochs have brought nothing better."""
        return 0 < self.patience <= self.waited


# --- Stopping and going on ------------------------------------------------------------------------


def save_state(path: Path, recipe: dict, history: list[dict], stopping: EarlyStopping, **parts):
    """Write all that the next epoch depends on; ``parts`` are model, optimizer and scheduler.

    ``recipe`` is what the state belongs to: a state of another recipe is never resumed.
    """
    state = {"recipe": recipe, "history": history, "stopping": asdict(stopping)}
    state |= {name: part.state_dict() for name, part in parts.items()}
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def resume_state(path: Path, recipe: dict, stopping: EarlyStopping, **parts) -> list[dict]:
    """Put a saved state back into ``parts`` and give its history; [] if there is none to use."""
    if not path.exists():
        return []
    state = torch.load(path, map_location="cpu", weights_only=True)
    if state["recipe"] != recipe:
        return []
    for name, part in parts.items():
        part.load_state_dict(state[name])
    vars(stopping).update(state["stopping"])
    return state["history"]


def step_schedule(scheduler: torch.optim.lr_scheduler.LRScheduler, validation_loss: float) -> None:
    """Move the learning rate on; only a plateau schedule looks at the loss."""
    if isinstance(scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        scheduler.step(validation_loss)
    else:
        scheduler.step()


# --- Small change ---------------------------------------------------------------------------------


def progress(items: Iterable, label: str) -> Iterator:
    """``items`` with a progress bar: in JupyterLab, in a terminal, nowhere if nobody watches.

    A notebook that papermill runs has no terminal of its own; ``RETINA_TERMINAL`` names the one
    it was started from, and the bar goes there instead of into the notebook.
    """
    terminal = os.environ.get("RETINA_TERMINAL")
    if not terminal:
        yield from tqdm(items, desc=label, leave=False, disable=is_quiet())
        return
    with open(terminal, "w") as file:
        yield from text_tqdm(items, desc=label, leave=False, file=file, ncols=80)


@contextmanager
def explain_memory(shape: torch.Size) -> Iterator[None]:
    """Turn running out of memory into a sentence that names the parameters which save it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # CUDA, MPS and the CPU allocator have only this word in common.
        if isinstance(error, TrainingError) or "memory" not in str(error).lower():
            raise
        raise TrainingError(
            f"Out of memory with a batch of shape {tuple(shape)}. Halve batch_size first, then "
            "patch_size, then the network's widths."
        ) from error


def _to(device: torch.device, batch: dict[str, torch.Tensor]) -> list[torch.Tensor]:
    """Image, vessels and FOV of a batch on the device, the image in the layout CPUs like best."""
    image, vessels, fov = (
        batch[key].to(device, non_blocking=True) for key in ("image", "vessels", "fov")
    )
    return [image.contiguous(memory_format=torch.channels_last), vessels, fov]


def recipe_of(parameters: dict, data_manifest: dict, network: dict) -> dict:
    """All that decides a training's result, to tell whether an interrupted one may go on.

    Where things are kept, how they are shown and how fast they run does not count.
    """
    aside = ("outputs_dir", "run", "save_every", "resume", "workers")
    kept = {name: value for name, value in parameters.items() if name not in aside}
    data = {key: data_manifest[key] for key in ("parameters", "files")}
    return {"training": kept, "network": network, "data": data}


def epoch_line(row: dict[str, float], is_best: bool) -> str:
    """One epoch in one line of fixed width, with a star if it is the best so far."""
    return (
        f"epoch {row['epoch']:3d}   loss {row['train_loss']:.3f}   "
        f"validation loss {row['validation_loss']:.3f}   "
        f"Dice {row['validation_dice']:.3f}{' *' if is_best else ''}"
    )
