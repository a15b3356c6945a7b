"""The public data sets, and which of their photographs a network has seen."""

import pytest

from retina_utils.checkpoint import PRETRAINED, Network, load_network
from retina_utils.datasets.catalogue import SOURCES, dataset_of, seen_in_training, trained_on

CARD = {"photographs": {"chase_db1": ["Image_01L", "Image_01R"], "hrf": ["01_h"]}}


def imported(folder, title):
    """The first line of an imported folder; none for "", photographs of one's own."""
    if title:
        (folder / "SOURCE.md").write_text(f"# {title}\n\n- Origin: somewhere\n")
    return folder


@pytest.mark.parametrize("dataset", SOURCES)
def test_every_source_says_who_made_it_and_under_which_licence(dataset):
    entry = SOURCES[dataset]
    assert entry.citation and entry.licence and entry.url.startswith("https://")
    assert not any("  " in text or "\n" in text for text in entry if isinstance(text, str))


def test_an_imported_folder_is_known_by_its_first_line(tmp_path):
    assert dataset_of(tmp_path) == ""
    assert dataset_of(imported(tmp_path, "CHASE_DB1")) == "CHASE_DB1"
    assert dataset_of(imported(tmp_path, "My photographs")) == ""


def test_what_a_network_was_trained_on_is_said_in_words():
    said = trained_on(Network(None, None, facts={"card": CARD, "data": "mine"}))
    first = "2 photographs of CHASE_DB1, Image_01L to Image_01R"
    assert said == f"{first}; and 1 photograph of HRF (High-Resolution Fundus), 01_h to 01_h"
    assert trained_on(Network(None, None, facts={"data": "mine"})) == "mine"
    assert trained_on(Network(None, None)) == ""


@pytest.mark.parametrize(
    ("facts", "title", "names", "words"),
    [
        ({"card": CARD}, "CHASE_DB1", ["Image_01L", "Image_11L"], "1 of these 2 test photographs"),
        ({"card": CARD}, "CHASE_DB1", ["Image_11L"], "None of these test photographs is there"),
        ({"card": CARD}, "HRF (High-Resolution Fundus)", ["01_h"], "1 of these 1 test"),
        (
            {"card": CARD},
            "",
            ["Image_01L"],
            "HRF (High-Resolution Fundus), 01_h to 01_h. Scores on photographs from",
        ),
        ({"data": "mine"}, "CHASE_DB1", ["Image_01L"], "trained on mine. Scores on photographs"),
        ({}, "", ["a"], "photographs they do not name. Scores"),
    ],
)
def test_photographs_the_given_weights_have_seen_are_told(tmp_path, facts, title, names, words):
    network = Network(None, None, facts=facts)
    assert words in seen_in_training(network, imported(tmp_path, title), names)


def test_the_network_in_the_box_tells_what_it_has_seen(tmp_path):
    if not PRETRAINED.is_file():
        pytest.skip("no network in the box yet: make pretrained")
    network = load_network("pretrained")
    told = seen_in_training(network, imported(tmp_path, "CHASE_DB1"), ["Image_10R", "Image_11L"])
    assert "20 photographs of CHASE_DB1, Image_01L to Image_10R" in told
    assert "1 of these 2 test photographs" in told
