"""The viewer's promise: what the browser decides and shows is what the metrics say."""

import base64
import io
import json
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import f1_score

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.show.viewer import encode_levels, threshold_levels, viewer_html

CHOSEN = 0.4183


@pytest.fixture(scope="module")
def case() -> Case:
    rng = np.random.default_rng(0)
    fov = np.ones((40, 50), bool)
    fov[:4] = False
    vessels = rng.random(fov.shape) < 0.2
    probability = (rng.integers(0, 65536, fov.shape) / 65535).astype(np.float32)
    return Case("eye", rng.integers(0, 256, (40, 50, 3), np.uint8), probability, vessels, fov)


def data_of(fragment: str) -> dict:
    return json.loads(re.search(r'application/json">(.*?)</script>', fragment, re.S)[1])


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def test_every_level_decides_each_pixel_as_the_metrics_do(case):
    levels = threshold_levels({"chosen": CHOSEN, "best": 0.61803})
    codes = encode_levels(case.probability, case.fov, levels)
    for k, level in enumerate(levels.tolist()):
        expected = case.fov & metrics.decide(case.probability, level)
        assert np.array_equal(codes > k, expected), level


def test_probabilities_exactly_on_a_threshold_are_vessel():
    levels = threshold_levels({"chosen": CHOSEN})
    ties = np.float32([[0.2, 0.4, 0.5, 0.6, 0.8, 1.0]])  # 0.5 is rounded to a 16-bit level
    codes = encode_levels(ties, np.ones_like(ties, bool), levels)
    for code, tie in zip(codes[0], ties[0].astype(float).round(3), strict=True):
        assert levels[code - 1] == tie


def test_marked_thresholds_are_on_the_track_to_the_last_digit(case):
    data = data_of(viewer_html([case], {"chosen": CHOSEN, "best": 0.2500001}))
    at = {name: data["levels"][mark["level"]] for name, mark in data["marks"].items()}
    assert at == {"chosen": CHOSEN, "best": 0.2500001, "half": 0.5}
    assert len(data["levels"]) <= 255


@pytest.mark.parametrize(("low", "high"), [(0, 65536), (32000, 33000), (0, 1), (65535, 65536)])
def test_a_track_that_follows_the_probabilities_keeps_its_ends_and_marks(low, high):
    counts = np.zeros(65536, int)
    counts[low:high] = 3
    levels = threshold_levels({"chosen": CHOSEN, "best": 0.61803}, counts)
    assert {0, 1, 0.5, CHOSEN, 0.61803} <= set(levels.tolist()) and len(levels) <= 255
    assert (np.diff(levels) > 0).all() and np.diff(levels).max() <= 0.01 + 1e-9
    between = ((levels >= low / 65535) & (levels <= high / 65535)).sum()
    assert between >= min(high - low, 40)


def test_the_embedded_picture_holds_the_codes_and_their_sum(case):
    data = data_of(viewer_html([case], {"chosen": CHOSEN}))
    codes = pixels(data["cases"][0]["codes"])
    levels = np.array(data["levels"])
    assert np.array_equal(codes, encode_levels(case.probability, case.fov, levels))
    assert data["cases"][0]["sum"] == codes.sum()
    annotation = pixels(data["cases"][0]["annotation"])
    assert np.array_equal(annotation.astype(bool), case.vessels & case.fov)


def test_dice_in_the_table_is_that_of_scikit_learn(case):
    data = data_of(viewer_html([case], {"chosen": CHOSEN}))
    level = data["marks"]["chosen"]["level"]
    predicted = case.probability[case.fov] >= CHOSEN
    expected = f1_score(case.vessels[case.fov], predicted)
    assert data["cases"][0]["scores"]["dice"][level] == round(expected, 3)
    assert data["whole"]["dice"][level] == round(expected, 3)


def test_a_reduced_photograph_keeps_its_native_scores(case):
    native, small = (
        data_of(viewer_html([case], {"chosen": CHOSEN}, max_side=side))["cases"][0]
        for side in (2048, 25)
    )
    assert small["scores"] == native["scores"]
    assert (small["width"], small["height"], small["scale"]) == (25, 20, 0.5)
    assert "50%" in small["note"] and native["note"] == ""


def test_cases_beyond_the_room_are_left_out_and_counted(case):
    data = data_of(viewer_html([case] * 4, {"chosen": CHOSEN}, max_bytes=1))
    assert len(data["cases"]) == 1
    assert data["note"].startswith("3 more")


def test_a_name_cannot_leave_its_place(case):
    name = '</script><img src=x onerror="alert(1)">'
    fragment = viewer_html([case._replace(name=name)], {"chosen": CHOSEN})
    assert "<img src=x" not in fragment
    assert fragment.count("</script>") == 2
    assert data_of(fragment)["cases"][0]["name"] == name


def test_nothing_is_loaded_from_elsewhere(case):
    fragment = viewer_html([case], {"chosen": CHOSEN})
    assert not re.search(r"https?:|@import|url\(|fetch\(|src=\"(?!data:)", fragment)


def test_without_annotation_there_are_pictures_and_no_scores(case):
    data = data_of(viewer_html([case._replace(vessels=None)], {"chosen": CHOSEN}))
    assert data["cases"][0]["annotation"] is None
    assert set(data["cases"][0]["scores"]["dice"] + data["whole"]["iou"]) == {None}


def test_the_still_picture_shows_the_chosen_decision(case):
    uri = re.search(r'<img alt="[^"]*" src="([^"]+)"', viewer_html([case], {"chosen": CHOSEN}))[1]
    other = re.search(r'<img alt="[^"]*" src="([^"]+)"', viewer_html([case], {"chosen": 1.0}))[1]
    assert pixels(uri).shape == (40, 50, 3)
    assert not np.array_equal(pixels(uri), pixels(other))


@pytest.mark.parametrize(
    ("thresholds", "message"),
    [
        ({"best": 0.4}, "'chosen'"),
        ({"chosen": 1.2}, "from 0 to 1"),
        ({"chosen": 0.4, "x": 0.1}, "x"),
    ],
)
def test_unfit_thresholds_are_refused(case, thresholds, message):
    with pytest.raises(ValueError, match=message):
        viewer_html([case], thresholds)


def test_no_cases_and_differing_sizes_are_refused(case):
    with pytest.raises(ValueError, match="no cases"):
        viewer_html([], {"chosen": CHOSEN})
    with pytest.raises(ValueError, match="eye: probability is"):
        viewer_html([case._replace(probability=case.probability[1:])], {"chosen": CHOSEN})
