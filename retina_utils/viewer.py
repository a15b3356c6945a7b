"""A threshold slider that lives in the browser: one piece of HTML, no kernel, no network.

The decision is *vessels = probability >= threshold*, on probabilities kept in 16 bits. The
slider offers 201 thresholds in steps of 0.005 plus the marked ones, exactly as they are. Each
pixel is embedded as one byte, its *code*: 0 outside the field of view, else the number of offered
thresholds that its 16-bit probability reaches. ``code > level`` is then the same decision as
``probability >= levels[level]``, pixel for pixel and without rounding, and the browser has only to
look up one of 512 colours for each pixel. The scores come from look-up tables, counted here over
every pixel at native size.
"""

import base64
import io
import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from retina_utils import metrics
from retina_utils.figures import PROBABILITY_MAP, Case, fit, overlay

STEP = 0.005  # between two positions of the slider
SCORES = ("dice", "iou", "precision", "recall", "specificity")
MARKS = {"half": "one half", "chosen": "chosen", "best": "best possible"}


def viewer_html(
    cases: Iterable[Case],
    thresholds: Mapping[str, float],
    whole: metrics.Histogram | None = None,
    whole_label: str = "all, pooled",
    max_side: int = 2048,
    max_bytes: int = 10_000_000,
) -> str:
    """A self-contained HTML fragment to move the threshold over photographs.

    Show it in a notebook with ``IPython.display.HTML``, or paste it into a page. Where scripts
    do not run (GitHub, an untrusted notebook, paper) it is a still overlay of the first case.

    Parameters
    ----------
    cases : iterable of figures.Case
        ``vessels`` may be None: then there are no scores. Read once and in order, so that a
        generator keeps one photograph in memory at a time.
    thresholds : mapping
        Marks on the track: "chosen" and, if wanted, "best"; 0.5 is always marked.
    whole : Histogram, optional
        Pooled pixels for the second column of scores; without it, all embedded cases.
    whole_label : str
        What ``whole`` is, for instance "test, 8 pooled".
    max_side : int
        Longer photographs are embedded at this many pixels; the scores stay native.
    max_bytes : int
        Cases are embedded in turn until they would take more than this; the rest is counted.

    Raises
    ------
    ValueError
        If there are no cases, or if shapes, thresholds or probabilities are not as described.
    """
    levels = threshold_levels(thresholds)
    embedded, histograms, used, left_out, still = [], [], 0, 0, ""
    for case in cases:
        if left_out:
            left_out += 1
            continue
        entry = _embed(case, levels, max_side)
        used += sum(len(entry[key] or "") for key in ("photograph", "codes", "annotation"))
        if embedded and used > max_bytes:
            left_out = 1
            continue
        counted = None
        if case.vessels is not None:
            counted = metrics.histogram(case.probability, case.vessels, case.fov)
            histograms.append(counted)
        embedded.append(entry | {"scores": _tables(counted, levels)})
        still = still or _still(case, thresholds["chosen"])
    if not embedded:
        raise ValueError("viewer_html: no cases given; expected at least one figures.Case")
    if whole is None and histograms:
        whole = metrics.pool(histograms)
    data = {
        "levels": levels.tolist(),
        "marks": _marks(thresholds, levels),
        "ramp": [to_hex(colormaps[PROBABILITY_MAP](level)) for level in levels],
        "cases": embedded,
        "whole": _tables(whole, levels),
        "whole_label": whole_label,
        "note": f"{left_out} more were left out to keep the file small." if left_out else "",
    }
    return _page(data, still, thresholds["chosen"])


def threshold_levels(thresholds: Mapping[str, float]) -> np.ndarray:
    """The slider's thresholds: (L,) float64 rising from 0 to 1, the marked ones among them."""
    if "chosen" not in thresholds:
        raise ValueError(f"thresholds: found {sorted(thresholds)}, expected 'chosen' among them")
    for name, value in thresholds.items():
        if name not in MARKS or not 0 <= value <= 1:
            raise ValueError(
                f"thresholds[{name!r}] = {value}: expected 'chosen' or 'best', from 0 to 1"
            )
    grid = np.arange(round(1 / STEP) + 1) / round(1 / STEP)
    return np.unique([*grid, *thresholds.values()])


