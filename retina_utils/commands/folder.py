"""From a folder of photographs to a folder of vessel maps, without annotations."""

import errno
import math
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from retina_utils import RetinaError, images, printable
from retina_utils.checkpoint import Network, load_network
from retina_utils.commands.cluster import predict_there
from retina_utils.commands.dicom_seg import write_segmentation
from retina_utils.commands.quality import MEANINGLESS, is_drawing, map_flags, photograph_flags
from retina_utils.commands.summary import Outcome, Summary, targets
from retina_utils.data import SUFFIXES
from retina_utils.datasets.ledger import Ledger, same_people
from retina_utils.evaluate import Case, Results
from retina_utils.fov import find_fov
from retina_utils.intake import listing
from retina_utils.intake.dicom import is_dicom, patients_key, read_dicom
from retina_utils.machine.compute import choose_device
from retina_utils.machine.files import fingerprint, lock_folder, read_json, sha256, write_json
from retina_utils.machine.runs import provenance
from retina_utils.measures.numbers import measure_map
from retina_utils.metrics import LEVELS, decide, expect, to_levels
from retina_utils.predict import predict_image
from retina_utils.show.folder_page import parts_of, write_page, write_parts
from retina_utils.show.pictures import caption, outline_vessels

FULL = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))  # nothing can be written

EXPECTED = (ValueError, RuntimeError, OSError)  # whose words tell a person something

EXPECTED_DICE, USUAL = "expected", "usual"  # given as a threshold

POOR = 0.7  # Dice

KNOWN_AT_THE_END = ("seconds", "peak_memory_gib", "finished")
AT_ONCE = 3  # photographs in memory: one is read, one is in the network, one is written


class NotAPhotograph(images.ImageError):
    """A file of two values among the photographs: an annotation or a FOV mask."""


class Call(NamedTuple):
    """What is the same for all photographs of a call."""

    out: Path
    settings: dict  # all that decides a map, but for the photograph
    force: bool
    dicom_seg: bool
    ledger: Ledger | None  # of who took part in the training
    measures: bool


class Photograph(NamedTuple):
    """One photograph, and what an earlier call said of it."""

    name: str  # path below the folder of photographs
    file: Path
    fov_file: Path | None
    known: Outcome | None


