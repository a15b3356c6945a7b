"""What memory does not hold lies on disk, is the same, is shared, and goes away."""

import pickle

import numpy as np
import pytest
import torch

from retina_utils import patches
from retina_utils.machine.shelf import Mapped, Shelf, quarter_of_memory


@pytest.fixture(autouse=True)
def disk(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    return tmp_path


def test_arrays_beyond_the_limit_lie_in_files_that_go_with_the_shelf(disk):
    shelf, arrays = Shelf(10), [np.arange(8, dtype=np.uint8).reshape(2, 4) for _ in range(3)]
    kept = [shelf.keep(array) for array in arrays]
    assert [isinstance(array, Mapped) for array in kept] == [False, True, True]
    assert all(np.array_equal(array, arrays[0]) for array in kept)
    assert not kept[1].flags.writeable
    assert len(list(disk.glob("retina-*/*"))) == 2
    del shelf
    assert not list(disk.iterdir())


def test_a_worker_is_sent_the_place_and_not_the_pixels():
    shelf = Shelf(0)
    kept = shelf.keep(np.random.default_rng(0).integers(255, size=(500, 500), dtype=np.uint8))
    sent = pickle.dumps(kept)
    assert len(sent) < 1000 and np.array_equal(pickle.loads(sent), kept)
    assert np.array_equal(pickle.loads(pickle.dumps(kept[10:20])), kept[10:20])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_patches_from_disk_are_those_from_memory(sample, disk, monkeypatch, workers, start):
    def batches():
        dataset = patches.RetinaDataset([sample], patches.Preparation(), patches_per_image=3)
        loader = patches.make_loader(dataset, 2, True, workers)
        loader.multiprocessing_context = start if workers else None
        return list(loader), dataset

    expected, _ = batches()
    monkeypatch.setattr(patches, "quarter_of_memory", lambda: 0)
    found, dataset = batches()
    assert len(list(disk.glob("retina-*/*"))) == 3
    assert all(torch.equal(a[k], b[k]) for a, b in zip(expected, found, strict=True) for k in a)
    del dataset
    assert not list(disk.glob("retina-*"))


def test_a_quarter_of_the_memory_is_some_but_not_all():
    assert 2**24 < quarter_of_memory() < 2**46
