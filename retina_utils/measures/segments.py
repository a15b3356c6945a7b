"""A drawing of vessels -> the segments between its forks and ends, with course and width.

The centreline is scikit-image's. What follows is our own, for two reasons: a length that is
counted in steps from pixel to pixel (as `skan` does) is up to 8 % too long, by the angle, and twice
the distance to the edge, in whole pixels, is up to a third off for a vessel three pixels wide.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import dst, idst
from scipy.ndimage import gaussian_filter1d, map_coordinates
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree
from skimage.morphology import skeletonize

from retina_utils.metrics import ratio

SMOOTH = 0.01  # of the FOV's diameter, at least 3 pixels: finer wiggles are the drawing's
STRAIGHT = 1  # pixel: what keeps this near to its chord cannot be told from straight
BEND = np.radians(10)  # a stretch that turns by less is no turn
PROFILE = np.linspace(0, 1, 25)  # where a cross-section is sampled, of its reach


class Segments(NamedTuple):
    """N segments as columns, and what the drawing has but once. All lengths are in pixels."""

    length: np.ndarray  # (N,) along the course, from node to node
    arc: np.ndarray  # (N,) the same without what lies inside a fork
    chord: np.ndarray  # (N,) between the ends of that arc
    turning: np.ndarray  # (N,) radians, of all turns
    bending: np.ndarray  # (N,) curvature squared, summed along the arc
    inflections: np.ndarray  # (N,) int
    width: np.ndarray  # (N,) mean
    widths: np.ndarray  # (M,) at all points outside forks,
    weights: np.ndarray  # (M,) and the length that each stands for
    branch_points: int  # forks and crossings
    end_points: int
    centre: np.ndarray  # (K, 2) int row and column of the centreline's pixels


def segments_of(drawing: np.ndarray, diameter: float, cut: float = 0.5) -> Segments:
    """The segments of a drawing in a FOV ``diameter`` pixels across.

    ``drawing`` is (H, W) bool, or float in [0, 1] and vessel from ``cut`` on: then the edge is
    known between two pixels.
    """
    drawing = np.pad(drawing, 2).astype(np.float32)
    vessels = drawing >= cut
    centre = skeletonize(vessels, method="lee")  # Zhang's eats diagonal vessels from their ends
    radius = radii(vessels, centre)
    paths, degree = trace(centre)
    for _ in range(3):  # a spur may have spurs
        spurs = [path for path in paths if is_spur(path, degree, radius)]
        centre.flat[[p for path in spurs for p in path if degree[p] < 3]] = False
        paths, degree = trace(centre)
    forks, ends = count_nodes(paths, degree, radius)
    sigma = max(3, SMOOTH * diameter)
    if not paths:
        return Segments(*np.zeros((9, 0)), 0, 0, np.zeros((0, 2), int))
    count, pixels = len(paths), np.concatenate(paths)
    of = np.repeat(np.arange(count), [len(path) for path in paths])
    # What lies inside a fork is no course of its own, its cross-section is the fork's, and at a
    # free end the centreline hooks.
    outside = np.ones(len(of), bool)
    for node in np.array([(path[0], path[-1]) for path in paths]).T:
        apart = places_of(pixels, vessels) - places_of(node, vessels)[of]
        outside &= np.linalg.norm(apart, axis=1) >= radius[node][of]
    points = smooth(places_of(pixels, vessels), of, sigma)
    across = normals(points, of)
    sides = cross_sections(drawing, cut, points, across, radius[pixels])
    off = (sides[:, 0] - sides[:, 1]) / 2  # the centreline's pixels are up to one off the middle
    points = points + across * (off * outside)[:, None]
    length = course(smooth(points, of, sigma), of, count)[0]
    if not outside.any():  # nothing is longer than it is wide
        nothing = *np.zeros((6, count)), *np.zeros((2, 0))
        return Segments(length, *nothing, forks, ends, np.argwhere(centre) - 2)
    points, of, width = points[outside], of[outside], sides[outside].sum(axis=1)
    points = smooth(points, of, sigma)
    parts = np.split(width, np.flatnonzero(np.diff(of)) + 1)
    width = np.concatenate([gaussian_filter1d(part, sigma) for part in parts if len(part)])
    weight = steps_at(points, of)
    mean = ratio(*(np.bincount(of, w, count) for w in (width * weight, weight)))
    arcs = course(points, of, count)
    arcs[1][[path[0] == path[-1] for path in paths]] = 0  # a ring has no chord
    return Segments(length, *arcs, mean, width, weight, forks, ends, np.argwhere(centre) - 2)


def places_of(pixels: np.ndarray, array: np.ndarray) -> np.ndarray:
    """Row and column of flat indices into an array, (M, 2) int."""
    return np.stack(np.unravel_index(pixels, array.shape), axis=1)


def radii(vessels: np.ndarray, centre: np.ndarray) -> np.ndarray:
    """Pixels from each point of the centreline to the vessel's edge, by flat index; else 0."""
    inside = vessels.copy()
    for axis in (0, 1):
        for step in (1, -1):
            inside |= np.roll(vessels, step, axis)
    edge, found = np.argwhere(inside & ~vessels), np.zeros(vessels.size)
    if centre.any():
        found[np.flatnonzero(centre)] = KDTree(edge).query(np.argwhere(centre))[0] - 0.5
    return found


