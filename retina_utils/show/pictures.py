"""Pictures: arrays in, arrays out, and the colours that all figures share.

Outside the field of view is black. Decisions are bool maps, shrunk so that a vessel one pixel wide
stays visible.
"""

from collections.abc import Iterable

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import binary_dilation, uniform_filter

from retina_utils.frame import fov_diameter
from retina_utils.measures.mistakes import MISTAKES

# Okabe-Ito colours: told apart also by who confuses red and green.
BLUE, ORANGE, SKY, GREEN = "#0072B2", "#E69F00", "#56B4E9", "#009E73"
VERMILLION, PURPLE, INK, GREY = "#D55E00", "#CC79A7", "#222222", "#8C8C8C"
ERROR_COLOURS = {"hit": "#EBEBEB", "false alarm": ORANGE, "miss": SKY}
QUIET_HIT = "#C4C4C4"  # vessels that were found, where only the mistakes matter
# Misses in blues, false alarms in warm colours; mere errors of width are the dull ones.
MISTAKE_COLOURS = dict(
    zip(MISTAKES, (SKY, BLUE, "#6E8796", "#9A8B6B", VERMILLION, ORANGE, PURPLE), strict=True)
)
OUTLINE = "#00E5FF"  # a cyan that no retina has
EMPTY = 31  # grey level of "inside the field of view, and nothing there"
PROBABILITY_MAP = "magma"


