"""Metrics equal scikit-learn's inside the field of view, and are nan where nothing is defined."""

import doctest
import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    jaccard_score,
    precision_score,
    recall_score,
    roc_auc_score,
)
from sklearn.metrics import precision_recall_curve as sklearn_pr_curve
from sklearn.metrics import roc_curve as sklearn_roc_curve

from retina_utils import metrics
from retina_utils.measures import widths

SKLEARN = {
    "dice": f1_score,
    "iou": jaccard_score,
    "precision": precision_score,
    "recall": recall_score,
    "accuracy": accuracy_score,
}


def blobs(seed, share=0.2, size=(80, 90), sigma=2):
    field = gaussian_filter(np.random.default_rng(seed).normal(size=size), sigma)
    return field > np.quantile(field, 1 - share)


@pytest.fixture
def photograph():
    """Probability (float32, not rounded to 16 bits), vessels, fov."""
    rng = np.random.default_rng(0)
    vessels, fov = blobs(0), np.ones((80, 90), bool)
    fov[:, :25] = False
    noise = rng.normal(0.3 + 0.3 * vessels, 0.2)
    return np.clip(noise, 0, 1).astype(np.float32), vessels, fov


def quantised(probability):
    return (np.rint(probability * 65535) / 65535).astype(np.float32)


@pytest.mark.parametrize("threshold", [0.1, 0.3, 0.5, 0.77])
def test_scores_equal_sklearns_inside_the_fov(photograph, threshold):
    probability, vessels, fov = photograph
    predicted = metrics.decide(probability, threshold)
    from_maps = metrics.confusion(predicted, vessels, fov)
    assert from_maps == metrics.confusion_at(metrics.histogram(*photograph), threshold)
    scores = metrics.scores(from_maps)
    for name, score in SKLEARN.items():
        assert scores[name] == pytest.approx(score(vessels[fov], predicted[fov]), abs=1e-12)
    specificity = recall_score(vessels[fov], predicted[fov], pos_label=False)
    assert scores["specificity"] == pytest.approx(specificity, abs=1e-12)


@pytest.mark.parametrize(("prepare", "tolerance"), [(quantised, 1e-12), (np.asarray, 1e-4)])
def test_areas_equal_sklearns_inside_the_fov(photograph, prepare, tolerance):
    probability, vessels, fov = prepare(photograph[0]), *photograph[1:]
    found = metrics.evaluate(metrics.histogram(probability, vessels, fov), threshold=0.5)
    auc = roc_auc_score(vessels[fov], probability[fov])
    ap = average_precision_score(vessels[fov], probability[fov])
    assert found["auc"] == pytest.approx(auc, abs=tolerance)
    assert found["ap"] == pytest.approx(ap, abs=tolerance)


def test_curves_equal_sklearns_point_for_point(photograph):
    probability, vessels, fov = quantised(photograph[0]), *photograph[1:]
    histogram = metrics.histogram(probability, vessels, fov)
    fpr, tpr, _ = sklearn_roc_curve(vessels[fov], probability[fov], drop_intermediate=False)
    np.testing.assert_allclose(metrics.roc_curve(histogram), [fpr, tpr], atol=1e-12)
    precision, recall, _ = sklearn_pr_curve(vessels[fov], probability[fov])
    np.testing.assert_allclose(
        metrics.pr_curve(histogram), [recall[::-1], precision[::-1]], atol=1e-12
    )


def test_the_table_of_all_thresholds_repeats_the_single_ones(photograph):
    histogram = metrics.histogram(*photograph)
    table = metrics.curves(histogram)
    for level in (0, 1, 20_000, 32_767, 50_000, 65_535):
        single = metrics.scores(metrics.confusion_at(histogram, table["threshold"][level]))
        assert single == pytest.approx({k: table[k][level] for k in single}, nan_ok=True)


def test_pixels_outside_the_fov_change_nothing(photograph):
    probability, vessels, fov = photograph
    predicted = probability >= 0.5
    flipped = np.where(fov, probability, np.nan), vessels ^ ~fov, fov
    for one, other in zip(metrics.histogram(*photograph), metrics.histogram(*flipped), strict=True):
        assert np.array_equal(one, other)
    for measure in (metrics.confusion, widths.cldice):
        assert measure(predicted ^ ~fov, vessels ^ ~fov, fov) == measure(predicted, vessels, fov)


def test_pooled_counts_are_sums_of_counts(photograph):
    probability, vessels, fov = photograph
    histograms = [metrics.histogram(p, vessels, fov) for p in (probability, 1 - probability)]
    pooled = metrics.confusion_at(metrics.pool(histograms), 0.4)
    single = [metrics.confusion_at(h, 0.4) for h in histograms]
    assert pooled == {key: sum(counts[key] for counts in single) for key in pooled}
    with pytest.raises(ValueError, match="nothing to pool"):
        metrics.pool([])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("threshold_dtype", [np.float32, np.float64, float])
