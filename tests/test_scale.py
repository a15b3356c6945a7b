import math

import numpy as np
import pytest

from retina_utils.intake import scale


def lines(size: int, width: int) -> np.ndarray:
    drawn = np.zeros((size, size), bool)
    drawn[size // 3 : size // 3 + width] = drawn[:, size // 2 : size // 2 + width] = True
    return drawn


def test_a_photograph_twice_as_large_has_vessels_of_the_same_share():
    small = scale.widest(lines(200, 8), 200)
    large = scale.widest(lines(400, 16), 400)
    assert small == pytest.approx(8 / 200, rel=0.3)
    assert large == pytest.approx(small, rel=0.1)
    assert scale.widest(lines(400, 8), 400) < 0.7 * large


def test_hardly_any_vessel_has_no_width_and_changes_no_scale():
    drawn = np.zeros((200, 200), bool)
    drawn[100, 100:150] = True
    found = scale.widest(drawn, 200)
    assert math.isnan(found)
    assert scale.fitting_diameter(1024, 0.01, found, 1000) == 1024


@pytest.mark.parametrize(
    "found, native, expected",
    [
        (0.01, 3000, 1024),
        (0.005, 3000, 2048),  # half as wide: twice the pixels
        (0.003, 3000, 3413),  # a wide field
        (0.001, 9000, 4096),  # and no more
        (0.005, 500, 1500),  # thrice the photograph's own
        (0.04, 1000, 614),  # four times as wide: half of the way is half, and no less than 0.6
        (0.0144, 1000, 853),  # half of the way
        (0.005, 100, 614),
    ],
)
def test_the_diameter_at_which_vessels_are_as_wide_as_those_learned(found, native, expected):
    assert scale.fitting_diameter(1024, 0.01, found, native) == expected


def test_cameras_weigh_alike_however_many_photographs_tell_of_them():
    assert scale.typical([[0.01] * 10, [0.04]]) == pytest.approx(0.02)
    assert scale.typical([[0.01, math.nan], [0.04]]) == pytest.approx(0.02)


def test_cameras_are_learned_from_at_the_scale_at_which_vessels_are_as_wide_in_all():
    def drawn(*widths, native=3000):
        return [scale.Drawn(width, native) for width in widths]

    cameras = {"near": drawn(0.012, 0.013), "wide": drawn(0.006, math.nan, 0.0065)}
    cameras |= {"alike": drawn(0.0119), "small": drawn(0.006, native=500), "bare": drawn(math.nan)}
    found = scale.matching_diameters(1024, cameras)
    assert found == {"near": 1024, "wide": 2048, "alike": 1024, "small": 1500, "bare": 1024}


def test_no_width_at_all_is_no_width(recwarn):
    assert math.isnan(scale.typical([[math.nan], []])) and not recwarn.list
    assert scale.fitting_diameter(1024, math.nan, 0.01, 1000) == 1024
