"""Published rows beside a run's own, each with its protocol."""

import re

import pytest

from retina_utils.datasets import published
from retina_utils.datasets.catalogue import SOURCES

OWN = {"parameters": "485 k", "trained on": "mine", "threshold from": "validation"}
POOLED = {"dice": 0.81234, "auc": 0.97654}


def test_every_published_row_tells_its_protocol_and_its_source():
    for row in published.ROWS:
        assert set(row) <= set(published.COLUMNS), row["method"]
        for key in ("method", "trained on", "counted", "threshold from", "source"):
            assert row[key], (row["method"], key)
        assert set(row) & set(published.SETS), row["method"]
        for name in set(row) & set(published.SETS):
            numbers = [float(n) for n in re.findall(r"\.\d{3,4}", row[name])]
            assert numbers and all(0.6 < n < 1 for n in numbers), row


@pytest.mark.parametrize("entry", SOURCES.values(), ids=SOURCES)
def test_a_known_data_set_has_its_own_column(entry):
    own = published.beside(OWN, entry.title, POOLED)[-1]
    column = next(name for name in published.SETS if entry.title.startswith(name))
    assert own[column] == ".812 / .977"
    assert own["method"] == "this run" and own["counted"] == "inside the FOV"
    assert own | OWN == own
    assert sum("812" in str(cell) for cell in own.values()) == 1


def test_other_photographs_get_a_column_of_their_own_and_their_second_observer_a_row():
    *rows, own, human = published.beside(OWN, "", POOLED, {"dice": 0.77})
    assert own["these photographs"] == ".812 / .977" and human["these photographs"] == ".770"
    assert len(rows) == len(published.ROWS)
    assert all("these photographs" not in row for row in rows)


def test_a_synthetic_score_never_stands_beside_real_ones():
    rows = published.beside(OWN, "CHASE_DB1", POOLED, {"dice": 0.77}, synthetic=True)
    assert rows[-1].pop("method") == "this run: synthetic photographs, stands apart"
    assert set(rows[-1].values()) == {"–"}
    assert not any(".812" in cell or ".977" in cell for row in rows for cell in row.values())
