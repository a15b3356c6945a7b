"""Pairs are found by name and checked; nobody stands in two splits."""

import shutil

import numpy as np
import pytest
from conftest import TINY, save

from retina_utils import data, images
from retina_utils.data import DataError, load_data, load_pairs
from retina_utils.intake.people import person_of


def test_the_embedded_data_loads_and_no_person_is_in_two_splits():
    splits = load_data(TINY)
    assert [len(pairs) for pairs in splits] == [8, 2, 4]
    people = [{pair.person for pair in pairs} for pairs in splits]
    assert not (people[0] & people[1] or people[0] & people[2] or people[1] & people[2])
    assert all(pair.fov for pairs in splits for pair in pairs)


def test_the_starting_notebooks_layout_loads_too(folder):
    expected = load_data(folder)
    for split, short in {"training": "train", "validation": "validation", "test": "test"}.items():
        (folder / split / "images").rename(folder / split / f"{short}_x")
        (folder / split / "masks").rename(folder / split / f"{short}_y")
        for file in (folder / split / f"{short}_y").iterdir():  # FIVES: the very same name
            file.rename(file.with_name(file.name.replace("_mask", "")))
    found = load_data(folder)
    assert [[p.name for p in pairs] for pairs in found] == [[p.name for p in q] for q in expected]


def test_every_problem_is_listed_at_once_with_its_file_and_a_remedy(folder):
    train = folder / "training"
    (train / "masks" / "a_mask.png").unlink()
    save(train / "masks" / "b_mask.png", np.zeros((9, 9), np.uint8))
    save(train / "masks" / "zz_mask.png", np.eye(9, dtype=np.uint8))
    (folder / "test" / "images" / "d.png").write_text("text")
    with pytest.raises(DataError) as caught:
        load_data(folder)
    message = str(caught.value)
    assert len(caught.value.problems) == 4 and "4 problems" in message
    for words in (
        "a.png: has no mask",
        "b_mask.png: every pixel is 0",
        "zz_mask.png: belongs to no",
        "d.png: cannot be read as an image",
    ):
        assert words in message


def test_a_mask_of_another_size_names_both_sizes(folder):
    vessels = np.zeros((20, 24), bool)
    vessels[5] = True
    images.write_png(folder / "test" / "masks" / "d_mask.png", vessels)
    with pytest.raises(DataError, match=r"d_mask\.png: is 24x20 pixels, .* d\.png is 48x40"):
        load_data(folder)


def test_two_files_for_one_photograph_are_refused(folder):
    train = folder / "training"
    shutil.copy(train / "masks" / "a_mask.png", train / "masks" / "a.png")
    shutil.copy(train / "images" / "b.png", train / "images" / "b.bmp")
    with pytest.raises(DataError, match="has 2 vessels files") as caught:
        load_data(folder)
    assert "b.bmp, b.png share one name" in str(caught.value)


def test_one_photograph_in_two_splits_is_found_by_its_pixels(folder):
    pixels = images.read_photograph(folder / "training" / "images" / "a.png")
    images.write_png(folder / "test" / "images" / "renamed.png", pixels)
    for part in ("masks", "fov"):
        suffix = {"masks": "_mask", "fov": "_fov"}[part]
        shutil.copy(
            folder / "training" / part / f"a{suffix}.png",
            folder / "test" / part / f"renamed{suffix}.png",
        )
    with pytest.raises(DataError, match="the same photograph, in test and train"):
        load_data(folder)


def test_a_person_in_two_splits_is_refused(folder):
    (folder / "people.csv").write_text("name,person\na,p1\nb,p2\nc,p3\nd,p1\n")
    with pytest.raises(DataError, match="person p1: has photographs in test and train"):
        load_data(folder)


def test_an_empty_split_and_a_missing_folder_are_refused(folder):
    for file in (folder / "test").rglob("*.png"):
        file.unlink()
    with pytest.raises(DataError, match=r"no photograph found\. An empty split"):
        load_data(folder)
    shutil.rmtree(folder / "test")
    with pytest.raises(DataError, match=r"test split: found no folder\. Expected test/"):
        load_data(folder)
    with pytest.raises(DataError, match="no such folder"):
        load_data(folder / "nowhere")


def test_pairs_without_splits_are_checked_the_same(folder):
    pairs = load_pairs(folder / "training")
    assert [(pair.name, pair.split, bool(pair.fov)) for pair in pairs] == [
        ("a", "given", True),
        ("b", "given", True),
    ]
    (folder / "training" / "people.csv").write_text("name,person\na,p1\nb,P1\n")
    assert {pair.person for pair in load_pairs(folder / "training")} == {"p1"}
    (folder / "training" / "masks" / "b_mask.png").unlink()
    with pytest.raises(DataError, match=r"b\.png: has no mask"):
        load_pairs(folder / "training")


