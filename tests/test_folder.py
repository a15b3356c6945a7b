"""`make predict`: what is written, what is skipped, what is done again."""

import csv
import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retina_utils import RetinaError, images, metrics, models
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands import folder as command
from retina_utils.commands.__main__ import main
from retina_utils.evaluate import Results, Threshold
from retina_utils.fov import find_fov
from retina_utils.patches import Preparation
from retina_utils.show.folder_page import parts_of

TINY = Path(__file__).parent.parent / "data" / "tiny" / "test" / "images"
PREPARATION = Preparation(patch_size=64, stride=64, fov_diameter=96)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    save_network(path, Network(models.UNet(widths=[2, 4]), PREPARATION, threshold=0.5))
    return path


@pytest.fixture
def folder(tmp_path):
    """Good, truncated, grey, tiny and nested photographs, and a file that is none."""
    first, second, *_ = sorted(TINY.iterdir())
    target = tmp_path / "photographs"
    (target / "left eyes").mkdir(parents=True)
    shutil.copyfile(first, target / "good.png")
    shutil.copyfile(second, target / "left eyes" / "Größe 1.png")
    Image.open(first).convert("L").save(target / "grey.png")
    Image.open(first).resize((40, 40)).save(target / "tiny.png")
    (target / "cut.png").write_bytes(first.read_bytes()[:2000])
    Image.new("RGB", (200, 200)).save(target / "black.png")
    (target / "notes.txt").write_text("no photograph")
    return target


def rows_of(out):
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return {row["name"]: row for row in csv.DictReader(file)}


@pytest.fixture
def asked(monkeypatch):
    """The names of the photographs that are predicted, in order."""
    real, names = command.predict_photograph, []

    def noting(predict, call, photograph):
        names.append(photograph.file.name)
        return real(predict, call, photograph)

    monkeypatch.setattr(command, "predict_photograph", noting)
    return names


def test_every_good_photograph_gets_its_three_files_and_bad_ones_a_word(
    folder, weights, tmp_path, capsys
):
    out = tmp_path / "maps"
    status = main(["predict", str(folder), "--out", str(out), "--weights", str(weights)])
    said = capsys.readouterr()
    assert status == 1 and "4 done, 2 failed" in said.out
    assert "cut.png" in said.err and "black.png" in said.err
    rows = rows_of(out)
    assert set(rows) == {
        "good.png", "grey.png", "tiny.png", "cut.png", "black.png", "left eyes/Größe 1.png",
    }  # fmt: skip
    assert rows["cut.png"]["status"] == "failed" and "cannot be read" in rows["cut.png"]["message"]
    image = images.read_photograph(folder / "good.png")
    with Image.open(out / "good_vessels.png") as file:
        vessels = np.asarray(file)
        assert file.mode == "L" and set(np.unique(vessels)) <= {0, 255}
    with Image.open(out / "good_probability.png") as file:
        assert file.mode == "I;16"
    probability = images.read_probability(out / "good_probability.png")
    overlay = images.read_photograph(out / "good_overlay.png")
    assert vessels.shape == probability.shape == image.shape[:2] and overlay.shape == image.shape
    row, fov = rows["good.png"], find_fov(image)
    assert not probability[~fov].any()
    assert ((vessels > 0) == (metrics.decide(probability, 0.5) & fov)).all()
    assert int(row["fov_area"]) == fov.sum() and float(row["threshold"]) == 0.5
    assert float(row["vessel_share"]) == pytest.approx((vessels > 0).sum() / fov.sum(), abs=1e-4)
    assert float(row["seconds"]) > 0
    assert (out / "left eyes" / "Größe 1_overlay.png").exists()
    assert all(part.exists() for part in parts_of(out, "left eyes/Größe 1.png"))
    assert not parts_of(out, "cut.png").script.exists()
    assert "cut.png" in (out / "index.html").read_text(encoding="utf-8")
    assert said.err.splitlines()[-1].startswith("2 of 6 photographs could not be used")
    record = json.loads((out / "predict.json").read_text(encoding="utf-8"))
    assert (
        record["threshold"] == 0.5
        and record["flips"] is True
        and len(record["weights_sha256"]) == 64
    )


