"""A run folder can be trusted: what is missing or changed is said, and which notebook mends it."""

import json
import os
import random

import numpy as np
import pytest
import torch
from filelock import FileLock, Timeout

from retina_utils import RetinaError, data, images
from retina_utils.machine import compute, files, runs


@pytest.fixture
def run(tmp_path):
    return runs.open_run(tmp_path, "demo")


def test_a_manifest_comes_back_with_its_results(run):
    (run / "a.csv").write_text("1")
    runs.record(
        run, "01_data", {"seed": 0}, {"share": np.float32(0.5), "bad": float("nan")}, ["a.csv"]
    )
    manifest = runs.require(run, "01_data")
    assert manifest["parameters"] == {"seed": 0}
    assert manifest["results"] == {"share": 0.5, "bad": None}
    assert list(manifest["files"]) == ["a.csv"]
    assert {"command", "commit", "versions", "threads", "finished"} <= set(manifest["provenance"])


def test_an_earlier_notebook_that_has_not_run_is_named(run):
    with pytest.raises(RetinaError, match=r"03_train has not run yet.*Run 03_train\.ipynb first"):
        runs.require(run, "03_train")


def test_a_changed_or_missing_file_is_noticed(run):
    (run / "a.csv").write_text("1")
    runs.record(run, "01_data", {}, files=["a.csv"])
    (run / "a.csv").write_text("2")
    with pytest.raises(RetinaError, match="was changed since 01_data wrote it"):
        runs.require(run, "01_data")
    (run / "a.csv").unlink()
    with pytest.raises(RetinaError, match="is missing since 01_data wrote it"):
        runs.require(run, "01_data")


@pytest.mark.parametrize("content", [b"{", b"\xff", b"[]", b"[" * 100_000, b'{"files": []}', b""])
def test_a_damaged_manifest_is_said_with_what_to_do(run, content):
    (run / "01_data.json").write_bytes(content)
    with pytest.raises(RetinaError, match=r"01_data\.json: (damaged|no record).* Remove it, and"):
        runs.require(run, "01_data")


def test_a_run_and_its_data_can_be_moved_together(tmp_path):
    run = runs.open_run(tmp_path / "here" / "outputs", "demo")
    data_dir = tmp_path / "here" / "eyes"
    data_dir.mkdir()
    (data_dir / "a.png").write_bytes(b"a")
    sums = runs.checksums([data_dir / "a.png"], data_dir)
    runs.record(run, "01_data", {}, {"data_dir": str(data_dir), "data_files": sums})
    assert str(tmp_path) not in (run / "01_data.json").read_text()
    moved = (tmp_path / "here").rename(tmp_path / "there")
    found = runs.require(moved / "outputs" / "demo", "01_data")["results"]
    assert found["data_dir"] == str(moved / "eyes")
    assert not runs.changed_files(found["data_files"], moved / "eyes")


@pytest.mark.parametrize("name", ["../elsewhere", "a/b", "", ".hidden"])
def test_a_run_cannot_leave_the_outputs_folder(tmp_path, name):
    with pytest.raises(RetinaError, match="expected letters, digits"):
        runs.open_run(tmp_path, name)