def test_validation_is_carved_out_by_person_the_same_way_each_time(tiny, capsys):
    shutil.rmtree(tiny / "validation")
    first, second, other = load_data(tiny), load_data(tiny), load_data(tiny, seed=5)
    assert first == second and first != other
    assert len(first.train) == 6 and len(first.validation) == 2
    assert not {p.person for p in first.train} & {p.person for p in first.validation}
    assert "1 of 4 training people set aside" in capsys.readouterr().out


def test_both_eyes_of_a_person_are_recognised_by_name():
    assert person_of("Image_05L") == person_of("Image_05R") == "Image_05"
    assert person_of("12_left") == person_of("12_OD") == "12"
    assert person_of("448_G") == "448_G"


def test_splits_survive_their_file(tmp_path):
    splits = load_data(TINY)
    data.write_splits(tmp_path / "splits.csv", splits, TINY)
    assert data.read_splits(tmp_path / "splits.csv", TINY) == splits


# --- Who is whose ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("1234567_21015_0_0", "1234567_21016_0_0"),
        ("P001_OD_20240131", "P001_OS_20240302"),
        ("OD_001", "OS_001"),
        ("p3_LE", "p3_RE"),
        ("patient 3 L", "patient 3 R"),
        ("smith_left", "smith_right"),
        ("smithLeft", "smithRight"),
        ("P1_L_v1", "P1_R_v2"),
        ("smith_20240131_L", "smith_2024-03-02_R"),
        ("müller_links", "müller_rechts"),
        ("patient_OD_001", "patient_OS_001"),
        ("07-od-1", "07-os-1"),
        ("Image_05L", "Image_05R"),
    ],
)
def test_both_eyes_are_one_persons_wherever_the_name_tells_the_eye(left, right):
    assert person_of(left) == person_of(right) not in (left, right)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("01_h", "02_h"),
        ("01_h", "01_g"),
        ("image_r12", "image_r13"),
        ("train_1_A", "train_2_A"),
        ("left", "right"),
        ("OD_001", "OD_002"),
        ("patient_OD_001", "patient_OS_002"),
        ("20240131_L", "20240302_L"),
        ("21_training", "22_training"),
        ("1234567_21017_0_0", "1234567_21018_0_0"),
        ("colour_1", "color_1"),
        ("smith_left", "miller_left"),
    ],
)
def test_names_that_tell_no_person_are_not_merged(one, other):
    assert person_of(one) != person_of(other)


def rename(folder, split, old, new):
    for part, suffix in {"images": "", "masks": "_mask", "fov": "_fov"}.items():
        file = folder / split / part / f"{old}{suffix}.png"
        file.rename(file.with_name(f"{new}{suffix}.png"))


@pytest.mark.parametrize("names", [("p3_LE", "P3_re"), ("77_21015_0_0", "77_21016_1_0")])
def test_a_persons_eyes_in_two_splits_are_refused_by_their_names(folder, names):
    rename(folder, "training", "a", names[0])
    rename(folder, "test", "d", names[1])
    with pytest.raises(DataError, match="has photographs in test and train"):
        load_data(folder)


def test_where_nothing_tells_the_persons_it_is_said_once(folder, tiny, capsys):
    load_data(tiny)
    assert capsys.readouterr().out == ""  # people.csv names everybody
    load_data(folder)
    out = capsys.readouterr().out
    assert out.count("every photograph is counted as its own person") == 1
    assert "4 of 4 photographs are (a, b, c, d)" in out


def test_a_line_counts_that_names_a_person_as_another_photograph_is_named(folder):
    (folder / "people.csv").write_text("name,person\nd,a\n")
    with pytest.raises(DataError, match="person a: has photographs in test and train"):
        load_data(folder)


# --- people.csv --------------------------------------------------------------------------------

PEOPLE = "name,person\né,p1\nb,p2\nc,p3\nd,p1\n"


@pytest.mark.parametrize(
    "content",
    [
        PEOPLE.encode(),
        PEOPLE.encode("utf-8-sig"),
        PEOPLE.encode("utf-16"),
        PEOPLE.encode("utf-16-be").join([b"\xfe\xff", b""]),
        PEOPLE.encode("cp1252"),
        PEOPLE.replace(",", ";").replace("\n", "\r\n").encode("cp1252"),
        b"sep=;\r\n" + PEOPLE.replace(",", ";").encode("cp1252"),
        PEOPLE.replace(",", "\t").encode("utf-16"),
        PEOPLE.replace("é", "e\u0301").encode(),  # as macOS writes it
        "Person , NAME,eye\n P1,É.PNG ,l\np2,b.jpg,\np3,c,\np1,images/d.png\n,,\n".encode(),
    ],
)
def test_people_csv_is_read_as_spreadsheets_save_it(folder, content):
    rename(folder, "training", "a", "é")
    (folder / "people.csv").write_bytes(content)
    with pytest.raises(DataError, match=r"(?i)person p1: has photographs in test and train") as e:
        load_data(folder)
    assert len(e.value.problems) == 1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,person\nzz,p1\n", r"names zz, but there is no such photograph"),
        (b"name,person\na,\n", r"the line 'a,' has no person"),
        (b"name,person\n,p1\n", r"the line ',p1' has no name"),
        (b"name,person\na,p1\nA.png,p2\n", r"says p1 and p2 of A\.png"),
        (b"photograph,who\na,p1\n", r"begins with 'photograph,who'\. Expected .* name,person"),
        (b"", r"begins with ''"),
        (b"PK\x03\x04\x81\x8d\x8f\x00\xff", r"Expected CSV with columns name,person"),
        (b"\xff\xfe\x00", r"Expected CSV with columns name,person"),
        (b'name,person\na,"' + b"p" * 200_000, r"Expected CSV with columns name,person"),
    ],
)
def test_what_people_csv_cannot_mean_is_a_problem_and_no_traceback(folder, content, words):
    (folder / "people.csv").write_bytes(content)
    with pytest.raises(DataError, match=words):
        load_data(folder)