def test_a_second_call_does_only_what_has_changed(folder, weights, tmp_path, asked, capsys):
    out = tmp_path / "maps"

    def call(**options):
        asked.clear()
        command.predict_folder(folder, out, weights=weights, **options)
        return sorted(set(asked) - {"cut.png", "black.png"})

    everything = ["Größe 1.png", "good.png", "grey.png", "tiny.png"]
    assert call() == everything
    before = rows_of(out)
    capsys.readouterr()
    assert call() == [] and "4 were done before" in capsys.readouterr().out
    again = rows_of(out)
    assert {n: before[n] for n in before if before[n]["status"] == "done"} == {
        n: again[n] for n in again if again[n]["status"] == "done"
    }
    (out / "good_overlay.png").unlink()
    Image.open(folder / "grey.png").rotate(90).save(folder / "grey.png")
    assert call() == ["good.png", "grey.png"]
    assert call(threshold=0.3) == everything
    assert call(threshold=0.3, flips=False) == everything
    other = Network(models.UNet(widths=[2, 4]), PREPARATION, threshold=0.3)
    save_network(weights.with_name("other.pt"), other)
    asked.clear()
    command.predict_folder(folder, out, weights=weights.with_name("other.pt"), flips=False)
    assert set(everything) <= set(asked)


def test_a_call_that_was_cut_off_goes_on(folder, weights, tmp_path, monkeypatch):
    out, real, asked = tmp_path / "maps", command.predict_photograph, []

    def stop_at_tiny(predict, call, photograph):
        asked.append(photograph.name)
        if photograph.name == "tiny.png":
            raise KeyboardInterrupt
        return real(predict, call, photograph)

    monkeypatch.setattr(command, "predict_photograph", stop_at_tiny)
    arguments = [str(folder), "--out", str(out), "--weights", str(weights)]
    assert main(["predict", *arguments]) == 130
    assert {"good.png", "grey.png"} <= set(rows_of(out))
    page = (out / "index.html").read_text(encoding="utf-8")
    assert re.search(r"[1-4] not done yet", page) and '"good.png"' in page
    asked.clear()
    monkeypatch.setattr(
        command, "predict_photograph", lambda n, c, p: asked.append(p.name) or real(n, c, p)
    )
    assert main(["predict", *arguments]) == 1
    assert "good.png" not in asked and "tiny.png" in asked
    assert "not done yet" not in (out / "index.html").read_text(encoding="utf-8")
    assert not list(out.rglob("*.tmp"))


def test_only_a_call_that_came_to_its_end_is_recorded_as_finished(
    folder, weights, tmp_path, monkeypatch
):
    record = tmp_path / "maps" / "predict.json"

    def look(*rest):
        during = json.loads(record.read_text())
        assert during["state"] == "unfinished" and during["threshold"] == 0.5
        assert not {"finished", "seconds", "peak_memory_gib"} & set(during)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(command, "predict_photograph", look)
        command.predict_folder(folder, tmp_path / "maps", weights=weights)
    before = json.loads(record.read_text())
    command.predict_folder(folder, tmp_path / "maps", weights=weights)
    after = json.loads(record.read_text())
    assert after["state"] == "finished" and after["seconds"] > 0 and after["finished"]
    assert set(before) < set(after)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
@pytest.mark.parametrize("error", [None, ValueError, RetinaError])
def test_a_name_of_two_lines_does_not_tell_where_the_folder_is(
    weights, tmp_path, monkeypatch, error
):
    def stop(predict, call, photograph):
        raise error(f"{photograph.file}: cannot be used")

    if error:  # else what reading it raises
        monkeypatch.setattr(command, "predict_photograph", stop)
    folder = tmp_path / "photographs"
    folder.mkdir()
    (folder / "two\nlines.png").write_bytes(b"no image")
    [outcome] = command.predict_folder(folder, tmp_path / "maps", weights=weights)
    assert outcome.message.startswith("two\\nlines.png: cannot be ")
    assert str(tmp_path) not in (tmp_path / "maps" / "summary.csv").read_text()