def predict_folder(
    photographs: str | Path,
    out: str | Path,
    *,
    weights: str | Path = "pretrained",
    threshold: float | str | None = None,
    flips: bool = True,
    fov_folder: str | Path | None = None,
    device: str = "auto",
    force: bool = False,
    dicom_seg: bool = False,
    measures: bool = True,
    spacing: float | None = None,
    cluster: str | None = None,
) -> list[Outcome]:
    """Vessel maps for all photographs of a folder, without annotations.

    For each photograph, in the sub-folder it came in: ``NAME_vessels.png`` (0 and 255, native
    size), ``NAME_probability.png`` (16-bit grey, 65535 for 1, zero outside the FOV) and
    ``NAME_overlay.png``; for all, ``summary.csv``, ``index.html`` to look at and judge them, and
    ``predict.json`` (weights, settings and versions of the last call). What a person has judged,
    ``judged.csv`` in ``out``, is joined into ``summary.csv``. Three photographs are in memory at a
    time, a photograph that cannot be used stops no other, and what was done with the same weights
    and settings is not done again.

    ``photographs`` is a folder, read with its sub-folders, or one file; hidden folders, ``out``,
    ``fov_folder`` and the maps of earlier calls are left out. ``threshold`` is
    "expected", each photograph's own (:func:`retina_utils.metrics.expect`), "usual", that of the
    ``weights`` or of the run they lie in, or a number; if not given, "expected" for the network in
    the box, which meets cameras it does not know, what :mod:`adapt` found better for one it made,
    and "usual" for others; ``flips`` averages over
    four mirror images, four times the work and a little better; ``fov_folder`` holds FOV masks,
    ``NAME.png``
    or ``NAME_fov.png`` in the same sub-folders or in none, and where there is none the FOV is
    found; ``force`` does again what has been done; ``dicom_seg`` writes beside the maps of a DICOM
    photograph ``NAME_vessels.dcm``, a DICOM Segmentation, which unlike all other results bears the
    patient's name, as an archive needs it; ``measures`` writes ``measures.csv``, a line of numbers
    for each photograph (:func:`retina_utils.measures.numbers.measure_map`), in micrometres too
    where ``spacing``, those of a pixel, is given, or a DICOM photograph tells; ``cluster`` hands
    the photographs to the workers of Dask, "local:2" to two processes here or "tcp://host:8786"
    to those of a scheduler.

    Gives one Outcome for each photograph, of an earlier call too; one that failed has a message.
    Whatever one photograph raises is its own failure. A RetinaError says if there is no photograph,
    two would write the same file, the weights cannot be used, another call is at work in ``out``,
    or ``out`` holds the maps of another folder; an OSError that nothing can be written any more,
    and what has been done stays.
    """
    out = Path(out)
    masks = [Path(fov_folder)] if fov_folder else []
    root, files = find_photographs(Path(photographs), out, *masks)
    fov_files = find_fov_files(*masks, root, files) if masks else {}
    network = load_network(weights, choose_device(device))
    threshold, origin = find_threshold(network, weights, threshold)
    shown = threshold if threshold == EXPECTED_DICE else f"{threshold:.3f}"
    print(f"{len(files)} photographs; threshold {shown}, {origin}")
    if fov_files and len(fov_files) < len(files):
        print(f"{len(files) - len(fov_files)} without a FOV mask: it is found in the photograph")
    settings = {"weights_sha256": network.sha256, "threshold": threshold, "flips": flips}
    settings |= {"preparation": network.preparation.as_dict()}
    settings |= {name: network.facts.get(name) for name in ("learned_width", "promise")}
    if book := Ledger.of(network):
        settings["ledger"] = book.digest
    else:
        print("Not known which photographs these weights were trained on: they keep no ledger")
    if spacing is not None and not 0.1 <= spacing <= 1000:
        raise RetinaError(f"spacing {spacing}: expected micrometres of a pixel, 0.1 to 1000")
    settings |= {"spacing": spacing} if spacing else {}
    record = {"state": "unfinished", "weights": printable(Path(weights).name)} | settings
    record |= {"threshold_from": origin}
    begun = {k: v for k, v in provenance(device).items() if k not in KNOWN_AT_THE_END}
    with lock_folder(out):
        record["source"] = source_of(out, root)
        write_json(out / "predict.json", record | begun)
        names = [file.relative_to(root).as_posix() for file in files]

        def show(outcomes: dict) -> None:
            left = sum(table_name(name) not in outcomes for name in names)
            write_page(out, record, left)

        with Summary(out, root, show) as summary:
            if any(map(is_dicom, files)):
                with suppress(RetinaError):  # a damaged one is told with each photograph
                    patients_key(out)  # before many ask for it at once
            call, said = Call(out, settings, force, dicom_seg, book, measures), summary.outcomes
            photographs = [
                Photograph(name, file, fov_files.get(file), said.get(name))
                for name, file in zip(names, files, strict=True)
            ]
            work = predict_here(network, call, photographs)
            if cluster:
                there = partial(try_photograph, call=call._replace(out=out.resolve()))
                work = predict_there(cluster, weights, settings, there, photographs)
            outcomes, before = keep(work, summary, len(files))
            same = set(same_people({outcome.name: outcome.seen for outcome in outcomes}))
            for place, outcome in enumerate(outcomes):
                if outcome.name in same:
                    outcomes[place] = outcome._replace(seen="same person?")
                    summary.add(outcomes[place])
        write_json(out / "predict.json", record | {"state": "finished"} | provenance(device))
    if before:
        print(f"{before} were done before, with the same weights and settings")
    return outcomes


def keep(work: Generator, summary: Summary, count: int) -> tuple[list[Outcome], int]:
    """Add outcomes to a summary as they come; gives them, and how many were done before."""
    outcomes, before, started = [], 0, time.monotonic()
    quiet = os.environ.get("RETINA_QUIET", "") not in ("", "0")
    bar = tqdm(total=count, bar_format="{desc}", leave=False, disable=quiet)
    with closing(work), bar:
        for outcome, new in work:
            if new:
                summary.add(outcome)
            if outcome.status != "done":
                words = f"{printable(outcome.name)}: {outcome.status}. {outcome.message}"
                tqdm.write(words, file=sys.stderr)
            outcomes.append(outcome)
            before += not new
            took = (time.monotonic() - started) / max(len(outcomes) - before, 1)
            left = about((count - len(outcomes)) * took) if len(outcomes) > before else ""
            bar.set_description_str(f"{len(outcomes)} of {count}{left}")
    return outcomes, before


