import pytest

from retina_utils.measures import promise

MISSES = {"a": [0.01, -0.02] * 10, "b": [-0.05, 0.06] * 10, "c": [0.0] * 19 + [-0.3]}


def test_the_margin_is_that_of_the_camera_with_the_widest():
    assert promise.margin(MISSES) == pytest.approx(0.06)
    assert promise.margin({"a": MISSES["a"]}) == pytest.approx(0.02)


def test_a_camera_is_covered_by_what_the_others_tell():
    shares = promise.covered(MISSES)
    assert shares == {"a": 1.0, "b": 0.0, "c": 0.95}