def test_own_fov_masks_are_used(folder, weights, tmp_path):
    shape = images.read_photograph(folder / "good.png").shape[:2]
    half = np.zeros(shape, bool)
    half[:, : shape[1] // 2] = True
    images.write_png(tmp_path / "fovs" / "good_fov.png", half)
    command.predict_folder(
        folder / "good.png", tmp_path / "maps", weights=weights, fov_folder=tmp_path / "fovs"
    )
    assert int(rows_of(tmp_path / "maps")["good.png"]["fov_area"]) == half.sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: {"out": folder}, "choose another OUT"),
        (lambda folder: {"out": folder, "images": folder / "good.png"}, "choose another OUT"),
        (lambda folder: {"images": folder / "missing"}, "no such file or folder"),
        (lambda folder: {"weights": folder / "missing.pt"}, "no such checkpoint"),
    ],
)
def test_what_cannot_begin_says_why_and_writes_nothing(
    folder, weights, tmp_path, capsys, change, words
):
    given = {"images": folder, "out": tmp_path / "maps", "weights": weights, "threshold": "0.5"}
    given |= change(folder)
    images_given = str(given.pop("images"))
    options = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    assert main(["predict", images_given, *options]) == 2
    assert words.lower() in capsys.readouterr().err.lower()
    assert not (tmp_path / "maps").exists() and not (folder / "summary.csv").exists()


@pytest.mark.parametrize("typed", ["1.5", "best"])
def test_a_threshold_that_is_none_is_refused_as_it_is_read(folder, tmp_path, capsys, typed):
    with pytest.raises(SystemExit):
        main(["predict", str(folder), "--out", str(tmp_path / "maps"), "--threshold", typed])
    assert "between 0 and 1, usual or expected" in capsys.readouterr().err


def test_one_photograph_alone_leaves_the_lines_of_the_others(folder, weights, tmp_path, asked):
    out = tmp_path / "maps"
    command.predict_folder(folder, out, weights=weights)
    asked.clear()
    assert [o.name for o in command.predict_folder(folder / "good.png", out, weights=weights)] == [
        "good.png"
    ]
    assert not asked and {"good.png", "grey.png", "left eyes/Größe 1.png"} <= set(rows_of(out))


def test_a_photograph_that_no_longer_reads_loses_its_old_maps(folder, weights, tmp_path):
    out = tmp_path / "maps"
    command.predict_folder(folder, out, weights=weights)
    (folder / "good.png").write_bytes(b"no longer an image")
    command.predict_folder(folder, out, weights=weights)
    assert rows_of(out)["good.png"]["status"] == "failed"
    assert not list(out.glob("good_*")) and list(out.glob("grey_*"))


def test_masks_among_the_photographs_are_left_out(folder, weights, tmp_path, capsys):
    for bad in ("cut.png", "black.png"):
        (folder / bad).unlink()
    shape = images.read_photograph(folder / "good.png").shape[:2]
    mask = np.zeros(shape, bool)
    mask[20:30] = True
    images.write_png(folder / "good_1stHO.png", mask)
    status = main(
        ["predict", str(folder), "--out", str(tmp_path / "maps"), "--weights", str(weights)]
    )
    assert status == 0 and "1 masks left out" in capsys.readouterr().out
    assert rows_of(tmp_path / "maps")["good_1stHO.png"]["status"] == "left out"
    assert not list((tmp_path / "maps").glob("good_1stHO_*"))


def test_maps_and_hidden_folders_are_no_photographs(folder, weights, tmp_path, asked):
    shutil.copytree(folder / "left eyes", folder / ".thumbnails")
    command.predict_folder(folder / "good.png", folder / "maps", weights=weights)
    asked.clear()
    command.predict_folder(folder, folder / "new", weights=weights)
    assert sorted(asked) == [
        "Größe 1.png",
        "black.png",
        "cut.png",
        "good.png",
        "grey.png",
        "tiny.png",
    ]
    with pytest.raises(RetinaError, match="holds maps of an earlier call"):
        command.predict_folder(folder / "maps", tmp_path / "other", weights=weights)


def test_a_network_out_of_memory_costs_one_photograph(folder, weights, tmp_path, monkeypatch):
    real = command.predict_image

    def small(network, image, fov, **rest):
        if image.shape[:2] != (40, 40):
            raise RuntimeError("out of memory")
        return real(network, image, fov, **rest)

    monkeypatch.setattr(command, "predict_image", small)
    found = {
        o.name: o.status for o in command.predict_folder(folder, tmp_path / "maps", weights=weights)
    }
    assert found["tiny.png"] == "done" and found["good.png"] == "failed"


def test_a_full_disk_stops_and_keeps_what_is_done(folder, weights, tmp_path, monkeypatch, capsys):
    real, out = images.write_png, tmp_path / "maps"

    def full(path, array):
        if path.name == "grey_overlay.png":
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, array)

    monkeypatch.setattr(images, "write_png", full)
    assert main(["predict", str(folder), "--out", str(out), "--weights", str(weights)]) == 2
    assert "No space left" in capsys.readouterr().err
    assert rows_of(out)["good.png"]["status"] == "done" and "grey.png" not in rows_of(out)