def test_a_line_too_many_is_only_named_where_every_photograph_has_its_own(folder, capsys):
    lines = "".join(f"{name},p{name}\n" for name in "abcdz")
    (folder / "people.csv").write_text(f"name,person\n{lines}")
    load_data(folder)
    assert "names z, but there is no such photograph" in capsys.readouterr().out


# --- Folders and files ---------------------------------------------------------------------------


def test_folders_are_found_in_any_case(folder):
    (folder / "training" / "images").rename(folder / "training" / "Images")
    (folder / "test" / "masks").rename(folder / "test" / "MASKS")
    (folder / "validation").rename(folder / "Validation")
    assert [len(pairs) for pairs in load_data(folder)] == [2, 1, 1]


def test_both_layouts_at_once_and_a_foreign_name_are_one_sentence_each(folder):
    (folder / "training" / "train_x").mkdir()
    (folder / "test" / "images").rename(folder / "test" / "pictures")
    with pytest.raises(DataError, match=r"holds both images and train_x\. Expected exactly") as e:
        load_data(folder)
    assert len(e.value.problems) == 2
    assert "neither images nor test_x" in str(e.value) and "pictures" in str(e.value)


def test_one_file_for_two_photographs_is_refused(folder):
    train = folder / "training"
    shutil.copy(train / "images" / "b.png", train / "images" / "a_mask.png")
    with pytest.raises(DataError, match=r"a_mask\.png: belongs to a and to a_mask\."):
        load_data(folder)


def test_a_link_to_nothing_is_named(folder):
    (folder / "training" / "images" / "e.png").symlink_to(folder / "gone.png")
    with pytest.raises(DataError, match=r"e\.png: is a link to nothing"):
        load_data(folder)


def test_what_lies_beside_the_photographs_unread_is_counted_and_named_once(folder, capsys):
    images_dir = folder / "training" / "images"
    (images_dir / "x.eps").write_bytes(b"")
    (images_dir / "notes.docx").write_bytes(b"")
    (images_dir / "camera 2").mkdir()
    (images_dir / "linked").symlink_to(folder / "test" / "images")
    for name in (".DS_Store", "Thumbs.db"):
        (images_dir / name).write_bytes(b"")
    (images_dir / "@eaDir").mkdir()
    load_data(folder)
    out = capsys.readouterr().out
    assert out.count("not read") == 1
    assert "images: 4 not read: camera 2, linked, notes.docx, x.eps." in out


@pytest.mark.parametrize("with_fov", [True, False])
def test_a_black_photograph_is_found_before_anything_runs(folder, with_fov):
    images.write_png(folder / "test" / "images" / "d.png", np.zeros((40, 48, 3), np.uint8))
    if not with_fov:
        shutil.rmtree(folder / "test" / "fov")
    with pytest.raises(DataError, match=r"d\.png: (is black|no field of view)"):
        load_data(folder)


@pytest.mark.parametrize("layout", [data.load_data, None], ids=["folders", "suffixes"])
def test_the_files_said_to_be_read_are_those_that_are_read(folder, monkeypatch, layout):
    if layout is None:
        for split, name in (("training", "train"), ("validation",) * 2, ("test",) * 2):
            (folder / split / "images").rename(folder / split / f"{name}_x")
            (folder / split / "masks").rename(folder / split / f"{name}_y")
            (folder / split / "fov").rename(folder / split / f"{name}_fov")
    (folder / "people.csv").write_text("name,person\na,1\nb,2\nc,3\nd,4\n")
    (folder / "training" / "other").mkdir()
    (folder / "training" / "other" / "e.png").write_bytes(b"")
    read = {folder / "people.csv"}
    for name in ("read_photograph", "read_binary"):
        true = getattr(data, name)

        def spy(path, *rest, true=true):
            read.add(path)
            return true(path, *rest)

        monkeypatch.setattr(data, name, spy)
    data.load_data(folder)
    assert data.files_read(folder) == sorted(read) and len(read) == 13
