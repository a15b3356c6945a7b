"""The field of view (FOV) of a photograph: finding the camera's disc.

A fundus camera sees through a round stop, so a photograph is a bright disc on black, often cut
off at the top and bottom. Scores count only what lies inside it.
"""

import warnings

import numpy as np
from PIL import Image
from scipy import ndimage
from skimage.measure import CircleModel, ransac, regionprops

from retina_utils.intake.bars import without_bars
from retina_utils.intake.checks import SMALLEST_SHARE, WHITE

# An outline that no circle fits is nothing to warn of: the region itself is taken then.
warnings.filterwarnings("ignore", category=UserWarning, module="skimage.measure.fit")

WORKING_SIZE = 512  # pixels of the longer side on which the disc is searched
# The search runs at several brightness levels, as fractions of the way from the surround to the
# bright retina: a low one keeps dim rims, a high one survives a noisy or hazy surround.
CUTS = (0.06, 0.12, 0.2, 0.32)


def find_fov(image: np.ndarray) -> np.ndarray:
    """The field of view of a photograph as (H, W) bool.

    Thresholds the brightest channel of a small copy, keeps the largest component, and fits a circle
    to its outline so that labels, notches, dark rims and noise do not matter. A disc cut off by the
    border or by straight bars stays cut off. If the outline is no circle (a squeezed picture), the
    component is the FOV; without a dark surround, the whole image. A white page counts as black.

    ``image`` is (H, W, 3) or (H, W) uint8. A ValueError says if it is black, or bright in no
    connected region large enough to be a FOV.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3):
        raise ValueError(f"image must be (H, W[, 3]) uint8, got {image.shape} {image.dtype}")
    factor = max(1, -(-max(image.shape) // WORKING_SIZE))
    brightness = _brightness(image, factor)
    low, high = np.percentile(brightness, [0.5, 95])
    if high < 8:
        raise ValueError(
            f"no field of view: 95 % of the pixels are darker than {high:.0f} of 255. "
            "Expected a bright disc; leave the photograph out or give its FOV mask."
        )
    candidates = [_candidate(brightness, low + level * (high - low)) for level in CUTS]
    quality, disc = max(candidates, key=lambda candidate: candidate[0])
    if quality > 0:
        return _enlarge(_depth(disc, brightness), factor, image.shape[:2])
    if (brightness > low + CUTS[-1] * (high - low)).mean() > 0.5 or low > 0.3 * high:
        return np.ones(image.shape[:2], bool)  # bright all over: the disc lies beyond the borders
    raise ValueError(
        "no field of view: the bright part of the image is neither a disc nor one compact region "
        f"of at least {SMALLEST_SHARE:.0%} of its area. Check that this is a fundus photograph, "
        "or give its FOV mask."
    )


def _brightness(image: np.ndarray, factor: int) -> np.ndarray:
    """The brightest channel on a copy ``factor`` times smaller, as float32.

    Red shows most of a retina; a rim of scattered light may be seen in blue only.
    """
    small = np.asarray(Image.fromarray(image).reduce(factor))
    darkest, grey = (small.min(-1), small.max(-1)) if image.ndim == 3 else (small, small)
    return ndimage.median_filter(np.where(_white_page(darkest), 0, grey), 3).astype(np.float32)


def _white_page(darkest: np.ndarray) -> np.ndarray:
    """The white page a photograph was exported on, as bool: what is white from the border inwards.

    ``darkest`` is the darkest channel of each pixel. No page if less than half of the border is
    white; a retina is white nowhere near it.
    """
    white = darkest >= WHITE
    border = ~np.pad(np.ones_like(white[1:-1, 1:-1]), 1)
    if white[border].mean() < 0.5:
        return np.zeros_like(white)
    page = ndimage.binary_propagation(white & border, mask=white)
    return ndimage.binary_dilation(page)  # its edge is a mixture


def _candidate(brightness: np.ndarray, threshold: float) -> tuple[float, np.ndarray]:
    """A FOV found at one threshold, and its quality; 0 is implausible.

    A circle that agrees with the bright region is best (above 2); then the region itself if it is
    compact and sharply bounded (above 1); then a circle seen in part. Neither keeps a bar.
    """
    region = _largest_component(brightness > threshold)
    if region.mean() < SMALLEST_SHARE or min(np.ptp(np.nonzero(region), axis=1)) < 8:
        return 0.0, region
    disc, support = _fit_circle(_outline(region), region.shape)
    disc, region = (without_bars(found, brightness) for found in (disc, region))
    disc_edge, edge = _edge_contrast(brightness, disc), _edge_contrast(brightness, region)
    circular = support > 0.4 and disc_edge > 0.5
    if circular and (disc & region).sum() > 0.965 * (disc | region).sum():
        return 2 + support + disc_edge, disc
    shape = regionprops(region.astype(np.uint8))[0]
    if edge > 0.7 and shape.solidity > 0.95 and shape.extent < 0.95:  # no dents, and no rectangle
        return 1 + edge, region
    return (support, disc) if circular else (0.0, region)


def _largest_component(bright: np.ndarray) -> np.ndarray:
    """The largest connected part of a bool map, without thin bridges and with holes filled."""
    labels, _ = ndimage.label(ndimage.binary_opening(bright, iterations=2))
    sizes = np.bincount(labels[labels > 0], minlength=1)
    return ndimage.binary_fill_holes(labels == sizes.argmax()) & (sizes.max() > 0)


def _outline(region: np.ndarray) -> np.ndarray:
    """Outermost edges (x, y) of each row and column, except those on the image's border."""
    (height, width), (rows, columns) = region.shape, (np.flatnonzero(region.any(a)) for a in (1, 0))
    left, right = region[rows].argmax(1), width - region[rows, ::-1].argmax(1)
    top, bottom = region[:, columns].argmax(0), height - region[::-1, columns].argmax(0)
    y = np.concatenate([rows + 0.5, rows + 0.5, top, bottom])
    x = np.concatenate([left, right, columns + 0.5, columns + 0.5])
    return np.stack([x, y], -1)[_within(x, y, region.shape)]


