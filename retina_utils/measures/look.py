"""One photograph of a run, looked at closely."""

from pathlib import Path
from typing import NamedTuple

from retina_utils import metrics
from retina_utils.data import Pair
from retina_utils.evaluate import load_case
from retina_utils.images import read_binary
from retina_utils.measures.mistakes import light
from retina_utils.measures.widths import by_width


class Look(NamedTuple):
    """What the tables of 04 say of one photograph."""

    network: dict[str, float]  # of widths.by_width
    observer: dict[str, float] | None  # the same, of the second observer
    light: dict[str, float]  # of mistakes.light


def look_at(run: Path, pair: Pair, threshold: float) -> Look:
    """Widths, centrelines and light of one photograph of a run, at a threshold."""
    case = load_case(run, pair)
    truth = (case.vessels, case.fov)
    found = by_width(metrics.decide(case.probability, threshold), *truth)
    observer = by_width(read_binary(pair.second), *truth) if pair.second else None
    return Look(found, observer, light(case.image, *truth))
