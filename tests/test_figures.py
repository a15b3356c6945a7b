"""Figures are tested by what they hold, not by their looks."""

import types
import xml.etree.ElementTree as ET

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.text import Text
from PIL import Image

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.measures import mistakes
from retina_utils.measures.compare import Comparison
from retina_utils.show import figures, pictures

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def closed_figures():
    with plt.rc_context():
        yield
    plt.close("all")


@pytest.fixture
def case():
    """A cross of vessels in a disc, and probabilities that find most of it."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((60, 80))
    fov = np.hypot(rows - 30, columns - 40) < 28
    vessels = ((abs(rows - 30) < 2) | (abs(columns - 40) < 1)) & fov
    noise = rng.normal(0, 0.2, vessels.shape)
    probability = np.clip(0.2 + 0.6 * vessels + noise, 0, 1).astype(np.float32)
    image = rng.integers(60, 200, (60, 80, 3), dtype=np.uint8)
    return Case("synthetic", image, probability, vessels, fov)


def test_a_prediction_without_annotation_has_no_error_map_and_no_scores(case):
    args = (case.image, case.probability)
    with_annotation = figures.plot_prediction(*args, case.vessels, case.fov, 0.5)
    without = figures.plot_prediction(*args, None, case.fov, 0.5)
    assert [len(fig.axes) for fig in (with_annotation, without)] == [4, 3]
    counts = metrics.confusion(case.probability >= 0.5, case.vessels, case.fov)
    assert f"Dice {metrics.scores(counts)['dice']:.3f}" in with_annotation.get_supxlabel()
    assert without.get_supxlabel() == ""


def test_probabilities_are_always_drawn_from_zero_to_one(case):
    dim = case._replace(probability=case.probability * 0.1)
    fig = figures.plot_prediction(*dim[1:], 0.5)
    assert fig.axes[1].images[0].get_clim() == (0, 1)


def brightness_of(image):
    """How bright a gallery draws the first pixel: 0 for black to 1 for white."""
    drawn = figures.plot_gallery([image], [""]).axes[0].images[0]
    return drawn.to_rgba(drawn.get_array())[0, 0, 0]


def test_a_gallery_draws_what_it_is_told():
    dim = np.full((4, 4), 0.25, np.float32)
    dim[0, 1] = 0.3  # a probability that is low everywhere stays dark
    assert brightness_of(dim) == pytest.approx(0.25, abs=0.01)
    assert brightness_of(np.full((4, 4), 51, np.uint8)) == pytest.approx(0.2, abs=0.01)
    assert [brightness_of(np.full((4, 4), drawn)) for drawn in (True, False)] == [1, 0]


def test_a_gallery_refuses_what_it_would_have_to_stretch():
    patch = np.linspace(-2, 3, 16, dtype=np.float32).reshape(4, 4)
    with pytest.raises(ValueError, match=r"'patch': found float32 from -2 to 3.*stretch"):
        figures.plot_gallery([patch], ["patch"])
    assert brightness_of(pictures.stretch(patch)) == 0


def test_patch_grid_counts_the_patches_over_each_pixel():
    image = np.zeros((8, 12, 3), np.uint8)
    fig = figures.plot_patch_grid(image, [(0, 0), (0, 4), (4, 4)], 8)
    counts = fig.axes[1].images[0].get_array()
    assert (counts[0, 0], counts[0, 5], counts[5, 5], counts[7, 0]) == (1, 2, 3, 1)
    assert len(fig.axes[0].patches) == 3


@pytest.mark.parametrize("channels", [1, 3])
def test_patches_can_be_a_batch_or_a_list_of_items(channels):
    item = {
        "image": np.random.default_rng(0).normal(size=(channels, 16, 16)),
        "vessels": np.eye(16)[None],
        "fov": np.ones((1, 16, 16)),
    }
    batch = {key: np.stack([value, value]) for key, value in item.items()}
    for patches in (batch, [item, item]):
        shown = [ax.images[0].get_array() for ax in figures.plot_patches(patches).axes if ax.images]
        assert len(shown) == 2
        assert shown[0].min() == 0
        assert shown[0].max() == 1


def history(n):
    names = ("dice", "iou", "precision", "recall", "accuracy")
    return [
        {"epoch": e, "lr": 1e-3, "train_loss": 1 / e, "validation_loss": 1.1 / e, "seconds": 1}
        | {f"validation_{name}": 0.5 - abs(e - 3) / 10 for name in names}
        for e in range(1, n + 1)
    ]


def test_history_shows_every_column_and_marks_the_best_epoch():
    as_text = [{key: str(value) for key, value in row.items()} for row in history(5)]
    fig = figures.plot_history(as_text)
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes]
    wanted = {"loss", "Dice", "IoU", "precision", "recall", "accuracy", "learning rate"}
    assert wanted == set(titles) - {""}
    assert [line.get_label() for line in fig.axes[0].lines][:2] == ["training", "validation"]
    assert fig.axes[0].lines[-1].get_label() == "best epoch: 3"


def test_history_of_one_epoch_and_of_undefined_scores_can_be_drawn():
    rows = [row | {"validation_dice": float("nan")} for row in history(1)]
    figures.plot_history(rows).canvas.draw()


def test_curves_mark_the_operating_point_where_the_scores_say(case):
    histogram = metrics.histogram(*case[2:])
    second = {"tp": 80, "fp": 20, "fn": 30, "tn": 900}
    _, pr = figures.plot_curves(histogram, 0.4, second).axes[:2]
    score = metrics.scores(metrics.confusion_at(histogram, 0.4))
    by_label = {line.get_label(): line for line in pr.lines}
    assert by_label["chosen threshold 0.400"].get_xydata().tolist() == [
        [score["recall"], score["precision"]]
    ]
    assert by_label["second observer"].get_xydata().tolist() == [[80 / 110, 80 / 100]]
    assert f"network, AP {metrics.average_precision(histogram):.3f}" in by_label


def test_best_possible_threshold_is_dashed_and_on_test_only(case):
    histogram = metrics.histogram(*case[2:])
    validation, test = figures.plot_thresholds(histogram, 0.4, histogram).axes
    upright = {
        ax: [line.get_linestyle() for line in ax.lines if np.ptp(line.get_xdata()) == 0]
        for ax in (validation, test)
    }
    assert upright == {validation: ["-"], test: ["-", "--"]}


HUMAN = {"tp": 80, "fp": 20, "fn": 30, "tn": 870}


def test_a_second_observers_dice_is_a_dotted_line_where_there_is_one(case):
    histogram = metrics.histogram(*case[2:])
    fig = figures.plot_thresholds(histogram, 0.4, histogram, {"test": HUMAN})
    dotted = [[line for line in ax.lines if line.get_linestyle() == ":"] for ax in fig.axes]
    assert [len(lines) for lines in dotted] == [0, 1]
    dice = 160 / (160 + 20 + 30)
    assert list(dotted[1][0].get_ydata()) == [dice, dice]
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes]
    assert [f"second observer: Dice {dice:.3f}" in title for title in titles] == [False, True]


def test_a_second_observers_no_and_yes_stand_in_the_calibration_plot(case):
    histogram = metrics.histogram(*case[2:])
    top = figures.plot_calibration(histogram, HUMAN).axes[0]
    diamonds = [line for line in top.lines if line.get_marker() == "D"]
    assert diamonds[0].get_xydata().tolist() == [[0, 30 / 900], [1, 80 / 100]]
    alone = figures.plot_calibration(histogram).axes[0]
    assert not [line for line in alone.lines if line.get_marker() == "D"]


def test_intervals_have_a_bar_for_each_way_of_drawing_and_a_diamond_for_the_human():
    pooled = {"dice": 0.8, "iou": 0.7, "precision": 0.8, "recall": 0.8}
    spread = {name: (value - 0.05, value + 0.05) for name, value in pooled.items()}
    fig = figures.plot_intervals(pooled, {"photographs": spread, "people": spread}, HUMAN)
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels == [
        "95 % interval over photographs",
        "95 % interval over people",
        "network, pooled",
        "second observer",
    ]
    bars = fig.axes[0].collections[0].get_segments()
    assert bars[0][:, 0].tolist() == [0.75, 0.8 + 0.05]
    unknown = dict.fromkeys(pooled, (float("nan"), float("nan")))
    figures.plot_intervals(pooled, {"photographs": spread, "people": unknown}).canvas.draw()


def test_the_worst_photographs_have_a_row_each_with_the_shares_of_their_mistakes(case):
    kinds = mistakes.mistakes(metrics.decide(case.probability, 0.5), case.vessels, case.fov)
    fig = figures.plot_mistakes([case, case], [kinds, kinds], 0.5, ["one", "two"])
    assert len(fig.axes) == 6
    assert {"one", "two"} <= {text.get_text() for ax in fig.axes for text in ax.findobj(Text)}
    counts = mistakes.count_mistakes(kinds)
    widths = [bar.get_width() for bar in fig.axes[2].patches]
    assert widths == pytest.approx([n / sum(counts.values()) for n in counts.values()])
    assert sum(widths) == pytest.approx(1)


def test_calibration_error_equals_its_definition():
    vessel, background = np.zeros((2, metrics.LEVELS), np.int64)
    level = round(0.8 * 65535)
    vessel[level], background[level] = 60, 40  # promised 0.8, found 0.6
    background[0] = 100  # promised 0, found 0
    fig = figures.plot_calibration(metrics.Histogram(vessel, background))
    assert "expected calibration error 0.100" in fig.axes[0].lines[1].get_label()


def test_cases_and_thresholds_have_a_row_and_a_column_each(case):
    assert len(figures.plot_cases([case, case], 0.5).axes) == 8
    steps = {"low": 0.2, "chosen": 0.5, "high": 0.8}
    assert len(figures.plot_three_thresholds(case, steps).axes) == 6
    assert len(figures.plot_three_thresholds(case._replace(vessels=None), steps).axes) == 3


def test_photographs_are_stored_as_jpeg_and_charts_as_png(case):
    photograph = figures.plot_photograph(*case[1:2], case.vessels, case.fov)
    assert figures.encode(photograph).startswith(b"\xff\xd8")
    assert figures.encode(figures.plot_history(history(2))).startswith(b"\x89PNG")


def test_saved_figures_are_identical_between_runs_and_carry_their_caption(tmp_path, case):
    for folder in ("one", "two"):
        keep = figures.keep_in(tmp_path / folder)
        fig = figures.plot_curves(metrics.histogram(*case[2:]), 0.5)
        keep(fig, "curves", "Dice < 1 & more")
    one, two = (tmp_path / folder / "figures" for folder in ("one", "two"))
    for name in ("curves.png", "curves.svg"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert sorted(p.name for p in one.iterdir()) == ["curves.png", "curves.svg"]
    with Image.open(one / "curves.png") as image:
        assert image.info["Description"] == "Dice < 1 & more"
        assert round(image.info["dpi"][0]) == 200
    texts = "".join(ET.parse(one / "curves.svg").getroot().itertext())
    assert "Dice < 1 & more" in texts


def test_a_notebook_keeps_the_caption_for_who_cannot_see_the_figure(tmp_path, case, monkeypatch):
    shell = types.SimpleNamespace(display_formatter=DisplayFormatter())
    monkeypatch.setattr(figures, "get_ipython", lambda: shell)
    keep = figures.keep_in(tmp_path)
    photograph = figures.plot_photograph(*case[1:2], case.vessels, case.fov)
    for kind, fig in {"png": figures.plot_history(history(2)), "jpeg": photograph}.items():
        keep(fig, kind, f"A {kind}.")
        data, told = shell.display_formatter.format(fig)
        assert f"image/{kind}" in data and told[f"image/{kind}"] == {"alt": f"A {kind}."}


def test_losses_pull_as_steeply_as_their_derivative():
    logit = np.linspace(-4, 4, 401)
    fig = figures.plot_losses(logit, {"cross-entropy": np.log1p(np.exp(-logit))})
    pull = fig.axes[1].lines[0].get_ydata()
    assert np.allclose(pull[1:-1], 1 / (1 + np.exp(logit[1:-1])), atol=1e-4)


def test_a_name_with_dollars_is_drawn_as_it_is(sample):
    fig = figures.plot_photograph(sample.image, sample.vessels, sample.fov, "a$^$b")
    figures.encode(fig)
    fig = figures.plot_gallery([sample.image], ["a$^$b"], 1)
    figures.encode(fig)
    assert fig.axes[0].get_title(loc="left") == "a$^$b" or fig.axes[0].get_title() == "a$^$b"


def test_cuts_lie_where_the_curve_comes_to_half_of_the_dice_and_to_one_half():
    share = np.linspace(0, 1, metrics.LEVELS) ** 2
    vessel = np.rint(1e6 * share).astype(np.int64)
    histogram = metrics.Histogram(vessel, 10**6 - vessel)
    ax = figures.plot_cuts(histogram).axes[0]
    rings = [line.get_xydata()[0] for line in ax.lines if line.get_marker() == "o"]
    upright = [line.get_xdata()[0] for line in ax.lines if len({*line.get_xdata()}) == 1][1::2]
    best = [metrics.best_threshold([histogram], by) for by in ("dice", "accuracy")]
    assert upright == pytest.approx(best)
    assert [x for x, _ in rings] == pytest.approx(best, abs=0.01)
    assert [y for _, y in rings] == pytest.approx([best[0] ** 2, 0.5], abs=0.01)


def test_differences_are_drawn_by_photograph_and_the_interval_from_five_people_on():
    change = np.array([0.02, -0.01, 0.03, 0.04, 0.01])
    scores = {"dice": np.stack([np.full(5, 0.7), 0.7 + change])}
    names = [f"eye_{i}" for i in range(5)]
    found = Comparison(("a", "b"), names, list("vwxyz"), scores)
    fig = figures.plot_differences(found)
    dots = [line.get_xdata() for line in fig.axes[0].lines[:2]]
    assert [sorted(x) for x in dots] == [
        pytest.approx([0.01, 0.02, 0.03, 0.04]),
        pytest.approx([-0.01]),
    ]
    labels = [text.get_text() for text in fig.legends[0].get_texts()]
    assert labels[:2] == ["b is better: 4", "a is better: 1"]
    assert labels[2].startswith("95 % interval of the mean, over people: +0.0")
    assert labels[3] == "mean +0.018"
    ticks = [tick.get_text() for tick in fig.axes[0].get_yticklabels()]
    assert ticks == ["eye_1", "eye_4", "eye_0", "eye_2", "eye_3"]
    few = figures.plot_differences(found._replace(people=list("vvwxy")))
    assert "interval" not in "".join(text.get_text() for text in few.legends[0].get_texts())


def test_tries_have_a_line_for_each_choice_and_a_dot_for_each_try():
    rows = [
        {"loss": "bce", "seed": "0", "dice": "0.80", "low": "0.75", "high": "0.85"},
        {"loss": "bce", "seed": "1", "dice": "0.82", "low": "", "high": ""},
        {"loss": "dice", "seed": "0", "dice": "0.70", "low": "0.6", "high": "0.8"},
    ]
    ax = figures.plot_tries(rows, ["loss"], "dice", interval=("low", "high")).axes[0]
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["bce", "dice"]
    assert [line.get_xydata().tolist() for line in ax.lines] == [
        [[0.80, 0], [0.82, 0]], [[pytest.approx(0.81), 0]], [[0.70, 1]],
    ]  # fmt: skip
    bars = [bar.get_segments()[0][:, 0].tolist() for bar in ax.collections]
    assert bars == [[0.75, 0.85], [0.6, 0.8]]
