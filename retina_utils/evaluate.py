"""A run's probability maps -> its results.

:func:`measure` counts the maps that 04 wrote against the annotations; :class:`Results` is all that
``metrics.json`` holds, for 04, 05, the report and the commands to write and read.
"""

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retina_utils import RetinaError, metrics
from retina_utils.checkpoint import Network
from retina_utils.data import Pair, load_sample
from retina_utils.images import read_binary, read_probability
from retina_utils.machine.files import read_json, write_json
from retina_utils.models import count_parameters


class Case(NamedTuple):
    """One photograph with the network's answer, all arrays at the same size."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8
    probability: np.ndarray  # (H, W) float32 in [0, 1]
    vessels: np.ndarray | None  # (H, W) bool annotation, None where there is none
    fov: np.ndarray  # (H, W) bool


class Ranked(NamedTuple):
    """A photograph and its Dice at a threshold."""

    dice: float
    pair: Pair


@dataclass(frozen=True)
class SplitScores:
    """Scores of one split by name: of all pixels pooled, and mean and SD over ``n`` photographs."""

    pooled: dict[str, float]
    mean: dict[str, float]
    sd: dict[str, float]
    n: int


@dataclass(frozen=True)
class Threshold:
    """The threshold in force, and how it was chosen."""

    value: float
    chosen_on: str  # "validation", or "the weights' own training"
    by: str  # the score it maximises
    best_test: float = math.nan  # the best one on test: to be looked at, never used

    @property
    def origin(self) -> str:
        """How it was chosen, in words."""
        if self.chosen_on == "validation":
            return f"highest pooled {self.by} on the validation split"
        return "came with the weights"

    def beside(self, test: "Measured") -> "Threshold":
        """The same, with the best threshold on test, which says what the choice cost."""
        return replace(self, best_test=metrics.best_threshold(test.histograms, self.by))


@dataclass
class Results:
    """What an evaluation found, and under which protocol: the content of ``metrics.json``."""

    protocol: dict  # what was counted, how, with which seed: in words
    threshold: Threshold
    splits: dict[str, SplitScores]
    network: dict  # of describe_network
    second_observer: dict[str, float] | None = None  # scores on the test photographs
    vessel_width: dict[str, dict] = field(default_factory=dict)  # drawn by -> mean of by_width
    intervals: dict[str, dict] = field(default_factory=dict)  # drawn again -> score -> 95 %
    calibration_error: float = math.nan

    @classmethod
    def read(cls, run: Path) -> "Results":
        """The results of a run; a RetinaError names the notebook that makes them."""
        path = run / "metrics.json"
        if not path.exists():
            raise RetinaError(f"{path} is missing. 04_evaluate writes it: run 04_evaluate.ipynb.")
        try:
            found = read_json(path)
            for key in ("splits", "vessel_width", "intervals", "calibration_error"):
                found[key] = _with_nan(found[key])
            numbers = {key: _with_nan(found["threshold"][key]) for key in ("value", "best_test")}
            found["threshold"] = Threshold(**found["threshold"] | numbers)
            found["splits"] = {k: SplitScores(**scores) for k, scores in found["splits"].items()}
            for split in found["splits"].values():
                for value in (*split.pooled.values(), *split.mean.values(), *split.sd.values()):
                    math.isfinite(value)  # a TypeError if it is no number
            if not isinstance(found["protocol"], dict) or not isinstance(found["network"], dict):
                raise TypeError("protocol and network: expected names and values")
            if not 0 <= found["threshold"].value <= 1:
                raise ValueError("a threshold that is none")
            return cls(**found)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise RetinaError(
                f"{path}: damaged, or from another version of this code ({error}). "
                "Run 04_evaluate.ipynb again."
            ) from error

    def write(self, run: Path) -> None:
        """Write them into a run folder as ``metrics.json``, with null for nan."""
        write_json(run / "metrics.json", asdict(self))

    def require_weights(self, weights: str) -> None:
        """Raise unless these are the scores of the given ``weights`` ("" for the run's own)."""
        scored = self.network["weights"]
        if scored != weights:
            names = [repr(name) if name else "the run's own" for name in (scored, weights)]
            raise RetinaError(
                f"metrics.json holds the scores of {names[0]} weights, and {names[1]} are asked "
                "for. Run 04_evaluate.ipynb with the same weights first."
            )


class Measured(NamedTuple):
    """Counts of the photographs of one split, all lists in the order of ``pairs``."""

    pairs: list[Pair]
    histograms: list[metrics.Histogram]
    second: list[dict[str, int]]  # counts of the second observer; empty unless all have one

    @property
    def pooled(self) -> metrics.Histogram:
        """All pixels together."""
        return metrics.pool(self.histograms)

    @property
    def second_pooled(self) -> dict[str, int] | None:
        """The second observer's counts together; None if there is none."""
        return metrics.add_counts(self.second) if self.second else None

    @property
    def people(self) -> list[str]:
        """Whose each photograph is."""
        return [pair.person for pair in self.pairs]

    def counts(self, threshold: float) -> list[dict[str, int]]:
        """Right and wrong pixels of each photograph."""
        return [metrics.confusion_at(histogram, threshold) for histogram in self.histograms]

    def rows(self, threshold: float) -> list[dict]:
        """One row of ``metrics.csv`` for each photograph."""
        found = zip(self.pairs, self.histograms, strict=True)
        return [
            {"split": pair.split, "name": pair.name, "threshold": threshold}
            | metrics.evaluate(histogram, threshold)
            for pair, histogram in found
        ]

    def scores(self, threshold: float) -> SplitScores:
        """Pooled, and mean and SD over photographs."""
        each = [metrics.evaluate(histogram, threshold) for histogram in self.histograms]
        return SplitScores(metrics.evaluate(self.pooled, threshold), **metrics.summarise(each))

    def ranked(self, threshold: float) -> list[Ranked]:
        """The photographs by Dice, best first; undefined scores last."""
        dice = [metrics.scores(counts)["dice"] for counts in self.counts(threshold)]
        ranked = [Ranked(*row) for row in zip(dice, self.pairs, strict=True)]
        return sorted(ranked, key=lambda row: (math.isnan(row.dice), -row.dice, row.pair.name))

    def extremes(self, threshold: float) -> dict[str, Pair]:
        """The photographs that are "best", "middle" (of two the lower) and "worst" by Dice.

        Two photographs are best and worst, a single one is "only".
        """
        ranked = [row.pair for row in self.ranked(threshold)]
        if len(ranked) == 1:
            return {"only": ranked[0]}
        found = {"best": ranked[0], "middle": ranked[len(ranked) // 2], "worst": ranked[-1]}
        return found if len(ranked) > 2 else {k: found[k] for k in ("best", "worst")}


def map_path(run: Path, pair: Pair) -> Path:
    """Where a photograph's probability map lies in a run."""
    return run / "probability" / pair.split / f"{pair.name}.png"


def load_case(run: Path, pair: Pair) -> Case:
    """A photograph with its probability map."""
    path = map_path(run, pair)
    if not path.exists():
        raise RetinaError(f"{path} is missing. 04_evaluate writes it: run 04_evaluate.ipynb.")
    sample = load_sample(pair)
    return Case(sample.name, sample.image, read_probability(path), sample.vessels, sample.fov)


def measure(run: Path, pairs: list[Pair], inside_fov: bool = True) -> Measured:
    """Count the maps of some photographs, one in memory at a time.

    ``inside_fov`` False counts the black corners too, which flatters. The second observer is
    counted only if every photograph has one: part of them would not be comparable.
    """
    histograms, second = [], []
    for pair in pairs:
        case = load_case(run, pair)
        counted = case.fov if inside_fov else np.ones_like(case.fov)
        histograms.append(metrics.histogram(case.probability, case.vessels, counted))
        if all(other.second for other in pairs):
            second.append(metrics.confusion(read_binary(pair.second), case.vessels, counted))
    return Measured(pairs, histograms, second)


def choose_threshold(validation: Measured, by: str, given: float | None = None) -> Threshold:
    """The threshold with the best pooled score on validation; or the one that weights brought."""
    if given is not None:
        return Threshold(given, "the weights' own training", "dice")
    return Threshold(metrics.best_threshold(validation.histograms, by), "validation", by)


def describe_network(network: Network, weights: str, trained_on: str) -> dict:
    """What is recorded of the network that was evaluated, with a checksum of its weights.

    ``weights`` is "pretrained" or a path; "" for the weights trained in this run.
    """
    return {
        "weights": weights,
        "sha256": network.sha256,
        "architecture": network.model.architecture,
        "settings": network.model.settings,
        "parameters": count_parameters(network.model),
        "seed": (network.card.get("recipe") or network.facts).get("seed"),
        "trained_on": trained_on or "not recorded",
    }


def _with_nan(value):
    """Numbers of a JSON file with nan for null."""
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    if type(value) not in (int, float, type(None)):
        raise TypeError(f"{value!r} is no number")
    return math.nan if value is None else value
