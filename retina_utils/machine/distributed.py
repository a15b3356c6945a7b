"""One training on several processes: GPUs of a machine or of several, as torchrun starts them.

Every process keeps the whole network and sees its share of each batch; gradients are averaged
before each step, so all of them take the same one. Without torchrun there is one process.
"""

import os
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice

import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, Dataset, Sampler

from retina_utils import RetinaError


def join() -> tuple[int, int]:
    """This process's number, from 0, and how many there are, once all of them have come."""
    if not dist.is_torchelastic_launched():
        return 0, 1
    gpus = torch.cuda.is_available()
    if gpus:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    wait = timedelta(hours=2)  # the others do while the first one reads photographs or validates
    store, rank, world = next(dist.rendezvous("env://", timeout=wait))
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # torchrun keeps this store through its restarts, with the addresses of those who died.
        attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
        store = dist.PrefixStore(f"attempt {attempt}", store)
    group = {"store": store, "rank": rank, "world_size": world, "timeout": wait}
    dist.init_process_group("nccl" if gpus else "gloo", **group)
    return rank, world


class EpochShuffle(Sampler):
    """Another order of the dataset's items in every epoch, which follows from seed and epoch.

    torch's own shuffling depends on all epochs before, and so would a resumed training.
    """

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __iter__(self) -> Iterator[int]:
        rng = np.random.default_rng([self.dataset.seed, self.dataset.epoch])
        return iter(rng.permutation(len(self.dataset)).tolist())

    def __len__(self) -> int:
        return len(self.dataset)


class Share(Sampler):
    """Every ``world``-th item of a sampler, from the ``rank``-th on; as many in each process."""

    def __init__(self, whole: Sampler, rank: int, world: int):
        self.whole, self.rank, self.world = whole, rank, world

    def __iter__(self) -> Iterator[int]:
        return islice(iter(self.whole), self.rank, len(self) * self.world, self.world)

    def __len__(self) -> int:
        return len(self.whole) // self.world


def share_of(loader: DataLoader, rank: int, world: int) -> DataLoader:
    """This process's part of every batch of a loader; together they see the same batches."""
    size = loader.batch_size
    if size % world or len(loader.sampler) < world:
        raise RetinaError(
            f"batch_size={size}: cannot be shared by {world} processes. Expected a multiple of "
            "their number, and not fewer patches than processes."
        )
    return DataLoader(
        loader.dataset,
        batch_size=size // world,
        sampler=Share(loader.sampler, rank, world),
        num_workers=loader.num_workers,
        drop_last=loader.drop_last,
        pin_memory=loader.pin_memory,
    )


def average_gradients(optimizer: torch.optim.Optimizer) -> None:
    """From now on, take each step along the mean of all processes' gradients.

    What DistributedDataParallel does, in one message a step: networks as small as these gain
    nothing from sending while they compute, and keep the names of their parameters.
    """

    @torch.no_grad()
    def average(optimizer: torch.optim.Optimizer, *_) -> None:
        parameters = (p for group in optimizer.param_groups for p in group["params"])
        gradients = [p.grad for p in parameters if p.grad is not None]
        message = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(message)
        message /= dist.get_world_size()
        parts = message.split([gradient.numel() for gradient in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    optimizer.register_step_pre_hook(average)


def told_by_first(value):
    """The first process's ``value``, in all of them; they wait for it."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box)
    return box[0]


def mean_of_all(number: float) -> float:
    """The mean of a number over all processes."""
    if not dist.is_initialized():
        return number
    numbers = [None] * dist.get_world_size()
    dist.all_gather_object(numbers, number)
    return sum(numbers) / len(numbers)
