"""Centrelines, widths and kinds of mistakes, on drawings whose truth is known."""

import doctest
import math

import numpy as np
import pytest
from scipy.ndimage import distance_transform_edt
from skimage.morphology import thin
from test_metrics import blobs

from retina_utils import metrics
from retina_utils.frame import fov_diameter
from retina_utils.measures import mistakes, widths


def lines():
    """A thick vessel (rows 5 to 15) and a thin one (row 30)."""
    vessels = np.zeros((40, 60), bool)
    vessels[5:16] = vessels[30] = True
    return vessels


def test_cldice_is_one_for_the_same_map_and_minds_gaps_more_than_widths():
    vessels, fov = lines(), np.ones((40, 60), bool)
    assert widths.cldice(vessels, vessels, fov) == 1.0
    shaved, broken = vessels.copy(), vessels.copy()
    shaved[5] = False  # as many pixels off the thick vessel as the thin one has
    broken[30] = False
    assert widths.cldice(shaved, vessels, fov) > 0.98
    assert widths.cldice(broken, vessels, fov) < 0.72
    # By hand: all of the prediction is right; of the annotated centrelines half are found.
    assert widths.cldice(broken, vessels, fov) == pytest.approx(2 * 0.5 / 1.5, abs=0.05)


def test_cldice_is_nan_when_there_is_nothing_and_nothing_was_found_and_else_zero():
    vessels, fov = lines(), np.ones((40, 60), bool)
    nothing = np.zeros_like(vessels)
    assert math.isnan(widths.cldice(nothing, nothing, fov))
    assert widths.cldice(nothing, vessels, fov) == 0.0
    assert widths.cldice(vessels, nothing, fov) == 0.0
    elsewhere = np.zeros_like(vessels)
    elsewhere[22] = True
    assert widths.cldice(elsewhere, vessels, fov) == 0.0


@pytest.mark.parametrize("width", [1, 2, 3, 6, 7])
def test_vessels_are_split_by_their_width(width):
    vessels = np.zeros((60, 80), bool)
    vessels[10 : 10 + width] = True
    vessels[30:50] = True  # 20 pixels wide
    thin_ones, thick_ones = widths.thin_and_thick(vessels, limit=width)
    assert thin_ones[:20].sum() == width * 80
    assert thick_ones[30:50, 20:-20].all()  # away from the ends, where the centreline forks
    assert np.array_equal(thin_ones ^ thick_ones, vessels)
    if width > 2:
        assert widths.thin_and_thick(vessels, limit=width - 2)[1][:20, 10:-10].sum() == width * 60


def test_an_annotation_without_vessels_splits_into_nothing():
    thin_ones, thick_ones = widths.thin_and_thick(np.zeros((9, 9), bool), limit=3)
    assert not thin_ones.any()
    assert not thick_ones.any()


def test_recall_on_thin_vessels_leaves_thick_ones_out():
    vessels, fov = lines(), np.ones((40, 60), bool)
    thin_ones, thick_ones = widths.thin_and_thick(vessels, limit=3)
    predicted = thick_ones.copy()
    predicted[30, :15] = True
    counts = metrics.confusion(predicted, thin_ones, fov & ~thick_ones)
    assert metrics.scores(counts)["recall"] == 15 / 60


@pytest.fixture
def eye():
    """A disc 400 pixels across with a thick vessel (11 rows) and a thin one (2 rows)."""
    rows, columns = np.indices((400, 400))
    fov = np.hypot(rows - 199.5, columns - 199.5) <= 200
    vessels = np.zeros((400, 400), bool)
    vessels[145:156, 60:340] = vessels[250:252, 60:340] = True
    return vessels, fov


def wrong(predicted, eye):
    """Kinds of mistakes and their pixels, without those that do not occur."""
    found = mistakes.count_mistakes(mistakes.mistakes(predicted, *eye))
    return {name: count for name, count in found.items() if count}