def test_a_spoilt_summary_costs_time_only(folder, weights, tmp_path, asked):
    out = tmp_path / "maps"
    out.mkdir()
    (out / "summary.csv").write_bytes("name,status\nGr\xf6\xdfe.png,done\n".encode("latin-1"))
    command.predict_folder(folder / "good.png", out, weights=weights)
    assert asked == ["good.png"] and set(rows_of(out)) == {"good.png"}


def test_masks_are_looked_for_in_the_photographs_own_sub_folder(folder, weights, tmp_path):
    shutil.copyfile(folder / "good.png", folder / "left eyes" / "good.png")
    root, files = command.find_photographs(folder, tmp_path / "maps")
    fovs = tmp_path / "fovs"
    images.write_png(fovs / "good_fov.png", np.ones((4, 4), bool))
    images.write_png(fovs / "Größe 1_mask.png", np.ones((4, 4), bool))
    found = command.find_fov_files(fovs, root, files)
    assert found == {
        folder / "good.png": fovs / "good_fov.png",
        folder / "left eyes" / "Größe 1.png": fovs / "Größe 1_mask.png",
    }
    with pytest.raises(RetinaError, match="no such folder"):
        command.find_fov_files(tmp_path / "missing", root, files)
    with pytest.raises(RetinaError, match="bears the name"):
        command.find_fov_files(folder / "left eyes", root, [folder / "grey.png"])


def test_two_photographs_of_one_name_are_refused(folder, weights, tmp_path, capsys):
    Image.open(folder / "good.png").save(folder / "good.jpg")
    assert main(["predict", str(folder), "--out", str(tmp_path), "--weights", str(weights)]) == 2
    assert "would write the same files" in capsys.readouterr().err


def test_the_threshold_of_a_run_is_found_beside_its_weights(weights, tmp_path):
    inside = tmp_path / "run" / "weights" / "unet_best.pth"
    (tmp_path / "run").mkdir()
    inside.parent.mkdir()
    shutil.copyfile(weights, inside)
    network = load_network(inside)
    without = replace(network, threshold=None)

    def write(sha256, chosen_on="validation"):
        threshold = Threshold(0.37, chosen_on, "dice")
        Results({}, threshold, {}, {"sha256": sha256}).write(tmp_path / "run")

    write(network.sha256)
    assert command.find_threshold(without, inside)[1].endswith("on validation photographs")
    write("def")
    value, origin = command.find_threshold(without, inside)
    assert value == 0.37 and "for other weights" in origin
    assert command.find_threshold(replace(network, threshold=0.4), inside)[0] == 0.4
    assert command.find_threshold(replace(network, threshold=0.4), inside, 0.2)[0] == 0.2
    promising = replace(network, threshold=0.4, facts={"promise": 0.1})
    assert command.find_threshold(promising, inside)[0] == command.EXPECTED_DICE
    assert command.find_threshold(promising, inside, command.USUAL)[0] == 0.4
    adapted = replace(promising, facts={"promise": 0.1, "cut": command.USUAL})
    assert command.find_threshold(adapted, inside)[0] == 0.4
    assert command.find_threshold(without, weights)[0] == 0.5
    write("def", "the weights' own training")  # of other weights, which the run was given
    assert command.find_threshold(without, inside)[0] == 0.5


def predict(folder, out, weights, *options):
    return main(["predict", str(folder), "--out", str(out), "--weights", str(weights), *options])


def test_two_calls_at_once_keep_out_of_one_folder_and_a_crash_lets_go(
    folder, weights, tmp_path, capsys
):
    out = tmp_path / "maps"
    other = (
        "import sys, time; from retina_utils.machine.files import lock_folder\n"
        "with lock_folder(sys.argv[1]): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", other, out], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        assert predict(folder / "good.png", out, weights) == 2
        assert "another command is writing into it" in capsys.readouterr().err
        assert not (out / "predict.json").exists()
        process.kill()
    assert predict(folder / "good.png", out, weights) == 0


