"""A drawing and an annotation -> what kind each wrong pixel is, and why it came out so badly."""

import math

import numpy as np
from scipy.ndimage import binary_dilation, distance_transform_edt, label
from skimage.morphology import skeletonize

from retina_utils.frame import fov_diameter
from retina_utils.measures.widths import THIN, Drawing, to_edge, window_of
from retina_utils.metrics import require_maps

NEAR = 0.001  # of the FOV's diameter, at least a pixel: this near, a centreline is met
RIM = 0.02  # of the FOV's diameter: this near its border a false alarm is one of the border
AROUND = 0.02  # of the FOV's diameter: the surroundings a vessel is compared with
ELONGATED = 4  # times as long as wide: from here on a false alarm is a line, not a spot

# The kinds of wrong pixels that `mistakes` tells apart, in the order of its labels 1, 2, ...
MISTAKES = (
    "thin vessel missed",
    "thick vessel missed",
    "drawn too thin",
    "drawn too wide",
    "false alarm along the FOV border",
    "false line elsewhere",
    "false compact spot",
)


def mistakes(predicted: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """Give every wrong pixel inside the FOV one of the kinds in ``MISTAKES``.

    All maps are (H, W) bool. The result, (H, W) uint8, is k for ``MISTAKES[k - 1]``, else 0.

    A miss beside a stretch of centreline that was found is an error of width; any other is a lost
    stretch of a thin or a thick vessel. A false alarm whose nearest stretch of drawn centreline
    lies on a vessel is an error of width, too; any other lies along the border of the FOV, in a
    line of its own, or in a compact spot.
    """
    require_maps(predicted=predicted, vessels=vessels, fov=fov)
    diameter, window = fov_diameter(fov), window_of(fov)
    kinds, fov = np.zeros(fov.shape, np.uint8), fov[window]
    predicted, vessels = predicted[window] & fov, vessels[window] & fov
    missed, false = vessels & ~predicted, predicted & ~vessels
    drawn, truth = Drawing(predicted), Drawing(vessels)
    thin = truth.thin(THIN * diameter)
    reach = max(1, round(NEAR * diameter))
    too_thin = missed & near_centreline(truth, predicted, reach)
    too_wide = false & near_centreline(drawn, vessels, reach)
    alone = false & ~too_wide
    rim = alone & (to_edge(fov) <= RIM * diameter)  # a frame that cuts the disc off, too
    line = elongated(alone & ~rim)
    lost = missed & ~too_thin
    found = (lost & thin, lost & ~thin, too_thin, too_wide, rim, line, alone & ~rim & ~line)
    kinds[window] = sum(part * np.uint8(k) for k, part in enumerate(found, start=1))
    return kinds


def near_centreline(drawing: Drawing, other: np.ndarray, reach: int) -> np.ndarray:
    """Where the nearest pixel of the drawing's centreline is within ``reach`` of ``other``."""
    met = binary_dilation(other, np.ones((3, 3)), reach) & drawing.centre
    return met[drawing.nearest]


def elongated(spots: np.ndarray) -> np.ndarray:
    """The connected parts of a (H, W) bool map that are ``ELONGATED`` times as long as wide."""
    parts, count = label(spots, np.ones((3, 3)))
    length = np.bincount(parts[skeletonize(spots)], minlength=count + 1)
    width = np.zeros(count + 1)
    np.maximum.at(width, parts[spots], (2 * to_edge(spots) - 1)[spots])
    is_line = length >= ELONGATED * np.maximum(width, 1)
    is_line[0] = False
    return is_line[parts]


def count_mistakes(kinds: np.ndarray) -> dict[str, int]:
    """How many pixels of each kind a map of :func:`mistakes` holds."""
    counts = np.bincount(kinds.ravel(), minlength=len(MISTAKES) + 1)
    return {name: int(n) for name, n in zip(MISTAKES, counts[1:], strict=True)}


def light(image: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> dict[str, float]:
    """How bright a (H, W, 3) uint8 photograph is, and how far its vessels stand out, in green.

    ``brightness`` is the median inside the FOV, 0 to 255; ``contrast`` how much darker the vessels
    are than their surroundings (within ``AROUND`` of the FOV's diameter), as a share of these: 0
    is invisible, nan without vessels. ``vessels`` and ``fov`` are (H, W) bool.
    """
    require_maps(vessels=vessels, fov=fov)
    green, vessels = image[..., 1].astype(np.float32), vessels & fov
    distance = distance_transform_edt(~vessels)
    around = green[fov & ~vessels & (distance <= AROUND * fov_diameter(fov))]
    comparable = vessels.any() and around.any()
    contrast = 1 - green[vessels].mean() / around.mean() if comparable else math.nan
    return {"brightness": float(np.median(green[fov])), "contrast": float(contrast)}


def what_went_wrong(
    counts: dict[str, int], here: dict[str, float] | None = None, usual: dict | None = None
) -> str:
    """The share of mere width errors, the two commonest of the other kinds, and poor light.

    ``counts`` are of :func:`count_mistakes`; ``here`` (this photograph) and ``usual`` (a median) of
    :func:`light`. Dark, or faint, is less than three quarters of what is usual.

    Examples
    --------
    >>> counts = dict.fromkeys(MISTAKES, 0) | {"drawn too wide": 40}
    >>> what_went_wrong(counts | {"thin vessel missed": 45, "false compact spot": 15})
    'width 40%; of the rest: thin vessel missed 75%, false compact spot 25%'
    """
    wrong = sum(counts.values())
    if not wrong:
        return "nothing wrong"
    rest = {name: n for name, n in counts.items() if n and not name.startswith("drawn too")}
    other = sum(rest.values())
    words = [f"width {1 - other / wrong:.0%}"]
    if rest:
        ranked = sorted(rest, key=rest.get, reverse=True)[:2]
        words.append("of the rest: " + ", ".join(f"{k} {rest[k] / other:.0%}" for k in ranked))
    for key, name in (("brightness", "dark photograph"), ("contrast", "faint vessels")):
        if here and usual and here[key] < 0.75 * usual[key]:
            words.append(f"{name} ({key} {here[key]:.3g}, usually {usual[key]:.3g})")
    return "; ".join(words)
