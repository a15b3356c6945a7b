"""Scores at all thresholds: one histogram, against a loop over 256 thresholds and against sorting.

    python benchmarks/thresholds.py

On one photograph, in the same process. Sorting every pixel is how ROC curves are usually made.
"""

import time

import numpy as np

from retina_utils import metrics

THRESHOLDS = np.linspace(0, 1, 256)


def by_loop(probability, vessels, fov):
    """Dice at 256 thresholds, recounting every pixel each time."""
    counts = (metrics.confusion(probability >= t, vessels, fov) for t in THRESHOLDS)
    return [metrics.scores(count)["dice"] for count in counts]


def by_histogram(probability, vessels, fov):
    """Dice at 65,536 thresholds from one histogram."""
    return metrics.curves(metrics.histogram(probability, vessels, fov))["dice"]


def by_sorting(probability, vessels, fov):
    """Hits and false alarms at every probability there is."""
    order = np.argsort(-probability[fov])
    hits = np.cumsum(vessels[fov][order])
    return hits, np.arange(1, len(hits) + 1) - hits


def seconds(function, *arguments):
    """Best of three."""
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        function(*arguments)
        taken.append(time.perf_counter() - start)
    return min(taken)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    for size in (512, 2048):
        probability = rng.random((size, size), np.float32)
        vessels, fov = rng.random((size, size)) < 0.1, np.ones((size, size), bool)
        loop = seconds(by_loop, probability, vessels, fov)
        sorting = seconds(by_sorting, probability, vessels, fov)
        histogram = seconds(by_histogram, probability, vessels, fov)
        counted = seconds(metrics.histogram, probability, vessels, fov)
        print(
            f"{size} x {size}: curves from one histogram {1000 * histogram:.0f} ms, "
            f"a loop {loop / histogram:.0f} times as long; "
            f"the histogram alone {1000 * counted:.0f} ms, sorting {sorting / counted:.0f} times"
        )