def encode_levels(probability: np.ndarray, fov: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """How many ``levels`` each pixel reaches, 0 outside the FOV.

    Parameters
    ----------
    probability : (H, W) float in [0, 1]
    fov : (H, W) bool
    levels : (L,) float64, rising, starting at 0, at most 255

    Returns
    -------
    codes : (H, W) uint8
        ``codes > k`` is ``fov & metrics.decide(probability, levels[k])``.
    """
    lowest = [metrics.lowest_level(level) for level in levels.tolist()]
    reached = np.searchsorted(lowest, np.arange(metrics.LEVELS), side="right").astype(np.uint8)
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
    # Only where the photograph is too big for a page: mean probability, nearest pixel's decision.
    probability = _resize(case.probability.astype(np.float32), size, Image.Resampling.BOX)
    fov = _resize(case.fov, size, Image.Resampling.NEAREST)
    codes = encode_levels(probability.clip(0, 1), fov, levels)
    annotation = None
    if case.vessels is not None:
        vessels = _resize(case.vessels, size, Image.Resampling.NEAREST) & fov
        annotation = _data_uri(Image.fromarray(vessels), "PNG", optimize=True)
    photograph = Image.fromarray(case.image).resize(size, Image.Resampling.LANCZOS)
    return {
        "name": case.name,
        "label": f"{case.name} · {width} × {height}",
        "note": _note(scale),
        "width": size[0],
        "height": size[1],
        "scale": scale,
        "photograph": _data_uri(photograph, "JPEG", quality=82, optimize=True),
        "codes": _data_uri(Image.fromarray(codes), "PNG", optimize=True),
        "annotation": annotation,
        "sum": int(codes.sum(dtype=np.int64)),  # the browser checks what it has decoded
    }


def _note(scale: float) -> str:
    """What a reduced picture means, or nothing."""
    if scale == 1:
        return ""
    return (
        f"To keep the file small this photograph is shown at {scale:.0%} of its native width; "
        "the scores are counted at native size."
    )


def _tables(histogram: metrics.Histogram | None, levels: np.ndarray) -> dict[str, list]:
    """Each score at each level, four decimals; None where it is undefined."""
    if histogram is None:
        return {name: [None] * len(levels) for name in SCORES}
    lowest = [metrics.lowest_level(level) for level in levels.tolist()]
    curves = metrics.curves(histogram)
    return {
        name: [
            None if np.isnan(value) else round(float(value), 4) for value in curves[name][lowest]
        ]
        for name in SCORES
    }


def _marks(thresholds: Mapping[str, float], levels: np.ndarray) -> dict:
    """Where the marks lie on the track; the chosen threshold comes first and is the start."""
    values = {"chosen": thresholds["chosen"], **thresholds, "half": 0.5}
    return {
        name: {"level": int(np.searchsorted(levels, value)), "label": MARKS[name]}
        for name, value in values.items()
    }


def _still(case: Case, threshold: float) -> str:
    """What is seen where scripts do not run: a JPEG of the overlay, at most 640 pixels."""
    vessels = case.fov & metrics.decide(case.probability, threshold)
    size = fit(vessels.shape, min(640, max(vessels.shape)))
    return _data_uri(Image.fromarray(overlay(case.image, vessels, size=size)), "JPEG", quality=85)


def _resize(array: np.ndarray, size: tuple[int, int], how: Image.Resampling) -> np.ndarray:
    """(H, W) float or bool at another (width, height); the very same array if nothing changes."""
    if array.shape == size[::-1]:
        return array
    return np.asarray(Image.fromarray(array).resize(size, how))


def _data_uri(picture: Image.Image, kind: str, **options) -> str:
    """A picture as text that a page can hold."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _page(data: dict, still: str, chosen: float) -> str:
    """The fragment: style, still picture, data, script."""
    here = Path(__file__).parent
    # No "<" can close the script element early, whatever the photographs are called.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    name = escape(data["cases"][0]["name"])
    caption = f"{name}: vessels decided at the threshold {chosen:.3f}, drawn over the photograph."
    return f"""<div class="rv">
<style>{(here / "viewer.css").read_text(encoding="utf-8")}</style>
<div class="rv-fallback"><img alt="{caption}" src="{still}">
<p>{caption} The slider needs a browser that runs scripts.</p></div>
<script type="application/json">{text}</script>
<script>{(here / "viewer.js").read_text(encoding="utf-8")}</script>
</div>"""