def test_pictures_of_the_page_that_are_gone_are_made_anew_without_the_network(
    folder, weights, tmp_path, asked
):
    out = tmp_path / "maps"
    predict(folder / "good.png", out, weights)
    before = {path: path.read_bytes() for path in parts_of(out, "good.png")}
    shutil.rmtree(out / "index_files")
    asked.clear()
    predict(folder / "good.png", out, weights)
    assert {path: path.read_bytes() for path in before} == before and not asked


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, ""), (1.4, ""), (40, " · about 40 s left"), (125, " · about 2 min left"),
     (4000, " · about 67 min left"), (7300, " · about 2 h left")],
)  # fmt: skip
def test_the_time_left_is_told_in_words(seconds, words):
    assert command.about(seconds) == words


def test_maps_of_another_folder_are_not_overwritten(folder, weights, tmp_path, capsys):
    out, other = tmp_path / "maps", tmp_path / "other"
    other.mkdir()
    Image.open(folder / "good.png").rotate(90).save(other / "good.png")
    assert predict(folder / "good.png", out, weights) == 0
    before = (out / "good_vessels.png").read_bytes()
    assert predict(other, out, weights) == 2
    assert "holds the maps of another folder" in capsys.readouterr().err
    assert (out / "good_vessels.png").read_bytes() == before
    (tmp_path / "link").symlink_to(folder)
    assert predict(tmp_path / "link" / "good.png", out, weights) == 0
    (out / "predict.json").write_text("{")
    assert predict(folder / "good.png", out, weights) == 2
    assert "damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("delimiter", "encoding"),
    [(";", "utf-8-sig"), (",", "utf-8-sig"), ("\t", "utf-16"), (";", "cp1252")],
)
def test_a_summary_saved_by_a_spreadsheet_is_read(
    folder, weights, tmp_path, asked, delimiter, encoding
):
    out = tmp_path / "maps"
    command.predict_folder(folder, out, weights=weights)
    before, (head, *rows) = rows_of(out), csv.reader((out / "summary.csv").open(encoding="utf-8"))
    if delimiter == ";":
        at = [head.index(key) for key in ("fov_share", "vessel_share", "threshold", "seconds")]
        rows = [[c.replace(".", ",") if k in at else c for k, c in enumerate(r)] for r in rows]
    with (out / "summary.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows([head, *rows])
    asked.clear()
    command.predict_folder(folder / "good.png", out, weights=weights)
    assert not asked and rows_of(out) == before  # of those that failed, too
    assert not list(out.glob("summary.*-*"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace(",done,", ",DONE!,", 1),
        lambda text: text.replace("fingerprint", "f"),
        lambda text: text.replace(",0.5,", ",5. Jan,", 1),
        lambda text: text + text.splitlines()[1] + "\n",
        lambda text: text.splitlines()[0] + "\n" + '"good.png,done,a; b"\n',
        lambda text: text + "x" * 200_000 + "\n",
    ],
)
def test_a_summary_that_cannot_be_read_is_set_aside(
    folder, weights, tmp_path, asked, capsys, spoil
):
    out = tmp_path / "maps"
    predict(folder / "good.png", out, weights)
    spoilt = spoil((out / "summary.csv").read_text(encoding="utf-8"))
    for n in (1, 2):
        (out / "summary.csv").write_text(spoilt, encoding="utf-8")
        asked.clear()
        assert predict(folder / "good.png", out, weights) == 0
        assert f"it is now summary.unread-{n}.csv" in capsys.readouterr().err
        assert (out / f"summary.unread-{n}.csv").read_text(encoding="utf-8") == spoilt
        assert asked == ["good.png"] and set(rows_of(out)) == {"good.png"}


def test_lines_that_are_left_out_are_told(folder, weights, tmp_path, capsys):
    out = tmp_path / "maps"
    predict(folder, out, weights)
    for file in (*out.glob("grey_*"), folder / "grey.png", folder / "cut.png"):
        file.unlink()
    capsys.readouterr()
    predict(folder / "good.png", out, weights)
    assert "2 lines of summary.csv left out" in capsys.readouterr().out
    assert {"good.png", "black.png"} <= set(rows_of(out)) and "cut.png" not in rows_of(out)


@pytest.mark.parametrize("error", [struct.error("short"), TypeError(), KeyError("x"), IndexError()])
def test_whatever_one_photograph_raises_is_its_own_failure(
    folder, weights, tmp_path, monkeypatch, capsys, error
):
    real = command.find_fov

    def raising(image):
        if image.shape[:2] == (40, 40):
            raise error
        return real(image)

    monkeypatch.setattr(command, "find_fov", raising)
    assert predict(folder, tmp_path / "maps", weights) == 1
    said = capsys.readouterr()
    assert "3 done, 3 failed" in said.out and type(error).__name__ in said.err
    assert type(error).__name__ in rows_of(tmp_path / "maps")["tiny.png"]["message"]


def test_names_that_no_table_holds_or_no_disk_takes_cost_one_photograph(
    folder, weights, tmp_path, capsys
):
    good, out = (folder / "good.png").read_bytes(), tmp_path / "maps"
    source = tmp_path / "names"
    source.mkdir()
    fits, long = "n" * 232 + ".png", "m" * 245 + ".png"
    for name in (fits, long, "caf\udce9.png", "a\x1b[2J\r.png", "b\nc.png", "o.png"):
        (source / name).write_bytes(good)
    clear = np.zeros((90, 90, 4), np.uint8)
    Image.fromarray(clear).save(source / "clear.png")
    assert predict(source, out, weights) == 1
    said, rows = capsys.readouterr(), rows_of(out)
    assert "4 done, 3 failed" in said.out and "\x1b" not in (said.out + said.err).replace(
        "\x1b[A", ""
    )
    assert rows[fits]["status"] == "done" and "too long" in rows[long]["message"]
    assert "is no UTF-8" in rows["caf\\udce9.png"]["message"]
    assert "transparent" in rows["clear.png"]["message"]
    assert rows["a\x1b[2J\r.png"]["status"] == rows["b\nc.png"]["status"] == "done"
    assert str(tmp_path) not in (out / "summary.csv").read_text(encoding="utf-8")
    assert predict(source, out, weights) == 1 and "4 were done before" in capsys.readouterr().out


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_console_that_lacks_letters_gets_escapes(folder, weights, tmp_path, encoding):
    source = tmp_path / "names"
    source.mkdir()
    shutil.copyfile(folder / "cut.png", source / "眼睛.png")
    Image.open(folder / "good.png").save(source / "ok ☺.png")
    arguments = ["predict", source, "--out", tmp_path / "眼", "--weights", weights]
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "retina_utils.commands", *arguments],
        env=environment, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 1 and b"Traceback" not in done.stderr
    assert b"\\u773c\\u775b.png: failed" in done.stderr and b"are in" in done.stdout


