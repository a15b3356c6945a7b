"""A network fitted to a camera by 2 to 20 annotated photographs of it: ``make adapt``.

The steps form a ladder: one threshold for all photographs; the weights halfway to those of a short
training on them; those weights themselves; a calibration. Each is tried on photographs of people it
was not given, and kept only where they gain clearly over what was kept before. Where none do, the
network stays as it was, with each photograph's own threshold if it took that. The numbers of this
file were chosen on left-out cameras: ``benchmarks/adapt.py`` measures what they are worth.
"""

import copy
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import expit, logit

from retina_utils import RetinaError, metrics, train
from retina_utils.augment import make_augment
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands.benchmark import dice_at, folds_by_person, seeing
from retina_utils.commands.folder import EXPECTED_DICE, USUAL, cut_of
from retina_utils.data import FOLDERS, Pair, Sample, load_data, load_pairs, load_sample
from retina_utils.datasets.catalogue import SOURCES, dataset_of, photographs
from retina_utils.losses import make_loss
from retina_utils.machine.compute import choose_device, seed_everything
from retina_utils.machine.files import render, write_text
from retina_utils.machine.runs import close_run, open_run, provenance
from retina_utils.measures import calibration
from retina_utils.patches import RetinaDataset, make_loader
from retina_utils.predict import FLIPS, at_fitting_scale, average_views

MOST = 20  # photographs; with more of them, train
FOLDS = 4  # trainings that leave people out
PRIOR = 4.0  # so many photographs does the threshold of the start count for
MARGIN = 0.002  # of Dice: the gain less its standard error has to be larger
AGREES = 0.7  # ROC-AUC of the start; a network that has never met a camera reaches .97
LOOKING = {"batch_size": 8, "precision": "auto"}
TUNING = {"epochs": 5, "steps": 60, "batch_size": 6, "lr": 0.002, "weight_decay": 0.001}
TUNING |= {"augment": "light", "loss": "bce_squared_dice", "ema": 0.95, "optimizer": "adamw"}
TUNING |= {"schedule": "onecycle", "patience": 0, "precision": "auto"}


class Shown(NamedTuple):
    """A photograph, and how many pixels across its FOV is for the network."""

    sample: Sample
    diameter: int


class Step(NamedTuple):
    """A rung of the ladder, and what photographs of people left out said of it."""

    name: str
    score: str  # "Dice" or "cross-entropy"
    left_out: list[float]  # of each photograph, by a network or number it had no part in
    gain: float  # over what was kept before, mean over people
    error: float  # standard error of that
    is_kept: bool


class Adapted(NamedTuple):
    """What came of it; ``network`` is the start itself where no step was kept."""

    network: Network
    steps: list[Step]
    calibration: calibration.Calibration  # as it was folded into the network