def test_lost_stretches_are_told_by_the_width_of_the_vessel(eye):
    vessels, _ = eye
    without_thin, without_half = vessels.copy(), vessels.copy()
    without_thin[250:252] = False
    without_half[145:156, 200:] = False
    assert wrong(without_thin, eye) == {"thin vessel missed": 2 * 280}
    found = wrong(without_half, eye)
    assert found.pop("thick vessel missed") >= 11 * 140 - 60
    assert set(found) <= {"drawn too thin"}  # where the nearest centre is still drawn
    assert wrong(vessels, eye) == {}


def test_pixels_beside_a_vessel_that_was_found_are_errors_of_width(eye):
    vessels, _ = eye
    narrow, wide = vessels.copy(), vessels.copy()
    narrow[145:148] = False
    wide[156:159, 80:320] = True
    assert wrong(narrow, eye) == {"drawn too thin": 3 * 280}
    assert wrong(wide, eye) == {"drawn too wide": 3 * 240}


def test_false_alarms_are_told_by_where_they_lie_and_by_their_shape(eye):
    vessels, fov = eye
    rows, columns = np.indices(fov.shape)
    distance = np.hypot(rows - 199.5, columns - 199.5)
    arc = vessels | ((distance > 195) & fov & (columns > 300))
    line, spot, both = vessels.copy(), vessels.copy(), vessels.copy()
    line[200:202, 150:230] = True
    spot |= np.hypot(rows - 300, columns - 200) <= 7
    both |= line | spot
    assert set(wrong(arc, eye)) == {"false alarm along the FOV border"}
    assert wrong(line, eye) == {"false line elsewhere": 160}
    assert wrong(spot, eye) == {"false compact spot": int((spot ^ vessels).sum())}
    assert wrong(both, eye) == wrong(line, eye) | wrong(spot, eye)


def test_a_frame_that_cuts_the_disc_off_is_its_border_too(eye):
    vessels, fov = (array[100:300] for array in eye)
    predicted = vessels.copy()
    predicted[:3, 100:300] = True
    assert set(wrong(predicted, (vessels, fov))) == {"false alarm along the FOV border"}


def test_every_wrong_pixel_inside_the_fov_has_one_kind_and_no_other_has_any():
    vessels, fov = blobs(0), np.ones((80, 90), bool)
    fov[:, :25] = False
    predicted = vessels ^ blobs(5, share=0.1)
    kinds = mistakes.mistakes(predicted, vessels, fov)
    assert np.array_equal(kinds > 0, (predicted ^ vessels) & fov)
    missed = np.isin(kinds, [1, 2, 3])
    assert np.array_equal(missed, vessels & ~predicted & fov)
    counts = metrics.confusion(predicted, vessels, fov)
    assert sum(mistakes.count_mistakes(kinds).values()) == counts["fp"] + counts["fn"]
    assert np.array_equal(kinds, mistakes.mistakes(predicted ^ ~fov, vessels ^ ~fov, fov))


def test_what_lies_around_the_field_of_view_changes_nothing(eye):
    vessels, fov = eye
    predicted = np.roll(vessels, 3, axis=0) | blobs(3, size=fov.shape)
    large = [np.pad(part, ((40, 7), (0, 90))) for part in (predicted, vessels, fov)]
    kinds = mistakes.mistakes(predicted, vessels, fov)
    assert np.array_equal(np.pad(kinds, ((40, 7), (0, 90))), mistakes.mistakes(*large))
    assert widths.by_width(predicted, vessels, fov) == widths.by_width(*large)


def test_nothing_drawn_and_nothing_to_draw_can_be_told_too(eye):
    vessels, fov = eye
    nothing = np.zeros_like(vessels)
    assert set(wrong(nothing, eye)) == {"thin vessel missed", "thick vessel missed"}
    assert set(wrong(vessels, (nothing, fov))) == {"false line elsewhere"}
    assert (
        mistakes.what_went_wrong(mistakes.count_mistakes(np.zeros((3, 3), int))) == "nothing wrong"
    )