def test_a_probability_equal_to_the_threshold_is_a_vessel_at_every_level(dtype, threshold_dtype):
    levels = np.arange(metrics.LEVELS)
    probability = (levels / 65535).astype(dtype)[None]
    everything = np.ones_like(probability, bool)
    histogram = metrics.histogram(probability, everything, everything)
    assert (histogram.vessel == 1).all()
    for level in [0, 1, 2, *range(3, 65_533, 7), 65_533, 65_534, 65_535]:
        threshold = threshold_dtype(level / 65535)
        assert metrics.lowest_level(threshold) == level
    for level in (0, 1, 27_001, 65_535):
        threshold = threshold_dtype(level / 65535)
        assert metrics.confusion_at(histogram, threshold)["fn"] == level
        assert np.count_nonzero(~metrics.decide(probability, threshold)) == level


@pytest.mark.parametrize("threshold", [0.5, 1 / 3, 0.1234, 1e-6, 0.9999999])
def test_a_threshold_between_levels_keeps_the_levels_above_it(threshold):
    probability = np.arange(metrics.LEVELS)[None] / 65535
    everything = np.ones_like(probability, bool)
    histogram = metrics.histogram(probability, everything, everything)
    expected = np.count_nonzero(probability >= threshold)
    assert metrics.confusion_at(histogram, threshold)["tp"] == expected


def test_threshold_0_takes_all_and_1_only_certainty():
    probability = np.array([[0.0, 0.5, 0.99999, 1.0]])
    assert metrics.decide(probability, 0).tolist() == [[True, True, True, True]]
    # 0.99999 is nearer to 65534 / 65535 than to 1.
    assert metrics.decide(probability, 1).tolist() == [[False, False, False, True]]
    for threshold in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match="threshold must be in"):
            metrics.decide(probability, threshold)


def test_probabilities_are_rounded_to_the_nearest_of_the_16_bit_levels():
    probability = np.array([[9.6, 10.0, 10.4, 10.6]]) / 65535
    assert metrics.to_levels(probability).tolist() == [[10, 10, 10, 11]]


def of_levels(vessel, background):
    """Histogram from {level: count}."""
    counts = np.zeros((2, metrics.LEVELS), np.int64)
    for row, levels in zip(counts, (vessel, background), strict=True):
        for level, count in levels.items():
            row[level] = count
    return metrics.Histogram(*counts)


def test_the_best_threshold_is_the_middle_of_the_plateau():
    separable = of_levels({40_000: 10}, {20_000: 90})
    # Levels 20001 to 40000 are all perfect.
    assert metrics.best_threshold([separable]) == 30_000 / 65535
    overlapping = of_levels({10_000: 5, 40_000: 10}, {20_000: 90})
    assert metrics.best_threshold([overlapping], by="iou") == 30_000 / 65535
    assert metrics.best_threshold([overlapping], by="recall") == 5_000 / 65535


def test_the_best_threshold_of_two_plateaus_is_inside_the_longer_one():
    histogram = of_levels({100: 1, 60_000: 1}, {0: 9, 100: 1, 50_000: 1})
    # Dice is 4 / 6 from level 1 to 100, 2 / 4 up to 50000, and 2 / 3 up to 60000.
    assert metrics.best_threshold([histogram]) == 55_000 / 65535


def test_photographs_weigh_by_their_pixels_or_alike():
    large = of_levels({60_000: 100}, {40_000: 900})
    small = of_levels({30_000: 1}, {10_000: 9})
    # Above 40000 the large one is right and the small one blind; up to 30000 the small one is.
    assert metrics.best_threshold([large, small, small]) > 40_000 / 65535
    alike = metrics.best_threshold([large, small, small], weigh="photographs")
    assert 10_000 / 65535 < alike <= 30_000 / 65535
    with pytest.raises(ValueError, match="'people'; choose pixels or photographs"):
        metrics.best_threshold([large], weigh="people")


def test_no_threshold_is_best_without_vessels_or_by_an_unknown_score():
    with pytest.raises(ValueError, match="no vessel"):
        metrics.best_threshold([of_levels({}, {5: 7})])
    with pytest.raises(ValueError, match="'auc'; choose one of dice, iou, precision, recall"):
        metrics.best_threshold([of_levels({5: 7}, {5: 7})], by="auc")


def test_what_is_undefined_is_nan():
    nothing = metrics.evaluate(of_levels({}, {0: 5}), threshold=0.5)
    undefined = {key for key, value in nothing.items() if math.isnan(value)}
    assert undefined == {"dice", "iou", "precision", "recall", "auc", "ap"}
    assert nothing["accuracy"] == nothing["specificity"] == 1.0
    only_vessels = metrics.evaluate(of_levels({9: 5}, {}), threshold=0)
    assert {key for key, value in only_vessels.items() if math.isnan(value)} == {
        "specificity",
        "auc",
    }


def test_a_summary_has_mean_and_sample_deviation_and_leaves_nan_out():
    rows = [{"name": "a", "dice": 0.5, "auc": math.nan}, {"name": "b", "dice": 0.7, "auc": 0.9}]
    summary = metrics.summarise(rows)
    assert summary["n"] == 2
    assert summary["mean"] == pytest.approx({"dice": 0.6, "auc": 0.9})
    assert summary["sd"]["dice"] == pytest.approx(np.std([0.5, 0.7], ddof=1))
    assert math.isnan(summary["sd"]["auc"])
    with pytest.raises(ValueError, match="nothing to summarise"):
        metrics.summarise([])


