"""A threshold slider that lives in the browser: one piece of HTML, no kernel, no network.

The decision is *vessels = probability >= threshold*, on probabilities kept in 16 bits. The
slider offers 201 thresholds in steps of 0.005 plus the marked ones, exactly as they are. Each
pixel is embedded as one byte, its *code*: 0 outside the field of view, else the number of offered
thresholds that its 16-bit probability reaches. ``code > level`` is then the same decision as
``probability >= levels[level]``, pixel for pixel and without rounding, and the browser has only to
look up one of 512 colours for each pixel. The scores are looked up too, counted at native size.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.show import pictures
from retina_utils.show.pages import TEMPLATES, data_uri
from retina_utils.show.tables import HEADINGS, OF_A_DECISION

MARKS = {"half": "one half", "chosen": "chosen", "best": "best possible"}

REDUCED = (
    "To keep the file small this photograph is shown at {:.0%} of its native width; the scores "
    "are counted at native size."
)
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
    levels = threshold_levels(thresholds)
    embedded, histograms, used, left_out, still = [], [], 0, 0, ""
    cases = iter(cases)
    for case in cases:
        entry = _embed(case, levels, max_side)
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
    marks = {"chosen": thresholds["chosen"], **thresholds, "half": 0.5}  # starts at the first
    data = {
        "levels": levels.tolist(),
        "marks": {
            name: {"level": int(np.searchsorted(levels, value)), "label": MARKS[name]}
            for name, value in marks.items()
        },
        "ramp": [to_hex(colormaps[pictures.PROBABILITY_MAP](level)) for level in levels],
        "cases": embedded,
        "scores": {key: HEADINGS[key] for key in OF_A_DECISION},
        "whole": _scores_at(whole or metrics.pool(histograms), levels),
        "whole_label": whole_label,
        "note": f"{left_out} more were left out to keep the file small." if left_out else "",
    }
    template = TEMPLATES.get_template("viewer.html.j2")
    return template.render(data=data, still=still, chosen=thresholds["chosen"])


def threshold_levels(thresholds: Mapping[str, float]) -> np.ndarray:
    """The slider's thresholds: (L,) float64 rising from 0 to 1, the marked ones among them."""
    if "chosen" not in thresholds:
        raise ValueError(f"thresholds: found {sorted(thresholds)}, expected 'chosen' among them")
    for name, value in thresholds.items():
        if name not in MARKS or not 0 <= value <= 1:
            raise ValueError(
                f"thresholds[{name!r}] = {value}: expected 'chosen' or 'best', from 0 to 1"
            )
    steps = round(1 / pictures.THRESHOLD_STEP)
    return np.unique([*np.arange(steps + 1) / steps, *thresholds.values()])


def encode_levels(probability: np.ndarray, fov: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many ``levels`` each pixel reaches, 0 outside the FOV: (H, W) uint8 codes.

    ``probability`` is (H, W) float in [0, 1], ``fov`` (H, W) bool and ``levels`` (L,) float64,
    rising from 0, at most 255. ``codes > k`` is ``fov & metrics.decide(probability, levels[k])``.
    """
    lowest, all_levels = [*map(metrics.lowest_level, levels)], np.arange(metrics.LEVELS)
    reached = np.searchsorted(lowest, all_levels, side="right").astype(np.uint8)
    return reached[metrics.to_levels(probability)] * fov


def _embed(case: Case, levels: np.ndarray, max_side: int) -> dict:
    """One case as the browser gets it: three pictures and their sizes."""
    if not case.probability.shape == case.fov.shape == case.image.shape[:2]:
        raise ValueError(
            f"{case.name}: probability is {case.probability.shape}, fov {case.fov.shape}, image "
            f"{case.image.shape}; expected the same height and width"
        )
    height, width = case.fov.shape
    scale = min(1, max_side / max(height, width))
    size = (round(width * scale), round(height * scale))

    def fit(array: np.ndarray, how: Image.Resampling) -> np.ndarray:  # as it is, where it fits
        return array if scale == 1 else np.asarray(Image.fromarray(array).resize(size, how))

    # Only where the photograph is too big for a page: mean probability, nearest pixel's decision.
    probability = fit(case.probability.astype(np.float32), Image.Resampling.BOX)
    fov = fit(case.fov, Image.Resampling.NEAREST)
    codes = encode_levels(probability.clip(0, 1), fov, levels)
    annotation = None
    if case.vessels is not None:
        annotation = data_uri(fit(case.vessels, Image.Resampling.NEAREST) & fov, "PNG")
    return {
        "name": case.name,
        "label": f"{case.name} · {width} × {height}",
        "note": REDUCED.format(scale) if scale < 1 else "",
        "width": size[0],
        "height": size[1],
        "scale": scale,
        "photograph": data_uri(fit(case.image, Image.Resampling.LANCZOS), "JPEG", quality=82),
        "codes": data_uri(codes, "PNG"),
        "annotation": annotation,
        "sum": int(codes.sum(dtype=np.int64)),  # the browser checks what it has decoded
    }


def _scores_at(histogram: metrics.Histogram, levels: np.ndarray) -> dict[str, list]:
    """Each score at each level, four decimals; None where it is undefined."""
    curves, at = metrics.curves(histogram), [*map(metrics.lowest_level, levels)]
    return {
        name: [None if np.isnan(x) else round(x, 4) for x in curves[name][at].tolist()]
        for name in OF_A_DECISION
    }


def _still(case: Case, threshold: float) -> str:
    """What is seen where scripts do not run: a JPEG of the overlay, at most 640 pixels."""
    vessels = case.fov & metrics.decide(case.probability, threshold)
    size = pictures.size_within(vessels.shape, min(640, max(vessels.shape)))
    return data_uri(pictures.overlay(case.image, vessels, size=size), "JPEG")
