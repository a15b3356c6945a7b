"""Reliability, on probabilities whose truth is known."""

import math

import numpy as np
import pytest

from retina_utils import metrics
from retina_utils.measures import reliability


def histogram_of(honest):
    """A million pixels of every probability; ``honest`` gives the share of them that is vessel."""
    share = honest(np.linspace(0, 1, metrics.LEVELS))
    vessel = np.rint(1e6 * share).astype(np.int64)
    return metrics.Histogram(vessel, 10**6 - vessel)


def test_honest_probabilities_cross_where_they_say_and_need_no_temperature():
    honest = histogram_of(lambda p: p)
    for share in (0.2, 0.41, 0.5):
        assert reliability.crossing(honest, share) == pytest.approx(share, abs=1e-3)
    assert reliability.temperature(honest) == pytest.approx(1, abs=0.01)


def test_a_network_that_promises_too_much_crosses_later():
    boastful = histogram_of(lambda p: p**2)
    assert reliability.crossing(boastful, 0.49) == pytest.approx(0.7, abs=0.01)


def test_what_never_crosses_is_nan():
    assert math.isnan(reliability.crossing(histogram_of(lambda p: 0.4 * p), 0.5))
    assert math.isnan(reliability.crossing(histogram_of(lambda p: 0.6 + 0 * p), 0.5))


@pytest.mark.parametrize("degree", [0.5, 2.0])
def test_the_temperature_that_was_put_in_comes_out(degree):
    distorted = histogram_of(lambda p: reliability.tempered(p, degree))
    assert reliability.temperature(distorted) == pytest.approx(degree, rel=0.01)


def test_the_best_threshold_for_dice_lies_where_half_of_that_dice_is_crossed():
    boastful = histogram_of(lambda p: p**2)
    best = metrics.best_threshold([boastful])
    dice = metrics.evaluate(boastful, best)["dice"]
    assert reliability.crossing(boastful, dice / 2) == pytest.approx(best, abs=0.01)
    by_accuracy = metrics.best_threshold([boastful], "accuracy")
    assert reliability.crossing(boastful, 0.5) == pytest.approx(by_accuracy, abs=0.01)


def test_tempering_keeps_the_order_and_the_middle():
    p = np.linspace(0, 1, 101)
    cooler = reliability.tempered(p, 2)
    assert (np.diff(cooler) > 0).all()
    assert cooler[50] == pytest.approx(0.5)
    assert 0 < cooler[0] < 0.01  # a stored 0 is no certainty