def coverage(decision: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """How strongly each displayed pixel is vessel: (H, W) bool -> (h, w) uint8, 255 is fully.

    The share of its area, times the reduction: a vessel one pixel wide covers a third of each
    pixel it crosses when the picture is three times smaller, and is drawn at full strength.
    """
    grey = Image.fromarray(np.negative(decision.view(np.uint8)))  # True becomes 255
    if decision.shape != size:
        gain = max(1.0, decision.shape[0] / size[0])
        grey = grey.reduce(int(gain + 0.01))  # by a whole number first: much faster
        if grey.size != size[::-1]:
            grey = grey.resize(size[::-1], Image.Resampling.BOX)
        grey = grey.point([min(255, round(gain * value)) for value in range(256)])
    return np.asarray(grey)


def tint(picture: np.ndarray, strength: np.ndarray, colour: str) -> np.ndarray:
    """Mix ``colour`` into a (h, w, 3) uint8 picture by (h, w) uint8 ``strength``."""
    plain = Image.new("RGB", strength.shape[::-1], colour)
    mixed = Image.composite(plain, Image.fromarray(picture), Image.fromarray(strength))
    return np.asarray(mixed)


def shrink(picture: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A (H, W[, 3]) uint8 or float32 picture at (h, w): averaged down, smoothly enlarged."""
    if picture.shape[:2] == size:
        return picture
    down = size[0] < picture.shape[0]
    method = Image.Resampling.BOX if down else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(picture).resize(size[::-1], method, reducing_gap=1.0))


def stretch(array: np.ndarray, inside: np.ndarray | None = None) -> np.ndarray:
    """Any float array from black to white, in [0, 1]: the extreme half percents are clipped.

    ``inside`` is a bool map, broadcast to the array, of the pixels that set the two ends.
    """
    counted = array if inside is None else array[np.broadcast_to(inside, array.shape)]
    low, high = np.percentile(counted if counted.size else array, (0.5, 99.5))
    return np.clip((array - low) / max(high - low, 1e-6), 0, 1)


def size_within(shape: tuple[int, ...], longest: int) -> tuple[int, int]:
    """The (h, w) with the proportions of ``shape`` whose longer side is ``longest`` pixels."""
    scale = longest / max(shape[:2])
    return max(1, round(shape[0] * scale)), max(1, round(shape[1] * scale))


def window_at(
    shape: tuple[int, int], sides: tuple[int, int], centre: tuple[int, int]
) -> tuple[slice, slice]:
    """The two slices of a window about ``centre``, moved where it would leave ``shape``."""
    starts = (
        min(max(int(middle) - side // 2, 0), length - side)
        for length, side, middle in zip(shape, sides, centre, strict=True)
    )
    return tuple(slice(start, start + side) for start, side in zip(starts, sides, strict=True))


def worst_window(wrong: np.ndarray) -> tuple[slice, slice]:
    """The window, a fifth of the photograph each way, with most True pixels of (H, W) ``wrong``."""
    sides = tuple(max(n // 5, 1) for n in wrong.shape)
    share = uniform_filter(wrong.astype(np.float32), sides, mode="constant")
    centre = np.unravel_index(np.argmax(share), share.shape)
    return window_at(wrong.shape, sides, centre)


def error_map(
    predicted: np.ndarray,
    vessels: np.ndarray,
    fov: np.ndarray,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Colour each pixel of (H, W) bool maps by what the prediction got right or wrong.

    Hits are light grey, false alarms orange, misses sky blue, nothing is dark grey. The result is
    (h, w, 3) uint8 of ``size``, or as large as the maps. A TypeError says which is no bool map.
    """
    for name, array in {"predicted": predicted, "vessels": vessels, "fov": fov}.items():
        if array.dtype != bool or array.shape != fov.shape:
            raise TypeError(
                f"{name} must be a bool array of shape {fov.shape}, got {array.dtype} "
                f"{array.shape}; threshold probabilities first"
            )
    found = predicted & fov
    hit = found & vessels
    kinds = {"miss": (vessels & fov) ^ hit, "false alarm": found ^ hit, "hit": hit}
    layers = ((ERROR_COLOURS[kind], decision) for kind, decision in kinds.items())
    return _paint(fov, size or fov.shape, layers)


def mistake_map(
    kinds: np.ndarray, hits: np.ndarray, fov: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Colour each kind of mistake, found vessels grey, outside black: (h, w, 3) uint8.

    ``kinds`` is the (H, W) uint8 of ``mistakes.mistakes``; ``hits`` and ``fov`` are (H, W) bool.
    """
    names = sorted(MISTAKES, key=lambda name: "too" not in name)  # errors of width lie beneath
    wrong = ((MISTAKE_COLOURS[name], kinds == MISTAKES.index(name) + 1) for name in names)
    return _paint(fov, size, [(QUIET_HIT, hits & fov), *wrong])


def overlay(
    image: np.ndarray,
    vessels: np.ndarray,
    colour: str = SKY,
    opacity: float = 0.8,
    size: tuple[int, int] | None = None,
) -> np.ndarray:
    """Tint the (H, W) bool vessels of a (H, W, 3) uint8 photograph, which stays visible beneath.

    ``opacity`` is 0 to 1, colour only. The result is (h, w, 3) uint8 of ``size``, or as large as
    ``vessels``; the photograph may have that size already.
    """
    size = size or vessels.shape
    strength = np.multiply(coverage(vessels, size), opacity, dtype=np.float32).astype(np.uint8)
    return tint(shrink(image, size), strength, colour)


def outline_vessels(image: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """The (H, W, 3) uint8 photograph with a line around its (H, W) bool vessels.

    The line runs outside them, about a thousandth of the FOV wide: what is below can be judged.
    """
    wide = max(1, round(fov_diameter(fov) / 1200))
    edge = binary_dilation(vessels, iterations=wide) & ~vessels
    return tint(image, coverage(edge, edge.shape), OUTLINE)


def _paint(
    fov: np.ndarray, size: tuple[int, int], layers: Iterable[tuple[str, np.ndarray]]
) -> np.ndarray:
    """Bool maps in their colours over a dark field of view, the last on top: (h, w, 3) uint8."""
    ground = Image.fromarray(fov.view(np.uint8)).resize(size[::-1], Image.Resampling.NEAREST)
    picture = np.asarray(ground.point([EMPTY * bool(v) for v in range(256)]).convert("RGB"))
    for colour, decision in layers:
        if decision.any():
            picture = tint(picture, coverage(decision, size), colour)
    return picture


def caption(picture: np.ndarray, words: str) -> np.ndarray:
    """A copy of a (H, W, 3) uint8 picture with ``words`` in its lower left corner."""
    image, size = Image.fromarray(picture), max(12, picture.shape[0] // 45)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(size)
    place = (size // 2, image.height - size // 2)
    box = draw.textbbox(place, words, font=font, anchor="lb")
    draw.rectangle([box[0] - 3, box[1] - 3, box[2] + 3, box[3] + 3], fill="black")
    draw.text(place, words, font=font, anchor="lb", fill="white")
    return np.asarray(image)
