"""`make predict`: what is written, what is skipped, what is done again."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from retina_utils import images, metrics, models, predict

TINY = Path(__file__).parent.parent / "data" / "tiny" / "test" / "images"
PREPARATION = {"patch_size": 64, "stride": 64, "fov_diameter": 96}


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    models.save_model(path, models.UNet(widths=[2, 4]), preparation=PREPARATION, threshold=0.5)
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


def test_every_good_photograph_gets_its_three_files_and_bad_ones_a_word(
    folder, weights, tmp_path, capsys
):
    out = tmp_path / "maps"
    status = predict.main([str(folder), "--out", str(out), "--weights", str(weights)])
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
    row, fov = rows["good.png"], predict.find_fov(image)
    assert not probability[~fov].any()
    assert ((vessels > 0) == (metrics.decide(probability, 0.5) & fov)).all()
    assert int(row["fov_area"]) == fov.sum() and float(row["threshold"]) == 0.5
    assert float(row["vessel_share"]) == pytest.approx((vessels > 0).sum() / fov.sum(), abs=1e-4)
    assert (out / "left eyes" / "Größe 1_overlay.png").exists()


def test_a_second_call_does_only_what_has_changed(folder, weights, tmp_path, monkeypatch):
    out, asked = tmp_path / "maps", []
    real = predict.predict_file
    monkeypatch.setattr(
        predict, "predict_file", lambda m, file, *a: asked.append(file.name) or real(m, file, *a)
    )

    def call(**options):
        asked.clear()
        predict.predict_folder(folder, out, weights, **options)
        return sorted(set(asked) - {"cut.png", "black.png"})

    everything = ["Größe 1.png", "good.png", "grey.png", "tiny.png"]
    assert call() == everything
    before = rows_of(out)
    assert call() == [] and rows_of(out) == before
    (out / "good_overlay.png").unlink()
    Image.open(folder / "grey.png").rotate(90).save(folder / "grey.png")
    assert call() == ["good.png", "grey.png"]
    assert call(threshold=0.3) == everything
    assert call(threshold=0.3, flips=False) == everything
    other = models.UNet(widths=[2, 4])
    models.save_model(weights.with_name("other.pt"), other, preparation=PREPARATION, threshold=0.3)
    asked.clear()
    predict.predict_folder(folder, out, weights.with_name("other.pt"), flips=False)
    assert set(everything) <= set(asked)


def test_a_call_that_was_cut_off_goes_on(folder, weights, tmp_path, monkeypatch):
    out, real, asked = tmp_path / "maps", predict.predict_file, []

    def stop_at_tiny(model, file, *rest):
        asked.append(file.name)
        if file.name == "tiny.png":
            raise KeyboardInterrupt
        return real(model, file, *rest)

    monkeypatch.setattr(predict, "predict_file", stop_at_tiny)
    command = [str(folder), "--out", str(out), "--weights", str(weights)]
    assert predict.main(command) == 130
    assert {"good.png", "grey.png"} <= set(rows_of(out))
    asked.clear()
    monkeypatch.setattr(
        predict, "predict_file", lambda m, file, *a: asked.append(file.name) or real(m, file, *a)
    )
    assert predict.main(command) == 1
    assert "good.png" not in asked and "tiny.png" in asked
    assert not list(out.rglob("*.tmp"))


def test_the_outline_leaves_the_vessels_to_be_seen():
    image = np.full((60, 60, 3), 90, np.uint8)
    vessels = np.zeros((60, 60), bool)
    vessels[28:32, 10:50] = True
    picture = predict.draw_outline(image, vessels, np.ones_like(vessels))
    assert (picture[vessels] == 90).all()
    assert (picture[27, 10:50] == predict.OUTLINE).all() and (picture[20] == 90).all()


def test_own_fov_masks_are_used(folder, weights, tmp_path):
    shape = images.read_photograph(folder / "good.png").shape[:2]
    half = np.zeros(shape, bool)
    half[:, : shape[1] // 2] = True
    images.write_png(tmp_path / "fovs" / "good_fov.png", half)
    predict.predict_folder(
        folder / "good.png", tmp_path / "maps", weights, fov_folder=tmp_path / "fovs"
    )
    assert int(rows_of(tmp_path / "maps")["good.png"]["fov_area"]) == half.sum()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: {"out": folder}, "choose another OUT"),
        (lambda folder: {"images": folder / "missing"}, "no such file or folder"),
        (lambda folder: {"weights": folder / "missing.pt"}, "no such checkpoint"),
        (lambda folder: {"threshold": "1.5"}, "between 0 and 1"),
    ],
)
def test_what_cannot_begin_says_why_and_writes_nothing(
    folder, weights, tmp_path, capsys, change, words
):
    given = {"images": folder, "out": tmp_path / "maps", "weights": weights, "threshold": "0.5"}
    given |= change(folder)
    images_given = str(given.pop("images"))
    options = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    assert predict.main([images_given, *options]) == 2
    assert words.lower() in capsys.readouterr().err.lower()
    assert not (tmp_path / "maps").exists() and not (folder / "summary.csv").exists()


def test_two_photographs_of_one_name_are_refused(folder, weights, tmp_path, capsys):
    Image.open(folder / "good.png").save(folder / "good.jpg")
    assert predict.main([str(folder), "--out", str(tmp_path), "--weights", str(weights)]) == 2
    assert "would write the same files" in capsys.readouterr().err


def test_the_threshold_of_a_run_is_found_beside_its_weights(weights, tmp_path):
    inside = tmp_path / "run" / "weights" / "unet_best.pth"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.json").write_text('{"threshold": {"value": 0.37}}')
    assert predict.find_threshold(inside, {}, None)[0] == 0.37
    assert predict.find_threshold(inside, {"threshold": 0.4}, None)[0] == 0.4
    assert predict.find_threshold(inside, {"threshold": 0.4}, 0.2)[0] == 0.2
    assert predict.find_threshold(weights, {}, None)[0] == 0.5
