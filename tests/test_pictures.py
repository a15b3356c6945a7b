"""Pictures are tested by the colours of their pixels."""

import numpy as np
import pytest
from PIL import ImageColor

from retina_utils.measures import mistakes
from retina_utils.show import pictures


@pytest.fixture
def case():
    """A cross of vessels in a disc, on a photograph of noise."""
    rows, columns = np.indices((60, 80))
    fov = np.hypot(rows - 30, columns - 40) < 28
    vessels = ((abs(rows - 30) < 2) | (abs(columns - 40) < 1)) & fov
    image = np.random.default_rng(0).integers(60, 200, (60, 80, 3), dtype=np.uint8)
    return image, vessels, fov


def test_error_map_has_one_colour_for_each_kind_of_pixel():
    predicted = np.array([[1, 1, 0, 0, 1]], bool)
    vessels = np.array([[1, 0, 1, 0, 1]], bool)
    fov = np.array([[1, 1, 1, 1, 0]], bool)
    shown = [tuple(int(v) for v in p) for p in pictures.error_map(predicted, vessels, fov)[0]]
    kinds = [
        ImageColor.getrgb(pictures.ERROR_COLOURS[name]) for name in ("hit", "false alarm", "miss")
    ]
    assert shown == [*kinds, (pictures.EMPTY,) * 3, (0, 0, 0)]


def test_error_map_refuses_probabilities(case):
    _, vessels, fov = case
    with pytest.raises(TypeError, match=r"predicted must be a bool .*float32"):
        pictures.error_map(vessels.astype(np.float32), vessels, fov)


def test_overlay_changes_the_vessels_only_and_lets_the_photograph_through(case):
    image, vessels, _ = case
    shown = pictures.overlay(image, vessels, opacity=0.5)
    assert (shown[~vessels] == image[~vessels]).all()
    expected = (image[vessels] + np.array(ImageColor.getrgb(pictures.SKY))) / 2
    assert np.abs(shown[vessels] - expected).max() <= 2
    assert (pictures.overlay(image, vessels, opacity=0) == image).all()


def test_a_vessel_one_pixel_wide_survives_a_fourfold_reduction():
    line = np.zeros((400, 400), bool)
    line[:, 201] = True
    strength = pictures.coverage(line, (100, 100))
    assert strength[:, 50].min() > 240
    assert strength[:, [48, 52]].max() == 0


def test_coverage_enlarges_without_inventing_pixels():
    dot = np.zeros((4, 4), bool)
    dot[1, 2] = True
    expected = np.kron(dot, np.ones((8, 8))) * 255
    assert (pictures.coverage(dot, (32, 32)) == expected).all()


def test_a_stretch_reaches_from_black_to_white_over_what_counts():
    array = np.array([[[-9.0, 1, 2, 3, 99]]])
    inside = np.array([[0, 1, 1, 1, 0]], bool)
    assert pictures.stretch(array, inside)[0, 0] == pytest.approx([0, 0, 0.5, 1, 1], abs=0.01)
    assert np.ptp(pictures.stretch(array)) == 1
    assert not pictures.stretch(np.full((2, 2), 7.0), np.zeros((2, 2), bool)).any()


def test_the_detail_shown_holds_most_errors():
    wrong = np.zeros((100, 150), bool)
    wrong[70:80, 10:20] = True
    window = pictures.worst_window(wrong)
    assert wrong[window].sum() == wrong.sum()
    assert wrong[window].shape == (20, 30)


def test_each_kind_of_mistake_has_its_colour_in_the_map():
    kinds = np.arange(len(mistakes.MISTAKES) + 1, dtype=np.uint8)[None]
    hits, fov = np.zeros(kinds.shape, bool), np.ones(kinds.shape, bool)
    shown = pictures.mistake_map(kinds, hits, fov, kinds.shape)[0]
    expected = [list(ImageColor.getrgb(pictures.MISTAKE_COLOURS[k])) for k in mistakes.MISTAKES]
    assert shown.tolist() == [[pictures.EMPTY] * 3, *expected]
    assert len({tuple(colour) for colour in expected}) == len(mistakes.MISTAKES)


def test_the_outline_runs_around_the_vessels_and_leaves_them_and_the_rest_alone(case):
    image, vessels, fov = case
    shown = pictures.outline_vessels(image, vessels, fov)
    line = (shown == ImageColor.getrgb(pictures.OUTLINE)).all(axis=-1)
    assert line.any()
    assert not (line & vessels).any()
    assert (shown[~line] == image[~line]).all()