def adapt(
    network: Network,
    pairs: Sequence[Pair],
    *,
    histograms: Sequence[metrics.Histogram] = (),
    tunes: bool = True,
    tell: Callable[[str], None] = print,
) -> Adapted:
    """Climb the ladder with some annotated photographs of one camera.

    ``histograms`` are what the network gives for them, if that is known already (:func:`look`);
    without ``tunes`` no weights are trained. Photographs of one person are left out together. Of
    one person alone they are left out one by one, and no weights are trained either.
    """
    person = [pair.person for pair in pairs]
    tunes = tunes and len(set(person)) > 1
    shown = [] if histograms and not tunes else [show(network, load_sample(p)) for p in pairs]
    person = person if len(set(person)) > 1 else [pair.name for pair in pairs]
    if len(set(person)) < 2:
        raise RetinaError("1 photograph: nothing can be left out to see a gain. Annotate another.")
    if network.threshold is None:
        network = replace(network, threshold=0.5)
    kept, seen = network, list(histograms) or look(network, shown)
    require_agreement(seen)
    cut = cut_of(network)
    before = network.threshold if cut == USUAL else None
    steps = [Step("start", "Dice", [dice_of(h, before) for h in seen], 0.0, 0.0, True)]

    def climb(name: str, found: Sequence[metrics.Histogram], cut: str) -> bool:
        """Whether Dice gains clearly; one threshold for all is chosen on other people."""
        best = next(s for s in reversed(steps) if s.is_kept)
        dice = [
            dice_of(own, threshold_for(others, network.threshold) if cut == USUAL else None)
            for own, others in zip(found, of_others(found, person), strict=True)
        ]
        gain, error = gain_of(np.subtract(dice, best.left_out), person)
        steps.append(Step(name, "Dice", dice, gain, error, bool(gain - error > MARGIN)))
        tell(line_of(steps[-1]))
        return steps[-1].is_kept

    tell(line_of(steps[0]))
    if climb("threshold", seen, USUAL):
        cut, kept = USUAL, replace(network, threshold=threshold_for(seen, network.threshold))
    if tunes:
        half, full = leave_out(network, pairs, shown, tell)
        share, best = 0.0, seen
        if climb("halfway", half, cut):
            share, best = 0.5, half
        if climb("all the way", full, cut):
            share, best = 1.0, full
        if share:
            kept, seen = blend(network, tune(network, shown), share), best
            kept = replace(kept, threshold=threshold_for(seen, network.threshold))

    fits = list(map(calibration.fit_calibration, of_others(seen, person)))
    after = list(map(calibration.cross_entropy, seen, fits))
    gain, error = gain_of(np.subtract(list(map(calibration.cross_entropy, seen)), after), person)
    keeps = gain > 2 * error
    if cut == EXPECTED_DICE:  # then it moves thresholds, too
        moved = [dice_of(calibration.calibrated(h, fit)) for h, fit in zip(seen, fits, strict=True)]
        keeps &= gain_of(np.subtract(moved, list(map(dice_of, seen))), person)[0] > 0
    steps.append(Step("calibration", "cross-entropy", after, gain, error, bool(keeps)))
    tell(line_of(steps[-1]))
    fitted = calibration.fit_calibration(seen) if keeps else calibration.NONE
    kept = replace(kept, facts=kept.facts | {"cut": cut})
    return Adapted(calibration.recalibrate(kept, *fitted), steps, fitted)


def require_agreement(histograms: Sequence[metrics.Histogram]) -> None:
    """Refuse drawings that are not of these photographs, by far the likeliest of all reasons."""
    middle = float(np.median([metrics.roc_auc(h) for h in histograms]))
    if not middle >= AGREES:
        raise RetinaError(
            f"Network and drawings hardly agree (ROC-AUC {middle:.2f}, expected {AGREES} or more). "
            "Are these the vessels of these photographs? If they are, the network does not know "
            "their kind: train on them (make run-all)."
        )


def show(network: Network, sample: Sample) -> Shown:
    """A photograph with the scale at which the network sees it, to be found once."""
    network = at_fitting_scale(network, sample.image, sample.fov, **LOOKING)
    return Shown(sample, network.preparation.fov_diameter)


def look(network: Network, shown: Sequence[Shown]) -> list[metrics.Histogram]:
    """What a network gives for each photograph inside the FOV."""
    found = []
    for sample, diameter in shown:
        there = seeing(network, diameter)
        probability = average_views(there, sample.image, sample.fov, FLIPS[:1], **LOOKING)
        found.append(metrics.histogram(probability, sample.vessels, sample.fov))
    return found


def dice_of(histogram: metrics.Histogram, threshold: float | None = None) -> float:
    """Dice of a photograph at a threshold; at its own if that is None."""
    if threshold is None:
        threshold = metrics.expect(histogram.vessel + histogram.background).threshold
    return dice_at(histogram, threshold)


def of_others(histograms: Sequence[metrics.Histogram], person: Sequence[str]) -> list[list]:
    """For each photograph the histograms of all other people."""
    return [
        [h for h, other in zip(histograms, person, strict=True) if other != own] for own in person
    ]


