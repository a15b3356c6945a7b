"""The photographs of a folder on many processes or machines, by Dask: ``CLUSTER=local:2``.

Photographs, weights and results lie on disks that all workers see under the same paths.
"""

import asyncio
import functools
import logging
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path

import torch

from retina_utils import RetinaError, printable
from retina_utils.checkpoint import load_network
from retina_utils.commands.summary import Outcome
from retina_utils.machine.compute import choose_device
from retina_utils.predict import predict_image

AHEAD = 4  # photographs a thread of a worker has waiting: the scheduler need not hold a million
PATIENCE = 60  # seconds to wait for a scheduler
TURN = threading.Lock()  # a worker's threads read and write at once, but share one network


def predict_there(
    cluster: str, weights: str | Path, settings: dict, work: Callable, photographs: Sequence
) -> Iterator[tuple[Outcome, bool]]:
    """The outcomes as workers come back with them, and whether each is new.

    ``work(predict, photograph=...)`` is what a worker does with a Photograph.

    ``cluster`` is "local:N", N processes of this machine, or the address of a scheduler. A worker
    that dies is no loss: another one takes its photographs. A RetinaError says if there is no
    scheduler, or no longer one; the same command goes on with what is left.
    """
    try:
        from distributed import Client, KilledWorker, LocalCluster, as_completed
        from distributed.comm import CommClosedError
    except ImportError:
        raise RetinaError(
            "--cluster needs Dask, which is not installed: pip install 'retina-utils[cluster]'"
        ) from None
    weights = Path(weights).resolve() if Path(weights).exists() else weights
    with ExitStack() as stack:
        address = cluster
        if local := re.fullmatch(r"local:([1-9]\d*)", cluster):
            how = {"threads_per_worker": 1, "dashboard_address": ":0"}
            how["silence_logs"] = logging.CRITICAL  # else Ctrl-C ends in pages of their tracebacks
            with unheard():
                address = stack.enter_context(LocalCluster(n_workers=int(local[1]), **how))
        elif not re.match(r"\w+://", cluster):
            raise RetinaError(f"cluster {cluster!r}: expected local:2, or tcp://host:8786")
        try:
            client = stack.enter_context(Client(address, timeout=PATIENCE))
        except (OSError, ValueError) as error:
            raise RetinaError(
                f"{cluster}: no scheduler ({printable(error)}). Start `dask scheduler` there, or "
                "give the address that it prints."
            ) from None
        if client.dashboard_link:
            print(f"Watch the workers at {client.dashboard_link}")
        left, done, of = iter(photographs), as_completed(), {}

        def send(count: int) -> None:
            for photograph in islice(left, count):
                what = (weights, settings, work, resolved(photograph))
                future = client.submit(predict_on, *what, pure=False)
                of[future.key] = photograph
                done.add(future)

        send(AHEAD * 16)
        try:
            for future in done:
                photograph = of.pop(future.key)
                try:
                    yield future.result()
                except KilledWorker:
                    words = "three workers died of it. Perhaps it is too large for their memory."
                    yield Outcome(photograph.name, "failed", message=words), True
                send(max(1, AHEAD * sum(client.nthreads().values()) - len(of)))
        except (CancelledError, asyncio.CancelledError, CommClosedError):
            stack.pop_all()  # a client that has nobody to say goodbye to
            raise RetinaError(
                f"{cluster}: the scheduler is gone. When it is back, the same command goes on."
            ) from None


@contextmanager
def unheard() -> Iterator[None]:
    """Processes started within hear no Ctrl-C, which goes to all: who started them ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def resolved(photograph):
    """The photograph by paths that do not depend on where a worker was started."""
    files = {name: getattr(photograph, name) for name in ("file", "fov_file")}
    return photograph._replace(**{k: v and Path(os.path.abspath(v)) for k, v in files.items()})


def predict_on(
    weights: str | Path, settings: dict, work: Callable, photograph
) -> tuple[Outcome, bool]:
    network = network_of(weights, settings["weights_sha256"])

    def predict(image, fov):
        with TURN:
            return predict_image(network, image, fov, flips=settings["flips"])

    return work(predict, photograph=photograph)


@functools.cache
def network_of(weights: str | Path, sha256: str):
    """The network, loaded once a process, with as many torch threads as the worker has."""
    from distributed import get_worker

    torch.set_num_threads(get_worker().state.nthreads)
    network = load_network(weights, choose_device())
    if network.sha256 != sha256:
        raise RetinaError(f"{weights}: other weights here than where the command was given")
    return network
