"""A threshold slider that lives in the browser: one piece of HTML, no kernel, no network.

The decision is *vessels = probability >= threshold*, on probabilities kept in 16 bits. The
slider offers about 200 thresholds, half of them in even steps and half where the network's
probabilities lie, plus the marked ones, exactly as they are. Each
pixel is embedded as one byte, its *code*: 0 outside the field of view, else the number of offered
thresholds that its 16-bit probability reaches. ``code > level`` is then the same decision as
``probability >= levels[level]``, pixel for pixel and without rounding, and the browser has only to
look up one of 512 colours for each pixel. The scores are looked up too, counted at native size.
"""

import base64
from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.machine import png
from retina_utils.show import pictures
from retina_utils.show.pages import TEMPLATES, data_uri
from retina_utils.show.tables import HEADINGS, OF_A_DECISION

MARKS = {"half": "one half", "chosen": "usual threshold", "best": "best possible"}
OWN = "its own threshold"  # where it is chosen for one photograph alone
EVEN = 100  # even steps on the track
# Shares of the field of view below a threshold between which decisions are plausible: vessels are
# about a tenth of it. So many steps again lie there.
LEAST, MOST = 0.7, 0.999

REDUCED = (
    "To keep the file small this photograph is shown at {:.0%} of its native width; the scores "
    "are counted at native size."
)
QUALITY = 82  # of JPEG, for a photograph to be looked at
RAMP = [to_hex(colormaps[pictures.PROBABILITY_MAP](level)) for level in range(256)]
NOTHING = metrics.Histogram(*np.zeros((2, metrics.LEVELS), np.int64))  # where none is annotated


def viewer_html(
    cases: Iterable[Case],
    thresholds: Mapping[str, float],
    whole: metrics.Histogram | None = None,
    whole_label: str = "all, pooled",
    max_side: int = 2048,
    max_bytes: int = 10_000_000,
) -> str:
    """A self-contained HTML fragment to move the threshold over photographs.

    Where scripts do not run (GitHub, an untrusted notebook, paper) it is a still overlay of the
    first case. A ValueError says if there are no cases, or what is not as described.

    Parameters
    ----------
    cases : iterable of evaluate.Case
        Read once and in order, so that a generator keeps one photograph in memory at a time.
        Without ``vessels`` there are no scores.
    thresholds : mapping
        Marks on the track: "chosen" and, if wanted, "best"; 0.5 is always marked.
    whole, whole_label : Histogram and str, optional
        Pooled pixels for the second column of scores, and what they are; without them, all
        embedded cases.
    max_side : int
        Longer photographs are embedded at this many pixels; the scores stay native.
    max_bytes : int
        Cases are embedded in turn until they would take more than this; the rest is counted.
    """
    levels = threshold_levels(thresholds, None if whole is None else sum(whole))
    embedded, histograms, used, left_out, still = [], [], 0, 0, ""
    cases = iter(cases)
    for case in cases:
        entry, picture = embed(case, levels, max_side)
        entry["photograph"] = data_uri(picture, "JPEG", quality=QUALITY)
        used += sum(len(entry[key] or "") for key in ("photograph", "codes", "annotation"))
        if embedded and used > max_bytes:
            left_out = 1 + sum(1 for _ in cases)
            break
        counted = NOTHING if case.vessels is None else metrics.histogram(*case[2:])
        histograms.append(counted)
        embedded.append(entry | {"scores": _scores_at(counted, levels)})
        still = still or _still(case, thresholds["chosen"])
    if not embedded:
        raise ValueError("viewer_html: no cases given; expected at least one evaluate.Case")
    data = {
        "levels": levels.tolist(),
        "marks": marks_on(levels, thresholds),
        "ramp": RAMP,
        "cases": embedded,
        "curve": "dice",
        "scores": {key: HEADINGS[key] for key in OF_A_DECISION},
        "whole": _scores_at(whole or metrics.pool(histograms), levels),
        "whole_label": whole_label,
        "note": f"{left_out} more were left out to keep the file small." if left_out else "",
    }
    template = TEMPLATES.get_template("viewer.html.j2")
    return template.render(data=data, still=still, chosen=thresholds["chosen"])


