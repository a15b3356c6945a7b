"""The public data sets, and what a network says it was trained on."""

import pytest

from retina_utils.checkpoint import Network
from retina_utils.datasets.catalogue import SOURCES, dataset_of, trained_on

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
