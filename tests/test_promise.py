import numpy as np
import pytest
from scipy.stats import t

from retina_utils.measures import promise

MISSES = {"a": [0.01, -0.02] * 10, "b": [-0.05, 0.06] * 10, "c": [0.0] * 19 + [-0.3]}


def test_the_margin_of_one_camera_is_students_of_its_mean_square():
    assert promise.margin({"a": [0.03, -0.03]}) == pytest.approx(0.03 * t.ppf(0.95, 1))


def test_a_camera_counts_once_however_many_photographs_it_has():
    few = MISSES | {"a": MISSES["a"][:2]}
    assert promise.margin(few) == pytest.approx(promise.margin(MISSES))


def test_of_cameras_it_was_not_made_from_it_holds_nine_photographs_in_ten():
    """Cameras differ more than their photographs; where the misses are normal it is exact."""
    rng, held = np.random.default_rng(0), []
    for _ in range(3000):
        means = rng.normal(0, 0.05, 4)
        cameras = {k: rng.normal(mean, 0.005, 15) for k, mean in enumerate(means)}
        new = cameras.pop(3)
        held.append(np.mean(np.abs(new) <= promise.margin(cameras)))
    assert np.mean(held) == pytest.approx(promise.COVERED, abs=0.02)


def test_a_camera_is_covered_by_what_the_others_tell():
    shares = promise.covered(MISSES)
    assert shares == {"a": 1.0, "b": 1.0, "c": 0.95}
    assert promise.covered(MISSES | {"d": [0.9, 0.01]})["d"] == 0.5
