"""Importing tiny imitations of the official downloads."""

import csv
import gzip
import hashlib
import re
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retina_utils import RetinaError, data
from retina_utils.commands.__main__ import main
from retina_utils.datasets.download import import_data
from retina_utils.images import read_binary

HEIGHT, WIDTH = 60, 64


def disc():
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.hypot(y - 30, x - 32) < 26


def draw(path, seed=0, shape=(HEIGHT, WIDTH)):
    """A photograph that no other name or seed gives."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, *path.name.encode()])
    image = disc()[..., None] * (np.array([180, 80, 40]) + rng.integers(-20, 20, 3))
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


def make_drive(folder, training=range(21, 41), test=range(1, 21), annotated=True):
    for part, numbers in (("training", training), ("test", test)):
        for number in numbers:
            person, inside = f"{number:02d}", folder / part
            draw(inside / "images" / f"{person}_{part}.tif", number)
            if part == "training" or annotated:
                annotate(inside / "1st_manual" / f"{person}_manual1.gif", 20, "L")
            if part == "test" and annotated:
                annotate(inside / "2nd_manual" / f"{person}_manual2.gif", 21, "L")
            (inside / "mask").mkdir(exist_ok=True)
            fov = Image.fromarray(disc()).convert("L")
            fov.save(inside / "mask" / f"{person}_{part}_mask.gif")
    return folder


def make_fives(folder, train=("1_A", "2_D", "3_G", "4_N", "5_A", "6_D"), test=("1_A", "2_D")):
    for number, (part, name) in enumerate(
        [("train", name) for name in train] + [("test", name) for name in test]
    ):
        draw(folder / part / "Original" / f"{name}.png", number)
        annotate(folder / part / "Ground truth" / f"{name}.png", 20 + number, "RGB")
    Path(folder, "Quality Assessment.xlsx").write_text("not read")
    return folder


# The 20 photographs of STARE that are annotated.
STARE = (1, 2, 3, 4, 5, 44, 77, 81, 82, 139, 162, 163, 235, 236, 239, 240, 255, 291, 319, 324)


def make_stare(folder, numbers=STARE):
    for number in numbers:
        name = f"im{number:04d}"
        draw(folder / "stare-images" / f"{name}.ppm", number)
        annotate(folder / "labels-ah" / f"{name}.ah.ppm", 20, "RGB")
        annotate(folder / "labels-vk" / f"{name}.vk.ppm", 21, "RGB")
    return folder


PART = {  # of each download: five people, one of them in the usual test split where it has a folder
    "chase_db1": lambda folder: make_chase(folder, range(1, 6)),
    "drive": lambda folder: make_drive(folder, range(21, 25), [1]),
    "fives": lambda folder: make_fives(folder, ("1_A", "2_D", "3_G", "4_N"), ["1_A"]),
    "hrf": lambda folder: make_hrf(folder, range(1, 6)),
    "stare": lambda folder: make_stare(folder, STARE[:5]),
}


def gzipped(folder):
    """Every file in the folder gzipped in place."""
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    return folder


def tarred(folder, ending=".tar", prefix=""):
    path = folder.with_name(folder.name + ending)
    with tarfile.open(path, "w:gz" if ending.endswith("gz") else "w") as archive:
        archive.add(folder, prefix or ".")
    return path


def zipped(folder, prefix=""):
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(f for f in folder.rglob("*") if f.is_file()):
            archive.write(file, prefix + file.relative_to(folder).as_posix())
    return path


def names(out, split, kind="images"):
    return sorted(f.name for f in (out / split / kind).iterdir())


def everyone(out):
    with (out / "people.csv").open(newline="") as file:
        return {row["name"]: row["person"] for row in csv.DictReader(file)}


def people(out, split):
    person = everyone(out)
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
    assert len(a) == 3 + 4 * 6 and a.keys() == b.keys()
    assert {k for k in a if a[k] != b[k]} <= {"SOURCE.md", "checksums.csv"}
    assert hashlib.sha256(archive.read_bytes()).hexdigest() in b["SOURCE.md"].decode()


@pytest.mark.parametrize("pack", [zipped, tarred, lambda f: tarred(f, ".tar.gz", "around/it")])
@pytest.mark.parametrize("dataset", PART)
def test_every_data_set_is_read_from_every_container(tmp_path, dataset, pack):
    download = PART[dataset](tmp_path / "download")
    import_data(dataset, download, tmp_path / "a")
    import_data(dataset, pack(download), tmp_path / "b")
    a, b = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert a.keys() == b.keys()
    assert {k for k in a if a[k] != b[k]} <= {"SOURCE.md", "checksums.csv"}
    read = data.load_data(tmp_path / "b")
    assert {len({pair.person for pair in part}) for part in read} == {1, 3}
    assert {pair.name for part in read for pair in part} == set(everyone(tmp_path / "b"))


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
    for test, validation in ((["01"], ()), (["02", "03"], ["05"]), ((), ["05"])):
        chosen = {"test_people": test, "validation_people": validation}
        import_data("hrf", download, tmp_path / "out", **chosen, force=True)
        parts = [people(tmp_path / "out", s) for s in ("training", "validation", "test")]
        assert sum(len(part) for part in parts) == len(set.union(*parts)) == 5
        assert parts[2] == set(test or ["04"])
        assert parts[1] == set(validation or ["05"])


def test_whoever_belongs_to_the_usual_test_split_is_not_trained_on_in_a_part_either(tmp_path):
    out = tmp_path / "out"
    summary = import_data("chase_db1", make_chase(tmp_path / "download", range(8, 13)), out)
    assert people(out, "test") == {"11", "12"}
    assert "the usual split" in summary and "only 10 of 28" in summary


def test_validation_people_are_spread_over_the_numbers(tmp_path):
    train, test = [f"{n}_A" for n in range(10, 40)], ["1_A"]
    out = tmp_path / "out"
    import_data("fives", make_fives(tmp_path / "download", train, test), out)
    assert people(out, "validation") == {"train_19_A", "train_29_A", "train_39_A"}


def test_the_split_stands_in_people_csv(tmp_path):
    out = tmp_path / "out"
    import_data("hrf", make_hrf(tmp_path / "download", range(1, 4)), out)
    with (out / "people.csv").open(newline="") as file:
        split = {row["name"]: row["split"] for row in csv.DictReader(file)}
    assert split["01_dr"] == "train" and split["02_h"] == "validation" and split["03_g"] == "test"
    read = data.load_data(out)
    assert split == {pair.name: pair.split for part in read for pair in part}


def test_people_that_are_not_there_or_asked_for_twice_are_refused(tmp_path):
    download = make_hrf(tmp_path / "download", range(1, 6))
    with pytest.raises(RetinaError, match="no 77 in this download; it has 01, 02"):
        import_data("hrf", download, tmp_path / "out", test_people=["77"])
    with pytest.raises(RetinaError, match="02 cannot be both"):
        import_data("hrf", download, tmp_path / "out", test_people=["02"], validation_people=["02"])
    with pytest.raises(RetinaError, match="leave a split empty"):
        four = ["01", "02", "03", "04"]
        import_data("hrf", download, tmp_path / "out", test_people=four, validation_people=["05"])
    assert not (tmp_path / "out").exists()


def test_a_member_that_would_be_written_outside_is_refused(tmp_path):
    for number, bad in enumerate(
        ("../evil.txt", "/evil.txt", "a\\..\\..\\evil.txt", "C:/evil.txt")
    ):
        archive = zipped(make_chase(tmp_path / f"download{number}", range(1, 4)))
        with zipfile.ZipFile(archive, "a") as file:
            file.writestr(bad, "x")
        with pytest.raises(RetinaError, match="outside"):
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
    with pytest.raises(RetinaError, match=words):
        import_data("chase_db1", archive, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


def test_another_data_set_is_refused_with_what_was_found(tmp_path):
    with pytest.raises(RetinaError, match=r"no photograph of HRF.*Image_01L\.jpg"):
        import_data("hrf", make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out")
    with pytest.raises(RetinaError, match="'driv' is unknown; expected one of chase_db1, drive, f"):
        import_data("driv", tmp_path, tmp_path / "out")
    with pytest.raises(RetinaError, match="no such folder or archive"):
        import_data("hrf", tmp_path / "nowhere", tmp_path / "out")


# --- DRIVE ---------------------------------------------------------------------------------------


def test_the_complete_drive_download_gets_its_usual_split(tmp_path):
    out = tmp_path / "out"
    summary = import_data("drive", make_drive(tmp_path / "download"), out)
    assert people(out, "test") == {f"{n:02d}" for n in range(1, 21)}
    assert people(out, "validation") == {"30", "40"}
    assert "Left out" not in summary and "only" not in summary
    page = (out / "SOURCE.md").read_text(encoding="utf-8")
    assert "not to be redistributed" in page and "annotations of 20 are in `second/`" in page
    np.testing.assert_array_equal(
        read_binary(out / "test" / "fov" / "01_test_fov.png", "fov"), disc()
    )
    first, second = (
        read_binary(out / "test" / kind / f"01_test_{name}.png")
        for kind, name in (("masks", "mask"), ("second", "second"))
    )
    assert np.flatnonzero(first.any(1))[0] == 20 and np.flatnonzero(second.any(1))[0] == 21
    assert not (out / "training" / "second").exists()
    assert "45 degrees" in page


def test_drive_without_test_annotations_is_split_anew_and_says_so(tmp_path):
    out = tmp_path / "out"
    summary = import_data("drive", make_drive(tmp_path / "download", annotated=False), out)
    assert people(out, "test") == {"37", "38", "39", "40"}
    assert people(out, "validation") == {"28", "36"}
    assert "not the usual split" in summary and "last fifth" in summary
    assert "as test: 37, 38, 39, 40" in summary
    assert "Left out, 20 photographs without annotation in this download" in summary
    assert "01_test, 02_test" in summary and "20_test." in summary
    assert summary.split("\nWritten")[0] in (out / "SOURCE.md").read_text(encoding="utf-8")
    assert [len(part) for part in data.load_data(out)] == [14, 2, 4]


def test_a_training_annotation_that_is_missing_from_drive_is_an_error(tmp_path):
    download = make_drive(tmp_path / "download", range(21, 26), range(1, 3))
    (download / "training" / "1st_manual" / "22_manual1.gif").unlink()
    (download / "test" / "mask" / "01_test_mask.gif").unlink()
    with pytest.raises(RetinaError) as error:
        import_data("drive", download, tmp_path / "out")
    assert "2 problem(s)" in str(error.value)
    assert "training/1st_manual/22_manual1.gif is missing" in str(error.value)
    assert "test/mask/01_test_mask.gif is missing" in str(error.value)


@pytest.mark.parametrize("pack", [zipped, tarred])
@pytest.mark.parametrize("prefix", ["own", ""])
def test_the_archives_inside_drives_archive_are_opened(tmp_path, pack, prefix):
    make_drive(tmp_path / "plain", range(21, 25), range(1, 3))
    (tmp_path / "outer").mkdir()
    for part in ("training", "test"):
        inner = pack(tmp_path / "plain" / part, prefix=prefix and f"{part}/")
        inner.rename(tmp_path / "outer" / inner.name)
    for source in (tmp_path / "outer", zipped(tmp_path / "outer", "DRIVE/")):
        out = tmp_path / f"out{source.suffix}"
        import_data("drive", source, out)
        assert [len(part) for part in data.load_data(out)] == [3, 1, 2]


# --- FIVES ---------------------------------------------------------------------------------------


def test_a_fives_number_that_stands_in_both_sets_is_two_people(tmp_path):
    out = tmp_path / "out"
    summary = import_data("fives", make_fives(tmp_path / "download"), out)
    assert people(out, "test") == {"test_1_A", "test_2_D"}
    assert people(out, "validation") == {"train_6_D"}
    assert names(out, "test") == ["test_1_A.png", "test_2_D.png"]
    assert names(out, "training", "masks")[0] == "train_1_A_mask.png"
    assert "the usual split" in summary and "only 8 of 800 photographs are imported" in summary
    assert "different people" in summary
    assert "50 degrees" in (out / "SOURCE.md").read_text(encoding="utf-8")
    assert [len(part) for part in data.load_data(out)] == [5, 1, 2]


def test_the_bad_files_of_fives_are_named_and_left_out(tmp_path):
    train = ("174_D", "447_G", "448_G", *(f"{n}_N" for n in range(451, 457)))
    download, out = make_fives(tmp_path / "download", train), tmp_path / "out"
    black = Image.new("RGB", (WIDTH, HEIGHT))
    for name in ("447_G", "448_G"):
        black.save(download / "train" / "Ground truth" / f"{name}.png")
    summary = import_data("fives", download, out)
    assert "2 photographs with a blank annotation: train_447_G, train_448_G." in summary
    assert "1 photograph known to have a wrong annotation: train_174_D." in summary
    assert summary.split("\nWritten")[0] in (out / "SOURCE.md").read_text(encoding="utf-8")
    assert [len(part) for part in data.load_data(out)] == [5, 1, 2]
    assert not list(out.rglob("*174_D*")) and not list(out.rglob("*44[78]_G*"))


def test_a_blank_file_of_fives_that_is_not_an_image_is_an_error(tmp_path):
    download = make_fives(tmp_path / "download")
    (download / "train" / "Ground truth" / "3_G.png").write_bytes(b"")
    with pytest.raises(RetinaError, match=r"train/Ground truth/3_G\.png: cannot be read"):
        import_data("fives", download, tmp_path / "out")


def test_a_rar_file_has_to_be_unpacked_first(tmp_path):
    (tmp_path / "FIVES.rar").write_bytes(b"Rar!\x1a\x07\x01\x00")
    (tmp_path / "renamed.zip").write_bytes(b"Rar!\x1a\x07\x01\x00")
    for source in ("FIVES.rar", "renamed.zip", ""):
        with pytest.raises(RetinaError, match=r"(?i)unpack it first, then give the folder"):
            import_data("fives", tmp_path / source, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


# --- STARE ---------------------------------------------------------------------------------------


def test_stare_is_split_in_half_and_says_that_leave_one_out_is_usual_too(tmp_path):
    out = tmp_path / "out"
    summary = import_data("stare", make_stare(tmp_path / "download"), out)
    assert people(out, "test") == {f"{n:04d}" for n in STARE[10:]}
    assert people(out, "validation") == {"0139"}
    assert "first 10 photographs and last 10" in summary and "leave-one-out" in summary
    assert names(out, "training")[:2] == ["im0001.ppm", "im0002.ppm"]
    assert "35 degrees" in (out / "SOURCE.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("ending", ["", ".tar", ".tgz"])
def test_stare_is_read_as_it_is_offered_three_tar_files_of_gzipped_members(tmp_path, ending):
    plain = make_stare(tmp_path / "plain")
    import_data("stare", plain, tmp_path / "a")
    packed = gzipped(make_stare(tmp_path / "packed"))
    if ending:
        for part in ("stare-images", "labels-ah", "labels-vk"):
            archive = tarred(packed / part, ending)
            with tarfile.open(archive) as file:
                assert not any(part in name for name in file.getnames())  # no folder in it
            for member in (packed / part).iterdir():
                member.unlink()
            (packed / part).rmdir()
    import_data("stare", packed, tmp_path / "b")
    a, b = everything(tmp_path / "a"), everything(tmp_path / "b")
    assert len(a) == 3 + 20 * 4 and a.keys() == b.keys()
    assert {k for k in a if a[k] != b[k]} <= {"SOURCE.md", "checksums.csv"}


def test_the_photographs_of_stare_alone_lack_their_labels(tmp_path):
    images = make_stare(tmp_path / "download") / "stare-images"
    with pytest.raises(RetinaError, match=r"labels-vk/im0324\.vk\.ppm is missing"):
        import_data("stare", tarred(images), tmp_path / "out")


@pytest.mark.parametrize("what", ["stare-images.tar", "im0003.ah.ppm.gz"])
def test_a_truncated_part_of_stare_is_refused_before_anything_is_written(tmp_path, what):
    packed = gzipped(make_stare(tmp_path / "packed"))
    tarred(packed / "stare-images")
    for member in (packed / "stare-images").iterdir():
        member.unlink()
    part = next(packed.rglob(what))
    part.write_bytes(part.read_bytes()[: part.stat().st_size // 2])
    with pytest.raises(RetinaError, match=rf"{what}: not a complete (tar|gzip) file"):
        import_data("stare", packed, tmp_path / "new" / "out")
    assert not (tmp_path / "new").exists()


# --- Problems ------------------------------------------------------------------------------------


def test_every_missing_file_is_listed_at_once(tmp_path):
    download = make_hrf(tmp_path / "download", range(1, 4))
    (download / "manual1" / "01_h.tif").unlink()
    (download / "mask" / "02_dr_mask.tif").unlink()
    with pytest.raises(RetinaError) as error:
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
    with pytest.raises(RetinaError) as error:
        import_data("chase_db1", download, tmp_path / "new" / "out")
    text = str(error.value)
    assert "4 problem(s), nothing was written" in text  # both observers of 01L
    assert "Image_01L_1stHO.png: is 64x60 pixels, its photograph Image_01L.jpg is 32x30" in text
    assert "Image_02R.jpg: cannot be read" in text and "Image_03L_2ndHO.png: every pixel" in text
    assert not (tmp_path / "new").exists()


def test_every_photograph_without_a_fov_is_listed_at_once_and_nothing_is_written(tmp_path):
    download = make_chase(tmp_path / "download", range(1, 4))
    for name in ("Image_01L.jpg", "Image_03R.jpg"):
        Image.new("RGB", (WIDTH, HEIGHT)).save(download / name)
    with pytest.raises(RetinaError, match=r"2 problem\(s\), nothing was written") as error:
        import_data("chase_db1", download, tmp_path / "new" / "out")
    assert "Image_01L.jpg: no field of view" in str(error.value)
    assert "Image_03R.jpg: no field of view" in str(error.value)
    assert not (tmp_path / "new" / "out").exists()


def test_an_existing_import_is_replaced_only_by_force(tmp_path):
    download, out = make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out"
    import_data("chase_db1", download, out)
    (out / "stale.txt").write_text("x")
    with pytest.raises(RetinaError, match=r"exists already.*--force"):
        import_data("chase_db1", download, out)
    import_data("chase_db1", download, out, force=True)
    assert not (out / "stale.txt").exists()
    assert sorted(f.name for f in tmp_path.iterdir()) == ["download", "out"]


def test_force_leaves_alone_what_no_import_made(tmp_path):
    download, out = make_chase(tmp_path / "download", range(1, 4)), tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("x")
    with pytest.raises(RetinaError, match="was not made by an import"):
        import_data("chase_db1", download, out, force=True)
    with pytest.raises(RetinaError, match="the download itself lies there"):
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

    writing = ["retina_utils.datasets.download.write_csv"]
    monkeypatch.setattr(*(writing if step == "writing" else (Path, "rename")), fail)
    with pytest.raises(OSError, match="disk full"):
        import_data("chase_db1", download, out, force=True)
    assert everything(out) == before
    assert sorted(f.name for f in tmp_path.iterdir()) == ["download", "out"]


def test_the_command_line_prints_the_split_or_one_clear_message(tmp_path, capsys):
    download, out = str(make_hrf(tmp_path / "download", range(1, 6))), str(tmp_path / "out")
    assert main(["import-data", "hrf", download, "--out", out, "--test-people", "01,02"]) == 0
    printed = capsys.readouterr().out
    assert "test         6 photographs, people 01, 02" in printed and "command line" in printed
    assert main(["import-data", "hrf", download, "--out", out]) == 2
    assert re.match(r"import-data: .*exists already", capsys.readouterr().err)


def renamed(folder, change):
    """Every file of a folder under a changed path."""
    for file in sorted(f for f in folder.rglob("*") if f.is_file()):
        target = folder / change(file.relative_to(folder).as_posix())
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    return folder


@pytest.mark.parametrize(
    ("dataset", "change"),
    [
        ("chase_db1", lambda name: name.replace(".jpg", ".JPG")),
        ("chase_db1", lambda name: name.replace("1stHO", "1stho").replace(".jpg", ".Jpg")),
        ("drive", lambda name: name.replace(".tif", ".TIF").replace("1st_manual", "1st manual")),
        ("fives", lambda name: name.replace("Ground truth", "Ground Truth")),
        ("fives", lambda name: name.replace("Ground truth", "ground_truth")),
        ("fives", lambda name: name.replace("Ground truth", "GroundTruth ")),
        ("hrf", lambda name: name.replace(".tif", ".TIF").replace(".JPG", ".jpg")),
        ("stare", lambda name: name.upper().replace("STARE-IMAGES/IM", "stare-images/im")),
    ],
)
def test_case_and_spaces_of_a_copys_names_do_not_matter(tmp_path, dataset, change):
    import_data(dataset, PART[dataset](tmp_path / "one"), tmp_path / "a")
    import_data(dataset, renamed(PART[dataset](tmp_path / "two"), change), tmp_path / "b")
    assert everyone(tmp_path / "a") == everyone(tmp_path / "b")
    a, b = everything(tmp_path / "a"), everything(tmp_path / "b")
    masks = [name for name in a if "/masks/" in name]
    assert len(masks) >= 5 and all(a[name] == b[name] for name in masks)


def test_a_wrong_annotation_is_known_in_capitals_as_well(tmp_path):
    make_fives(tmp_path / "d", ("1_A", "2_D", "3_G", "174_d"), ["1_A"])
    summary = import_data("fives", tmp_path / "d", tmp_path / "out")
    assert "Left out, 1 photograph known to have a wrong annotation: train_174_d." in summary


def test_two_photographs_or_annotations_that_differ_in_case_alone_are_refused(tmp_path):
    download = make_chase(tmp_path / "d", range(1, 6))
    draw(download / "Image_01L.JPG", 9)
    draw(download / "Image_02L_1stho.png", 9)
    (download / "Image_02L_1stHO.png").rename(download / "Image_02L_1STHO.png")
    with pytest.raises(RetinaError, match=r"(?s)2 problem.*") as caught:
        import_data("chase_db1", download, tmp_path / "out")
    assert "Image_01L.jpg: another photograph is called Image_01L, too" in str(caught.value)
    assert "Image_02L_1STHO.png and Image_02L_1stho.png: expected one" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_damaged_tar_file_leaves_nothing_behind(tmp_path):
    archive = tarred(make_chase(tmp_path / "d", range(1, 6)), ".tar.gz")
    content = bytearray(archive.read_bytes())
    content[-6] ^= 1
    archive.write_bytes(content)
    with pytest.raises(RetinaError, match=r"d\.tar\.gz: not a complete tar file"):
        import_data("chase_db1", archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