def _within(x: np.ndarray, y: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Which points lie inside the image, a pixel from its border."""
    return (y > 1) & (y < shape[0] - 1) & (x > 1) & (x < shape[1] - 1)


def _fit_circle(outline: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, float]:
    """The circle most outline points (n, 2) agree on: its disc (H, W) bool, and its support.

    RANSAC (Fischler and Bolles, 1981), refined ten times by least squares over the points that are
    near. The support is the share of the circle's visible arc that has an outline point nearby.
    """
    nothing = np.zeros(shape, bool), 0.0
    if len(outline) < 12:
        return nothing
    near, settings = None, {"min_samples": 3, "stop_probability": 0.9999, "rng": 0}
    for trials in (400, *[1] * 10):
        model, near = ransac(
            outline,
            CircleModel,
            residual_threshold=max(1, 0.004 * max(shape)),
            is_model_valid=lambda circle, *_: _circle(circle)[2] < 2 * max(shape),
            max_trials=trials,
            initial_inliers=near,
            **settings,
        )
        if model is None or near.sum() < 12:
            return nothing
    cx, cy, radius = _circle(model)
    turn = np.linspace(-np.pi, np.pi, 181)
    visible = _within(*model.predict_xy(turn).T, shape)
    x, y = outline[near].T
    found, _ = np.histogram(np.arctan2(y - cy, x - cx), turn)
    support = (found[visible[:-1]] > 0).mean() if visible.sum() > 9 else 0.0
    yy, xx = np.ogrid[: shape[0], : shape[1]]
    return np.hypot(yy + 0.5 - cy, xx + 0.5 - cx) <= radius, float(support)


def _circle(model: CircleModel) -> tuple[float, float, float]:
    """Centre (x, y) and radius, by what every version of scikit-image has."""
    (x0, y0), (x1, y1) = model.predict_xy(np.array([0, np.pi]))
    return (x0 + x1) / 2, (y0 + y1) / 2, float(np.hypot(x1 - x0, y1 - y0)) / 2


def _edge_contrast(brightness: np.ndarray, disc: np.ndarray) -> float:
    """How much of the brightness falls away across the edge: 1 for a sharp black surround."""
    width = max(2, round(0.015 * max(disc.shape)))
    inner = disc & ~ndimage.binary_erosion(disc, iterations=width, border_value=1)
    outer = ndimage.binary_dilation(disc, iterations=width) & ~disc
    if not outer.any():
        return 0.0
    floor = np.percentile(brightness[~disc], 5)
    inside, outside = np.median(brightness[inner]), np.median(brightness[outer])
    return float((inside - outside) / max(inside - floor, 1))


def _depth(disc: np.ndarray, brightness: np.ndarray) -> np.ndarray:
    """Pixels from the FOV's edge, positive inside, as (H, W) float32.

    A low threshold lies at the foot of a soft edge. The FOV's edge is where the brightness has
    half the value that it has two pixels further inside, at most six pixels from the foot: a
    dim rim has an edge of its own and stays.
    """
    depth = np.where(disc, ndimage.distance_transform_edt(disc) - 0.5, 0)
    depth -= np.where(disc, 0, ndimage.distance_transform_edt(~disc) - 0.5)
    depth = depth.astype(np.float32).clip(-8, 8)
    rings = [brightness[(depth > k - 1) & (depth <= k)] for k in range(9)]  # the first is outside
    if any(len(ring) == 0 for ring in rings):
        return depth
    level = np.array([np.median(ring) for ring in rings]) - np.percentile(brightness[~disc], 5)
    for k in range(1, 7):
        if level[k] >= (half := level[k + 2] / 2):
            rise = (half - level[k - 1]) / max(level[k] - level[k - 1], 1)
            return depth - max(0, k - 1.5 + np.clip(rise, 0, 1))
    return depth


def _enlarge(depth: np.ndarray, factor: int, shape: tuple[int, int]) -> np.ndarray:
    """Where ``depth`` is positive on a grid ``factor`` times finer: (H, W) bool, edge smooth."""
    box = (0, 0, shape[1] / factor, shape[0] / factor)
    fine = Image.fromarray(depth).resize(shape[::-1], Image.Resampling.BILINEAR, box=box)
    return np.asarray(fine) >= 0