def test_wrong_arrays_are_refused_by_name(photograph):
    probability, vessels, fov = photograph
    refusals = [
        (
            (probability, vessels.astype(np.uint8), fov),
            TypeError,
            "vessels must be bool, got uint8",
        ),
        ((probability, vessels, fov * 1.0), TypeError, "fov must be bool, got float64"),
        (((probability * 65535).astype(np.uint16), vessels, fov), TypeError, "divide .* by 65535"),
        ((probability > 0.5, vessels, fov), TypeError, "probability must be floating"),
        ((probability[1:], vessels, fov), ValueError, r"probability is \(79, 90\), but fov"),
        ((probability, vessels[1:], fov), ValueError, r"'vessels': \(79, 90\)"),
        ((probability[None], vessels[None], fov[None]), ValueError, r"\(H, W\)"),
        ((4 * probability, vessels, fov), ValueError, "got 0 to 4; apply sigmoid"),
        ((-probability, vessels, fov), ValueError, "got -1 to"),
        ((probability * np.nan, vessels, fov), ValueError, "got nan"),
        ((probability, vessels, fov & False), ValueError, "fov is empty"),
    ]
    for arguments, error, message in refusals:
        with pytest.raises(error, match=message):
            metrics.histogram(*arguments)
    with pytest.raises(TypeError, match="predicted must be bool, got float32; threshold it first"):
        metrics.confusion(probability, vessels, fov)


def test_calibration_error_equals_its_definition_by_hand():
    # Ten pixels promise 0.9 and five are vessel; thirty promise 0.2 and nine are vessel.
    histogram = of_levels(
        {round(0.9 * 65535): 5, round(0.2 * 65535): 9},
        {round(0.9 * 65535): 5, round(0.2 * 65535): 21},
    )
    expected = 10 / 40 * abs(0.5 - 0.9) + 30 / 40 * abs(0.3 - 0.2)
    assert metrics.calibration_error(histogram) == pytest.approx(expected, abs=1e-4)
    # In one bin both errors meet: 14 of 40 are vessel, and 0.375 was promised.
    assert metrics.calibration_error(histogram, bins=1) == pytest.approx(0.025, abs=1e-4)


def test_reliability_says_what_stands_in_each_bin():
    table = metrics.reliability(of_levels({60_000: 3}, {60_000: 1, 100: 6}), bins=4)
    assert table["pixels"].tolist() == [6, 0, 0, 4]
    assert table["found"][[0, 3]].tolist() == [0, 0.75]
    assert table["promised"][[0, 3]] == pytest.approx([100 / 65535, 60_000 / 65535])
    assert np.isnan(table["found"][1:3]).all()
    with pytest.raises(ValueError, match="bins must be 1 to 65536, got 0"):
        metrics.reliability(of_levels({1: 1}, {}), bins=0)
    assert math.isnan(metrics.calibration_error(of_levels({}, {})))


def test_a_histogram_counts_four_million_pixels_once_each():
    rng = np.random.default_rng(0)
    probability = rng.random((2048, 2048), np.float32)
    found = metrics.histogram(probability, probability > 0.9, np.ones((2048, 2048), bool))
    assert found.vessel.sum() == (probability > 0.9).sum()
    assert found.vessel.sum() + found.background.sum() == probability.size


def test_the_examples_in_the_docstrings_are_true():
    result = doctest.testmod(metrics)
    assert result.attempted > 0
    assert result.failed == 0


def test_of_honest_probabilities_the_expected_threshold_and_dice_come_true():
    rng = np.random.default_rng(0)
    probability = rng.beta(0.2, 1.2, (700, 700))
    vessels, fov = rng.random((700, 700)) < probability, np.ones((700, 700), bool)
    found = metrics.histogram(probability, vessels, fov)
    expected = metrics.expect(found.vessel + found.background)
    best = metrics.best_threshold([found])
    true = metrics.scores(metrics.confusion_at(found, expected.threshold))["dice"]
    assert expected.threshold == pytest.approx(best, abs=0.02)
    assert expected.dice == pytest.approx(true, abs=0.005)
    assert expected.threshold == pytest.approx(expected.dice / 2, abs=1e-3)  # Lipton's theorem


def test_a_map_without_vessels_expects_nothing_and_one_of_two_kinds_cuts_between_them():
    counts = np.zeros(metrics.LEVELS, int)
    assert metrics.expect(counts).dice == 0
    counts[0] = 12
    assert metrics.expect(counts).dice == 0
    counts[metrics.lowest_level(0.75)] = 6
    found = metrics.expect(counts)
    assert found.threshold == pytest.approx(0.75, abs=1e-4)
    assert found.dice == pytest.approx(2 * 4.5 / (6 + 4.5), abs=1e-4)
