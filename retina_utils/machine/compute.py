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

    Parameters
    ----------
    seed : int
        Seeds Python, NumPy and torch.
    threads : int
        CPU threads for torch; 0 leaves torch's choice. The same bytes come out only for the same
        number of threads on the same kind of processor.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    if threads:
        torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)


def choose_device(device: str = "auto") -> torch.device:
    """The device to compute on: "auto" takes CUDA, then Apple's MPS, then the CPU.

    Raises
    ------
    RetinaError
        If the one asked for is not there.
    """
    available = ["cpu"]
    if torch.backends.mps.is_available():
        available.insert(0, "mps")
    if torch.cuda.is_available():
        available.insert(0, "cuda")
    if device == "auto":
        return torch.device(available[0])
    if device.split(":")[0] not in available:
        raise RetinaError(
            f"device={device!r}: not on this machine, which has {', '.join(available)}. "
            "Use device = 'auto'."
        )
    return torch.device(device)


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


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, as a loader's worker does.

    A patch is too small to share out: on a busy machine two threads take ten times as long. And
    the sums in it come out the same, to the bit, in a worker and in the main process.
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

    A notebook that papermill runs has no terminal of its own; ``RETINA_TERMINAL`` names the one
    it was started from, and the bar goes there instead of into the notebook.
    """
    terminal = os.environ.get("RETINA_TERMINAL")
    if not terminal:
        quiet = os.environ.get("RETINA_QUIET", "") not in ("", "0")
        yield from tqdm(items, desc=label, leave=False, disable=quiet)
        return
    with open(terminal, "w") as file:
        yield from text_tqdm(items, desc=label, leave=False, file=file, ncols=80)
