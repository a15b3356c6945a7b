"""Checked pairs -> what is doubtful about them: drawings that do not fit, the same eye twice.

Everything is judged on a copy of 256 to 576 pixels. The numbers beside the limits were measured on
CHASE_DB1 01-10, HRF 01-05, STARE and ``data/tiny``: 69 photographs.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from retina_utils.intake import likeness

SMALLEST_SHARE = 0.05  # a FOV covers at least this share of the photograph
WHITE = 225  # of 255 in every channel: paper, not retina
SIZE = 384  # pixels: about the longer side of the reduced copy
SMALLEST = 100  # pixels across the FOV; in less, vessels are too fine to judge
# Ring around the vessels minus vessels, in deviations of green: right drawings 1.03 to 2.76; those
# turned, mirrored or of other eyes, 1,199 in all, -.25 to .26. Angiograms have bright vessels.
SMALLEST_CONTRAST = 0.6
SHARES = (0.01, 0.25)  # of the FOV that is vessel: .059 to .131
LARGEST_OUTSIDE = 0.1  # share of the vessels outside the FOV
DARKEST = 8  # of 255, as in find_fov: the brightest twentieth of a black photograph


class Look(NamedTuple):
    """What the pixels of a pair tell; the first three compare it with others."""

    digest: str  # of the photograph
    drawing: str = ""  # of its vessels
    view: np.ndarray | None = None  # of `likeness`
    wrong: tuple[tuple[str, str], ...] = ()  # (kind of file, what cannot be right about it)
    doubts: tuple[tuple[str, str], ...] = ()
    fits: bool | None = None  # the vessels lie on those of the photograph; None: cannot be judged


def look_closely(
    image: np.ndarray, fov: np.ndarray, vessels: np.ndarray, second: np.ndarray | None = None
) -> Look:
    """A photograph, (H, W, 3) uint8, and its drawings, (H, W) bool, on second thoughts.

    Wrong are a black photograph, vessels that fill the FOV or have none in it, and a FOV that looks
    like vessels, covers hardly any of the photograph or is darker than its surround. Doubtful are
    vessels, of either observer, that do not follow what is dark (or bright) in green, and vessels
    of an unusual share or outside the FOV.
    """
    factor = max(1, round(max(image.shape) / SIZE))
    small = _reduce(image, factor).astype(np.float32)
    inside = _reduce(fov, factor) > 127
    look = Look(digest(image), digest(vessels))
    if why := _odd_fov(small, inside):
        return look._replace(wrong=(("fov", why),))
    if np.percentile(small.max(-1)[inside], 95) < DARKEST:
        return look._replace(wrong=(("image", "is black. Expected a photograph; leave it out."),))
    share, outside = vessels[fov].mean(), vessels[~fov].sum() / vessels.sum()
    if share == 0 or share > 0.5:
        why = f"marks {share:.0%} of the field of view. Expected vessels, about a tenth of it."
        return look._replace(wrong=(("vessels", why),))
    if min(np.ptp(np.nonzero(inside), axis=1)) < SMALLEST:
        return look
    doubts, green = [], small[..., 1]
    if not SHARES[0] <= share <= SHARES[1]:
        doubts.append(("vessels", f"marks {share:.1%} of the field of view; usual are 5 to 15 %."))
    if outside > LARGEST_OUTSIDE:
        doubts.append(("vessels", f"{outside:.0%} of its vessels lie outside the field of view."))
    fits = None
    for what, those in {"vessels": vessels, "second": second}.items():
        drawn = None if those is None else _reduce(those, factor) > 127
        contrast = np.nan if those is None else abs(_contrast(green, inside, drawn))
        if what == "vessels" and not np.isnan(contrast):
            fits = contrast >= SMALLEST_CONTRAST
        if contrast < SMALLEST_CONTRAST:
            turns = [turn for turn in likeness.turns(drawn) if turn.shape == drawn.shape]
            fit = any(_contrast(green, inside, turn) > SMALLEST_CONTRAST for turn in turns)
            mend = "Mirrored or turned it does; turn it back." if fit else "Is it of another eye?"
            doubts.append((what, f"does not lie on the photograph's vessels. {mend}"))
    return look._replace(view=likeness.view(green, inside), doubts=tuple(doubts), fits=fits)


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(array.tobytes()).hexdigest()


def same_eyes(looks: Sequence[Look]) -> list[list[int]]:
    """Groups of photographs, by their places, that show one eye though their pixels differ."""
    at = [place for place, look in enumerate(looks) if look.view is not None]
    views, drawings = [looks[i].view for i in at], [looks[i].drawing for i in at]
    groups = [[at[i] for i in group] for group in likeness.group(views, drawings)] if at else []
    return [group for group in groups if len({looks[i].digest for i in group}) > 1]


def _reduce(array: np.ndarray, factor: int) -> np.ndarray:
    array = array.astype(np.uint8) * 255 if array.dtype == bool else array
    return np.asarray(Image.fromarray(array).reduce(factor))


def _odd_fov(small: np.ndarray, inside: np.ndarray) -> str:
    """Why this cannot be the field of view of the reduced photograph, or ""."""
    if inside.mean() < SMALLEST_SHARE:
        return (
            f"covers {inside.mean():.1%} of the photograph. Expected a field of view, at least "
            f"{SMALLEST_SHARE:.0%}; draw it again, or remove it and it is found."
        )
    steps = max(1, max(inside.shape) // 50)
    core = ndimage.binary_erosion(inside, iterations=steps, border_value=1)
    if core.sum() < 0.5 * inside.sum():
        return "looks like a drawing of vessels. Expected one bright disc, the field of view."
    brightness = np.where(small.min(-1) >= WHITE, 0, small.max(-1))  # a white page counts as black
    if not inside.all() and brightness[inside].mean() < brightness[~inside].mean() / 2:
        return "marks the dark surround: it is inverted. Expected the field of view bright."
    return ""


def _contrast(green: np.ndarray, inside: np.ndarray, drawn: np.ndarray) -> float:
    """Brightness of a ring around the vessels less that of the vessels, in deviations; or nan."""
    inside = ndimage.binary_erosion(inside, iterations=4)  # without the rim
    ring = ndimage.binary_dilation(drawn, iterations=3) & ~ndimage.binary_dilation(drawn) & inside
    drawn = drawn & inside
    if min(ring.sum(), drawn.sum()) < 20:
        return np.nan
    detail = green - likeness.local_mean(green, inside.astype(np.float32), 8)
    return float((detail[ring].mean() - detail[drawn].mean()) / max(detail[inside].std(), 1e-3))