def threshold_levels(
    thresholds: Mapping[str, float], counts: np.ndarray | None = None
) -> np.ndarray:
    """The slider's thresholds: (L,) float64 rising from 0 to 1, the marked ones among them.

    ``counts``, (65536,) int, says how many pixels have each probability. Without them all steps
    are even; with them half follow the quantiles, so that the slider has something to decide all
    along its track, also where a network's probabilities lie close together.
    """
    if "chosen" not in thresholds:
        raise ValueError(f"thresholds: found {sorted(thresholds)}, expected 'chosen' among them")
    for name, value in thresholds.items():
        if name not in MARKS or not 0 <= value <= 1:
            raise ValueError(
                f"thresholds[{name!r}] = {value}: expected 'chosen' or 'best', from 0 to 1"
            )
    if counts is None or not counts.any():
        offered = np.arange(2 * EVEN + 1) / (2 * EVEN)
    else:
        below = np.cumsum(counts) / counts.sum()
        dense = np.searchsorted(below, np.linspace(LEAST, MOST, EVEN)) / (metrics.LEVELS - 1)
        offered = [*np.arange(EVEN + 1) / EVEN, *dense.round(4)]
    return np.unique([*offered, *thresholds.values(), 0.5])


def marks_on(levels: np.ndarray, thresholds: Mapping[str, float]) -> dict[str, dict]:
    """The marks of a track as the browser gets them; it starts at the first."""
    marks = {"chosen": thresholds["chosen"], **thresholds, "half": 0.5}
    return {
        name: {"level": int(np.searchsorted(levels, value)), "label": MARKS[name]}
        for name, value in marks.items()
    }


def encode_levels(probability: np.ndarray, fov: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many ``levels`` each pixel reaches, 0 outside the FOV: (H, W) uint8 codes.

    ``probability`` is (H, W) float in [0, 1], ``fov`` (H, W) bool and ``levels`` (L,) float64,
    rising from 0, at most 255. ``codes > k`` is ``fov & metrics.decide(probability, levels[k])``.
    """
    lowest, all_levels = [*map(metrics.lowest_level, levels)], np.arange(metrics.LEVELS)
    reached = np.searchsorted(lowest, all_levels, side="right").astype(np.uint8)
    return reached[metrics.to_levels(probability)] * fov


def embed(case: Case, levels: np.ndarray, max_side: int) -> tuple[dict, np.ndarray]:
    """One case as the browser gets it, and the (h, w, 3) uint8 photograph that belongs to it."""
    if not case.probability.shape == case.fov.shape == case.image.shape[:2]:
        raise ValueError(
            f"{case.name}: probability is {case.probability.shape}, fov {case.fov.shape}, image "
            f"{case.image.shape}; expected the same height and width"
        )
    height, width = case.fov.shape
    scale = min(1, max_side / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))

    def fit(array: np.ndarray, how: Image.Resampling) -> np.ndarray:  # as it is, where it fits
        return array if scale == 1 else np.asarray(Image.fromarray(array).resize(size, how))

    # Only where the photograph is too big for a page: mean probability, nearest pixel's decision.
    probability = fit(case.probability.astype(np.float32), Image.Resampling.BOX)
    fov = fit(case.fov, Image.Resampling.NEAREST)
    codes = encode_levels(probability.clip(0, 1), fov, levels)
    annotation = None
    if case.vessels is not None:
        annotation = data_uri(fit(case.vessels, Image.Resampling.NEAREST) & fov, "PNG")
    entry = {
        "name": case.name,
        "size": f"{width} × {height}",
        "note": REDUCED.format(scale) if scale < 1 else "",
        "width": size[0],
        "height": size[1],
        "scale": scale,
        # An image library's would be a fifth smaller and take a hundred times as long.
        "codes": "data:image/png;base64," + base64.b64encode(png.encode(codes)).decode(),
        "annotation": annotation,
        "sum": int(codes.sum(dtype=np.int64)),  # the browser checks what it has decoded
    }
    return entry, fit(case.image, Image.Resampling.BOX)


def _scores_at(histogram: metrics.Histogram, levels: np.ndarray) -> dict[str, list]:
    """Each score at each level, as tables print it: three decimals; None where undefined."""
    curves, at = metrics.curves(histogram), [*map(metrics.lowest_level, levels)]
    return {
        name: [None if np.isnan(x) else round(x, 3) for x in curves[name][at].tolist()]
        for name in OF_A_DECISION
    }


def _still(case: Case, threshold: float) -> str:
    """What is seen where scripts do not run: a JPEG of the overlay, at most 640 pixels."""
    vessels = case.fov & metrics.decide(case.probability, threshold)
    size = pictures.size_within(vessels.shape, min(640, max(vessels.shape)))
    return data_uri(pictures.overlay(case.image, vessels, size=size), "JPEG")
