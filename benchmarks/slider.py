"""How long one move of the threshold slider takes, against the usual way of doing it.

The usual way, timed in the same run: threshold the map, count every pixel for the scores, and
redraw a Matplotlib figure. Prints medians in milliseconds of processor time, which a busy
machine distorts least, and their ratio; nothing is asserted.

    python benchmarks/slider.py
"""

import statistics
import time
from functools import partial

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import gaussian_filter

from retina_utils import metrics
from retina_utils.evaluate import Case
from retina_utils.show import figures, pictures
from retina_utils.show.slider import ThresholdExplorer

THRESHOLDS = np.linspace(0.2, 0.8, 13)


def main() -> None:
    plt.switch_backend("agg")
    print("photograph    view        explorer   usual way   ratio   (ms a move)")
    for side in (512, 2048):
        case = fake_case(side)
        explorer = ThresholdExplorer([case], 0.5)
        for view in ("overlay", "error map"):
            explorer.view.value = view
            fast = median_ms(partial(setattr, explorer.slider, "value"))
            slow = median_ms(partial(usual_way, case, view))
            print(f"{side:4} x {side:4}   {view:10} {fast:8.1f} {slow:11.1f} {slow / fast:8.0f} x")


def fake_case(side: int) -> Case:
    """Smooth noise cut at a level: as many edges as a vessel tree has."""
    rng = np.random.default_rng(0)
    field = gaussian_filter(rng.normal(size=(side, side)), side / 200)
    field /= field.std()
    probability = 1 / (1 + np.exp(-4 * (field - 1.2) - rng.normal(0, 0.5, field.shape)))
    rows, columns = np.indices(field.shape) - side / 2
    grey = gaussian_filter(rng.normal(size=(side, side)), 2)
    image = np.clip(120 + 400 * grey[..., None] * [1, 0.6, 0.3], 0, 255).astype(np.uint8)
    fov = np.hypot(rows, columns) < 0.48 * side
    return Case("fake", image, probability.astype(np.float32), field > 1.2, fov)


def usual_way(case: Case, view: str, threshold: float) -> None:
    """Everything anew at full size, as ``interact`` with a plotting function does."""
    predicted = case.probability >= threshold
    metrics.scores(metrics.confusion(predicted, case.vessels, case.fov))  # this photograph
    metrics.scores(metrics.confusion(predicted, case.vessels, case.fov))  # the split, of one
    if view == "overlay":
        picture = pictures.overlay(case.image, predicted & case.fov)
    else:
        picture = pictures.error_map(predicted, case.vessels, case.fov)
    fig, ax = plt.subplots(figsize=(6, 6))
    ax.imshow(picture)
    ax.axis("off")
    figures.encode(fig)
    plt.close(fig)


def median_ms(move) -> float:
    """Median processor time of ``move(threshold)`` over the thresholds."""
    times = []
    for threshold in THRESHOLDS:
        start = time.process_time()
        move(float(threshold))
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times)


if __name__ == "__main__":
    main()
