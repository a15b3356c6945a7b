"""A vessel map of one photograph: ours against Little W-Net's way and other peers.

    python benchmarks/prediction.py

All in one process with the same threads. The ceiling is the rate of one large convolution.
"""

import math
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import peers
import torch
from timing import large_drawing, make_row, seconds
from torch.utils.flop_counter import FlopCounterMode
from training import ceiling

from retina_utils.checkpoint import Network, load_network
from retina_utils.datasets.synthetic import draw_fundus
from retina_utils.predict import _logits, predict_image

ALONE = """import sys; import numpy as np
from retina_utils.checkpoint import load_network
from retina_utils.predict import predict_image
held = np.load(sys.argv[1])
predict_image(load_network("pretrained"), held["image"], held["fov"], flips=True)
told = open("/proc/self/status").read()
print(int(told.split("VmHWM:")[1].split()[0]) / 2**20)"""


def rows() -> Iterator[dict]:
    """Both sizes with one view and with four, against each peer; then the engines.

    Peers see 512 x 512 whatever the size, so the larger one meets Little W-Net alone.
    """
    network, most = load_network("pretrained"), ceiling()
    known = {name: model for name, model in peers.networks() if not say_missing(name, model)}
    first = dict(list(known.items())[:1])
    for drawing, there in ((draw_fundus(0, (584, 565)), known), (large_drawing(), first)):
        image, fov = drawing.image, drawing.fov
        views = {name: partial(predict_image, network, image, fov, flips=name == "four views")
                 for name in ("one view", "four views")}  # fmt: skip
        usual = [partial(peers.usual_map, model, image, fov) for model in there.values()]
        one, four, *plain = seconds(*views.values(), *usual)
        size, gib = f"{image.shape[1]} x {image.shape[0]}", peak_memory(image, fov)
        for (view, work), ours in zip(views.items(), (one, four), strict=True):
            share = flops(work) / min(ours) / most
            for name, theirs in zip(there, plain, strict=True):
                note = f"against {name}; peak {gib:.2f} GiB"
                yield make_row(f"map of {size}, {view}", ours, theirs, note, share)
    yield from of_engines(network, most)


def say_missing(name: str, peer) -> bool:
    """Whether a peer is only words of why it is missing, which are printed."""
    if isinstance(peer, str):
        print(f"{name}: {peer}")
    return isinstance(peer, str)


def of_engines(network: Network, most: float) -> Iterator[dict]:
    """One pass of our network by us and by other engines in float32, 1024 x 1024."""
    x = torch.rand(1, 3, 1024, 1024)
    network.model.eval()
    laid = x.contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def ours():
        return _logits(network.model, laid, "auto")

    for name, run in peers.engines(load_network("pretrained").model.eval(), x):
        if say_missing(name, run):
            continue
        taken, plain = seconds(ours, run)
        share = flops(ours) / min(taken) / most
        yield make_row("one pass, 1024 x 1024", taken, plain, f"against {name}, float32", share)


def flops(work) -> int:
    """Operations of the networks in a piece of work; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def peak_memory(image: np.ndarray, fov: np.ndarray) -> float:
    """GiB that a process of its own holds at most while it draws a map, PyTorch included.

    Asked of Linux's /proc: ``ru_maxrss`` starts at what the process held that started it. nan
    elsewhere.
    """
    if not Path("/proc/self/status").exists():
        return math.nan
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "photograph.npz"
        np.savez(file, image=image, fov=fov)
        done = subprocess.run(
            [sys.executable, "-c", ALONE, file], capture_output=True, text=True, check=True
        )
    return float(done.stdout)


if __name__ == "__main__":
    from bench import run

    run(["prediction"])
