"""Is B better than A? Two runs on the same test photographs, photograph by photograph."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retina_utils import RetinaError, metrics
from retina_utils.data import Pair, load_sample, read_splits
from retina_utils.evaluate import Results, measure
from retina_utils.intake.checks import digest
from retina_utils.machine import runs

FEWEST = 5  # people that an interval takes: fewer can be drawn again in too few ways
TRUSTED = 10  # people from which it can be believed; below it is rough, and mostly too narrow
COMPARED = ("dice", "precision", "recall", "auc")


class Comparison(NamedTuple):
    """The scores of two runs on each photograph that both were tested on."""

    runs: tuple[str, str]  # A and B by the names of their folders
    photographs: list[str]
    people: list[str]  # whose each photograph is
    scores: dict[str, np.ndarray]  # name of a score -> (2, n) float: A's and B's

    def difference(self, score: str = "dice") -> np.ndarray:
        """B's score minus A's on each photograph: (n,) float, nan where one is undefined."""
        a, b = self.scores[score]
        return b - a

    def interval(self, score: str = "dice") -> tuple[float, float]:
        """The 95 % interval of the mean difference over people; nan below five of them.

        People are drawn again with all their photographs, as in
        :func:`retina_utils.metrics.bootstrap_intervals`; each photograph keeps its pair of scores.
        """
        known = ~np.isnan(self.difference(score))
        names, whose = np.unique(np.array(self.people)[known], return_inverse=True)
        if len(names) < FEWEST:
            return math.nan, math.nan
        total, photographs = np.bincount(whose, self.difference(score)[known]), np.bincount(whose)
        size = (metrics.RESAMPLES, len(names))
        drawn = np.random.default_rng(0).integers(len(names), size=size)
        means = total[drawn].sum(1) / photographs[drawn].sum(1)
        return tuple(np.percentile(means, [2.5, 97.5]))

    @property
    def rows(self) -> list[dict]:
        """A row for each score: both means, the mean difference, its interval, wins and losses."""
        rows, (first, second) = [], self.runs
        for name, (a, b) in self.scores.items():
            change, (low, high) = self.difference(name), self.interval(name)
            row = {"score": metrics.SCORES[name], first: np.nanmean(a), second: np.nanmean(b)}
            row |= {"difference": np.nanmean(change), "95 % from": low, "to": high}
            wins, losses = (int(np.count_nonzero(better)) for better in (change > 0, change < 0))
            rows.append(row | {"better": wins, "worse": losses})
        return rows

    @property
    def words(self) -> str:
        """What was compared, and why there is no interval where there is none."""
        people, (a, b) = len(set(self.people)), self.runs
        words = f"{b} minus {a} on {len(self.photographs)} photographs of {people} people"
        if people >= FEWEST:
            rough = f", and rough: it takes {TRUSTED} to believe it" if people < TRUSTED else ""
            return f"{words}; the interval is over people{rough}"
        return (
            f"{words}; no interval: it takes {FEWEST} people, for fewer can be drawn again in too "
            "few ways to say how another sample would come out"
        )


def compare(a: str | Path, b: str | Path) -> Comparison:
    """Compare two runs' folders, ``outputs/A`` and ``outputs/B``, on their test photographs.

    Both were scored by 04 with a threshold chosen without the test, and each keeps its own. A
    RetinaError if they were not tested on the same photographs, pixel for pixel: scores of
    different photographs cannot be paired.
    """
    folders = Path(a), Path(b)
    pairs = [_tested(folder) for folder in folders]
    _require_same(folders, pairs)
    of_b = {pair.name: pair for pair in pairs[1]}
    pairs[1] = [of_b[pair.name] for pair in pairs[0]]
    rows = [
        measure(folder, some).rows(Results.read(folder).threshold.value)
        for folder, some in zip(folders, pairs, strict=True)
    ]
    scores = {key: np.array([[row[key] for row in one] for one in rows]) for key in COMPARED}
    names, people = ([getattr(pair, key) for pair in pairs[0]] for key in ("name", "person"))
    return Comparison(tuple(folder.resolve().name for folder in folders), names, people, scores)


def _tested(folder: Path) -> list[Pair]:
    """The test photographs of a run that has been evaluated."""
    if not folder.is_dir():
        raise RetinaError(f"{folder}: no such run folder. Expected outputs/<run>.")
    runs.require(folder, "04_evaluate")
    about = runs.require(folder, "01_data")["results"]
    return read_splits(folder / "splits.csv", Path(about["data_dir"])).test


def _require_same(folders: tuple[Path, Path], pairs: list[list[Pair]]) -> None:
    """Raise unless both have the same photographs, annotations and fields of view, as pixels."""
    a, b = ({p.name: [digest(x) for x in load_sample(p)[1:]] for p in some} for some in pairs)
    both = f"{folders[0]} and {folders[1]}"
    if alone := sorted(a.keys() ^ b.keys()):
        raise RetinaError(
            f"{both}: found {len(alone)} test photographs that only one of them has "
            f"({', '.join(alone[:6])}), expected the same ones. Run both on one data folder."
        )
    if changed := [name for name in a if a[name] != b[name]]:
        raise RetinaError(
            f"{both}: found other pixels in the photograph, annotation or field of view of "
            f"{', '.join(changed[:6])}, expected the same. Run both on one data folder."
        )
