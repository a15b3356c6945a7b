"""Synthetic fundus photographs: everything in the series runs without a download.

The drawing follows the anatomy: a tree of arteries and one of veins leave the optic disc along the
temporal arcades and to the nasal side, their width obeys Murray's law at every branching, and
blood darkens the photograph by the thickness of the vessel. Lengths are in radii of the field of
view, with the origin at its centre, x towards the temple and y downwards, until pixels are drawn.
Scores on these drawings say that the code works, never how well it would do on a patient.
"""

import tomllib
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from retina_utils import RetinaError
from retina_utils.data import SPLIT_FOLDERS
from retina_utils.images import write_png
from retina_utils.machine.files import write_text

FINE = 3  # vessels are drawn at three times the size and averaged: no jagged edges
GROWTH = 0.012  # one step of a growing vessel
THINNEST = 0.0040  # radius at which a vessel ends: 0.55 pixels in a FOV of 280 pixels
DISC = 0.135  # radius of the optic disc
WIDEST = 0.0165  # radius of a large vein
CELL = 0.02  # of a coarse grid, to find neighbours
# Of veins, then of arteries: how much red, green and blue they absorb, and their reflex.
BLOOD = {False: ((0.15, 0.53, 0.32), 0.05), True: ((0.06, 0.41, 0.25), 0.25)}
COUNTS = {"train": 8, "validation": 2, "test": 4}  # photographs; both eyes stay together
SIZES = [(288, 272), (304, 288), (320, 304), (300, 300), (272, 288), (312, 280), (296, 320)]

with Path(__file__).with_suffix(".toml").open("rb") as _file:
    CHANCE = tomllib.load(_file)  # persons, lesions, and where vessels begin


class Drawing(NamedTuple):
    """A synthetic photograph and what is true about it."""

    image: np.ndarray  # (H, W, 3) uint8
    vessels: np.ndarray  # (H, W) bool, inside the FOV only
    fov: np.ndarray  # (H, W) bool
    arteries: np.ndarray  # (H, W) bool; where an artery crosses a vein, the artery lies on top


class Eye(NamedTuple):
    """Where things are; all else about the vessels is chance."""

    disc: np.ndarray  # (2,) x, y of the optic disc's centre
    fovea: np.ndarray  # (2,)
    tortuosity: float


class Stem(NamedTuple):
    """The beginning of a vessel that waits to grow."""

    radius: float
    number: int
    path: list[np.ndarray]  # (2,) each
    artery: bool
    arcade: float = 0  # see flow(); 0 for all but the four vessels of the arcades
    bias: float = 0  # radians off the flow at first
    parent: int = -1  # number of the vessel it branches from; -1 for one from the disc


class Vessel(NamedTuple):
    points: np.ndarray  # (n, 2) x, y
    radii: np.ndarray  # (n,)
    artery: bool


