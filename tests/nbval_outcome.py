"""After the notebooks ran end to end on the tiny data: what they left behind.

Copied beside the notebooks' copy by ``make test-notebooks`` and run there after them.
"""

import csv
import json
import re
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "outputs" / "tiny"
BOOKS = Path(__file__).parent / "notebooks"


def test_the_quick_run_learned_something_real():
    report = json.loads((RUN / "metrics.json").read_text())
    test = report["splits"]["test"]
    assert test["pooled"]["dice"] > 0.75
    assert test["pooled"]["auc"] > 0.95
    assert test["n"] == 4 and test["sd"]["dice"] < 0.1


def test_training_ends_above_what_02_learns_by_heart():
    bar = re.search(r"by_heart = ([.\d]+)", (BOOKS / "02_model.ipynb").read_text())
    with (RUN / "history.csv").open(newline="") as file:
        last = list(csv.DictReader(file))[-1]
    assert float(last["validation_loss"]) > float(bar[1])


def test_intervals_calibration_and_weights_are_recorded():
    report = json.loads((RUN / "metrics.json").read_text())
    pooled = report["splits"]["test"]["pooled"]
    for intervals in report["intervals"].values():
        low, high = intervals["dice"]
        assert low <= pooled["dice"] <= high
    assert set(report["intervals"]) == {"photographs", "people"}
    assert 0 < report["calibration_error"] < 0.2
    assert report["network"]["weights"] == "" and len(report["network"]["sha256"]) == 64


def test_the_threshold_was_chosen_on_validation():
    report = json.loads((RUN / "metrics.json").read_text())
    assert report["threshold"]["chosen_on"] == "validation"
    assert 0.05 < report["threshold"]["value"] < 0.95


@pytest.mark.parametrize(
    "pattern, count",
    [
        ("0*.json", 5),
        ("report.html", 1),
        ("weights/unet_best.pth", 1),
        ("weights/unet_epoch*.pth", 2),
        ("probability/*/*.png", 14),
        ("vessels/test/*_vessels.png", 4),
        ("overlays/test/*_overlay.jpg", 4),
        ("figures/*.svg", 33),
    ],
)
def test_everything_the_readme_promises_is_there(pattern, count):
    assert len(list(RUN.glob(pattern))) == count


def test_every_photograph_has_its_row():
    with (RUN / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and all(0.5 < float(row["dice"]) < 1 for row in rows)


def test_no_half_written_file_stays():
    assert not [f for f in RUN.rglob("*") if ".tmp" in f.name or f.name == "interrupted.pt"]
