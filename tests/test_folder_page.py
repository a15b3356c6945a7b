"""The page of a folder: all that is known of each photograph, and nothing else."""

import json
import re
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from retina_utils.commands.summary import Outcome, Summary, write_summary
from retina_utils.evaluate import Case
from retina_utils.machine.files import read_csv, write_csv
from retina_utils.show import folder_page

RECORD = {"weights": "net.pt", "weights_sha256": "0" * 64, "threshold": 0.4}
RECORD |= {"threshold_from": "as given"}


def data_of(out):
    page = (out / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def rows_of(out):
    data = data_of(out)
    return [dict(zip(data["columns"], row, strict=True)) for row in data["rows"]]


def written(out, outcomes, left=0, judged=None):
    write_summary(out, {outcome.name: outcome for outcome in outcomes}, judged)
    folder_page.write_page(out, RECORD, left)


def test_columns_that_nobody_foresaw_and_measures_are_shown(tmp_path):
    written(tmp_path, [Outcome("b.png", "done", expected_dice=0.7), Outcome("a.png", "failed")])
    rows = [row | {"seen": "no such camera"} for row in read_csv(tmp_path / "summary.csv")]
    write_csv(tmp_path / "summary.csv", rows)
    write_csv(
        tmp_path / "measures.csv",
        [{"photograph": "b.png", "d": 1.5, "d_low": 1, "d_high": 2, "eye": "left"}],
    )
    folder_page.write_page(tmp_path, RECORD)
    first, second = rows_of(tmp_path)
    assert (first["name"], first["seen"], first["d"]) == ("a.png", "no such camera", "")
    assert (second["d"], second["d_high"], second["eye"]) == ("1.5", "2", "left")
    data = data_of(tmp_path)
    assert data["shown"] == ["expected_dice", "d"] and "eye" not in data["numeric"]


@pytest.mark.parametrize("content", ["", "x,y\n1,2\n", "photograph,d\na.png,1,2,3\n"])
def test_measures_that_cannot_be_read_cost_their_columns_only(tmp_path, content):
    (tmp_path / "measures.csv").write_text(content)
    written(tmp_path, [Outcome("a.png", "done", expected_dice=0.7)])
    assert rows_of(tmp_path)[0]["name"] == "a.png"


def test_no_name_leaves_its_place_and_nothing_is_loaded_from_elsewhere(tmp_path):
    name = '</script><img src=x onerror="alert(1)">&.png'
    written(tmp_path, [Outcome(name, "failed", message=name)])
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and rows_of(tmp_path)[0]["message"] == name
    assert not re.search(r"https?:|@import|url\(|fetch\(", page)
    assert str(tmp_path) not in page


def test_a_page_says_how_many_are_not_done_yet(tmp_path):
    for left in (0, 17):
        written(tmp_path, [Outcome("a.png", "done")], left)
        said = (tmp_path / "index.html").read_text(encoding="utf-8")
        assert ("17 not done yet" in said) == bool(left)


def test_an_empty_folder_has_a_page(tmp_path):
    written(tmp_path, [], 3)
    assert data_of(tmp_path)["rows"] == []


def item_of(path):
    return json.loads(path.read_text(encoding="utf-8")[len("retinaPhotograph(") : -3])


def test_pictures_are_new_and_small_and_the_track_follows_the_probabilities(tmp_path):
    rng = np.random.default_rng(0)
    fov = np.ones((300, 400), bool)
    probability = rng.normal(0.5, 0.003, fov.shape).clip(0, 1).astype(np.float32)
    case = Case("x/é.tif", np.full((300, 400, 3), 90, np.uint8), probability, None, fov)
    folder_page.write_parts(tmp_path, case, 0.501)
    script, photograph, thumbnail = folder_page.parts_of(tmp_path, case.name)
    with Image.open(photograph) as picture:
        assert picture.size == (400, 300) and not picture.getexif() and "exif" not in picture.info
    with Image.open(thumbnail) as picture:
        assert picture.size == (288, 108)
    item = item_of(script)
    assert item["photograph"] == "index_files/x/%C3%A9.tif.jpg"
    assert item["levels"][item["marks"]["chosen"]["level"]] == 0.501
    shares = item["scores"]["share"]
    assert all(low >= high for low, high in pairwise(shares))
    assert len(set(shares)) > 40  # of even steps of 0.005 only five or six would differ
    assert shares[item["marks"]["half"]["level"]] == pytest.approx(
        (probability >= 0.5).mean(), abs=1e-3
    )


def judged(out, text):
    (out / "judged.csv").write_text(text, encoding="utf-8")
    return folder_page.read_judged(out)


def test_judgements_are_read_whoever_wrote_them(tmp_path):
    assert folder_page.read_judged(tmp_path) == ({}, [])
    text = "photograph;judged;note\r\nä.png; Not  Usable;'=1+1\r\nb.png;;blurred\r\n"
    assert judged(tmp_path, text) == (
        {
            "ä.png": {"judged": "not usable", "note": "=1+1", "map": ""},
            "b.png": {"judged": "", "note": "blurred", "map": ""},
        },
        [],
    )
    found, problems = judged(tmp_path, "photograph,judged\na,good\na,doubtful\nb,fine\n")
    assert {name: told["judged"] for name, told in found.items()} == {"a": "good"}
    assert "a comes twice" in problems[0] and "b is judged 'fine'" in problems[1]
    assert "found the columns" in judged(tmp_path, "name,verdict\na,good\n")[1][0]


def test_a_judgement_is_of_one_map_and_says_when_it_is_left_out(tmp_path, capsys):
    (tmp_path / "root").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "root" / name).touch()
    text = "photograph,judged,note,map\na.png,good,,#12e4\nb.png,good,old,#77\nc.png,doubtful,x,\n"
    judged(tmp_path, text + "gone.png,good,,\n")
    with Summary(tmp_path, tmp_path / "root") as summary:
        for name in ("a.png", "b.png", "c.png"):
            summary.add(Outcome(name, "failed", fingerprint="12e4"))
    rows = {row["name"]: (row["judged"], row["note"]) for row in read_csv(tmp_path / "summary.csv")}
    assert rows == {"a.png": ("good", ""), "b.png": ("", ""), "c.png": ("doubtful", "x")}
    said = capsys.readouterr().out
    assert "2 lines of judged.csv left out" in said and "b.png, gone.png" in said
    (tmp_path / "judged.csv").unlink()
    with Summary(tmp_path, tmp_path / "root"):
        pass
    assert "judged" not in read_csv(tmp_path / "summary.csv")[0]
