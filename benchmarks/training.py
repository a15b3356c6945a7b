"""One training step in this package's way against PyTorch's defaults, in the same process.

    python benchmarks/training.py

Ours: bfloat16 autocast where the hardware gains from it, channels-last memory.
"""

import time

import torch

from retina_utils import losses, models
from retina_utils.machine.compute import autocast


def step_seconds(precision: str, memory_format: torch.memory_format, device: torch.device) -> float:
    """Best of five steps on a batch of eight 256-pixel patches."""
    torch.manual_seed(0)
    model = models.UNet().to(device, memory_format=memory_format)
    optimizer = torch.optim.AdamW(model.parameters())
    image = torch.randn(8, 1, 256, 256, device=device).contiguous(memory_format=memory_format)
    vessels = (torch.rand_like(image) < 0.1).float()
    fov, taken = torch.ones_like(image), []
    for _ in range(6):
        start = time.perf_counter()
        with autocast(device, precision):
            logits = model(image)
        loss = losses.bce_dice_loss(logits.float(), vessels, fov)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # waits for a GPU
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


if __name__ == "__main__":
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    plain = step_seconds("float32", torch.contiguous_format, device)
    ours = step_seconds("auto", torch.channels_last, device)
    print(
        f"{device.type}: default {plain:.2f} s, ours {ours:.2f} s a step, {plain / ours:.1f} times"
    )