def test_a_dark_photograph_and_faint_vessels_are_named_only_where_they_are():
    counts = dict.fromkeys(mistakes.MISTAKES, 0) | {"thick vessel missed": 3}
    usual = {"brightness": 100.0, "contrast": 1.0}
    told = mistakes.what_went_wrong(counts, {"brightness": 60.0, "contrast": 0.9}, usual)
    assert told.startswith("width 0%; of the rest: thick vessel missed 100%")
    assert told.endswith("; dark photograph (brightness 60, usually 100)")
    told = mistakes.what_went_wrong(counts, {"brightness": 80.0, "contrast": 0.5}, usual)
    assert "dark" not in told and told.endswith("; faint vessels (contrast 0.5, usually 1)")


def test_light_is_measured_in_green_inside_the_fov_and_contrast_beside_the_vessels():
    image = np.zeros((200, 200, 3), np.uint8)
    fov, vessels = np.ones((200, 200), bool), np.zeros((200, 200), bool)
    vessels[90:95] = True
    image[..., 1] = 100
    image[vessels] = 60
    image[:50, :, 1] = 240  # bright, but far from the vessel: 2 % of 200 pixels is 4
    image[180:], fov[180:] = 255, False
    assert mistakes.light(image, vessels, fov) == {
        "brightness": 100.0,
        "contrast": pytest.approx(0.4),
    }
    assert math.isnan(mistakes.light(image, vessels & False, fov)["contrast"])
    assert math.isnan(mistakes.light(image, fov, fov)["contrast"])


def test_recall_by_width_counts_thin_and_thick_apart(eye):
    vessels, fov = eye
    predicted = vessels.copy()
    predicted[250:252, 60:130] = False  # a quarter of the thin vessel
    found = widths.by_width(predicted, vessels, fov)
    assert found["thin"] == 0.75 and found["thick"] == 1.0
    assert found["cldice"] == widths.cldice(predicted, vessels, fov) < 1
    assert fov_diameter(fov) == 400 == fov_diameter(fov[100:300])


@pytest.mark.parametrize("pixels", [-3, -2, -1, 1, 2, 3])
def test_a_wider_pen_finds_no_more_and_the_ratio_of_widths_follows_it(sample, pixels):
    # Three pixels are much for so small a photograph: as large as real ones.
    vessels, fov = (np.kron(part, np.ones((3, 3), bool)) for part in (sample.vessels, sample.fov))
    drawn = vessels & (blobs(1, size=fov.shape) | (np.arange(fov.shape[1]) < fov.shape[1] // 2))
    pen = thin(vessels, -pixels) if pixels < 0 else distance_transform_edt(~vessels) <= pixels
    before, after = (widths.by_width(drawn, other, fov) for other in (vessels, pen))
    assert 0.4 < before["found"] < 0.95
    for key in ("found", "on_vessel"):
        assert after[key] == pytest.approx(before[key], abs=0.01)
    assert (after["width_ratio"] < before["width_ratio"] - 0.1) == (pixels > 0)
    assert (after["width_ratio"] > before["width_ratio"] + 0.1) == (pixels < 0)


def test_what_is_found_is_told_from_what_is_made_up():
    vessels, fov = lines(), np.ones((40, 60), bool)
    half, more = vessels.copy(), vessels.copy()
    half[30] = False
    more[37:39] = True
    found, made_up = (widths.by_width(part, vessels, fov) for part in (half, more))
    assert found["on_vessel"] == 1 and 0.4 < found["found"] < 0.6
    assert made_up["found"] == 1 and 0.5 < made_up["on_vessel"] < 0.8
    assert widths.by_width(vessels, vessels, fov)["width_ratio"] == 1
    nothing = widths.by_width(vessels & False, vessels, fov)
    assert nothing["found"] == 0 and math.isnan(nothing["on_vessel"])


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(mistakes)
    assert result.attempted > 0 and result.failed == 0
