"""Tables, as text and as HTML."""

import math

import numpy as np
import pytest

from retina_utils import models
from retina_utils.show.tables import Table, level_table, mean_by, mean_sd


def test_text_is_aligned_with_numbers_on_the_right():
    table = Table([{"name": "a", "dice": 0.5, "n": 12}, {"name": "bcd", "dice": 0.25, "n": 1234}])
    assert repr(table).splitlines() == [
        "name   dice      n",
        "----  -----  -----",
        "a     0.500     12",
        "bcd   0.250  1,234",
    ]


def test_missing_and_undefined_numbers_are_an_en_dash():
    rows = [{"a": math.nan, "b": 1}, {"a": np.float32(0.5)}, {"b": None}]
    assert Table(rows).cells == [["–", "1"], ["0.500", "–"], ["–", "–"]]
    assert Table(rows).numeric == [True, True]


def test_columns_choose_order_and_headings():
    rows = [{"a": 1, "b": 2, "c": 3}]
    assert Table(rows, ["c", "a"]).headings == ["c", "a"]
    assert Table(rows, {"b": "Beta"}).headings == ["Beta"]


def test_html_is_escaped():
    html = Table([{"<b>": "x & <script>"}], caption='"<i>')._repr_html_()
    assert "<script>" not in html
    assert "x &amp; &lt;script&gt;" in html
    assert "&lt;b&gt;" in html
    assert "&lt;i&gt;" in html


def test_numpy_numbers_and_booleans_print_like_their_own_kind():
    rows = [{"n": np.int64(3), "x": np.float64(0.12345), "flag": True}]
    assert Table(rows, digits=2).cells == [["3", "0.12", "True"]]


def test_mean_and_deviation_stand_on_the_right_like_numbers():
    table = Table([{"dice": mean_sd(0.8124, 0.0151)}])
    assert table.cells == [["0.812 ± 0.015"]]
    assert table.numeric == [True]
    assert mean_sd(0.5, math.nan) == "0.500 ± –"


def test_a_table_without_rows_keeps_its_headings():
    assert repr(Table([], ["a", "b"])).splitlines()[0] == "a  b"


def test_level_table_lists_the_u_and_all_its_parameters():
    model = models.UNet(widths=(4, 8, 16))
    table = level_table(model, 64, 41)  # 41 is padded to 44
    shapes = [(r["stage"], r["height"], r["width"], r["channels"]) for r in table]
    assert shapes == [
        ("down 1", 64, 44, 4),
        ("down 2", 32, 22, 8),
        ("down 3", 16, 11, 16),
        ("up 2", 32, 22, 8),
        ("fuse 2", 32, 22, 8),
        ("up 1", 64, 44, 4),
        ("fuse 1", 64, 44, 4),
        ("head", 64, 44, 1),
    ]
    assert sum(row["parameters"] for row in table) == models.count_parameters(model)
    bottom = level_table(models.UNet256(base_width=2), 256, 256)[7]
    assert (bottom["height"], bottom["width"], bottom["channels"]) == (1, 1, 16)


def test_a_mean_that_cannot_be_had_is_a_dash():
    assert mean_sd(None, float("nan")) == "– ± –"


def test_means_are_taken_over_the_tries_of_each_choice():
    rows = [
        {"loss": "bce", "seed": "0", "dice": "0.8"},
        {"loss": "dice", "seed": "0", "dice": "0.7"},
        {"loss": "bce", "seed": "1", "dice": "0.9"},
        {"loss": "focal", "seed": "0", "dice": ""},
    ]
    means = mean_by(rows, ["loss"], ["dice"])
    assert [row["loss"] for row in means] == ["bce", "dice", "focal"]
    assert [row["dice"] for row in means][:2] == pytest.approx([0.85, 0.7])
    assert math.isnan(means[2]["dice"])
