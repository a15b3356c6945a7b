"""Is this photograph, and the map drawn from it, worth believing? Flags in words, no score.

The limits were set on the 35 photographs of CHASE_DB1 01-10 and HRF 01-05, all of which pass, also
at a quarter of their size and as grey pictures; the numbers beside each limit say how far from it
they lie. A flag asks for a look, it does not judge: nothing is left out because of it.
"""

from itertools import pairwise

import numpy as np
from PIL import Image
from scipy import ndimage

from retina_utils.fov import WHITE
from retina_utils.frame import frame_of

DIAMETER = 512  # pixels across the FOV at which everything here is measured

DARKEST = 60  # of 255, brightest twentieth of the FOV: 189 and more, grey pictures 74 and more
FLATTEST = 0.045  # deviation over mean of the green channel, coarse light removed: 0.068 and more
BLURRIEST = 0.6  # fine over coarse detail: 0.74 and more; blurred by 0.5 % of the FOV 0.58 to 0.68
SHARES = (0.03, 0.2)  # vessels' share of the FOV: annotations of five data sets 0.09 to 0.13
BETWEEN = 0.005  # share of pixels that are neither dark nor bright: blurred edges of a mask
BESIDE = 0.15  # bright area beside the FOV, as a share of it: 0; a second eye of half the size 0.23
# A FOV longer than this over its shorter side, whose corners beyond a disc are filled by so much:
# HRF 1.40 and at most 0.02, STARE 1.23 and at most 0.99; pictures without a disc 1.33 and 1.
OBLONG, FILLED = 1.28, 0.3
PLAINEST = (
    0.5  # share of the FOV within 3 % of one value: photographs up to 0.22, pages 0.74 to 0.83
)
REDDEST = 1.2  # red over green, medians: 1.33 to 3.3; landscapes by day, noise, pages 0.7 to 1.07
GREY = 10  # of 255: the channels of a grey picture differ by less
# Mean of p (1 - p) over the mean of p, 0 for a network that is sure of every pixel: photographs at
# most 0.36, at a quarter of their size 0.39; landscapes, noise and gradients 0.55 and more. Some
# negatives get by: the network is as sure of them as of a photograph.
LARGEST_DOUBT = 0.47
# With these a map may be as sure of itself as a good one, and its expected Dice says nothing.
MEANINGLESS = {
    "bright beside the FOV (two eyes?)",
    "not round (no retina?)",
    "one plain colour (no retina?)",
    "not red (no retina?)",
    "hardly any vessels",
    "too many vessels",
}


def is_drawing(image: np.ndarray) -> bool:
    """Whether a (H, W, 3) uint8 picture has two values only, as annotations and FOV masks do."""
    low, high = np.array(Image.fromarray(image).getextrema(), np.uint8).T  # of each channel
    enough, found = BETWEEN * image[..., 0].size, 0
    for start in range(16):  # of a photograph the first few lines tell
        lines = image[start::16]
        between = np.minimum(lines - low, high - lines) > 0.15 * (high - low).max()
        found += np.count_nonzero(between.any(axis=2))
        if found >= enough:
            return False
    return bool((high > low).any())


def photograph_flags(image: np.ndarray, fov: np.ndarray) -> list[str]:
    """What is wrong with a photograph, as words; an empty list if nothing is.

    Takes the (H, W, 3) uint8 photograph and its (H, W) bool FOV; gives some of "too dark", "low
    contrast", "blurred", "bright beside the FOV (two eyes?)", "not round (no retina?)", "one
    plain colour (no retina?)" and "not red (no retina?)"; a grey picture need not be red.
    """
    frame = frame_of(fov, DIAMETER)
    small, inside = frame.view(image), frame.view(fov)
    green, weight = small[..., 1].astype(np.float32), inside.astype(np.float32)

    def smooth(array: np.ndarray, sigma: float) -> np.ndarray:
        """Gaussian mean of the FOV's pixels alone."""
        total = ndimage.gaussian_filter(weight, sigma)
        return ndimage.gaussian_filter(array * weight, sigma) / np.maximum(total, 1e-3)

    # Away from the rim; a FOV too small for that is looked at whole.
    middle = ndimage.binary_erosion(inside, iterations=10)
    middle = middle if middle.any() else inside
    coarse = smooth(green, 15)
    contrast = (green - coarse)[middle].std() / max(coarse[middle].mean(), 1)
    levels = [smooth(green, sigma) for sigma in (2, 4, 8)]
    fine, wide = ((a - b)[middle].std() for a, b in pairwise(levels))
    red, green = (np.median(smooth(small[..., k].astype(np.float32), 3)[inside]) for k in (0, 1))
    grey = np.percentile(np.ptp(small, axis=2)[inside], 90) < GREY
    levels_of_green = np.bincount(small[..., 1][middle], minlength=256)
    mode = int(levels_of_green.argmax())
    near = slice(max(0, mode - mode * 3 // 100), mode + mode * 3 // 100 + 1)
    plain = levels_of_green[near].sum() > PLAINEST * middle.sum() and contrast >= FLATTEST
    flags = {
        "too dark": np.percentile(small.max(axis=2)[inside], 95) < DARKEST,
        "low contrast": contrast < FLATTEST,
        "blurred": fine < BLURRIEST * wide,
        "bright beside the FOV (two eyes?)": bright_beside(image, fov) > BESIDE,
        "not round (no retina?)": is_oblong(inside),
        "one plain colour (no retina?)": plain,
        "not red (no retina?)": not grey and red < REDDEST * max(green, 1),
    }
    return [words for words, holds in flags.items() if holds]


def is_oblong(fov: np.ndarray) -> bool:
    """Whether a FOV, cropped to its sides, is far from a disc whose top and bottom may be cut."""
    height, width = fov.shape
    y, x = np.ogrid[:height, :width]
    disc = np.hypot(2 * y - height + 1, 2 * x - width + 1) <= max(fov.shape)
    return max(fov.shape) > OBLONG * min(fov.shape) and bool(fov[~disc].mean() > FILLED)


def bright_beside(image: np.ndarray, fov: np.ndarray) -> float:
    """The largest area beside the FOV that is about as bright as it, as a share of the FOV."""
    factor = max(1, max(fov.shape) // DIAMETER)
    small, inside = image[::factor, ::factor], fov[::factor, ::factor]
    if not inside.any():
        return 0.0
    level = 0.3 * np.median(small.max(axis=2)[inside])
    page = small.min(axis=2) >= WHITE  # the photograph may be printed on one
    # Soft edges of the FOV and written labels do not count.
    beside = (small.max(axis=2) > level) & ~page & ~ndimage.binary_dilation(inside, iterations=4)
    areas = np.bincount(ndimage.label(ndimage.binary_opening(beside, iterations=2))[0].ravel())
    return max(areas[1:], default=0) / inside.sum()


def map_flags(probability: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> list[str]:
    """What is implausible about a vessel map, as words; an empty list if nothing is.

    Parameters
    ----------
    probability : (H, W) float32 in [0, 1]
    vessels, fov : (H, W) bool
        The decision at the threshold, and the field of view.

    Returns
    -------
    flags : list of str
        Of "hardly any vessels", "too many vessels" and "unsure".
    """
    share, inside = (vessels & fov).sum() / fov.sum(), probability[fov]
    doubt = (inside * (1 - inside)).sum() / max(inside.sum(), 1e-6)
    flags = {
        "hardly any vessels": share < SHARES[0],
        "too many vessels": share > SHARES[1],
        "unsure": doubt > LARGEST_DOUBT,
    }
    return [words for words, holds in flags.items() if holds]