def threshold_for(histograms: Sequence[metrics.Histogram], start: float) -> float:
    """The threshold with the best mean Dice, drawn towards ``start``, in logits.

    The start weighs as much as ``PRIOR`` photographs.
    """
    best, count = metrics.best_threshold(histograms, weigh="photographs"), len(histograms)
    ends = np.clip([best, start], 1e-4, 1 - 1e-4)
    return float(expit(np.average(logit(ends), weights=[count, PRIOR])))


def gain_of(gains: np.ndarray, person: Sequence[str]) -> tuple[float, float]:
    """Mean over people of their photographs' gains, and its standard error."""
    each = [gains[[p == own for p in person]].mean() for own in sorted(set(person))]
    return float(np.mean(each)), float(np.std(each, ddof=1) / len(each) ** 0.5)


def leave_out(
    network: Network, pairs: Sequence[Pair], shown: Sequence[Shown], tell: Callable
) -> tuple[list[metrics.Histogram], list[metrics.Histogram]]:
    """Histograms of each photograph by networks tuned without its person: halfway, all the way."""
    found = {}
    folds = folds_by_person(pairs, min(FOLDS, len({pair.person for pair in pairs})))
    for number, people in enumerate(folds, start=1):
        start = time.monotonic()
        given = [s for p, s in zip(pairs, shown, strict=True) if p.person not in people]
        tuned = tune(network, given)
        for k, pair in enumerate(pairs):
            if pair.person in people:
                found[k] = [look(blend(network, tuned, w), [shown[k]])[0] for w in (0.5, 1)]
        took = time.monotonic() - start
        tell(f"training {number} of {len(folds)} with people left out, {took:.0f} s")
    return tuple(zip(*(found[k] for k in range(len(pairs))), strict=True))