def about(seconds: float) -> str:
    """How long it takes yet, in words, as well as it can be known."""
    for unit, size in {"h": 3600, "min": 60, "s": 1}.items():
        if seconds >= 1.5 * size:
            return f" · about {seconds / size:.0f} {unit} left"
    return ""


def predict_here(
    network: Network, call: Call, photographs: Sequence[Photograph]
) -> Iterator[tuple[Outcome, bool]]:
    """The outcomes in order, and whether each is new.

    While one photograph is in the network, another is read and a third is written. The network
    has a thread of its own, so that its threads need not be started for each.
    """
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(AT_ONCE) as pool:

        def predict(image: np.ndarray, fov: np.ndarray) -> np.ndarray:
            flips = call.settings["flips"]
            return one.submit(predict_image, network, image, fov, flips=flips).result()

        waiting = deque()
        try:
            for photograph in photographs:
                waiting.append(pool.submit(try_photograph, predict, call, photograph))
                if len(waiting) > 2 * AT_ONCE:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)


def try_photograph(predict: Callable, call: Call, photograph: Photograph) -> tuple[Outcome, bool]:
    """What became of a photograph, now or before, and whether it was now.

    A full disk, which stops all others, is raised.
    """
    started, (name, file, fov_file, known) = time.monotonic(), photograph
    current = fingerprint_of(file, fov_file, call.settings)
    if known and known.status == "done" and known.fingerprint == current and not call.force:
        wanted = call.dicom_seg and is_dicom(file)
        lacking = call.measures and not known.measures
        if not lacking and (not wanted or os.path.exists(segmentation_of(call.out, name))):
            if not parts_of(call.out, name).script.exists():  # of an earlier version, or deleted
                with suppress(*EXPECTED):
                    show_again(call, photograph)
            return known, False
    try:
        outcome = predict_photograph(predict, call, photograph)
    except Exception as error:  # damaged files make decoders raise anything
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        for stale in (
            *targets(call.out, name),
            *parts_of(call.out, name),
        ):  # of the photograph as it was
            with suppress(OSError):  # a name too long for a map has none
                stale.unlink(missing_ok=True)
        message = str(error) if str(error) and isinstance(error, EXPECTED) else repr(error)
        shown = images.printable(name)
        for place, word in ((file, shown), (f"{call.out}{os.sep}", "")):  # which may name people
            for written in (printable, images.printable):  # as one raised it or another
                message = printable(message).replace(written(place), word)
        message = " ".join(message.split())
        status = "left out" if isinstance(error, NotAPhotograph) else "failed"
        outcome = Outcome(table_name(name), status, message=message)
    seconds = round(time.monotonic() - started, 2)
    return outcome._replace(seconds=seconds, fingerprint=current), True


