"""What the computing runs on: device, seeds, precision, memory, progress."""

import os
import random
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from tqdm import tqdm as text_tqdm
from tqdm.auto import tqdm

from retina_utils import RetinaError


class OutOfMemory(RetinaError):
    """Memory ran out; the message names the parameters that save it."""


def seed_everything(seed: int, threads: int = 0) -> None:
    """Make every random choice follow from ``seed`` and keep torch to repeatable kernels.

    ``threads`` are torch's on the CPU; 0 leaves torch's choice. The same bytes come out only for
    the same number of threads on the same kind of processor.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # No kernel here reads memory that nothing was written to; filling it costs a tenth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False


def choose_device(device: str = "auto") -> torch.device:
    """The device asked for, or an error; "auto" is CUDA, else Apple's MPS, else the CPU."""
    kinds = {"cuda": torch.cuda, "mps": torch.backends.mps}
    available = [*(name for name, kind in kinds.items() if kind.is_available()), "cpu"]
    device = available[0] if device == "auto" else device
    if device.split(":")[0] not in available:
        raise RetinaError(
            f"device={device!r}: not on this machine, which has {', '.join(available)}. "
            "Use device = 'auto'."
        )
    return torch.device(device)


def autocast(device: torch.device, precision: str = "auto"):
    """The context in which the network runs; losses are computed in float32 outside it.

    ``precision`` is "float32", "bfloat16", or "auto": bfloat16 where the hardware multiplies it
    faster than float32, not merely at all.
    """
    if precision not in ("auto", "bfloat16", "float32"):
        raise ValueError(f"precision={precision!r}: expected auto, bfloat16 or float32")
    wanted = precision == "bfloat16"
    if precision == "auto" and device.type == "cuda":
        wanted = torch.cuda.is_bf16_supported(including_emulation=False)
    elif precision == "auto":
        has = getattr(torch.cpu, "get_capabilities", dict)()  # missing in older versions
        wanted = bool(has.get("amx_bf16") or has.get("avx512_bf16"))
    return torch.autocast(device.type, torch.bfloat16, enabled=wanted)


def random_states() -> list[torch.Tensor]:
    """The states of torch's generators: the CPU's, then that of each GPU."""
    gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return [torch.get_rng_state(), *gpus]


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, as a loader's worker does: the same sums in both, to the bit.

    A patch is too small to share out: on a busy machine two threads take ten times as long.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def explain_memory(shape: torch.Size) -> Iterator[None]:
    """Turn running out of memory into an :class:`OutOfMemory` that says what saves it."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # CUDA, MPS and the CPU allocator have only this word in common.
        if "memory" not in str(error).lower():
            raise
        raise OutOfMemory(
            f"Out of memory with a batch of shape {tuple(shape)}. Halve batch_size first, then "
            "patch_size, then the network's widths."
        ) from error


def peak_memory_gib() -> float:
    """The most memory this process has held, in GiB (0 where the system does not say)."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def progress(items: Iterable, label: str) -> Iterator:
    """``items`` with a progress bar: in JupyterLab, in a terminal, nowhere with RETINA_QUIET=1.

    Papermill's notebooks have no terminal; ``RETINA_TERMINAL`` names the one it was started from.
    """
    terminal = os.environ.get("RETINA_TERMINAL")
    if terminal:
        with open(terminal, "w") as file:
            yield from text_tqdm(items, desc=label, leave=False, file=file, ncols=80)
    else:
        quiet = os.environ.get("RETINA_QUIET", "") not in ("", "0")
        yield from tqdm(items, desc=label, leave=False, disable=quiet)
