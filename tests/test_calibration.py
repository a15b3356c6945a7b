"""A temperature and a bias found in counts, and folded into a network."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from retina_utils import metrics
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.measures.calibration import Calibration, fit_calibration, recalibrate
from retina_utils.models import build_model
from retina_utils.patches import Preparation


def told(temperature, bias, pixels=200_000, seed=0):
    """A photograph whose network says what is true only after this temperature and bias."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-2, 3, (1, pixels))
    vessels = rng.random(logits.shape) < expit((logits + bias) / temperature)
    return metrics.histogram(expit(logits), vessels, np.ones_like(vessels))


@pytest.mark.parametrize(("temperature", "bias"), [(1, 0), (2, 0), (1, -0.8), (0.6, 1.1)])
def test_what_spoiled_the_probabilities_is_found(temperature, bias):
    found = fit_calibration([told(temperature, bias, seed=k) for k in range(2)], prior=0)
    assert found == pytest.approx((temperature, bias), abs=0.04)


def test_the_prior_draws_towards_no_change_and_fades_with_photographs():
    photographs = [told(2, 1, seed=k) for k in range(8)]
    slopes = [1 / fit_calibration(photographs[:n], prior=2).temperature for n in (1, 2, 8)]
    assert 1 > slopes[0] > slopes[1] > slopes[2] > 0.5
    assert fit_calibration(photographs, prior=1e6) == pytest.approx((1, 0), abs=1e-3)
    assert fit_calibration([]) == Calibration(1, 0)


def test_photographs_weigh_alike_large_or_small():
    small, large = told(1, -1, 20_000), told(1, 1)
    once = fit_calibration([small, large], prior=0)
    tenfold = metrics.Histogram(*(10 * counts for counts in large))
    assert fit_calibration([small, tenfold], prior=0) == pytest.approx(once)


def test_it_agrees_with_logistic_regression():
    linear_model = pytest.importorskip("sklearn.linear_model")
    photograph = told(1.7, 0.4, 50_000)
    levels = np.arange(metrics.LEVELS)
    x = np.concatenate([np.repeat(levels, counts) for counts in photograph])
    y = np.repeat([1, 0], [counts.sum() for counts in photograph])
    x = logit(np.clip(x, 0.25, 65534.75) / 65536)[:, None]
    line = linear_model.LogisticRegression(C=np.inf, tol=1e-8).fit(x, y)
    slope, shift = line.coef_[0, 0], line.intercept_[0]
    found = fit_calibration([photograph], prior=0)
    assert found == pytest.approx((1 / slope, shift / slope), abs=2e-3)


def test_annotations_that_contradict_the_network_are_held_back():
    vessel, background = told(1, 0)
    found = fit_calibration([metrics.Histogram(background, vessel)], prior=0)
    assert found.temperature == pytest.approx(4)


def test_nothing_to_fit_on_is_refused():
    vessel, background = told(1, 0)
    with pytest.raises(ValueError, match="no vessel"):
        fit_calibration([metrics.Histogram(0 * vessel, background)])
    with pytest.raises(ValueError, match="0 photographs"):
        fit_calibration([], prior=0)


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [("unet", {"c_in": 3, "widths": [4, 8], "fold": 2}), ("unet256", {"base_width": 2})],
)
def test_the_last_layer_takes_both_exactly(architecture, settings, tmp_path):
    torch.manual_seed(0)
    model = build_model(architecture, settings).eval()
    channels = "rgb" if architecture == "unet" else "green"
    network = Network(model, Preparation(channels), 0.3, {"seed": 1})
    image = torch.randn(1, settings.get("c_in", 1), 256, 256)
    before = network.sha256
    changed = recalibrate(network, 1.6, -0.7)
    save_network(tmp_path / "network.pt", changed)
    changed = load_network(tmp_path / "network.pt")
    with torch.inference_mode():
        old, new = network.model(image), changed.model(image)
    torch.testing.assert_close(new, (old - 0.7) / 1.6)
    assert network.sha256 == before and changed.facts == {"seed": 1}
    assert changed.threshold == pytest.approx(expit((logit(0.3) - 0.7) / 1.6))
    assert ((old >= logit(0.3)) == (new >= logit(changed.threshold))).float().mean() > 0.999


def test_impossible_temperatures_are_refused_and_no_threshold_stays_none():
    network = Network(build_model("unet", {"widths": [4]}), Preparation())
    assert recalibrate(network, 2, 1).threshold is None
    for temperature, bias in [(0, 0), (-1, 0), (float("nan"), 0), (1, float("inf"))]:
        with pytest.raises(ValueError, match="expected above 0"):
            recalibrate(network, temperature, bias)