def predict_photograph(predict: Callable, call: Call, photograph: Photograph) -> Outcome:
    """The three files of one photograph, and what to write about it.

    ``predict`` takes the photograph and its FOV and gives the probability.
    """
    out, (name, file, fov_file, _) = call.out, photograph
    if not is_text(name):
        raise images.ImageError("its name is no UTF-8, which the table cannot hold. Rename it.")
    segmentation_of(out, name).unlink(missing_ok=True)  # of the photograph as it was
    image, fov, dicom = read(out, file, fov_file)
    # As the file will hold it: whoever applies the threshold to the file gets the same vessels.
    levels = np.rint(predict(image, fov) * 65535).astype(np.uint16)
    probability, threshold = levels.astype(np.float32) / 65535, call.settings["threshold"]
    expected = expect(np.bincount(levels[fov], minlength=LEVELS))
    threshold = expected.threshold if threshold == EXPECTED_DICE else threshold
    vessels = decide(probability, threshold) & fov
    vessels_file, probability_file, overlay_file = targets(out, name)
    images.write_png(vessels_file, vessels)
    images.write_png(probability_file, levels)
    flags = photograph_flags(image, fov) + map_flags(probability, vessels, fov)
    promised = promise(expected.dice, flags, call.settings["promise"])
    images.write_png(
        overlay_file, caption(outline_vessels(image, vessels, fov), in_words(promised))
    )
    own = call.settings["threshold"] == EXPECTED_DICE
    write_parts(out, Case(name, image, probability, None, fov), threshold, own)
    if dicom and call.dicom_seg:
        facts = {"threshold": threshold, "network": call.settings["weights_sha256"]}
        write_segmentation(segmentation_of(out, name), vessels, file, **facts)
    rounded = (round(float(n), 4) for n in (fov.mean(), vessels[fov].mean(), threshold))
    size = (*fov.shape[::-1], int(fov.sum()))
    outcome = Outcome(name, "done", "; ".join(flags), *size, *rounded, *promised)
    outcome = outcome._replace(seen=call.ledger.seen(image, fov) if call.ledger else "")
    if call.measures:
        mm = dicom.pixel_spacing if dicom else None
        square = mm and math.isclose(*mm, rel_tol=0.01)
        spacing = call.settings.get("spacing") or (500 * sum(mm) if square else None)
        outcome = measured(outcome, probability, fov, threshold, spacing)
    if dicom:
        spacing = " ".join(f"{mm:.6g}" for mm in dicom.pixel_spacing or ())
        told = {"laterality": dicom.laterality, "patient": dicom.patient}
        return outcome._replace(pixel_spacing_mm=spacing, **told)
    return outcome


def promise(dice: float, flags: list[str], half: float | None) -> tuple:
    """The expected Dice and its interval of 90 %, for the table; empty where it means nothing.

    What is no retina, or a map that no annotator would draw, can be as sure of itself as a good
    one. ``half`` of an interval comes with networks that were tried on cameras they never met.
    """
    if set(flags) & MEANINGLESS:
        return "", "", ""
    if half is None:
        return round(dice, 4), "", ""
    return tuple(round(float(np.clip(n, 0, 1)), 4) for n in (dice, dice - half, dice + half))


def in_words(promised: tuple) -> str:
    """A promise for the corner of a picture."""
    dice, low, high = promised
    if dice == "":
        return "no expected Dice: look at it"
    return f"expected Dice {dice:.2f}" + (f" ({low:.2f} to {high:.2f})" if low != "" else "")


def read(out: Path, file: Path, fov_file: Path | None) -> tuple[np.ndarray, np.ndarray, Any]:
    """A photograph, its FOV and, of a DICOM file, what it says besides."""
    dicom = read_dicom(file, patients_key(out)) if is_dicom(file) else None
    image = dicom.image if dicom else images.read_photograph(file)
    if is_drawing(image):
        raise NotAPhotograph(f"{file}: has two values only, so it is a mask and no photograph.")
    return image, images.read_binary(fov_file, "fov") if fov_file else find_fov(image), dicom


def show_again(call: Call, photograph: Photograph) -> None:
    """Write what the page shows of a photograph whose map is there."""
    out, (name, file, fov_file, _) = call.out, photograph
    image, fov, _ = read(out, file, fov_file)
    probability = images.read_probability(targets(out, name)[1])
    threshold = call.settings["threshold"]
    if own := threshold == EXPECTED_DICE:
        counts = np.bincount(to_levels(probability[fov]), minlength=LEVELS)
        threshold = expect(counts).threshold  # summary.csv has four digits of it
    write_parts(out, Case(name, image, probability, None, fov), threshold, own)


def measured(outcome: Outcome, *arguments) -> Outcome:
    """An outcome with its line of measures.csv; what fails there is a flag, and the map stands."""
    try:
        found = measure_map(*arguments)
    except Exception as error:
        flags = "; ".join(filter(None, (outcome.flags, f"not measured: {error!r}")))
        return outcome._replace(flags=flags, measures={"density": ""})
    words = {key: "" if math.isnan(value) else f"{value:.6g}" for key, value in found.items()}
    return outcome._replace(measures=words)