def tune(network: Network, shown: Sequence[Shown]) -> Network:
    """A network trained on from where it is, for a minute."""
    seed_everything(0)
    recipe, device = TUNING, next(network.model.parameters()).device
    drawn = recipe["steps"] * recipe["batch_size"]
    samples, diameters = zip(*shown, strict=True)
    dataset = RetinaDataset(
        samples,
        network.preparation,
        diameters=diameters,
        patches_per_image=-(-drawn // (recipe["epochs"] * len(samples))),
        augment=make_augment(recipe["augment"]),
    )
    model = copy.deepcopy(network.model).to(device, memory_format=torch.channels_last)
    optimizer = train.make_optimizer(recipe, model)
    training = train.Training(
        recipe=recipe,
        preparation=network.preparation,
        loader=make_loader(dataset, recipe["batch_size"], shuffle=True),
        model=model,
        loss=make_loss(recipe["loss"]),
        optimizer=optimizer,
        scheduler=train.make_scheduler(recipe, optimizer),
        average=train.make_average(model, recipe["ema"]),
    )
    for _ in training.epochs_left():
        train.finish_epoch(training, train.train_epoch(training))
    return replace(network, model=training.kept.eval())


def blend(start: Network, tuned: Network, share: float) -> Network:
    """Weights between two networks (WiSE-FT, Wortsman et al., CVPR 2022): 0 the start, 1 tuned."""
    model = copy.deepcopy(start.model)
    values = tuned.model.state_dict()
    for name, kept in model.state_dict().items():
        kept.copy_(kept.lerp(values[name], share) if kept.is_floating_point() else values[name])
    return replace(start, model=model.eval())


def line_of(step: Step) -> str:
    """A step in one line of fixed width."""
    mean = float(np.mean(step.left_out))
    if step.name == "start":
        return f"{step.name:12} {step.score:13} {mean:.4f}"
    verdict = "kept" if step.is_kept else "not kept: no clear gain"
    return (
        f"{step.name:12} {step.score:13} {mean:.4f}   "
        f"gain {step.gain:+.4f} ± {step.error:.4f}   {verdict}"
    )


# --- The command ----------------------------------------------------------------------------------


def adapt_and_tell(*, data: str, run: str, weights: str, outputs: str) -> None:
    """Adapt, and write ``outputs/<run>/adapted.pt`` and its card, ``adapted.md``."""
    os.environ["RETINA_QUIET"] = "1"
    pairs = read_given(Path(data))
    network = load_network(weights, choose_device())
    folder = open_run(outputs, run)
    try:
        print(f"{photographs(len(pairs))} of {people_of(pairs)}; left out, a photograph scores:")
        if len({pair.person for pair in pairs}) == 1:
            print("One person only: threshold and calibration are looked at, no weights trained.")
        adapted = adapt(network, pairs)
        path = folder / "adapted.pt"
        keep(path, network, adapted, pairs, Path(data))
    finally:
        close_run(folder)
    print(f"{verdict_of(adapted)}\n{path} and its card, adapted.md, are written. Use it:")
    print(f"make predict IMAGES=<folder or file> OUT=<folder> WEIGHTS={os.path.relpath(path)}")


def people_of(pairs: Sequence[Pair]) -> str:
    """How many people, in words."""
    count = len({pair.person for pair in pairs})
    return "one person" if count == 1 else f"{count} people"


def read_given(root: Path) -> list[Pair]:
    """The pairs of a folder; of one with splits those of all but the test people."""
    names = {name.format("given") for kind in ("image", "vessels") for name in FOLDERS[kind]}
    is_flat = root.is_dir() and any(f.name.casefold() in names for f in root.iterdir())
    if is_flat or not root.is_dir():
        pairs = load_pairs(root)
    else:
        splits = load_data(root)
        pairs = splits.train + splits.validation
        print(f"{root}: its {photographs(len(splits.test))} for testing are left alone")
    if not 2 <= len(pairs) <= MOST:
        better = "Annotate another" if len(pairs) < 2 else "Train on them: make run-all (README)"
        found = photographs(len(pairs))
        raise RetinaError(f"{root}: {found} with vessels. Expected 2 to {MOST}. {better}.")
    return pairs


def keep(path: Path, start: Network, adapted: Adapted, pairs: Sequence[Pair], data: Path) -> None:
    """Write the network with what was given and found, and its card beside it.

    Whatever is kept has seen the photographs, so they join those that its file names.
    """
    changed = any(step.is_kept for step in adapted.steps[1:])
    title = dataset_of(data) or data.resolve().name
    key = next((k for k, source in SOURCES.items() if source.title == title), title)
    story = {
        "start": start.sha256,
        "data": title,
        "photographs": {pair.name: pair.person for pair in pairs},
        "steps": [step._asdict() for step in adapted.steps],
        "made": provenance(),
    }
    facts = adapted.network.facts | {"adapted": story}
    if changed and start.card:
        seen = start.card.get("photographs", {})
        names = sorted({*seen.get(key, ()), *(pair.name for pair in pairs)})
        card = start.card | {"photographs": seen | {key: names}, "scores": [], "protocol": []}
        facts["card"] = card
    elif changed:
        before = facts.get("data") or "photographs its file does not name"
        facts["data"] = f"{before}; and {photographs(len(pairs))} of {title}"
    save_network(path, replace(adapted.network, facts=facts))
    page = render(
        Path(__file__).with_name("adapted.md.j2"),
        story=story,
        people=people_of(pairs),
        steps=adapted.steps,
        network=adapted.network,
        start=start,
        changed=changed,
        verdict=verdict_of(adapted),
        calibration=adapted.calibration,
        prior=round(calibration.PRIOR),
        margin=MARGIN,
        tuning=TUNING,
    )
    write_text(path.with_suffix(".md"), page)


def verdict_of(adapted: Adapted) -> str:
    """In a sentence or two, what was kept and what it is worth."""
    kept = [step for step in adapted.steps if step.is_kept]
    if len(kept) == 1:
        return "Nothing showed a clear gain: the network stays as it was."
    dice = [step for step in kept if step.score == "Dice"]
    before, after = (float(np.mean(step.left_out)) for step in (dice[0], dice[-1]))
    names = ", ".join(
        step.name for step in (dice[-1:] if len(dice) > 1 else []) + kept[len(dice) :]
    )
    return f"Kept: {names}. Dice of photographs left out: {before:.3f} before, {after:.3f} after."