def test_an_outputs_folder_that_cannot_be_written_says_so(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with pytest.raises(RetinaError, match=r"cannot be written .*outputs_dir"):
        runs.open_run(tmp_path / "outputs", "demo")


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_read_only_outputs_folder_says_so(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RetinaError, match="cannot be written"):
        runs.open_run(tmp_path, "demo")


def test_one_seed_sets_all_three_generators():
    draws = []
    for _ in range(2):
        compute.seed_everything(7)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_a_device_that_is_not_there_is_refused():
    assert compute.choose_device("cpu").type == "cpu"
    with pytest.raises(RetinaError, match="not on this machine, which has"):
        compute.choose_device("abacus")


def test_the_recorded_device_is_the_one_that_was_computed_on(run, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    devices = {"cpu": "cpu", "cuda": "a GPU", "auto": "a GPU"}
    for asked, name in devices.items():
        made = runs.record(run, "03_train", {"device": asked})["provenance"]
        assert made["device"] == name
    assert runs.record(run, "01_data", {})["provenance"]["device"] == "cpu"


def test_parameters_are_the_annotated_variables():
    variables = {}
    exec("epochs: int = 5\nhelper = 2", variables)
    assert runs.parameters_of(variables) == {"epochs": 5}


def test_json_and_csv_are_written_whole(run):
    files.write_json(run / "a.json", {"a": np.arange(2), "b": (1, 2)})
    assert json.loads((run / "a.json").read_text()) == {"a": [0, 1], "b": [1, 2]}
    with pytest.raises(TypeError):
        files.write_json(run / "a.json", {"a": object()})
    assert json.loads((run / "a.json").read_text()) == {"a": [0, 1], "b": [1, 2]}
    files.write_csv(run / "a.csv", [{"name": "x", "dice": 0.123456789}])
    assert (run / "a.csv").read_text() == "name,dice\nx,0.123457\n"


def test_a_threshold_by_eye_keeps_its_reason(run):
    runs.keep_threshold(run, 0.42, "thin vessels matter here")
    kept = json.loads((run / "threshold_by_eye.json").read_text())
    assert kept["threshold"] == 0.42 and kept["chosen"] == "by eye"
    assert kept["reason"] == "thin vessels matter here"


def test_a_run_is_open_to_others_once_a_notebook_is_recorded(run):
    other = FileLock(run / ".lock")
    with pytest.raises(Timeout):
        other.acquire(timeout=0)
    assert runs.open_run(run.parent, run.name) == run  # a cell run twice
    runs.record(run, "01_data", {})
    with other.acquire(timeout=0), pytest.raises(RetinaError, match="another run is at work"):
        runs.open_run(run.parent, run.name)


def test_a_run_that_the_series_holds_is_open_to_its_notebooks(run, monkeypatch):
    runs.close_run(run)
    with FileLock(run / ".lock").acquire(timeout=0):
        monkeypatch.setenv(runs.LENT, str(run))
        assert runs.open_run(run.parent, run.name) == run


def test_a_share_without_locks_is_said(run, monkeypatch, capsys):
    def refuse(*_, **__):
        raise NotImplementedError("no flock here")

    runs.close_run(run)
    monkeypatch.setattr(FileLock, "acquire", refuse)
    assert runs.open_run(run.parent, run.name) == run
    assert "cannot be locked" in capsys.readouterr().err


def test_a_manifest_names_no_home(run, monkeypatch):
    monkeypatch.setenv("HOME", "/home/jane")
    monkeypatch.setenv("RETINA_COMMAND", "make run-all DATA='/home/jane/eyes' RUN=/home/janet")
    made = runs.record(run, "01_data", {"data_dir": "/home/jane/eyes", "seed": 1})
    assert made["parameters"] == {"data_dir": "~/eyes", "seed": 1}
    assert runs.without_place("/mnt/smith/eyes") == ".../eyes"
    assert runs.without_place("../data/tiny") == "../data/tiny"
    assert made["provenance"]["command"] == "make run-all DATA='~/eyes' RUN=/home/janet"


@pytest.mark.parametrize("value", [0, 2.5, True, None, "8", float("nan"), 10**9])
def test_a_number_out_of_its_range_is_refused_by_name(value):
    with pytest.raises(RetinaError, match=r"^epochs=.*: expected a whole number from 1"):
        runs.check_values({"epochs": value})


def test_a_checksum_of_pairs_follows_the_files(folder):
    pairs = data.load_data(folder).train
    before = runs.checksum(pairs)
    images.write_png(pairs[0].vessels, ~images.read_binary(pairs[0].vessels))
    assert runs.checksum(pairs) != before
