"""What training costs: a step against PyTorch's defaults and the machine's own rate, and its data.

    python benchmarks/training.py            # minutes; with the 7.7 million parameters many
    python benchmarks/training.py default    # one row

Ours is what ``train_epoch`` does: bfloat16 autocast where the hardware gains from it,
channels-last memory, fused AdamW. The baseline is float32 in PyTorch's own layout. The ceiling is
the rate of one large 3x3 convolution in ours's precision, measured around each row.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from retina_utils import data, losses, models, patches
from retina_utils.augment import make_augment
from retina_utils.datasets.synthetic import write_tiny
from retina_utils.machine.compute import autocast, choose_device, seed_everything

DEVICE = choose_device()
BOXED = {"c_in": 3, "fold": 2}
# name -> settings of the network, shape of a batch
STEPS = {
    "default": ({}, (8, 1, 256, 256)),
    "boxed": (BOXED, (6, 3, 384, 384)),
    "large": ({"widths": [64, 128, 256, 512]}, (8, 1, 256, 256)),
}


def seconds(work: Callable[[], object], times: int) -> list[float]:
    """Seconds of each call after a first one, in rising order."""
    work()
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return sorted(taken)


def ceiling() -> float:
    """The most operations a second that a 3x3 convolution of 256 channels reaches here."""
    layer = torch.nn.Conv2d(256, 256, 3, padding=1, bias=False).to(DEVICE)
    layer = layer.to(memory_format=torch.channels_last).eval()
    image = torch.randn(8, 256, 64, 64, device=DEVICE).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), autocast(DEVICE):
        return 2 * 9 * 256 * image.numel() / seconds(lambda: layer(image), 10)[0]


def make_step(name: str, ours: bool) -> Callable[[], float]:
    """One training step of a network in :data:`STEPS` on one random batch."""
    settings, shape = STEPS[name]
    seed_everything(0)
    layout = torch.channels_last if ours else torch.contiguous_format
    model = models.UNet(**settings).to(DEVICE, memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), fused=ours or None)
    image = torch.randn(shape, device=DEVICE).contiguous(memory_format=layout)
    vessels = (torch.rand_like(image[:, :1]) < 0.1).float()
    fov = torch.ones_like(vessels)

    def step() -> float:
        with autocast(DEVICE, "auto" if ours else "float32"):
            logits = model(image)
        loss = losses.bce_dice_loss(logits.float(), vessels, fov)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def step_row(name: str) -> dict:
    """A step's row, with the share of the ceiling that its operations reach."""
    times = 3 if name == "large" else 10
    step = make_step(name, ours=True)
    with FlopCounterMode(display=False) as counter:
        step()
    before = ceiling()
    taken = seconds(step, times)
    most = max(before, ceiling())
    plain = seconds(make_step(name, ours=False), max(2, times // 3))
    share = counter.get_total_flops() / taken[0] / most
    note = f"ceiling {most / 1e9:.0f} GFLOP/s, {counter.get_total_flops() / 1e9:.0f} GFLOP a step"
    return make_row(f"step, {name} network", taken, plain, share, note)


def data_row() -> dict:
    """An epoch's batches with the boxed network's recipe beside its steps, by one worker.

    Ours is the time a step waits for its batch, the baseline the step.
    """
    options = {"channels": "rgb", "normalisation": "local", "fov_diameter": 1024}
    preparation = patches.Preparation(**options, patch_size=384, stride=256)
    with tempfile.TemporaryDirectory() as folder:
        write_tiny(Path(folder) / "tiny", seed=0, force=False)
        pairs = data.load_data(Path(folder) / "tiny").train
        dataset = patches.RetinaDataset(
            pairs, preparation, patches_per_image=20, augment=make_augment("cameras")
        )
    step, waits, steps = make_step("boxed", ours=True), [], []
    batches = iter(patches.make_loader(dataset, 6, True, workers=1))
    step()
    next(batches)
    for _ in range(len(dataset) // 6 - 1):
        start = time.perf_counter()
        next(batches)
        ready = time.perf_counter()
        step()
        waits.append(ready - start)
        steps.append(time.perf_counter() - ready)
    idle = sum(waits) / (sum(waits) + sum(steps))
    note = f"the step waits {idle:.1%} of the time"
    return make_row("wait for a batch, one worker", sorted(waits), sorted(steps), None, note)


def make_row(work: str, ours: list, baseline: list, share: float | None, note: str) -> dict:
    """Best times, and ours's spread: the median over the best, less one."""
    return {
        "work": work,
        "ours": ours[0],
        "baseline": baseline[0],
        "ratio": baseline[0] / max(ours[0], 1e-9),
        "ceiling_share": share,
        "spread": statistics.median(ours) / max(ours[0], 1e-9) - 1,
        "note": note,
    }


def rows(names: tuple[str, ...] = (*STEPS, "data")) -> list[dict]:
    """A row for each of :data:`STEPS` and "data"."""
    return [data_row() if name == "data" else step_row(name) for name in names]


if __name__ == "__main__":
    for row in (row for name in sys.argv[1:] or (*STEPS, "data") for row in rows((name,))):
        share = f"{row['ceiling_share']:.0%} of the ceiling" if row["ceiling_share"] else ""
        print(
            f"{row['work']:30} ours {row['ours']:.3f} s  baseline {row['baseline']:.3f} s  "
            f"{row['ratio']:.1f} times  {share}  spread {row['spread']:.0%}  {row['note']}",
            flush=True,
        )
