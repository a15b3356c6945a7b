"""The ledger: which photographs, people and cameras took part, and who says so."""

import csv
import pickle
import shutil

import numpy as np
import pytest
import torch
from conftest import TINY
from PIL import Image

from retina_utils import RetinaError, data, images, models
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands.folder import predict_and_tell
from retina_utils.datasets import ledger
from retina_utils.datasets.catalogue import SOURCES
from retina_utils.fov import find_fov
from retina_utils.patches import Preparation

PREPARATION = Preparation(patch_size=64, stride=64, fov_diameter=96)


def network_with(facts):
    return Network(models.UNet(widths=[2, 4]), PREPARATION, 0.5, facts)


@pytest.fixture(scope="module")
def splits():
    return data.load_data(TINY)


@pytest.fixture(scope="module")
def weights(splits, tmp_path_factory):
    """A network that was trained on the training photographs of data/tiny, saved."""
    kept = ledger.write_down(training=splits.train, threshold=splits.validation)
    path = tmp_path_factory.mktemp("weights") / "net.pt"
    save_network(path, network_with({"data": "tiny", "ledger": kept}))
    return path


@pytest.fixture
def book(weights):
    return ledger.Ledger.of(load_network(weights))


def seen(book, file):
    image = images.read_photograph(file)
    return book.seen(image, find_fov(image))


def copied(source, file, **how):
    """A photograph saved again under another name."""
    with Image.open(source) as image:
        size = [n // how.pop("smaller", 1) for n in image.size]
        image.resize(size).save(file, **how)
    return file


@pytest.mark.parametrize("name", ["renamed.png", "other.tif", "other.bmp"])
def test_the_same_pixels_are_known_by_any_name_and_in_any_format(book, splits, tmp_path, name):
    file = copied(splits.train[2].image, tmp_path / name)
    assert seen(book, file) == "trained on"


@pytest.mark.parametrize(
    "how", [{"quality": 30}, {"smaller": 2, "quality": 90}, {"smaller": 2, "quality": 50}]
)
def test_a_copy_that_lost_something_is_known_too(book, splits, tmp_path, how):
    for pair in splits.train[:4]:
        file = copied(pair.image, tmp_path / f"{pair.name}.jpg", **dict(how))
        assert seen(book, file) == "trained on (a copy)"


def test_a_photograph_that_chose_the_threshold_is_no_training_photograph(book, splits):
    assert seen(book, splits.validation[0].image) == "chose the threshold"


def test_other_photographs_and_plain_or_tiny_ones_are_not_taken_for_copies(book, splits):
    assert not any(seen(book, pair.image) for pair in splits.test)
    for size in (30, 300):
        plain, fov = np.full((size, size, 3), 90, np.uint8), np.ones((size, size), bool)
        own = ledger.look_at(plain, fov)
        assert own.pixels and not any(own.sketch) and book.seen(plain, fov) == ""


def test_two_plain_photographs_are_no_copies_of_each_other():
    fov = np.ones((300, 300), bool)
    one, other = (ledger.look_at(np.full((300, 300, 3), n, np.uint8), fov) for n in (80, 90))
    entries = np.array([(*one, 0, 0, 1)], ledger.ENTRY)
    assert ledger.Ledger(entries, [""]).find([one, other]) == [(0, ""), None]


def test_people_and_camera_are_known_by_other_photographs_of_the_folder(splits):
    *some, last = splits.train  # two photographs a person
    kept = ledger.write_down(training=some, threshold=[])
    words = ledger.Ledger.of_facts(kept).compare([*splits.train, *splits.test])
    assert words[: len(some)] == ["trained on"] * len(some)
    assert some[-1].person == last.person and words[len(some)] == "person trained on"
    assert set(words[len(some) + 1 :]) == {"camera trained on"}


def imported(tiny, name, title):
    """A copy of data/tiny that passes for a public data set."""
    folder = tiny.with_name(name)
    shutil.copytree(tiny, folder)
    (folder / "SOURCE.md").write_text(f"# {title}\n")
    return data.load_data(folder)


def test_a_person_of_a_public_data_set_is_known_without_the_photographs_of_the_training(tiny):
    there = imported(tiny, "a", "CHASE_DB1").train
    kept = ledger.write_down(training=there[:1], threshold=[])
    book = ledger.Ledger.of_facts(kept)
    assert book.compare(there[1:3]) == ["person trained on", "camera trained on"]
    hrf = imported(tiny, "b", "HRF (High-Resolution Fundus)").train
    assert book.compare(hrf[1:3]) == ["none", "none"]


def test_those_that_chose_the_recipe_are_noted_even_where_they_trained_nothing(tiny, monkeypatch):
    there = imported(tiny, "a", "CHASE_DB1")
    tuned = SOURCES["chase_db1"]._replace(tuned=["p01"])
    monkeypatch.setitem(SOURCES, "chase_db1", tuned)
    own = data.load_data(tiny).train
    kept = ledger.write_down(training=own[4:], threshold=[], others=there.train)
    words = ledger.Ledger.of_facts(kept).compare(there.train[:4])
    assert words == ["chose the recipe"] * 2 + ["camera chose the recipe"] * 2
    assert ledger.in_short(words) == "camera chose the recipe (2), chose the recipe (2)"


def test_of_two_sets_of_ones_own_nothing_is_claimed(splits, tmp_path):
    kept = ledger.write_down(training=splits.train, threshold=[])
    other = [pair._replace(image=tmp_path / "x" / "y" / pair.image.name) for pair in splits.test]
    (tmp_path / "x" / "y").mkdir(parents=True)
    for pair, old in zip(other, splits.test, strict=True):
        shutil.copy(old.image, pair.image)
    words = ledger.Ledger.of_facts(kept).compare(other)
    assert set(words) == {"not known"}
    assert "Of their people and camera nothing is known" in ledger.in_words(words)


def test_scores_are_said_to_be_no_test_where_photographs_were_trained_on(weights, splits):
    network = load_network(weights)
    clean = ledger.took_part(network, splits)
    assert clean.words == (
        "These weights were trained on tiny. None of these 4 test photographs or their people took "
        "part in training, or chose threshold or recipe. Others of their camera were trained on."
    )
    assert clean.each["validation"][splits.validation[0].name] == "chose the threshold"
    swapped = splits._replace(test=[p._replace(split="test") for p in splits.train])
    loud = ledger.took_part(network, swapped).words
    assert "THESE SCORES ARE NO TEST: Of these 8 test photographs: 8 trained on." in loud
    some = ledger.in_words(["trained on (a copy)", "camera trained on", "person trained on"])
    assert "1 trained on, 1 person trained on" in some and "NO TEST" in some


def test_validation_photographs_choose_the_threshold_of_weights_that_bring_none(splits):
    kept = ledger.write_down(training=splits.train, threshold=[])
    without = Network(None, PREPARATION, None, {"ledger": kept})
    chose = ledger.took_part(without, splits).each["validation"]
    assert set(chose.values()) == {"chose the threshold"}


def test_a_checkpoint_without_a_ledger_opens_and_says_that_nothing_is_known(splits, tmp_path):
    save_network(tmp_path / "old.pt", network_with({"data": "mine"}))
    network = load_network(tmp_path / "old.pt")
    assert ledger.Ledger.of(network) is None
    told = ledger.took_part(network, splits)
    assert told.words.startswith("Not known which photographs") and "They name mine" in told.words
    assert told.each["test"][splits.test[0].name] == "not known"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda kept: kept | {"photographs": kept["photographs"][:, 1:]},
        lambda kept: kept | {"photographs": kept["photographs"].float()},
        lambda kept: kept | {"photographs": torch.zeros_like(kept["photographs"])},
        lambda kept: kept | {"photographs": "none"},
        lambda kept: kept | {"titles": []},
        lambda kept: kept | {"titles": [7]},
        lambda kept: [],
    ],
)
def test_a_damaged_ledger_is_told_in_one_sentence(weights, spoil):
    network = load_network(weights)
    with pytest.raises(RetinaError, match="ledger: damaged"):
        ledger.Ledger.of(network_with({"ledger": spoil(network.facts["ledger"])}))


