"""What is measured of vessels, on drawn shapes whose numbers are known."""

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.ndimage import binary_dilation
from scipy.spatial import KDTree

from retina_utils.measures import numbers
from retina_utils.measures.agreement import agreement, icc
from retina_utils.measures.segments import segments_of

SIZE = 600  # pixels across the FOV, at scale 1
SCALES = (1, 1.7, 2.6)
ANGLES = (0, 20, 45, 107)  # degrees
T = np.linspace(-1, 1, 2001)


def draw(curves, size):
    """Soft-edged vessels, (size, size) float: each a dense (n, 2) curve and its width there."""
    drawing = np.zeros((size, size))
    for points, width in curves:
        width = np.broadcast_to(width, len(points))
        block = int(width.max()) + 4
        near = np.zeros((size // block + 1,) * 2, bool)
        near[tuple((points // block).astype(int).T)] = True
        near = np.kron(binary_dilation(near, np.ones((3, 3))), np.ones((block, block), bool))
        at = np.argwhere(near[:size, :size])
        distance, nearest = KDTree(points).query(at)
        shade = np.clip(width[nearest] / 2 - distance + 0.5, 0, 1)
        drawing[tuple(at.T)] = np.maximum(drawing[tuple(at.T)], shade)
    return drawing


def line(start, end):
    return np.linspace(start, end, 1500)


def koch(depth):
    points = np.array([-1, 1]) + 0j
    for _ in range(depth):
        step = np.diff(points)[:, None] / 3
        corner = np.exp(-1j * np.pi / 3)
        parts = points[:-1, None] + step * np.array([0, 1, 1 + corner, 2])
        points = np.append(parts.ravel(), points[-1])
    fine = np.concatenate([np.linspace(a, b, 8, endpoint=False) for a, b in pairwise(points)])
    return np.stack([fine.imag + 0.3, fine.real], axis=1) * 230


def tree(start, direction, length, width, depth):
    end = start + length * np.array([math.cos(direction), math.sin(direction)])
    yield line(start, end), width
    if depth:
        for turn in (-0.5, 0.6):
            yield from tree(end, direction + turn, 0.72 * length, 0.75 * width, depth - 1)


def shape(name):
    """Its curves, and what is known of it at scale 1; "" for what is not asked."""
    if name == "straight":
        return [(line((-5, -180), (8, 180)), 7)], {"tortuosity": 1}
    if name == "arc":
        angle = 1.1 * T
        return [(150 * np.stack([np.cos(angle) - 0.7, np.sin(angle)], 1), 6)], {"inflections": 0}
    if name == "sinusoid":
        return [(np.stack([22 * np.sin(2 * np.pi * T), 190 * T], 1), 5)], {"inflections": 3}
    if name == "S":
        half = np.stack([np.sin(1.1 * T) + np.sin(1.1), np.cos(1.1 * T) - np.cos(1.1)], 1) * 100
        return [(np.concatenate([-half[::-1], half[1:]]), 8)], {"inflections": 1}
    if name == "fork":
        arms = ((0, -180), 9.5), ((-100, 140), 7), ((70, 160), 5)
        known = {"branch_points": 1, "end_points": 3, "tortuosity": 1}
        return [(line((0, 0), end), width) for end, width in arms], known
    if name == "tapering":
        widths = {"width_median": 8, "width_q10": 4.8, "width_q90": 11.2}
        return [(line((10, -180), (0, 180)), np.linspace(4, 12, 1500))], widths
    if name == "grid":
        at = (-150, -50, 50, 150)
        lines = [line((k, -190), (k, 190)) for k in at] + [line((-190, k), (190, k)) for k in at]
        return [(one, 5) for one in lines], {"branch_points": 16, "end_points": 16}
    if name == "Koch":
        return [(koch(4), 2.5)], {"fractal_dimension": math.log(4) / math.log(3)}
    branches = list(tree(np.array([-190.0, 0]), 0.0, 130, 9, 3))
    return branches, {"branch_points": 7, "end_points": 9, "tortuosity": 1}


def truth(name, scale):
    """What :func:`measure` has to find, lengths at this scale."""
    curves, known = shape(name)
    steps = [np.linalg.norm(np.diff(points, axis=0), axis=1) for points, _ in curves]
    found = {"length": sum(map(np.sum, steps))}
    width = [np.broadcast_to(w, len(p))[1:] for p, w in curves]
    found["width_mean"] = sum((w * s).sum() for w, s in zip(width, steps, strict=True))
    found["width_mean"] /= found["length"]
    if name in ("arc", "sinusoid", "S"):
        ((points, _),), (step,) = curves, steps
        found["tortuosity"] = found["length"] / np.linalg.norm(points[-1] - points[0])
        turn = np.diff(np.unwrap(np.arctan2(*np.diff(points, axis=0).T)))
        found["tau4"] = np.abs(turn).sum() / found["length"]
        found["tau5"] = (turn**2 / step[1:]).sum() / found["length"]
    if name == "Koch":  # a pen cannot draw its length
        found = {}
    power = numbers.MEASURES
    return {key: value * scale ** power[key] for key, value in (found | known).items()}


def drawn(name, scale, angle):
    """The shape as a drawing and its FOV."""
    size, turn = round(SIZE * scale), np.radians(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    curves = [
        (p @ matrix * scale + size / 2 + 0.3, np.multiply(w, scale)) for p, w in shape(name)[0]
    ]
    return draw(curves, size), np.ones((size, size), bool)


SHAPES = ("straight", "arc", "sinusoid", "S", "fork", "tapering", "grid", "Koch", "tree")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_is_measured_within_five_percent_and_turning_it_changes_two(name, scale):
    known = truth(name, scale)
    found = [numbers.measure(*drawn(name, scale, angle)) for angle in ANGLES]
    for key, expected in known.items():
        values = np.array([one[key] for one in found], float)
        assert values == pytest.approx(expected, rel=0.05), key
        assert np.ptp(values) <= 0.02 * expected, key


def test_a_straight_vessel_is_exactly_straight_and_a_line_has_one_dimension():
    found = numbers.measure(*drawn("straight", 1, 20))
    assert found["tortuosity"] == 1 and found["tau4"] == found["tau5"] == 0
    assert found["fractal_dimension"] == pytest.approx(1, rel=0.05)
    assert found["inflections"] == found["branch_points"] == 0 and found["end_points"] == 2


@pytest.mark.parametrize("width", [3, 4, 6, 7])
@pytest.mark.parametrize("offset", [0, 0.25, 0.5])
def test_a_diagonal_vessel_keeps_its_length(width, offset):
    # skeletonize's own default (Zhang & Suen) loses half of some of these.
    drawing = draw([(line((50 + offset, 50), (250 + offset, 250)), width)], 300) >= 0.5
    found = numbers.measure(drawing, np.ones((300, 300), bool))
    assert found["length"] == pytest.approx(200 * 2**0.5, rel=0.05)


def test_each_arm_of_a_fork_has_its_own_width():
    widths = segments_of(drawn("fork", 1, 20)[0], SIZE).width
    assert sorted(widths[widths > 0]) == pytest.approx([5, 7, 9.5], rel=0.05)


def test_rings_specks_spurs_and_nothing_at_all():
    fov = np.ones((200, 200), bool)
    ring = draw([(60 * np.stack([np.sin(np.pi * T), np.cos(np.pi * T)], 1) + 100, 5)], 200)
    found = numbers.measure(ring, fov)
    assert found["length"] == pytest.approx(2 * np.pi * 60, rel=0.05)
    assert found["branch_points"] == found["end_points"] == 0
    assert math.isnan(found["tortuosity"])  # arc over chord, and there is no chord
    bump = np.zeros((200, 200), bool)
    bump[90:101, 20:180] = True
    smooth_bar = numbers.measure(bump, fov)
    bump[86:90, 100:103] = bump[10, 10] = True  # on the edge; and a speck
    assert numbers.measure(bump, fov)["end_points"] == smooth_bar["end_points"] == 2
    bump[:], bump[50:60, 50:60] = False, True  # no longer than wide
    assert math.isnan(numbers.measure(bump, fov)["width_mean"])
    nothing = numbers.measure(bump & False, fov)
    assert nothing["density"] == nothing["length"] == nothing["branch_points"] == 0
    assert math.isnan(nothing["width_mean"]) and math.isnan(nothing["fractal_dimension"])


def test_a_large_photograph_is_measured_on_fewer_pixels_in_its_own():
    drawing = np.zeros((2 * numbers.FINE, 2 * numbers.FINE), bool)
    drawing[1000:1012, 500:2000] = True
    found = numbers.measure(drawing, np.ones_like(drawing))
    assert found["length"] == pytest.approx(1500, rel=0.02)
    assert found["width_median"] == pytest.approx(12, rel=0.02)


def test_an_interval_holds_the_value_and_what_lies_outside_the_fov_counts_for_nothing():
    drawing, fov = drawn("tree", 1, 20)
    soft, hard = 0.1 + 0.8 * drawing, drawing
    fov[:, :200] = False
    rows = [numbers.measure_map(p, fov, 0.4, spacing=5.0) for p in (0.96 * soft, hard)]
    for row in rows:
        for key in (k for k in row if f"{k}_low" in row):
            assert row[f"{key}_low"] <= row[key] <= row[f"{key}_high"]
        assert row["length_um"] == pytest.approx(5 * row["length_px"])
        assert row["length_fov"] == pytest.approx(row["length_px"] / SIZE)
        assert row["tau5_um"] == pytest.approx(row["tau5_px"] / 25)
    spans = [row["density_high"] - row["density_low"] for row in rows]
    assert spans[0] > 5 * spans[1]  # an unsure map leaves more open
    assert not any(k.endswith("_um") for k in numbers.measure_map(hard, fov, 0.4))
    drawing[:, :200] = 1
    assert numbers.measure_map(drawing, fov, 0.4) == numbers.measure_map(hard, fov, 0.4)


def test_agreement_is_that_of_the_papers():
    judges = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    assert icc(np.array(judges, float)) == pytest.approx(
        0.29, abs=0.005
    )  # Shrout & Fleiss, table 4
    found = agreement([1, 2, 3, 4, math.nan], [0, 2, 2, 4, 9])
    assert found["bias"] == 0.5
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * 3**-0.5)
    assert agreement([1, 2, 3], [1, 2, 3])["icc"] == 1
    assert math.isnan(agreement([1, 2], [1, 2])["icc"])
