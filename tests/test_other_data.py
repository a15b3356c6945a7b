"""The series on data that are not like the embedded ones: other counts, two observers, no FOVs."""

import csv
import json
import shutil

import pytest
from conftest import ROOT, TINY
from scipy import ndimage

from retina_utils.commands.__main__ import main
from retina_utils.images import read_binary, write_png

# split -> photographs of data/tiny: as many as no other list in the notebooks is long
CHOSEN = {
    "training": ["img_0001", "img_0003", "img_0005"],
    "validation": ["img_0009"],
    "test": ["img_0011", "img_0012", "img_0013"],
}
QUICK = {"epochs": 1, "patches_per_image": 2, "widths": [4, 8], "fov_diameter": 300}
RECIPE = QUICK | {"channels": "rgb", "normalisation": "local", "ema": 0.9, "schedule": "onecycle"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The five notebooks, run on seven photographs with a second observer and no FOV files."""
    top = tmp_path_factory.mktemp("other")
    for part in ("notebooks", "benchmarks/results"):
        shutil.copytree(ROOT / part, top / part)
    for split, names in CHOSEN.items():
        for part in ("images", "masks", "second"):
            (top / "data" / split / part).mkdir(parents=True)
        for name in names:
            image, mask = (
                TINY / split / p for p in (f"images/{name}.png", f"masks/{name}_mask.png")
            )
            shutil.copy(image, top / "data" / split / "images")
            shutil.copy(mask, top / "data" / split / "masks")
            drawn = ndimage.binary_opening(read_binary(mask))  # thin vessels left out
            write_png(top / "data" / split / "second" / f"{name}_second.png", drawn)
    (top / "data" / "people.csv").write_text("name,person\nimg_0011,a\nimg_0012,a\nimg_0013,b\n")
    command = ["--notebooks", str(top / "notebooks"), "--data", str(top / "data"), "--run", "other"]
    for name, value in RECIPE.items():
        command += ["-p", name, str(value)]
    assert main(["run-all", *command]) == 0
    return top / "outputs" / "other"


def test_every_photograph_is_scored_beside_its_second_observer(finished):
    numbers = json.loads((finished / "metrics.json").read_text())
    assert numbers["splits"]["test"]["n"] == 3
    assert 0.5 < numbers["second_observer"]["dice"] < 1
    assert numbers["second_observer"]["precision"] == 1  # nothing was added to the first's
    with (finished / "metrics.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file) if row["split"] == "test"]
    assert [n for n in names if n in CHOSEN["test"]] == CHOSEN["test"]


def test_intervals_are_drawn_over_photographs_and_over_people(finished):
    intervals = json.loads((finished / "metrics.json").read_text())["intervals"]
    assert set(intervals) == {"photographs", "people"}
    for low, high in intervals["people"].values():
        assert 0 <= low <= high <= 1


def test_the_page_and_the_maps_are_there(finished):
    assert (finished / "report.html").stat().st_size > 100_000
    maps = sorted(p.stem for p in (finished / "vessels" / "test").glob("*.png"))
    assert maps == [f"{name}_vessels" for name in CHOSEN["test"]]