def test_a_ledger_names_nobody_and_no_file(weights, splits):
    content = load_network(weights).facts["ledger"]
    raw = content["photographs"].numpy().tobytes()
    assert content["titles"] == [""] and content["photographs"].shape == (10, 90)
    for pair in [*splits.train, *splits.validation]:
        assert pair.name.encode() not in raw and pair.person.encode() not in raw
    people = ledger.Ledger.of_facts(content).entries["person"]
    assert sorted(set(people)) == list(range(5))


def test_ten_thousand_photographs_are_told_apart_and_travel_light():
    rng = np.random.default_rng(0)
    entries = np.frombuffer(rng.bytes(90 * 10_000), ledger.ENTRY).copy()
    entries["roles"], entries["set"] = 1, 0
    book, looks = ledger.Ledger(entries, [""]), []
    for entry in entries[:1000]:
        looks.append(ledger.Look(rng.bytes(16), entry["sketch"].tobytes()))
    assert book.find(looks) == [(place, ledger.COPY) for place in range(1000)]
    assert len(pickle.dumps(book)) < 1_000_000


def test_make_predict_says_what_was_seen(weights, splits, tmp_path, capsys):
    files, out = tmp_path / "photographs", tmp_path / "maps"
    files.mkdir()
    first, last = splits.train[0].image, splits.test
    copied(first, files / "P7_OD.tif")
    copied(splits.validation[0].image, files / "b.png")
    copied(last[0].image, files / "P7_OS.png")
    copied(last[1].image, files / "P8_OS.png")
    assert predict_and_tell(str(files), str(out), weights=weights, flips=False) == 0
    said = capsys.readouterr().out
    assert "1 trained on" in said and "1 same person?" in said and "no test" in said
    with (out / "summary.csv").open(newline="") as file:
        told = {row["name"]: row["seen"] for row in csv.DictReader(file)}
    assert told == {
        "P7_OD.tif": "trained on",
        "P7_OS.png": "same person?",
        "P8_OS.png": "",
        "b.png": "chose the threshold",
    }
    predict_and_tell(str(files), str(out), weights=weights, flips=False)
    said = capsys.readouterr().out
    assert "4 were done before" in said and "1 same person?" in said


def test_make_predict_says_that_nothing_is_known(splits, tmp_path, capsys):
    save_network(tmp_path / "old.pt", network_with({}))
    photograph = str(splits.test[0].image)
    predict_and_tell(photograph, str(tmp_path / "maps"), weights=tmp_path / "old.pt", flips=False)
    assert "Not known which photographs these weights were trained on" in capsys.readouterr().out
