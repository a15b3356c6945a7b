"""Importing tiny imitations of the official downloads."""

import csv
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_utils import sources
from retina_utils.images import read_binary
from retina_utils.sources import SourceError, import_data

HEIGHT, WIDTH = 60, 64


def disc():
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.hypot(y - 30, x - 32) < 26


def draw(path, seed=0, shape=(HEIGHT, WIDTH)):
    """A photograph that no other seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = disc()[..., None] * np.array([180, 80, 40]) - (seed % 20)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).resize(shape[::-1]).save(path)


def annotate(path, row=20, mode="1"):
    path.parent.mkdir(parents=True, exist_ok=True)
    vessels = np.zeros((HEIGHT, WIDTH), bool)
    vessels[row : row + 3] = True
    Image.fromarray(vessels).convert(mode).save(path)


def make_chase(folder, children=range(1, 15)):
    for child in children:
        for eye in "LR":
            draw(folder / f"Image_{child:02d}{eye}.jpg", child)
            annotate(folder / f"Image_{child:02d}{eye}_1stHO.png", 20)
            annotate(folder / f"Image_{child:02d}{eye}_2ndHO.png", 21)
    return folder


def make_hrf(folder, numbers=range(1, 16)):
    for number in numbers:
        for kind, ending in (("h", "jpg"), ("g", "jpg"), ("dr", "JPG")):
            name = f"{number:02d}_{kind}"
            draw(folder / "images" / f"{name}.{ending}", number)
            annotate(folder / "manual1" / f"{name}.tif", 20, "L")
            (folder / "mask").mkdir(exist_ok=True)
            fov = Image.fromarray(disc()).convert("RGB")
            fov.save(folder / "mask" / f"{name}_mask.tif")
    return folder


def zipped(folder, prefix=""):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def names(out, split, kind="images"):
    return sorted(f.name for f in (out / split / kind).iterdir())


def people(out, split):
    with (out / "people.csv").open(newline="") as file:
        person = {row["name"]: row["person"] for row in csv.DictReader(file)}
    return {person[name.rsplit(".", 1)[0]] for name in names(out, split)}


def everything(folder):
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in folder.rglob("*.*")}


def test_the_complete_chase_download_gets_its_usual_split(tmp_path):
    out = tmp_path / "out"
    summary = import_data("chase_db1", make_chase(tmp_path / "download"), out)
    assert people(out, "test") == {"11", "12", "13", "14"}
    assert people(out, "validation") == {"10"}
    assert people(out, "training") == {f"{n:02d}" for n in range(1, 10)}
    assert "usual split" in summary and "28 photographs of 14 people" in summary


def test_a_part_of_chase_says_that_its_split_is_not_the_usual_one(tmp_path):
    out = tmp_path / "out"
    summary = import_data("chase_db1", make_chase(tmp_path / "download", range(1, 11)), out)
    assert people(out, "test") == {"09", "10"}
    assert people(out, "validation") == {"08"}
    assert "only 20 of 28" in summary and "not the usual split" in summary
    assert summary.split("\nWritten")[0] in (out / "SOURCE.md").read_text(encoding="utf-8")


def test_the_complete_hrf_download_gets_its_usual_split(tmp_path):
    out = tmp_path / "out"
    import_data("hrf", make_hrf(tmp_path / "download"), out)
    assert people(out, "test") == {f"{n:02d}" for n in range(6, 16)}
    assert people(out, "validation") == {"05"}
    assert len(names(out, "training")) == 12


def test_a_part_of_hrf_is_split_by_number(tmp_path):
    out = tmp_path / "out"
    import_data("hrf", make_hrf(tmp_path / "download", range(1, 6)), out)
    assert names(out, "test") == ["05_dr.JPG", "05_g.jpg", "05_h.jpg"]
    assert people(out, "validation") == {"04"}


def test_files_arrive_under_their_new_names_with_the_same_pixels(tmp_path):
    download, out = make_chase(tmp_path / "download"), tmp_path / "out"
    import_data("chase_db1", download, out)
    test = out / "test"
    copied, original = test / "images" / "Image_11L.jpg", download / "Image_11L.jpg"
    assert copied.read_bytes() == original.read_bytes()
    for kind, observer in (("masks", "1st"), ("second", "2nd")):
        written = test / kind / f"Image_11L_{kind.removesuffix('s')}.png"
        assert set(np.unique(np.asarray(Image.open(written)))) == {0, 255}
        expected = read_binary(download / f"Image_11L_{observer}HO.png")
        np.testing.assert_array_equal(read_binary(written), expected)
    fov = read_binary(test / "fov" / "Image_11L_fov.png", "fov")
    assert (fov & disc()).sum() / (fov | disc()).sum() > 0.95


def test_hrf_keeps_its_own_fovs(tmp_path):
    out = tmp_path / "out"
    import_data("hrf", make_hrf(tmp_path / "download", range(1, 4)), out)
    np.testing.assert_array_equal(
        read_binary(out / "test" / "fov" / "03_dr_fov.png", "fov"), disc()
    )
    assert not (out / "test" / "second").exists()


@pytest.mark.parametrize("prefix", ["", "CHASEDB1/"])
def test_a_zip_file_gives_what_its_folder_gives(tmp_path, prefix):
    download = make_chase(tmp_path / "download", range(1, 4))
    archive = zipped(download, prefix)
    import_data("chase_db1", download, tmp_path / "a")
    import_data("chase_db1", archive, tmp_path / "b")
    a, b = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert len(a) == 2 + 1 + 4 * 6 and a.keys() == b.keys()
    assert {k for k in a if a[k] != b[k]} <= {"SOURCE.md", "checksums.csv"}
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in b["SOURCE.md"].decode()


def test_a_folder_around_the_download_does_not_matter(tmp_path):
    make_hrf(tmp_path / "downloads" / "HRF", range(1, 4))
    import_data("hrf", tmp_path / "downloads", tmp_path / "out")
    assert len(names(tmp_path / "out", "training")) == 3


def test_checksums_cover_every_file(tmp_path):
    out = tmp_path / "out"
    import_data("chase_db1", make_chase(tmp_path / "download", range(1, 4)), out)
    with (out / "checksums.csv").open(newline="") as file:
        sums = {row["file"]: row["sha256"] for row in csv.DictReader(file)}
    files = everything(out)
    del files["checksums.csv"]
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in files.items()}


def test_people_never_cross_splits_whatever_is_asked_for(tmp_path):
    download = make_hrf(tmp_path / "download", range(1, 6))
    for test, validation in ((["01"], None), (["02", "03"], ["05"]), (None, ["05"])):
        import_data("hrf", download, tmp_path / "out", test, validation, force=True)
        parts = [people(tmp_path / "out", s) for s in ("training", "validation", "test")]
        assert sum(len(part) for part in parts) == len(set.union(*parts)) == 5
        assert parts[2] == set(test or ["04"])
        assert parts[1] == set(validation or ["05"])


def test_people_that_are_not_there_or_asked_for_twice_are_refused(tmp_path):
    download = make_hrf(tmp_path / "download", range(1, 6))
    with pytest.raises(SourceError, match="no 77 in this download; it has 01, 02"):
        import_data("hrf", download, tmp_path / "out", ["77"])
    with pytest.raises(SourceError, match="02 cannot be both"):
        import_data("hrf", download, tmp_path / "out", ["02"], ["02"])
    with pytest.raises(SourceError, match="leave a split empty"):
        import_data("hrf", download, tmp_path / "out", ["01", "02", "03", "04"], ["05"])
    assert not (tmp_path / "out").exists()


def test_a_member_that_would_be_written_outside_is_refused(tmp_path):
    for number, bad in enumerate(
        ("../evil.txt", "/evil.txt", "a\\..\\..\\evil.txt", "C:/evil.txt")
    ):
        archive = zipped(make_chase(tmp_path / f"download{number}", range(1, 4)))
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(bad, "x")
        with pytest.raises(SourceError, match="outside"):
            import_data("chase_db1", archive, tmp_path / "out")
    assert not list(tmp_path.rglob("evil.txt")) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "no members"])
def test_a_damaged_archive_is_refused_before_anything_is_written(tmp_path, damage):
    archive = zipped(make_chase(tmp_path / "download", range(1, 4)))
    data = bytearray(archive.read_bytes())
    if damage == "flipped":
        data[200] ^= 255
    archive.write_bytes({"truncated": data[: len(data) // 2], "empty": b""}.get(damage, data))
    if damage == "no members":
        zipfile.ZipFile(archive, "w").close()
    words = "no photograph of CHASE_DB1" if damage == "no members" else "not a complete zip file"
    with pytest.raises(SourceError, match=words):
        import_data("chase_db1", archive, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_another_data_set_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(SourceError, match=r"no photograph of HRF.*Image_01L\.jpg"):
        import_data("hrf", make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out")
    with pytest.raises(SourceError, match="'driv' is unknown; expected one of chase_db1, hrf"):
        import_data("driv", tmp_path, tmp_path / "out")
    with pytest.raises(SourceError, match="no such folder or zip file"):
        import_data("hrf", tmp_path / "nowhere", tmp_path / "out")


def test_every_missing_file_is_listed_at_once(tmp_path):
    download = make_hrf(tmp_path / "download", range(1, 4))
    (download / "manual1" / "01_h.tif").unlink()
    (download / "mask" / "02_dr_mask.tif").unlink()
    with pytest.raises(SourceError) as error:
        import_data("hrf", download, tmp_path / "out")
    assert "2 problem(s)" in str(error.value)
    assert "manual1/01_h.tif is missing" in str(error.value)
    assert "mask/02_dr_mask.tif is missing" in str(error.value)


def test_every_unusable_file_is_listed_at_once_and_nothing_is_written(tmp_path):
    download = make_chase(tmp_path / "download", range(1, 4))
    draw(download / "Image_01L.jpg", shape=(30, 32))
    photograph = download / "Image_02R.jpg"
    photograph.write_bytes(photograph.read_bytes()[:400])
    Image.new("L", (WIDTH, HEIGHT)).save(download / "Image_03L_2ndHO.png")
    with pytest.raises(SourceError) as error:
        import_data("chase_db1", download, tmp_path / "new" / "out")
    text = str(error.value)
    assert "4 problem(s), nothing was written" in text  # both observers of 01L
    assert "Image_01L_1stHO.png: 64x60 pixels, but Image_01L.jpg has 32x30" in text
    assert "Image_02R.jpg: cannot be read" in text and "Image_03L_2ndHO.png: every pixel" in text
    assert not (tmp_path / "new").exists()


def test_an_existing_import_is_replaced_only_by_force(tmp_path):
    download, out = make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out"
    import_data("chase_db1", download, out)
    (out / "stale.txt").write_text("x")
    with pytest.raises(SourceError, match=r"exists already.*--force"):
        import_data("chase_db1", download, out)
    import_data("chase_db1", download, out, force=True)
    assert not (out / "stale.txt").exists()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["download", "out"]


def test_force_leaves_alone_what_no_import_made(tmp_path):
    download, out = make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(SourceError, match="was not made by an import"):
        import_data("chase_db1", download, out, force=True)
    with pytest.raises(SourceError, match="the download itself lies there"):
        import_data("chase_db1", download, tmp_path, force=True)
    assert (out / "thesis.txt").read_text() == "x" and len(list(download.iterdir())) == 18


@pytest.mark.parametrize("step", ["writing", "renaming"])
def test_an_import_that_fails_half_way_leaves_the_old_one(tmp_path, monkeypatch, step):
    download, out = make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out"
    import_data("chase_db1", download, out)
    before, rename = everything(out), Path.rename

    def fail(path, *arguments):
        if path.name.endswith(".old") or (path == out and step == "renaming"):
            return rename(path, *arguments)
        raise OSError("disk full")

    monkeypatch.setattr(*((sources, "_write_csv") if step == "writing" else (Path, "rename")), fail)
    with pytest.raises(OSError, match="disk full"):
        import_data("chase_db1", download, out, force=True)
    assert everything(out) == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["download", "out"]


def test_the_command_line_prints_the_split_or_one_clear_message(tmp_path, capsys):
    download, out = str(make_hrf(tmp_path / "download", range(1, 6))), str(tmp_path / "out")
    sources.main(["hrf", download, "--out", out, "--test-people", "01,02"])
    printed = capsys.readouterr().out
    assert "test         6 photographs, people 01, 02" in printed and "command line" in printed
    with pytest.raises(SystemExit, match=r"import-data: .*exists already"):
        sources.main(["hrf", download, "--out", out])


@pytest.mark.parametrize("dataset", sources.SOURCES)
def test_every_source_says_who_made_it_and_under_which_licence(dataset):
    entry = sources.SOURCES[dataset]
    assert entry.citation and entry.licence and entry.url.startswith("https://")
