"""The explorer works without a browser: set a control, look at the picture and the numbers."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.show.pictures import EMPTY
from retina_utils.show.slider import VIEWS, ThresholdExplorer, screen_pixels


def make_case(name, seed, annotated=True, side=96):
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((side, side))
    fov = np.hypot(rows - side / 2, columns - side / 2) < 0.45 * side
    vessels = ((abs(rows - side / 2) < 3) | (abs(columns - side / 2) < 2)) & fov
    noise = rng.normal(0, 0.2, vessels.shape)
    probability = np.clip(0.2 + 0.6 * vessels + noise, 0, 1).astype(np.float32)
    image = rng.integers(60, 200, (side, side, 3), dtype=np.uint8)
    return Case(name, image, probability, vessels if annotated else None, fov)


@pytest.fixture
def cases():
    return [make_case("a", 1), make_case("b", 2), make_case("own photograph", 3, annotated=False)]


def shown(explorer):
    return np.asarray(Image.open(io.BytesIO(explorer.picture.value)).convert("RGB")).astype(int)


def test_moving_the_slider_changes_the_picture_and_the_numbers(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    before = explorer.picture.value, explorer.numbers.value
    explorer.slider.value = 0.7
    assert explorer.picture.value != before[0]
    assert "threshold 0.700" in explorer.numbers.value
    assert explorer.numbers.value != before[1]


@pytest.mark.parametrize("threshold", [0.0, 0.31, 0.5, 1.0])
def test_numbers_are_those_of_counting_every_pixel(cases, threshold):
    explorer = ThresholdExplorer(cases, 0.5)
    explorer.slider.value = threshold
    pooled = dict.fromkeys(("tp", "fp", "fn", "tn"), 0)
    for case in cases[:2]:
        predicted = metrics.decide(case.probability, threshold)
        counts = metrics.confusion(predicted, case.vessels, case.fov)
        if case is cases[0]:
            assert f">{metrics.scores(counts)['dice']:.3f}<" in explorer.numbers.value
        pooled = {key: pooled[key] + counts[key] for key in pooled}
    assert f">{metrics.scores(pooled)['iou']:.3f}<" in explorer.numbers.value
    assert "2 validation photographs, pooled" in explorer.numbers.value


def test_every_view_is_another_picture_of_the_same_size(cases):
    explorer = ThresholdExplorer(cases, 0.4)
    pictures = {}
    for view in VIEWS:
        explorer.view.value = view
        pictures[view] = explorer.picture.value
        assert shown(explorer).shape == (512, 512, 3)
    assert len(set(pictures.values())) == len(VIEWS)


def test_at_threshold_zero_all_inside_the_field_of_view_is_vessel_and_nothing_outside(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    explorer.view.value = "vessels"
    explorer.slider.value = 0
    picture = shown(explorer)
    assert picture[256, 256].min() > 200
    assert picture[5, 5].max() < EMPTY


def test_zoom_shows_native_pixels_and_pans_from_edge_to_edge(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    assert explorer.across.disabled
    explorer.zoom.value = 4
    assert not explorer.across.disabled
    explorer.across.value, explorer.down.value = 0, 1
    assert explorer.window == (slice(72, 96), slice(0, 24))
    assert shown(explorer).shape == (512, 512, 3)


def test_marks_jump_to_their_exact_threshold(cases):
    explorer = ThresholdExplorer(cases, 0.4317, best=0.61)
    assert [button.description for button in explorer.jumps] == [
        "0.500 one half",
        "0.432 usual threshold",
        "0.610 best possible",
    ]
    explorer.jumps[2].click()
    assert explorer.threshold == 0.61
    explorer.jumps[1].click()
    assert explorer.threshold == explorer.slider.value == 0.4317
    assert explorer.number.value == 0.4317


def test_buttons_and_a_number_move_the_threshold_too(cases):
    explorer = ThresholdExplorer(cases, 0.4317)
    steps = []
    for button in (explorer.more, explorer.less, explorer.less):
        button.click()
        steps.append(explorer.threshold)
    assert steps[2] < steps[1] == 0.4317 < steps[0]
    explorer.number.value = 0.7
    assert explorer.threshold == 0.7
    explorer.number.value = 0.123456  # between two steps
    assert explorer.threshold == pytest.approx(0.1235, abs=0.005)
    assert explorer.number.value == round(explorer.threshold, 4)
    for end, button in ((1, explorer.more), (0, explorer.less)):
        explorer.slider.value = end
        button.click()
        assert explorer.threshold == end


def test_a_network_that_is_never_sure_has_its_action_all_along_the_track(cases):
    close = [c._replace(probability=0.49 + c.probability / 50) for c in cases]
    explorer = ThresholdExplorer(close, 0.5)
    inside = [value for value in explorer.offered if 0.49 <= value <= 0.51]
    assert len(inside) > 40  # of 200; in even steps there were five
    assert all(len(explorer._shown(value)) <= 6 for value in inside)
    assert len({explorer._shown(value) for value in inside}) == len(inside)


def test_opacity_fades_the_colour(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    explorer.view.value = "photograph"
    photograph = shown(explorer)
    explorer.view.value, explorer.opacity.value = "overlay", 0
    assert (shown(explorer) == photograph).all()


def test_a_photograph_without_annotation_has_no_scores_of_its_own(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    explorer.photograph.value = 2
    assert "no annotation" in explorer.key.value
    assert "own photograph" not in explorer.numbers.value
    assert "pooled" in explorer.numbers.value
    alone = ThresholdExplorer(cases[2:], 0.5)
    assert "pooled" not in alone.numbers.value


def test_a_choice_by_eye_needs_a_reason_and_is_handed_on(cases):
    chosen = []
    explorer = ThresholdExplorer(cases, 0.5, on_choose=lambda *choice: chosen.append(choice))
    explorer.slider.value = 0.3
    explorer.choose.click()
    assert not chosen
    assert "reason" in explorer.status.value
    explorer.reason.value = " thin <vessels> "
    explorer.choose.click()
    assert chosen == [(0.3, "thin <vessels>")]
    assert "chosen by eye on validation photographs: thin &lt;vessels&gt;" in explorer.status.value


def test_a_choice_that_cannot_be_kept_says_so(cases):
    def fail(threshold, reason):
        raise OSError("disk full")

    explorer = ThresholdExplorer(cases, 0.5, on_choose=fail)
    explorer.reason.value = "because"
    explorer.choose.click()
    assert "Not kept" in explorer.status.value
    assert "disk full" in explorer.status.value


def test_the_test_split_warns_before_a_choice(cases):
    explorer = ThresholdExplorer(cases, 0.5, split="test", on_choose=print)
    assert "flatters" in explorer.status.value


def test_without_a_kernel_there_is_a_picture_and_a_sentence(cases):
    bundle, told = ThresholdExplorer(cases, 0.5)._repr_mimebundle_()
    assert cases[0].name in told["image/jpeg"]["alt"]
    with Image.open(io.BytesIO(base64.b64decode(bundle["image/jpeg"]))) as image:
        assert image.width > 400
    assert "3 validation photographs" in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_controls_say_what_they_do(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    buttons = [explorer.less, explorer.more, explorer.number]
    assert all(control.tooltip for control in buttons)
    controls = [explorer.photograph, explorer.slider, explorer.zoom, explorer.across, explorer.down]
    assert all(control.tooltip for control in [*controls, explorer.opacity, *explorer.jumps])


def test_no_photographs_is_an_error_that_names_the_split():
    with pytest.raises(ValueError, match="no test photograph"):
        ThresholdExplorer([], 0.5, split="test")


@pytest.mark.parametrize(
    ("longest", "expected"), [(256, 512), (600, 600), (999, 768), (2048, 683), (3504, 701)]
)
def test_the_picture_is_between_512_and_768_pixels(longest, expected):
    assert screen_pixels(longest) == expected


def test_the_overlay_tints_what_the_threshold_finds(cases):
    explorer = ThresholdExplorer(cases, 0.5)
    explorer.view.value = "photograph"
    photograph = shown(explorer)
    explorer.view.value, explorer.opacity.value = "overlay", 1
    change = abs(shown(explorer) - photograph).sum(axis=-1)
    predicted = metrics.decide(cases[0].probability, 0.5) & cases[0].fov
    found = np.asarray(Image.fromarray(predicted).resize((512, 512), Image.Resampling.NEAREST))
    assert change[found].mean() > 5 * change[~found].mean()
