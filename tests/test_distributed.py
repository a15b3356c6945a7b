"""Several processes train one network: the one that a single process trains, to rounding."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from fake_run import write_fake_run
from test_train import RECIPE

from retina_utils import RetinaError
from retina_utils.commands.train import train_run
from retina_utils.machine import distributed, runs

# Dice is a mean over patches, and GroupNorm looks at one patch alone: nothing depends on shares.
SETTINGS = RECIPE | {"norm": "group", "loss": "dice", "lr": 1e-3, "patch_size": 32, "stride": 32}
SETTINGS |= {"device": "cpu", "resume": True, "save_every": 0, "threads": 1, "patches_per_image": 4}


def make_place(folder: Path) -> Path:
    """A run's folder after 01 and 02."""
    place = write_fake_run(folder)
    found = runs.require(place, "01_data")
    runs.record(place, "01_data", SETTINGS, found["results"], ["splits.csv"])
    return place


def torchrun(place: Path, *options: str, **changes) -> str:
    """The same training by two processes; what they said."""
    script = Path(__file__).with_name("torchrun.py")
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", *options]
    command = [*start, "--nproc-per-node", "2", script, place, json.dumps(SETTINGS | changes)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def weights(place: Path) -> list[dict]:
    return [torch.load(place / f"rank_{rank}.pt") for rank in (0, 1)]


def largest_difference(first: dict, second: dict) -> float:
    """Over all but what a normalisation takes out again, whose gradient is rounding error."""
    names = [name for name in first if not re.search(r"\.[03]\.bias$", name)]
    return max(float((first[name] - second[name]).abs().max()) for name in names)


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    place = make_place(tmp_path_factory.mktemp("shared"))
    torchrun(place)
    return place


def test_two_processes_train_what_one_trains(shared, tmp_path):
    alone = train_run(make_place(tmp_path), SETTINGS)
    first, second = weights(shared)
    assert largest_difference(first, second) == 0
    assert largest_difference(first, alone.model.state_dict()) < 1e-4
    start = train_run(make_place(tmp_path / "start"), SETTINGS | {"lr": 1e-12})
    assert largest_difference(first, start.model.state_dict()) > 1e-3
    state = torch.load(shared / "weights" / "interrupted.pt", weights_only=True)
    for ours, theirs in zip(state["history"], alone.history, strict=True):
        assert ours["train_loss"] == pytest.approx(theirs["train_loss"], abs=1e-5)


def test_a_killed_process_is_replaced_and_the_training_goes_on(shared, tmp_path):
    place = make_place(tmp_path)
    (place / "dies").touch()
    assert re.search("going on after epoch [12]", torchrun(place, "--max-restarts", "1"))
    assert largest_difference(weights(place)[0], weights(shared)[0]) == 0


def test_shares_make_up_the_batches_and_have_to_be_whole(tmp_path):
    numbers = torch.utils.data.TensorDataset(torch.arange(11))
    loader = torch.utils.data.DataLoader(numbers, batch_size=4, drop_last=True)
    parts = [[b[0].tolist() for b in distributed.share_of(loader, rank, 2)] for rank in (0, 1)]
    whole = [sorted(a + b) for a, b in zip(*parts, strict=True)]
    assert whole == [b[0].tolist() for b in loader] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    with pytest.raises(RetinaError, match=r"^batch_size=4: cannot be shared by 3"):
        distributed.share_of(loader, 0, 3)


def test_without_torchrun_there_is_one_process():
    assert distributed.join() == (0, 1)
    assert distributed.told_by_first("word") == "word" and distributed.mean_of_all(2.0) == 2.0
