"""Pairs are found by name and checked; nobody stands in two splits."""

import shutil

import numpy as np
import pytest
from conftest import TINY, save

from retina_utils import data, images
from retina_utils.data import DataError, load_data


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


def test_validation_is_carved_out_by_person_the_same_way_each_time(tiny, capsys):
    shutil.rmtree(tiny / "validation")
    first, second, other = load_data(tiny), load_data(tiny), load_data(tiny, seed=5)
    assert first == second and first != other
    assert len(first.train) == 6 and len(first.validation) == 2
    assert not {p.person for p in first.train} & {p.person for p in first.validation}
    assert "1 of 4 training people set aside" in capsys.readouterr().out


def test_both_eyes_of_a_person_are_recognised_by_name():
    assert data.person_of("Image_05L") == data.person_of("Image_05R") == "Image_05"
    assert data.person_of("12_left") == data.person_of("12_OD") == "12"
    assert data.person_of("448_G") == "448_G"


def test_splits_survive_their_file(tmp_path):
    splits = load_data(TINY)
    data.write_splits(tmp_path / "splits.csv", splits, TINY)
    assert data.read_splits(tmp_path / "splits.csv", TINY) == splits