def find_photographs(given: Path, out: Path, *aside: Path) -> tuple[Path, list[Path]]:
    """The folder and the photographs in it, but for those in ``aside``, or a RetinaError."""
    if not given.exists():
        raise RetinaError(f"{given}: no such file or folder. Give the folder of photographs.")
    root = given.parent if given.is_file() else given
    if out.is_file():
        raise RetinaError(f"{out}: is a file. Give a folder as OUT.")
    if out.resolve() == root.resolve():
        raise RetinaError(f"{out}: is the folder of the photographs. Choose another OUT.")
    files = [given] if given.is_file() else walk(root, [out, *aside])
    if not files:
        raise RetinaError(
            f"{given}: no photograph in it. Expected {', '.join(listing.EXTENSIONS)}."
        )
    stems = {file: str(file.with_name(listing.stem_of(file))).casefold() for file in files}
    count = Counter(stems.values())
    if double := [file for file in files if count[stems[file]] > 1]:
        names = ", ".join(str(file) for file in double[:4]) + (" …" if len(double) > 4 else "")
        raise RetinaError(
            f"{names}: {len(double)} photographs share their names with others of different "
            "endings, which would write the same files. Rename or move all but one of each name."
        )
    targeted = {(out / file.relative_to(root)).parent.resolve() for file in files}
    if not out.resolve().is_relative_to(root.resolve()):
        for folder in (f for f in targeted if f.is_relative_to(root.resolve())):
            raise RetinaError(f"{folder}: holds photographs. Choose an OUT that is not above it.")
    return root, files


def walk(root: Path, aside: Sequence[Path]) -> list[Path]:
    """The images below a folder, but for hidden folders, maps, and the folders in ``aside``."""

    def refuse(error: OSError):
        raise RetinaError(f"{error.filename}: {error.strerror}. Expected a folder to read.")

    if (root / "predict.json").exists():
        raise RetinaError(f"{root}: holds maps of an earlier call. Give a folder of photographs.")
    aside, files = [folder.resolve() for folder in aside], []
    for here, subfolders, _ in os.walk(root, onerror=refuse):
        here = Path(here)
        if (here / "predict.json").exists():
            print(f"{printable(here)}: left out, maps of an earlier call")
            subfolders.clear()
            continue
        subfolders[:] = sorted(
            s for s in subfolders if not listing.is_system(s) and (here / s).resolve() not in aside
        )
        files += listing.list_images(here)
        if unread := listing.list_unread(here):
            names = ", ".join(printable(file.name) for file in unread[:4])
            print(f"{printable(here)}: {len(unread)} left out, no photographs: {names}")
    return files


def cut_of(network: Network) -> str:
    """Whether a photograph's own threshold or the usual one is taken, if nobody says.

    Its own by a network whose promise is known from cameras that it never met.
    """
    return network.facts.get("cut") or (EXPECTED_DICE if network.facts.get("promise") else USUAL)


def find_threshold(
    network: Network, weights: str | Path, given: float | str | None = None
) -> tuple[float | str, str]:
    """The threshold and where it comes from: given, the checkpoint's, its run's, or one half."""
    if EXPECTED_DICE in (given, cut_of(network) if given is None else None):
        return EXPECTED_DICE, "each photograph's own, at which its expected Dice is greatest"
    given = None if given == USUAL else given
    if given is not None:
        if not 0 < given < 1:
            raise RetinaError(f"threshold {given}: expected a number between 0 and 1")
        return given, "as given"
    if network.threshold is not None:
        return network.threshold, "the one that came with the weights"
    run = Path(weights).resolve().parent.parent
    results = Results.read(run) if (run / "metrics.json").is_file() else None
    if results and results.threshold.chosen_on == "validation":
        other = "" if results.network["sha256"] == network.sha256 else ", for other weights of it"
        return results.threshold.value, f"chosen in {run.name} on validation photographs{other}"
    return 0.5, "since nothing tells of a better one; --threshold sets another"


