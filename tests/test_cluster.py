"""`make predict CLUSTER=...`: whoever dies, every good photograph is done once and told once."""

import contextlib
import csv
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import torch
from conftest import TINY

from retina_utils import models
from retina_utils.checkpoint import Network, save_network
from retina_utils.commands.__main__ import main
from retina_utils.patches import Preparation

Client = pytest.importorskip("distributed").Client
GOOD = {f"img_{n:04d}.png" for n in range(1, 15)}


@pytest.fixture
def arguments(tmp_path):
    """Of a command over fourteen good photographs and a damaged one."""
    torch.manual_seed(0)
    preparation = Preparation(patch_size=64, stride=32, fov_diameter=384)
    network = Network(models.UNet(widths=[2, 4]), preparation, threshold=0.5)
    save_network(tmp_path / "net.pt", network)
    (tmp_path / "photographs").mkdir()
    for file in TINY.glob("*/images/*.png"):
        shutil.copy(file, tmp_path / "photographs")
    (tmp_path / "photographs" / "cut.png").write_bytes(file.read_bytes()[:999])
    folders = [str(tmp_path / "photographs"), "--out", str(tmp_path / "maps")]
    return ["predict", *folders, "--weights", str(tmp_path / "net.pt"), "--cluster"]


class Machines:
    """A scheduler and two workers, each a process that can be killed."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address, self.folder, self.started = f"tcp://127.0.0.1:{self.port}", folder, []

    def start(self):
        where = ["--host", "127.0.0.1", "--no-dashboard"]
        self.scheduler = self._run("scheduler", *where, "--port", str(self.port))
        for _ in range(2):
            self._run("worker", self.address, *where, "--nthreads", "1")
        with Client(self.address, timeout=60) as client:
            client.wait_for_workers(2, timeout=60)

    def _run(self, what, *arguments):
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *arguments]
        log = (self.folder / f"{what}-{len(self.started)}.log").open("w")
        self.started.append(subprocess.Popen(command, stderr=log, cwd=self.folder))
        return self.started[-1]

    def stop(self):
        for process in self.started:
            process.terminate()
        for process in self.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture
def machines(tmp_path):
    machines = Machines(tmp_path)
    machines.start()
    yield machines
    machines.stop()


def wait_for_outcomes(out, count):
    """Until so many are in the journal."""
    for _ in range(2400):
        with contextlib.suppress(FileNotFoundError):
            if (out / ".summary.journal").read_bytes().count(b"\n") >= count:
                return
        time.sleep(0.05)
    raise AssertionError("no outcome within two minutes")


def afterwards(out, act, count=2):
    """A thread that does ``act`` once so many photographs are done."""
    thread = threading.Thread(target=lambda: (wait_for_outcomes(out, count), act()))
    thread.start()
    return thread


def assert_complete(out):
    """Each photograph has one line, each good one its three maps, and nothing is left over."""
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["name"], row["status"]) for row in csv.DictReader(file)]
    assert rows == sorted([("cut.png", "failed"), *((name, "done") for name in GOOD)])
    assert len(list(out.glob("*.png"))) == 3 * len(GOOD)
    assert not (out / ".summary.journal").exists()


def test_a_killed_worker_loses_no_photograph(arguments, machines, tmp_path):
    out, killed = tmp_path / "maps", []

    def kill():
        with Client(machines.address) as client:
            killed.append(client.submit(os.getpid, pure=False).result())
        os.kill(killed[0], signal.SIGKILL)

    thread = afterwards(out, kill, 1)
    assert main([*arguments, machines.address]) == 1
    thread.join()
    assert killed
    assert_complete(out)


def test_a_killed_client_goes_on_where_it_was(arguments, machines, tmp_path, capsys):
    out = tmp_path / "maps"
    command = [sys.executable, "-m", "retina_utils.commands", *arguments, machines.address]
    with subprocess.Popen(command) as client:
        wait_for_outcomes(out, 3)
        client.kill()
    assert len((out / ".summary.journal").read_text().splitlines()) < 15
    assert main([*arguments, machines.address]) == 1
    said = capsys.readouterr().out
    assert "14 done, 1 failed" in said and "were done before" in said
    assert_complete(out)


def test_after_a_restarted_scheduler_the_same_command_goes_on(
    arguments, machines, tmp_path, capsys
):
    out = tmp_path / "maps"
    thread = afterwards(out, machines.scheduler.kill)
    assert main([*arguments, machines.address]) == 2
    thread.join()
    assert "the scheduler is gone" in capsys.readouterr().err
    machines.stop()
    machines.start()
    assert main([*arguments, machines.address]) == 1
    assert "were done before" in capsys.readouterr().out
    assert_complete(out)


@pytest.mark.parametrize("address", ["local:0", "local", "host:8786"])
def test_what_is_no_address_is_refused(arguments, tmp_path, capsys, address):
    assert main([*arguments, address]) == 2
    assert "expected local:2" in capsys.readouterr().err


def test_no_scheduler_is_told(arguments, monkeypatch, capsys):
    monkeypatch.setattr("retina_utils.commands.cluster.PATIENCE", 1)
    assert main([*arguments, "tcp://127.0.0.1:9"]) == 2
    assert "no scheduler" in capsys.readouterr().err


@pytest.mark.parametrize("where", [[], ["--cluster", "local:1"]], ids=["here", "there"])
def test_ctrl_c_ends_in_a_sentence_and_leaves_a_page(arguments, tmp_path, where):
    out = tmp_path / "maps"
    command = [sys.executable, "-m", "retina_utils.commands", *arguments[:-1], *where]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, start_new_session=True, **streams) as process:
        wait_for_outcomes(out, 1)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all that were started
        said = process.communicate(timeout=120)[0]
    assert process.returncode == 130 and "Traceback" not in said
    assert said.strip().endswith("The same command goes on from here.")
    assert "not done yet" in (out / "index.html").read_text(encoding="utf-8")
