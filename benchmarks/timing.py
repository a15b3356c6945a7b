"""What the benchmarks share: times of ours and of a baseline taken in turn, and a row of the table.

Taken in turn, because other work on a machine slows whatever runs just then.
"""

import statistics
import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from retina_utils.datasets.synthetic import Drawing, draw_fundus

Work = Callable[[], object]
HRF = (2336, 3504)  # pixels, height and width


def seconds(*works: Work, times: int = 3) -> list[list[float]]:
    """Seconds of each of the works, done in turn, so many times after a first time."""
    for work in works:
        work()
    taken = [[] for _ in works]
    for _ in range(times):
        for work, kept in zip(works, taken, strict=True):
            start = time.perf_counter()
            work()
            kept.append(time.perf_counter() - start)
    return taken


def make_row(work: str, ours: list, baseline: list, note: str, share: float | None = None) -> dict:
    """Medians, how many times as fast ours is, and how far ours's times lie apart."""
    middle = statistics.median(ours)
    plain = statistics.median(baseline) if baseline else None
    return {
        "work": work,
        "ours": middle,
        "baseline": plain,
        "ratio": plain / middle if baseline else None,
        "ceiling_share": share,
        "spread": (max(ours) - min(ours)) / middle,
        "note": note,
    }


def large_drawing(seed: int = 0) -> Drawing:
    """A synthetic photograph of HRF's size: drawn at a third of it, for drawing takes minutes."""
    small = draw_fundus(seed, (HRF[0] // 3, HRF[1] // 3))

    def enlarge(layer: np.ndarray) -> np.ndarray:
        picture = Image.fromarray(layer.astype(np.uint8) * (1 if layer.ndim == 3 else 255))
        large = np.array(picture.resize(HRF[::-1], Image.Resampling.BICUBIC))
        return large if layer.ndim == 3 else large > 127

    return Drawing(*map(enlarge, small))