def draw_fundus(seed: int, size: tuple[int, int] = (304, 288)) -> Drawing:
    """Synthetic fundus photograph with its vessels, the same pixel for pixel for the same seed.

    Seeds 2k and 2k + 1 are the left and the right eye of one person: their colours, light and
    camera agree, their vessels do not. ``size`` is (height, width) in pixels; a side below 128,
    too small to draw a thin vessel, and a negative seed are refused (RetinaError).
    """
    if min(size) < 128 or seed < 0:
        raise RetinaError(f"draw_fundus: got {seed=}, {size=}; want seed >= 0, sides >= 128 pixels")
    person = draw_person(np.random.default_rng([seed // 2, 0]))
    rng = np.random.default_rng([seed, 1])
    radius = min(size) * rng.uniform(0.475, 0.49)  # pixels per unit of length
    disc = np.array([rng.uniform(-0.56, -0.40), rng.uniform(-0.08, 0.02)])
    fovea = disc + DISC * np.array([rng.uniform(4.7, 5.3), rng.uniform(0.3, 0.9)])
    eye = Eye(disc, fovea, person.tortuosity)
    tree = grow_tree(rng, eye)

    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = (columns - (size[1] - 1) / 2) / radius, (rows - (size[0] - 1) / 2) / radius
    fov = x**2 + y**2 <= 1
    transmission, vessels, arteries = draw_vessels(tree, size, radius, person.contrast)
    image = draw_retina(rng, person, eye, x, y) * transmission
    image = draw_lesions(rng, person, eye, image, x, y, radius)
    image = photograph(rng, person, image, x, y, radius)

    layers = (image, vessels & fov, fov, arteries & fov)
    right = seed % 2 == 1  # drawn as a left eye: the disc, and the nose, are on the left
    return Drawing(*(np.ascontiguousarray(a[:, ::-1]) if right else a for a in layers))


def draw_person(rng: np.random.Generator) -> SimpleNamespace:
    """What the two eyes of a person, photographed in one sitting, have in common.

    ``colour`` of the retina and ``pale``, that of the optic disc, are (3,) in [0, 1]; all else is
    a number or word listed in ``synthetic.toml``.
    """
    red = rng.uniform(0.60, 0.92)
    green = red * rng.uniform(0.32, 0.45)
    colour = np.array([red, green, green * rng.uniform(0.30, 0.66)])
    pale = np.array([0.99, rng.uniform(0.68, 0.82), rng.uniform(0.36, 0.56)])
    person = SimpleNamespace(colour=colour, pale=pale)
    for name, choice in CHANCE["person"].items():
        value = rng.choice(choice["one_of"]) if "one_of" in choice else 1
        if "between" in choice:
            value *= rng.uniform(*choice["between"])
        setattr(person, name, value)
    return person


def grow_tree(rng: np.random.Generator, eye: Eye) -> list[Vessel]:
    """Arteries and veins of one eye, the widest first."""
    waiting = leave_disc(rng, eye.disc)
    taken = {True: {}, False: {}}  # cell of a coarse grid -> the vessel in it; arteries, veins
    vessels, numbers = [], count(len(waiting))
    while waiting:
        waiting.sort(key=lambda stem: (stem.radius, -stem.number))
        stem = waiting.pop()
        vessel, branches = grow_vessel(rng, stem, taken[stem.artery], eye, numbers)
        waiting += branches
        if len(vessel.points) > 5:
            vessels.append(vessel)
            outside = np.hypot(*(vessel.points - eye.disc).T) > 1.2 * DISC
            # It reserves 5 x 5 cells around: no vessel of its kind may come so near.
            for column, row in (vessel.points[outside] // CELL).astype(int):
                for down, right in np.ndindex(5, 5):
                    taken[stem.artery].setdefault((column + right - 2, row + down - 2), stem.number)
    return vessels


def leave_disc(rng: np.random.Generator, disc: np.ndarray) -> list[Stem]:
    """The vessels that come out of the optic disc, up to its rim."""
    stems = []
    for trunk in CHANCE["trunks"]:
        angle = np.radians(trunk["degrees"] + rng.normal(0, 5))
        out = np.array([np.cos(angle), -np.sin(angle)])
        # Large vessels rise on the nasal side of the cup, small ones nearer to the disc's rim.
        start = np.array([-0.2, 0.15 * out[1]]) if trunk["radius"] > 0.009 else 0.5 * out
        root = disc + DISC * start + rng.normal(0, 0.08 * DISC, 2)
        bend, rim = root + np.array([0, 0.45 * DISC * out[1]]), disc + DISC * out
        t = np.linspace(0, 1, 12)[:, None]
        path = list((1 - t) ** 2 * root + 2 * t * (1 - t) * bend + t**2 * rim)
        arcade = rng.uniform(1.7, 2.7) if 45 < abs(trunk["degrees"]) < 90 else 0
        radius = trunk["radius"] * rng.uniform(0.9, 1.1)
        stems.append(Stem(radius, len(stems), path, trunk["artery"], arcade))
    return stems


def grow_vessel(
    rng: np.random.Generator, stem: Stem, taken: dict, eye: Eye, numbers: Iterator[int]
) -> tuple[Vessel, list[Stem]]:
    """A vessel grown step by step, and its branches, which have yet to grow."""
    radius, bias = stem.radius, stem.bias
    points, radii = list(stem.path), [radius] * len(stem.path)
    heading = np.arctan2(*(points[-1] - points[-2])[::-1])
    curvature, branches, side = 0.0, [], rng.choice([-1, 1])
    until_branch = rng.uniform(0.12, 0.42)
    while radius > THINNEST and np.hypot(*points[-1]) < 1.02 and len(points) < 300:
        position = points[-1]
        curvature = 0.88 * curvature + rng.normal(0, eye.tortuosity) * (WIDEST / radius) ** 0.5
        aim = flow(position, eye, stem) + bias
        heading += 0.08 * np.sin(aim - heading) + curvature
        bias *= 0.985
        turned = turn_away(position, heading, taken, (stem.number, stem.parent))
        if (turned is None and radius < 0.008) or np.hypot(*(position - eye.fovea)) < 0.10:
            break
        heading = heading if turned is None else turned
        points.append(position + GROWTH * np.array([np.cos(heading), np.sin(heading)]))
        radius *= 1 - 0.12 * GROWTH
        radii.append(radius)
        until_branch -= GROWTH
        small = max(radius * rng.uniform(0.42, 0.80), 1.03 * THINNEST)
        if until_branch < 0 and small < 0.9 * radius:
            until_branch = rng.uniform(0.12, 0.42)
            side = -side if rng.random() < 0.75 else side
            large = (radius**3 - small**3) ** (1 / 3)  # Murray's law
            angle = side * murray_angle(radius, small, large)
            stub = GROWTH * np.array([np.cos(heading + angle), np.sin(heading + angle)])
            branch = small, next(numbers), [position, position + stub], stem.artery
            branches.append(Stem(*branch, bias=0.8 * angle, parent=stem.number))
            heading -= side * 0.5 * murray_angle(radius, large, small)
            radius = large
    radii = np.array(radii)
    if np.hypot(*points[-1]) < 1:  # a vessel that ends inside the FOV becomes a capillary
        radii = np.minimum(radii, THINNEST * (0.5 + 0.1 * np.arange(len(radii))[::-1]))
    return Vessel(np.array(points), radii, stem.artery), branches


def murray_angle(parent: float, daughter: float, other: float) -> float:
    """Angle in radians at which the daughter leaves, for the least work (Murray, 1926)."""
    cosine = (parent**4 + daughter**4 - other**4) / (2 * parent**2 * daughter**2)
    return float(np.arccos(np.clip(cosine, -1, 1)))


def flow(position: np.ndarray, eye: Eye, stem: Stem) -> float:
    """Direction in which a vessel runs here, in radians.

    Away from the disc; on the temporal side along parabolas around the macula, an arcade's own
    being x = arcade * y**2. Branches near the fovea are attracted to it.
    """
    x, y = position - eye.disc
    if stem.arcade:
        return np.arctan2(np.sign(y) * (1 - 0.55 * x), 2 * stem.arcade * abs(y))
    direction = np.array([2 * x if x > 0 else 1.1 * x, y]) / np.hypot(x, y)
    if stem.parent >= 0:
        towards = eye.fovea - position
        distance = np.hypot(*towards)
        direction = direction + 1.3 * glow(distance, 0.38) * towards / distance
    return np.arctan2(direction[1], direction[0])


def turn_away(position, heading, taken, numbers) -> float | None:
    """Heading with free way ahead: arteries never cross arteries, nor veins veins. None: stuck."""
    for turn in (0, 0.2, -0.2, 0.4, -0.4):
        ahead = position + 0.05 * np.array([np.cos(heading + turn), np.sin(heading + turn)])
        if taken.get(tuple((ahead // CELL).astype(int)), numbers[0]) in numbers:
            return heading + turn
    return None


def draw_vessels(tree: list[Vessel], size: tuple[int, int], radius: float, contrast: float):
    """Light left by the vessels (H, W, 3), vessels (H, W) bool and arteries (H, W) bool."""
    fine = (size[0] * FINE, size[1] * FINE)
    light = np.ones((*fine, 3))
    inside = []
    for artery, (absorption, reflex) in BLOOD.items():
        thickness, reach, middle = np.zeros(fine), np.full(fine, -1.0), np.zeros(fine)
        for vessel in tree:
            if vessel.artery == artery:
                add_vessel(thickness, reach, middle, vessel, radius)
        blood = (thickness / WIDEST) ** 0.6 * contrast
        layer = np.exp(-blood[..., None] * absorption) * (1 + reflex * middle[..., None])
        covered = np.clip(reach * 2, 0, 1)[..., None] if artery else (thickness > 0)[..., None]
        light = light * (1 - covered) + covered * layer * (0.25 * light + 0.75 if artery else 1)
        inside.append(reach[FINE // 2 :: FINE, FINE // 2 :: FINE] > 0)
    light = light.reshape(size[0], FINE, size[1], FINE, 3).mean(axis=(1, 3))
    return light, inside[0] | inside[1], inside[1]


def add_vessel(thickness, reach, middle, vessel: Vessel, radius: float) -> None:
    """Draw one vessel into three fine layers, piece by piece, as a round tube.

    ``thickness``: of the blood, in radii of the FOV; ``reach``: how far inside the vessel a pixel
    is, in fine pixels; ``middle``: 1 on the axis of a wide vessel, where it reflects the light.
    """
    scale, size = radius * FINE, np.array(thickness.shape[::-1])
    points = vessel.points * scale + (size - 1) / 2
    radii = np.maximum(vessel.radii * scale, 0.52 * FINE)  # never thinner than about a pixel
    for start, end, wide in zip(points[:-1], points[1:], radii[1:], strict=True):
        low = np.floor(np.minimum(start, end) - wide - 1).astype(int).clip(0, size)
        high = np.ceil(np.maximum(start, end) + wide + 2).astype(int).clip(0, size)
        window = np.s_[low[1] : high[1], low[0] : high[0]]
        rows, columns = np.ogrid[window]
        dx, dy = columns - start[0], rows - start[1]
        along = end - start
        share = np.clip((dx * along[0] + dy * along[1]) / (along @ along), 0, 1)
        squared = (dx - share * along[0]) ** 2 + (dy - share * along[1]) ** 2
        tube = np.sqrt(np.clip(wide**2 - squared, 0, None)) / scale
        shine = np.exp(-squared / (0.3 * wide) ** 2) * np.clip(wide / FINE - 0.9, 0, 1)
        middle[window] = np.where(tube > thickness[window], shine, middle[window])
        thickness[window] = np.maximum(thickness[window], tube)
        reach[window] = np.maximum(reach[window], wide - np.sqrt(squared))


def clouds(rng: np.random.Generator, y: np.ndarray, x: np.ndarray, per_unit: float) -> np.ndarray:
    """Smooth random field of about unit variance, with `per_unit` random knots per unit length."""
    knots = rng.normal(size=(64, 64))
    at = [np.mod(y * per_unit, 64), np.mod(x * per_unit, 64)]
    return ndimage.map_coordinates(knots, at, order=3, mode="grid-wrap") / 0.6


def draw_retina(rng, person: SimpleNamespace, eye: Eye, x, y) -> np.ndarray:
    """Retina without vessels, (H, W, 3) in [0, 1]: pigment, choroid, nerve fibres, macula, disc."""
    pigment = sum(share * clouds(rng, y, x, n) for share, n in ((0.6, 1.5), (0.3, 5), (0.15, 14)))
    image = person.colour * np.exp(pigment[..., None] * [0.06, 0.13, 0.15])

    from_disc = np.hypot(x - eye.disc[0], (y - eye.disc[1]) / 1.08)
    angle = np.arctan2(y - eye.disc[1], x - eye.disc[0])
    around = angle * 64 / (2 * np.pi)  # in knots: the field is periodic
    strands = clouds(rng, 8 * from_disc, 3 * around + 0.5 * clouds(rng, y, x, 5), 1)
    strands = 0.5 * strands + 0.5 - glow(strands, 0.5)
    strands = strands * (0.7 + 0.4 * clouds(rng, y, x, 3)).clip(0, 1.2)
    from_fovea = np.hypot(x - eye.fovea[0], y - eye.fovea[1])
    shown = (1 - glow(from_fovea, 0.4)) * (1 - glow(from_disc, 0.45))
    image *= np.exp((person.choroid * strands * shown)[..., None] * [0.6, 1.2, 0.6])

    fibres = clouds(rng, 5 * from_disc + clouds(rng, y, x, 4), 3 * around, 1)
    near = glow(from_disc, 0.45) * (0.3 + 0.7 * np.abs(np.sin(angle)))
    image += (person.sheen * near * (1 + 0.2 * fibres))[..., None] * [0.25, 0.45, 0.28]

    away = np.hypot((x - eye.fovea[0]) / 1.15, y - eye.fovea[1])
    dark = 0.65 * glow(away, 0.24) + 0.5 * glow(away, 0.09)
    image *= np.exp(-person.macula * dark[..., None] * [0.55, 1.0, 0.8])
    image += (0.05 * glow(away, 0.018))[..., None]

    edge = DISC * (1 + 0.03 * clouds(rng, y, x, 6))
    crescent = glow(from_disc - 1.08 * edge, 0.12 * DISC)
    image *= 1 - (rng.uniform(0, 0.25) * crescent)[..., None] * [0.6, 1, 1]
    rim = soft_step(edge - from_disc, 0.10 * DISC)[..., None]
    tint = person.pale * np.array([0.97, 0.86, 0.76]) * (1 + 0.03 * clouds(rng, y, x, 9))[..., None]
    image = image * (1 - 0.92 * rim) + 0.92 * rim * tint
    from_cup = np.hypot(x - eye.disc[0] - 0.12 * DISC, y - eye.disc[1])
    cup = soft_step(person.cup * DISC - from_cup, 0.25 * DISC)[..., None]
    return image * (1 - 0.8 * cup) + 0.8 * cup * np.minimum(person.pale * [1.02, 1.14, 1.3], 1)


def glow(distance: np.ndarray, width: float) -> np.ndarray:
    """A bell curve: 1 at distance 0, 1/e at ``width``."""
    return np.exp(-((distance / width) ** 2))


def soft_step(distance: np.ndarray, width: float) -> np.ndarray:
    """0 for negative distances, 1 for positive ones, and a smooth ramp of the given width."""
    return 1 / (1 + np.exp(-np.clip(4 * distance / width, -50, 50)))


def draw_lesions(rng, person: SimpleNamespace, eye: Eye, image, x, y, radius: float) -> np.ndarray:
    """Spots that are not vessels, dark and bright: what a network has to learn to leave out."""
    wobble = 1 + 0.25 * clouds(rng, y, x, 22)
    for kind in CHANCE["lesions"][person.lesions]:
        bright = kind["light"][1] > 1  # in green
        heart = eye.fovea + rng.normal(0, 0.16, 2) if bright else eye.fovea
        for _ in range(rng.integers(kind["most"] // 2, kind["most"] + 1)):
            spot = heart + rng.normal(0, 0.13 if bright else 0.42, 2)
            if np.hypot(*spot) > 0.93 or np.hypot(*(spot - eye.disc)) < 1.6 * DISC:
                continue
            width = kind["pixels"] / 140 * rng.uniform(0.6, 1.3)
            turn = rng.uniform(0, np.pi)
            u = (x - spot[0]) * np.cos(turn) + (y - spot[1]) * np.sin(turn)
            v = (y - spot[1]) * np.cos(turn) - (x - spot[0]) * np.sin(turn)
            distance = np.hypot(u / kind["stretch"], v * kind["stretch"])
            inside = soft_step(width * wobble - distance, 2.2 / radius)[..., None]
            image = image * np.exp(inside * np.log(kind["light"]) * rng.uniform(0.6, 1.0))
    return image


def photograph(rng, person: SimpleNamespace, image, x, y, radius: float) -> np.ndarray:
    """What the camera makes of it, (H, W, 3) uint8: light, optics, sharpening, noise, rim."""
    lamp = rng.normal(0, 0.18, 2)
    falloff = person.falloff * ((x - lamp[0]) ** 2 + (y - lamp[1]) ** 2)
    image = image * (1.12 - falloff)[..., None].clip(0.2) ** [0.9, 1.1, 1.2]
    from_centre = np.hypot(x, y)
    lopsided = np.clip(0.5 + x * np.cos(lamp[0] * 9) + y * np.sin(lamp[0] * 9), 0, 1)
    stray = person.haze * glow(from_centre - 1, 0.10) * lopsided
    image = image + stray[..., None] * [0.5, 0.8, 0.5]
    image = ndimage.gaussian_filter(image, (person.blur, person.blur, 0))
    image = image + 0.35 * (image - ndimage.gaussian_filter(image, (1.6, 1.6, 0)))
    grain = rng.normal(size=(*x.shape, 1)) + 0.5 * rng.normal(size=(*x.shape, 3))
    grain = ndimage.gaussian_filter(grain, (0.4, 0.4, 0)) * person.noise / 255
    image = np.minimum(image, 0.8 + 0.2 * np.tanh((image - 0.8) / 0.2))  # highlights roll off
    rim = soft_step(1 - from_centre, 2.5 / radius)[..., None]
    return np.rint((image + grain).clip(0, 1) * rim * 252 + 2).astype(np.uint8)


def write_tiny(folder: str | Path, seed: int = 0, force: bool = False) -> str:
    """Write 14 drawings as training | validation | test / images | masks | fov, under 2 MB.

    Other seeds draw other persons. Gives what was done in words. A negative seed, a file, and,
    without ``force``, a folder that is not empty are refused (RetinaError).
    """
    folder = Path(folder)
    if seed < 0:
        raise RetinaError(f"--seed {seed}: want 0 or more")
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir()) and not force):
        found = "is a file" if folder.is_file() else "is not empty"
        raise RetinaError(f"{folder} {found}; name another folder, or add --force to replace files")
    people = ["name,person"]
    splits = [split for split, count in COUNTS.items() for _ in range(count)]
    for number, split in enumerate(splits):
        drawing = draw_fundus(len(splits) * seed + number, SIZES[number // 2])
        name, inside = f"img_{number + 1:04d}", folder / SPLIT_FOLDERS[split][0]
        write_png(inside / "images" / f"{name}.png", drawing.image)
        write_png(inside / "masks" / f"{name}_mask.png", drawing.vessels)
        write_png(inside / "fov" / f"{name}_fov.png", drawing.fov)
        people.append(f"{name},p{number // 2 + 1:02d}")
    write_text(folder / "people.csv", "\n".join([*people, ""]))
    readme = Path(__file__).with_name("tiny.md").read_text(encoding="utf-8")
    write_text(folder / "README.md", readme.format(seed=seed))
    return f"wrote {len(splits)} photographs to {folder}"