def test_the_record_tells_no_place_and_no_name_of_a_user(folder, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    out, record = tmp_path / "maps", tmp_path / "maps" / "predict.json"
    predict(folder / "good.png", out, weights)
    told = json.loads(record.read_text(encoding="utf-8"))
    assert told["weights"] == weights.name and len(told["weights_sha256"]) == 64
    assert "predict .../good.png --out .../maps" in told["command"]
    assert not re.search(r"(?<!\.\.\.)/\w", told["command"])
    assert "RETINA_COMMAND" not in os.environ
    made = f'make predict IMAGES="{folder}" OUT="{out}" ARGS="--fov {tmp_path}/x\x1b"'
    monkeypatch.setenv("RETINA_COMMAND", made)
    predict(folder / "good.png", out, weights)
    told = record.read_text(encoding="utf-8")
    assert str(tmp_path) not in told and "\x1b" not in json.loads(told)["command"]
    assert os.environ["RETINA_COMMAND"] == made


def test_while_one_is_in_the_network_others_are_read_and_written_but_three_at_most(
    folder, weights, tmp_path, monkeypatch
):
    for n in range(6):
        shutil.copyfile(folder / "good.png", folder / f"good {n}.png")
    real, now, most, networks = command.predict_photograph, [0], [0], set()
    real_network, inside = command.predict_image, threading.Event()

    def noting(predict, call, photograph):
        now[0] += 1
        most[0] = max(most[0], now[0])
        if now[0] > 1:
            inside.set()
        try:
            return real(predict, call, photograph)
        finally:
            now[0] -= 1

    def network(*given, **how):
        networks.add(threading.get_ident())
        assert inside.wait(20)  # another photograph is at work meanwhile
        return real_network(*given, **how)

    monkeypatch.setattr(command, "predict_photograph", noting)
    monkeypatch.setattr(command, "predict_image", network)
    found = command.predict_folder(folder, tmp_path / "maps", weights=weights)
    assert 2 <= most[0] <= 3 and len(networks) == 1
    assert [o.name for o in found] == [
        file.relative_to(folder).as_posix()
        for file in command.find_photographs(folder, tmp_path / "maps")[1]
    ]


def test_a_call_that_is_killed_loses_the_photographs_in_flight_only(folder, weights, tmp_path):
    for n in range(30):
        shutil.copyfile(folder / "good.png", folder / f"good {n}.png")
    out, journal = tmp_path / "maps", tmp_path / "maps" / ".summary.journal"
    given = ["predict", folder, "--out", out, "--weights", weights]
    with subprocess.Popen([sys.executable, "-m", "retina_utils.commands", *given]) as process:
        while not (journal.exists() and journal.read_bytes().count(b"\n") > 4):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    done = journal.read_bytes().count(b"\n")
    assert len(rows_of(out)) >= 0.9 * done - 1
    found = command.predict_folder(folder, out, weights=weights)
    assert len(rows_of(out)) == len(found) == 36 and not journal.exists()
    assert sum(outcome.status == "done" for outcome in found) == 34


def test_a_photograph_may_have_a_threshold_of_its_own_and_says_what_to_expect(
    folder, tmp_path, capsys
):
    for name in ("cut.png", "black.png", "tiny.png"):
        (folder / name).unlink()
    out = tmp_path / "maps"
    assert main(["predict", str(folder), "--out", str(out), "--threshold", "expected"]) == 0
    said = capsys.readouterr().out
    rows = rows_of(out)
    assert len({row["threshold"] for row in rows.values()}) > 1 and len(rows) == 3
    for name, row in rows.items():
        stem = str(Path(name).with_suffix(""))
        probability = images.read_probability(out / f"{stem}_probability.png")
        vessels = images.read_binary(out / f"{stem}_vessels.png")
        threshold, dice = float(row["threshold"]), float(row["expected_dice"])
        assert threshold == pytest.approx(dice / 2, abs=0.01)  # Lipton et al. 2014
        assert (
            np.array_equal(vessels, probability >= threshold)
            or abs(vessels.sum() - (probability >= threshold).sum()) < 0.01 * vessels.sum()
        )  # the table rounds to four digits
    poor = sum(float(row["expected_dice"]) < 0.7 for row in rows.values())
    assert (f"{poor} expect a Dice below 0.7" in said) == (poor > 0)
    again = ["predict", str(folder), "--out", str(out), "--threshold", "0.5"]
    assert main(again) == 0
    assert {row["threshold"] for row in rows_of(out).values()} == {"0.5"}
    with pytest.raises(SystemExit):
        main([*again[:-1], "often"])


def measures_in(out):
    with (out / "measures.csv").open(newline="", encoding="utf-8") as file:
        return {row["photograph"]: row for row in csv.DictReader(file)}


def test_measures_have_a_line_for_each_map_and_are_kept(folder, weights, tmp_path, asked):
    out = tmp_path / "maps"
    command.predict_folder(folder, out, weights=weights, spacing=7.5)
    done = {name for name, row in rows_of(out).items() if row["status"] == "done"}
    found = measures_in(out)
    assert found.keys() == done
    one = found["good.png"]
    share = float(rows_of(out)["good.png"]["vessel_share"])
    assert float(one["density"]) == pytest.approx(share, abs=1e-3)
    assert float(one["density_low"]) <= float(one["density"]) <= float(one["density_high"])
    assert float(one["length_um"]) == pytest.approx(7.5 * float(one["length_px"]), rel=1e-4)
    asked.clear()
    command.predict_folder(folder, out, weights=weights, spacing=7.5)
    assert not {"good.png", "grey.png"} & set(asked) and measures_in(out) == found
    (out / "measures.csv").write_text("photograph\n", encoding="utf-8")
    command.predict_folder(folder, out, weights=weights, spacing=7.5)
    assert measures_in(out) == found


def test_a_failing_measure_is_a_flag_and_ends_nothing(folder, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "measure_map", lambda *_: 1 / 0)
    out = tmp_path / "maps"
    command.predict_folder(folder, out, weights=weights)
    row = rows_of(out)["good.png"]
    assert row["status"] == "done" and "not measured: ZeroDivisionError" in row["flags"]
    assert measures_in(out)["good.png"]["density"] == ""
    command.predict_folder(folder, tmp_path / "none", weights=weights, measures=False)
    assert not (tmp_path / "none" / "measures.csv").exists()
    with pytest.raises(RetinaError, match="spacing -1"):
        command.predict_folder(folder, out, weights=weights, spacing=-1)
