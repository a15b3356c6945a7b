"""Figures that explain are tested by what they hold: the code's own numbers."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.fov import find_fov
from retina_utils.measures.widths import cldice
from retina_utils.models import UNet, count_parameters
from retina_utils.show import explain

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def texts(fig):
    return {text.get_text() for text in fig.findobj(Text)}


def shown(fig):
    return [ax.images[0].get_array() for ax in fig.axes if ax.images]


def test_the_u_is_the_networks_own():
    fig = explain.plot_u(UNet(widths=(4, 8, 16)), 64)
    sizes = {"4 × 64²", "8 × 32²", "16 × 16²", "skip connection"}
    assert sizes <= texts(fig)
    assert len(fig.axes[0].patches) == 5  # boxes: three down, two up
    folded = explain.plot_u(UNet(widths=(4, 8), fold=2), 64)
    assert {"4 × 32²", "8 × 16²"} <= texts(folded)


def test_costs_are_those_counted_by_hand():
    model = UNet(widths=(4, 8))
    rows = explain.level_costs(model, 16, repeats=1)
    assert [row["level"] for row in rows] == [1, 2]
    assert sum(row["parameters"] for row in rows) == count_parameters(model)
    down, bottom = (1 + 4) * 4 * 9 * 16**2, (4 + 8) * 8 * 9 * 8**2
    up, fuse, head = 8 * 16 * 8**2, (8 + 4) * 4 * 9 * 16**2, 4 * 16**2
    assert [row["multiply-adds"] for row in rows] == [down + up + fuse + head, bottom]
    assert all(row["ms"] > 0 for row in rows)
    bars = explain.plot_level_costs(rows).axes[0].patches
    shares = [row["parameters"] / count_parameters(model) for row in rows]
    assert [bar.get_height() for bar in bars] == pytest.approx(shares)


def test_counting_leaves_the_model_as_it_was():
    model = UNet(widths=(4, 8)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explain.level_costs(model, 16, repeats=1)
    assert model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_scores_by_hand():
    vessels = np.array([[1, 1, 1, 0], [0, 0, 0, 0]], bool)
    predicted = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool)
    fig = explain.plot_counts(predicted, vessels)
    words = fig.get_supxlabel()
    assert "hits (light) 2    false alarms (orange) 1    misses (blue) 1    rest 4" in words
    assert "Dice = 2·2 / (2·2 + 1 + 1) = 0.667" in words
    assert "specificity = 4 / (4 + 1) = 0.800" in words
    annotated, drawn, _ = shown(fig)
    assert np.array_equal(annotated[..., 0] > 100, vessels)
    assert np.array_equal(drawn[..., 0] > 100, predicted)


def test_two_drawings_are_equal_in_dice_and_not_in_cldice():
    maps = explain.two_drawings()
    vessels, fov = maps["vessels"], np.ones_like(maps["vessels"])
    dice, centre = {}, {}
    for name in ("too wide", "with gaps"):
        dice[name] = metrics.scores(metrics.confusion(maps[name], vessels, fov))["dice"]
        centre[name] = cldice(maps[name], vessels, fov)
    assert dice["too wide"] == dice["with gaps"]
    assert centre["too wide"] > 0.98
    assert centre["with gaps"] < 0.9


@pytest.fixture
def case():
    """A sure thick vessel, and a thin one that fades from left to right."""
    fov, vessels = np.ones((200, 300), bool), np.zeros((200, 300), bool)
    vessels[40:60], vessels[150] = True, True
    probability = 0.95 * vessels.astype(np.float32)
    probability[150] = np.linspace(1, 0.2, 300)
    return Case("eye", np.zeros((200, 300, 3), np.uint8), probability, vessels, fov)


def test_the_thin_vessel_shown_is_one_in_doubt(case):
    rows, columns = explain.thin_window(case)
    assert rows.start <= 150 < rows.stop
    assert 40 < (columns.start + columns.stop) / 2 < 265  # where it is neither sure nor lost
    fig = explain.plot_thin_vessel(case)
    titles = [ax.get_title(loc="left") or ax.get_title() for ax in fig.axes]
    recall = [float(title.split("recall ")[1]) for title in titles[2:]]
    assert len(recall) == 4
    assert recall == sorted(recall, reverse=True)
    assert recall[0] > recall[-1]


def test_each_augmentation_is_shown_raw_and_with_its_vessels(sample):
    fig = explain.plot_augmentations(sample, size=96)
    raw = shown(fig)[: len(fig.axes) // 2]
    assert len(raw) == 1 + len(explain.CHANGES) == 8
    top, left = (side // 2 - 48 for side in sample.fov.shape)
    plain = sample.image[top : top + 96, left : left + 96] / 255
    assert np.allclose(raw[0], plain, atol=1e-6)
    flips = [plain[::down, ::across] for down in (1, -1) for across in (1, -1)]
    assert any(np.allclose(raw[1], flip, atol=1e-2) for flip in flips)
    assert all(not np.allclose(each, plain, atol=0.05) for each in raw[2:])
    assert all(len(ax.collections) == 1 for ax in fig.axes[8:])  # the outline


def test_the_field_of_view_is_found_on_each_spoiled_photograph(sample):
    fig = explain.plot_fov_at_work(sample.image)
    whole = sample.fov.sum()
    for picture, part in zip(shown(fig), (1, 0.8, 1, 1, 1), strict=True):
        assert find_fov(np.asarray(picture)).sum() > 0.97 * part * whole
    assert all(len(ax.collections) == 1 for ax in fig.axes)
