"""Small data sets for the tests: one real-looking photograph, and folders written on demand."""

import os
import shutil
from pathlib import Path

os.environ.setdefault("RETINA_QUIET", "1")

import numpy as np
import pytest
import torch
from PIL import Image

from retina_utils import data, images

ROOT = Path(__file__).parent.parent
TINY = ROOT / "data" / "tiny"


@pytest.fixture(scope="session")
def sample():
    """One synthetic photograph, decoded."""
    folder = TINY / "training"
    return data.Sample(
        "img_0001",
        images.read_photograph(folder / "images" / "img_0001.png"),
        images.read_binary(folder / "masks" / "img_0001_mask.png"),
        images.read_binary(folder / "fov" / "img_0001_fov.png", "fov"),
    )


@pytest.fixture
def tiny(tmp_path):
    """A copy of data/tiny that a test may spoil."""
    return Path(shutil.copytree(TINY, tmp_path / "data"))


@pytest.fixture
def folder(tmp_path):
    """A small valid data folder: two people to train on, one each to validate and test on."""
    rng = np.random.default_rng(0)
    for split, names in {"training": "ab", "validation": "c", "test": "d"}.items():
        for name in names:
            image = rng.integers(60, 200, (40, 48, 3)).astype(np.uint8)
            vessels = np.zeros((40, 48), bool)
            vessels[10:13] = True
            images.write_png(tmp_path / split / "images" / f"{name}.png", image)
            images.write_png(tmp_path / split / "masks" / f"{name}_mask.png", vessels)
            images.write_png(tmp_path / split / "fov" / f"{name}_fov.png", np.ones((40, 48), bool))
    return tmp_path


@pytest.fixture(autouse=True)
def few_threads():
    """Tests share a machine; no result here may depend on it."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_recorded_command(monkeypatch):
    """A command run in this process records itself; the next test shall not find it."""
    monkeypatch.setenv("RETINA_COMMAND", "")
    monkeypatch.delenv("RETINA_COMMAND")


def save(path, array, **options):
    """Write an array in the format its file name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path