def trace(centre: np.ndarray) -> tuple[list[list[int]], dict[int, int]]:
    """Paths of flat indices from node to node, and how many neighbours each pixel has.

    A node is a pixel with one neighbour, or with three and more. Two pixels that touch by their
    corners are neighbours only where no third one joins them.
    """
    wide, on = centre.shape[1], centre.ravel()
    at = np.flatnonzero(on)
    steps = [at + step for step in (1, wide, -1, -wide)]
    near = [on[there] for there in steps]
    links = [np.where(yes, there, -1) for yes, there in zip(near, steps, strict=True)]
    for a in range(4):
        there = at + (steps[a] - at) + (steps[a - 1] - at)
        links.append(np.where(on[there] & ~near[a] & ~near[a - 1], there, -1))
    links = -np.sort(-np.stack(links, axis=1), axis=1)
    count = (links >= 0).sum(axis=1)
    degree = dict(zip(at.tolist(), count.tolist(), strict=True))
    links = dict(zip(at.tolist(), links.tolist(), strict=True))
    paths = []

    def walk(first: int, second: int) -> None:
        path = [first, second]
        while degree[path[-1]] == 2 and path[-1] != first:
            a, b = links[path[-1]][:2]
            path.append(b if a == path[-2] else a)
        if (path[0], path[1]) <= (path[-1], path[-2]):  # each is found from both its ends
            paths.append(path)

    for node in at[count != 2].tolist():
        for second in links[node][: degree[node]]:
            walk(node, second)
    rings = np.setdiff1d(at[count == 2], [p for path in paths for p in path]).tolist()
    while rings:  # which have no node
        walk(rings[0], min(links[rings[0]][:2]))
        rings = sorted({*rings} - {*paths[-1]})
    return paths, degree


def is_spur(path: list[int], degree: dict[int, int], radius: np.ndarray) -> bool:
    """Whether a path with a free end is no longer than the vessel it springs from is wide."""
    ends = path[0], path[-1]
    free = min(degree[end] for end in ends) == 1
    return free and len(path) <= 2 * max(radius[end] for end in ends)


def count_nodes(
    paths: list[list[int]], degree: dict[int, int], radius: np.ndarray
) -> tuple[int, int]:
    """How many branch points there are, and free ends.

    Forks whose inscribed discs touch along a path are one, so a crossing counts once.
    """
    number = {node: n for n, node in enumerate({end for p in paths for end in (p[0], p[-1])})}
    first, last = (np.array([number[path[i]] for path in paths], int) for i in (0, -1))
    inner = np.array([is_inside(path, degree, radius) for path in paths], bool)
    graph = coo_array((inner[inner], (first[inner], last[inner])), shape=(len(number),) * 2)
    which = connected_components(graph, directed=False)[1]
    leaving = np.concatenate([which[first[~inner]], which[last[~inner]]])
    return int((np.bincount(leaving) >= 3).sum()), sum(degree[node] == 1 for node in number)


def is_inside(path: list[int], degree: dict[int, int], radius: np.ndarray) -> bool:
    """Whether a path lies within the discs inscribed at the forks at its ends."""
    ends = path[0], path[-1]
    return min(degree[e] for e in ends) > 2 and len(path) - 1 <= sum(radius[e] for e in ends)