def find_fov_files(folder: Path, root: Path, files: Sequence[Path]) -> dict[Path, Path]:
    """The FOV mask of each photograph that has one: in the sub-folder of its name, or on top."""
    if not folder.is_dir():
        raise RetinaError(f"{folder}: no such folder. Expected one of FOV masks.")
    stems = Counter(listing.stem_of(file) for file in files)
    places = {file.parent.relative_to(root) for file in files} | {Path()}
    listed = [listing.list_images(folder / place) for place in places if (folder / place).is_dir()]
    masks = {mask.with_suffix(""): mask for masks in listed for mask in masks}
    found = {}
    for file in files:
        # Two photographs of one name in two folders must not share one mask.
        stem = listing.stem_of(file)
        shared = [folder] if stems[stem] == 1 else []
        for place in [folder / file.parent.relative_to(root), *shared]:
            for suffix in SUFFIXES["fov"]:
                if mask := masks.get(place / (stem + suffix)):
                    found.setdefault(file, mask)
    if not found:
        raise RetinaError(
            f"{folder}: no mask in it bears the name of a photograph. Expected such as "
            f"{listing.stem_of(files[0])}_fov.png for {files[0].name}."
        )
    return found


def segmentation_of(out: Path, name: str) -> Path:
    """The DICOM Segmentation of a photograph, if wanted."""
    return targets(out, name)[0].with_suffix(".dcm")


def fingerprint_of(file: Path, fov_file: Path | None, settings: dict) -> str:
    """Of a photograph's file and all that decides its map."""
    digests = []
    for path in (file, fov_file):
        with suppress(OSError):  # unreadable: reading it will say so
            digests.append(path and sha256(path))
    return fingerprint([settings, digests])[:16]


def is_text(name: str) -> bool:
    """Whether a file's name is no mere bytes, which no table of UTF-8 can hold."""
    return name == name.encode("utf-8", "ignore").decode()


def table_name(name: str) -> str:
    """The name of a photograph as a table of UTF-8 can hold it."""
    return name if is_text(name) else images.printable(name)


def source_of(out: Path, root: Path) -> str:
    """The fingerprint of the folder whose maps ``out`` holds; a RetinaError if it is not ``root``.

    Of its path, which itself would tell who works here. Two folders would overwrite each other's.
    """
    path, own = out / "predict.json", fingerprint(str(root.resolve()))[:16]
    try:
        source = read_json(path).get("source", own) if path.exists() else own
    except (ValueError, AttributeError):
        raise RetinaError(f"{path}: damaged. Choose another OUT, or delete the file.") from None
    if source != own:
        raise RetinaError(
            f"{out}: holds the maps of another folder than {root}. Choose another OUT; or, if the "
            f"photographs have only been moved, delete {path.name} there."
        )
    return own


def predict_and_tell(photographs: str, out: str, **options) -> int:
    """Do :func:`predict_folder` and say what came of it; 1 if some photographs failed."""
    outcomes = predict_folder(photographs, out, **options)
    count = Counter(outcome.status for outcome in outcomes)
    flagged = [outcome for outcome in outcomes if outcome.flags]
    masks = f", {count['left out']} masks left out" if count["left out"] else ""
    print(f"{count['done']} done, {count['failed']} failed, {len(flagged)} flagged{masks}")
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    if poor := sum(float(o.expected_dice or 0) < POOR for o in done):
        print(f"{poor} expect a Dice below {POOR}, or none: column expected_dice in summary.csv")
    if seen := Counter(outcome.seen for outcome in outcomes if outcome.seen):
        words = ", ".join(f"{n} {word}" for word, n in seen.items())
        print(f"Seen in training: {words}; column seen in summary.csv. They are no test")
    for outcome in flagged[:10]:
        print(f"  look at {printable(outcome.name)}: {outcome.flags}")
    if len(flagged) > 10:
        print("  … and others: column flags in summary.csv")
    print(f"Maps, overlays and summary.csv are in {printable(out)}")
    print(f"To look at them all: open {printable(Path(out) / 'index.html')} in a browser")
    if not count["failed"]:
        return 0
    few = f"{count['failed']} of {len(outcomes)} photographs could not be used"
    words = f"{few}, with the reason above and in summary.csv; the others are done."
    print(words, "make calls this Error 1." if "MAKELEVEL" in os.environ else "", file=sys.stderr)
    return 1