def smooth(points: np.ndarray, of: np.ndarray, sigma: float) -> np.ndarray:
    """(M, 2) points of segments without wiggles finer than ``sigma`` points; the ends stay.

    Gaussian smoothing of what leaves the chord, and once more of what that took away, so that
    bends are not flattened (Tukey's twicing): both in one step, in a sine series.
    """
    smoothed = []
    for path in np.split(points, np.flatnonzero(np.diff(of)) + 1):
        n = len(path)
        chord = path[0] + np.outer(np.arange(n) / max(1, n - 1), path[-1] - path[0])
        if n > 2:
            waves = dst(path[1:-1] - chord[1:-1], type=1, axis=0)
            kept = np.exp(-((sigma * np.pi * np.arange(1, n - 1) / (n - 1)) ** 2) / 2)
            chord[1:-1] += idst(waves * (1 - (1 - kept) ** 2)[:, None], type=1, axis=0)
        smoothed.append(chord)
    return np.concatenate(smoothed)


def course(points: np.ndarray, of: np.ndarray, count: int) -> tuple[np.ndarray, ...]:
    """Arc, chord, turning, bending and inflections of ``count`` segments, as in Segments.

    ``points`` are (M, 2), ``of`` is the segment of each, ascending.
    """
    step, one = np.diff(points, axis=0), of[1:] == of[:-1]
    step, by = step[one], of[1:][one]
    long = np.linalg.norm(step, axis=1)
    first = np.minimum(np.searchsorted(of, np.arange(count)), len(of) - 1)
    last = np.searchsorted(of, np.arange(count), "right") - 1
    across = points[last] - points[first]
    chord = np.linalg.norm(across, axis=1) * (np.bincount(of, minlength=count) > 0)
    away = points - points[first][of]
    off = np.abs(away[:, 0] * across[of, 1] - away[:, 1] * across[of, 0])
    furthest = np.zeros(count)
    np.maximum.at(furthest, of, off / np.maximum(chord[of], 1))
    curved = (furthest > STRAIGHT) & (chord > 0)
    arc = np.where(curved | (chord == 0), np.bincount(by, long, count), chord)

    turn = np.diff(np.arctan2(step[:, 0], step[:, 1]))
    turn = (turn + np.pi) % (2 * np.pi) - np.pi
    one = (by[1:] == by[:-1]) & curved[by[1:]]
    turn, by = turn[one], by[1:][one]
    apart = np.maximum((long[1:] + long[:-1]) / 2, 0.5)[one]
    turning, bending = (np.bincount(by, w, count) for w in (np.abs(turn), turn**2 / apart))
    if not len(turn):
        return arc, chord, turning, bending, np.zeros(count, int)
    begins = np.flatnonzero(np.r_[True, (np.diff(np.sign(turn)) != 0) | (np.diff(by) != 0)])
    turns, by = np.add.reduceat(turn, begins), by[begins]
    turns, by = turns[np.abs(turns) >= BEND], by[np.abs(turns) >= BEND]
    changes = (turns[1:] * turns[:-1] < 0) & (by[1:] == by[:-1])
    return arc, chord, turning, bending, np.bincount(by[1:][changes], minlength=count)


def along(points: np.ndarray, of: np.ndarray) -> np.ndarray:
    """From the point before to the point after on the same segment, (M, 2)."""
    step = np.diff(points, axis=0) * (of[1:] == of[:-1])[:, None]
    return np.pad(step, ((1, 0), (0, 0))) + np.pad(step, ((0, 1), (0, 0)))


def steps_at(points: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The length that each point stands for, (M,)."""
    return np.linalg.norm(along(points, of), axis=1) / 2


def normals(points: np.ndarray, of: np.ndarray) -> np.ndarray:
    """Unit vectors across the segments, (M, 2)."""
    step = along(points, of)
    return step[:, ::-1] * (1, -1) / np.maximum(np.linalg.norm(step, axis=1), 1e-9)[:, None]


def cross_sections(
    drawing: np.ndarray, cut: float, points: np.ndarray, across: np.ndarray, radius: np.ndarray
) -> np.ndarray:
    """Pixels from each of (M, 2) points to the vessel's edge on either side, (M, 2).

    The edge is where the drawing, interpolated, first falls below ``cut``.
    """
    reach = 1.5 * radius + 2
    out = reach[:, None, None] * PROFILE * np.array([[1], [-1]])  # (M, 2, samples)
    places = points.T[:, :, None, None] + across.T[:, :, None, None] * out
    value = map_coordinates(drawing, places, order=1)
    value[..., 0], value[..., -1] = 1, 0
    beyond = (value < cut).argmax(axis=2)[..., None]
    outer, inner = (np.take_along_axis(value, beyond - k, axis=2)[..., 0] for k in (0, 1))
    share = beyond[..., 0] - 1 + (inner - cut) / (inner - outer)
    return share * PROFILE[1] * reach[:, None]
