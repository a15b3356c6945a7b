"""From a photograph to one probability map at its own size, and from a folder to many.

python -m retina_utils.predict photographs --out maps
"""

import argparse
import csv
import errno
import hashlib
import json
import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import nn
from tqdm.auto import tqdm

from retina_utils import metrics, quality
from retina_utils.data import SUFFIXES, Preparation, cut, patch_grid, statistics_of
from retina_utils.fov import find_fov
from retina_utils.images import (
    EXTENSIONS,
    ImageError,
    atomic_path,
    list_images,
    read_binary,
    read_photograph,
    write_png,
    write_probability,
)
from retina_utils.models import CheckpointError, load_model, weights_digest
from retina_utils.runs import RunError, choose_device, provenance, sha256, write_json
from retina_utils.train import TrainingError, autocast, explain_memory, progress

OUTLINE = (0, 229, 255)  # a cyan that no retina has
FULL = (errno.ENOSPC, errno.EROFS, getattr(errno, "EDQUOT", errno.ENOSPC))  # nothing can be written
FLIPS = ((), (-1,), (-2,), (-2, -1))


@torch.inference_mode()
def predict_image(
    model: nn.Module,
    image: np.ndarray,
    fov: np.ndarray | None = None,
    preparation: Preparation | None = None,
    flips: bool = False,
    batch_size: int = 8,
    precision: str = "auto",
) -> np.ndarray:
    """The probability of vessel for every pixel of a photograph.

    The photograph is cropped to its FOV and brought to the network's scale; overlapping patches
    are predicted and averaged *as probabilities*, each weighted less towards its border where it
    saw less around; the map returns to the photograph's own size.

    Parameters
    ----------
    model : nn.Module
        Gives logits (N, 1, H, W); its device is used.
    image : (H, W, 3) uint8
        Any size.
    fov : (H, W) bool, optional
        Found in the photograph if not given.
    preparation : Preparation
        What the network was trained to see (see ``models.load_model``).
    flips : bool
        Average over the four mirror images too: four times the work, a little better.
    batch_size : int
        Patches at once, fewer where memory holds no more; only speed and memory depend on it.
    precision : str
        "auto", "bfloat16" or "float32".

    Returns
    -------
    probability : (H, W) float32 in [0, 1]
        Zero outside the FOV.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image is {image.shape} {image.dtype}; expected (H, W, 3) uint8")
    fov = find_fov(image) if fov is None else fov
    if fov.shape != image.shape[:2] or not fov.any():
        raise ValueError(
            f"fov is {fov.shape} with {int(fov.sum())} pixels inside; "
            f"expected {image.shape[:2]} and some inside"
        )
    preparation = preparation or Preparation()
    small, inside = preparation.view(image, fov)
    tensor = preparation.normalise(
        torch.from_numpy(small) / 255,
        torch.from_numpy(inside)[None].float(),
        statistics_of(small, inside),
        max(inside.shape),
    ).numpy()

    was_training = model.training
    model.eval()
    views = FLIPS if flips else FLIPS[:1]
    probability = sum(
        np.flip(
            _average_patches(model, np.flip(tensor, axes), preparation, batch_size, precision), axes
        )
        for axes in views
    ) / len(views)
    model.train(was_training)
    return preparation.frame(fov).restore(probability) * fov


def _average_patches(
    model: nn.Module,
    tensor: np.ndarray,
    preparation: Preparation,
    batch_size: int,
    precision: str,
) -> np.ndarray:
    """Weighted mean of overlapping patches: (C, H, W) float32 -> (H, W) float32 in [0, 1]."""
    height, width = tensor.shape[-2:]
    size = preparation.patch_size
    device = next(model.parameters()).device
    corners = patch_grid(height, width, size, preparation.stride)
    weight = patch_weight(size)
    total = np.zeros((max(height, size), max(width, size)), np.float32)
    weights = np.zeros_like(total)
    for start in range(0, len(corners), batch_size):
        part = corners[start : start + batch_size]
        patches = torch.from_numpy(np.stack([cut(tensor, *corner, size) for corner in part]))
        patches = patches.to(device).contiguous(memory_format=torch.channels_last)
        probabilities = _logits(model, patches, precision).sigmoid()[:, 0].cpu().numpy()
        for (top, left), probability in zip(part, probabilities, strict=True):
            total[top : top + size, left : left + size] += probability * weight
            weights[top : top + size, left : left + size] += weight
    return (total / weights)[:height, :width]


def _logits(model: nn.Module, patches: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits (N, 1, P, P) float32; half of the patches at a time where memory holds no more."""
    try:
        with explain_memory(patches.shape), autocast(patches.device, precision):
            return model(patches).float()
    except TrainingError:
        if len(patches) == 1:
            raise
    halves = patches.tensor_split(2)  # here what the failed try held has been let go
    return torch.cat([_logits(model, half, precision) for half in halves])


def patch_weight(size: int) -> np.ndarray:
    """How much each pixel of a patch counts: (size, size) float32, 1 amid, above 0 at edges."""
    ramp = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    ramp = (ramp / ramp.max()).astype(np.float32)
    return np.outer(ramp, ramp)


# --- A folder of photographs ----------------------------------------------------------------------


class PredictError(ValueError):
    """A prediction that cannot begin; the message says why and what to do."""


class Drawing(ImageError):
    """A file of two values among the photographs: an annotation or a FOV mask."""


class Outcome(NamedTuple):
    """What became of one photograph: a line of ``summary.csv``."""

    name: str  # path below the folder of photographs
    status: str  # "done", "left out" (a mask among the photographs) or "failed"
    flags: str  # what to look at, from `quality`; empty if nothing
    width: int | str = ""  # pixels
    height: int | str = ""
    fov_area: int | str = ""  # pixels
    fov_share: float | str = ""  # of the photograph
    vessel_share: float | str = ""  # of the FOV
    threshold: float | str = ""
    seconds: float | str = ""
    message: str = ""  # why there is no map
    mark: str = ""  # of the photograph's file and all that decides its map


def predict_folder(
    images: str | Path,
    out: str | Path,
    weights: str | Path = "pretrained",
    threshold: float | None = None,
    flips: bool = True,
    fov_folder: str | Path | None = None,
    device: str = "auto",
    force: bool = False,
) -> list[Outcome]:
    """Vessel maps for all photographs of a folder, without annotations.

    For each photograph, in the sub-folder it came in: ``NAME_vessels.png`` (0 and 255, native
    size), ``NAME_probability.png`` (16-bit grey, 65535 for 1, zero outside the FOV) and
    ``NAME_overlay.png``; for all, ``summary.csv`` and ``predict.json`` (weights, settings and
    versions of the last call). One photograph is in memory at a time. What has been done already
    with the same weights and settings is not done again.

    Parameters
    ----------
    images : path
        A folder, read with its sub-folders, or one file. Hidden folders, ``out``, ``fov_folder``
        and the maps of earlier calls are left out.
    out : path
        Folder for the results, not the one of the photographs.
    weights : path or "pretrained"
        A checkpoint of this package.
    threshold : float, optional
        That of the checkpoint, or of the run it lies in, if not given.
    flips : bool
        Average over four mirror images: four times the work, a little better.
    fov_folder : path, optional
        FOV masks named after their photographs, ``NAME.png`` or ``NAME_fov.png``, in the same
        sub-folders or in none; found in the photograph where there is none.
    device : "auto", "cuda", "mps" or "cpu"
    force : bool
        Do again what has been done.

    Returns
    -------
    outcomes : list of Outcome
        One for each photograph, also where an earlier call did it; a photograph that cannot be
        used has the status "failed" and a message, and the others are done.

    Raises
    ------
    PredictError, CheckpointError, FileNotFoundError
        If there is no photograph, two would write the same file, or the weights cannot be used.
    OSError
        If nothing can be written any more; what has been done is kept.
    """
    out = Path(out)
    root, files = find_photographs(Path(images), out, fov_folder)
    fov_files = find_fov_files(fov_folder, root, files)
    model, facts = load_model(weights, choose_device(device))
    digest = weights_digest(model)
    threshold, origin = find_threshold(weights, facts, threshold, digest)
    preparation = Preparation(**facts.get("preparation", {}))
    print(f"{len(files)} photographs; threshold {threshold:.3f}, {origin}")
    if fov_files and len(fov_files) < len(files):
        print(f"{len(files) - len(fov_files)} without a FOV mask: it is found in the photograph")
    settings = [digest, asdict(preparation), round(threshold, 6), bool(flips)]
    about = {"weights": str(weights), "weights_sha256": digest, "threshold": threshold}
    about |= {"threshold_from": origin, "flips": flips, "preparation": asdict(preparation)}
    write_json(out / "predict.json", about | provenance())

    known = {n: o for n, o in read_summary(out / "summary.csv").items() if has_maps(out, n)}
    outcomes, before = {}, 0
    for file in progress(files, "photographs"):
        name = file.relative_to(root).as_posix()
        mark = mark_of(file, fov_files.get(file), settings)
        if not force and name in known and known[name].mark == mark:
            outcomes[name], before = known[name], before + 1
            continue
        outcomes[name] = try_file(
            model, file, fov_files.get(file), out, name, preparation, threshold, flips
        )._replace(mark=mark)
        # After each photograph, so that nothing done is lost; other lines with maps stay.
        write_summary(out / "summary.csv", known | outcomes)
    write_summary(out / "summary.csv", known | outcomes)
    if before:
        print(f"{before} were done before, with the same weights and settings")
    return list(outcomes.values())


def try_file(model: nn.Module, file: Path, fov_file: Path | None, out: Path, name: str, *how):
    """The outcome of :func:`predict_file`, or, with a word on the terminal, why there is none.

    Only what stands in the way of all photographs, such as a full disk, is raised.
    """
    started = time.monotonic()
    try:
        outcome = predict_file(model, file, fov_file, out, name, *how)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno in FULL:
            raise
        for stale in targets(out, name):  # of the photograph as it was
            stale.unlink(missing_ok=True)
        message = " ".join((str(error) or type(error).__name__).split())
        status = "left out" if isinstance(error, Drawing) else "failed"
        outcome = Outcome(name, status, "", message=message)
        tqdm.write(f"{name}: {status}. {message}", file=sys.stderr)
    return outcome._replace(seconds=round(time.monotonic() - started, 2))


def predict_file(
    model: nn.Module,
    file: Path,
    fov_file: Path | None,
    out: Path,
    name: str,
    preparation: Preparation,
    threshold: float,
    flips: bool,
) -> Outcome:
    """The three files of one photograph, and what to write about it."""
    image = read_photograph(file)
    if quality.is_drawing(image):
        raise Drawing(f"{file}: has two values only, so it is a mask and no photograph.")
    fov = read_binary(fov_file, "fov") if fov_file else find_fov(image)
    probability = predict_image(model, image, fov, preparation, flips)
    # As the file will hold it: whoever applies the threshold to the file gets the same vessels.
    probability = np.rint(probability * 65535).astype(np.float32) / 65535
    vessels = metrics.decide(probability, threshold) & fov
    vessels_file, probability_file, overlay_file = targets(out, name)
    write_png(vessels_file, vessels)
    write_probability(probability_file, probability)
    write_overlay(overlay_file, draw_outline(image, vessels, fov))
    flags = quality.photograph_flags(image, fov) + quality.map_flags(probability, vessels, fov)
    return Outcome(
        name,
        "done",
        "; ".join(flags),
        image.shape[1],
        image.shape[0],
        int(fov.sum()),
        round(float(fov.mean()), 4),
        round(float(vessels.sum() / fov.sum()), 4),
        round(threshold, 4),
    )


def draw_outline(image: np.ndarray, vessels: np.ndarray, fov: np.ndarray) -> np.ndarray:
    """The photograph with an outline around its vessels, as (H, W, 3) uint8.

    The line runs outside the vessels and is about a thousandth of the FOV wide, so that what lies
    under the map can still be judged.
    """
    wide = max(1, round(metrics.fov_diameter(fov) / 1200))
    edge = ndimage.binary_dilation(vessels, iterations=wide) & ~vessels
    picture = image.copy()
    picture[edge] = OUTLINE
    return picture


def write_overlay(path: Path, picture: np.ndarray) -> None:
    """Write a (H, W, 3) uint8 picture as a PNG, whole or not at all.

    A seventh larger than the smallest PNG, and written 15 times as fast: on 3504 x 2336 pixels 2 s
    instead of 27, which would be longer than the prediction takes.
    """
    with atomic_path(path) as temporary:
        Image.fromarray(picture).save(temporary, format="PNG", compress_level=3)


def find_photographs(
    images: Path, out: Path, fov_folder: str | Path | None = None
) -> tuple[Path, list[Path]]:
    """The folder and the photographs in it, or a PredictError."""
    if not images.exists():
        raise PredictError(f"{images}: no such file or folder. Give the folder of photographs.")
    root = images.parent if images.is_file() else images
    if out.is_file():
        raise PredictError(f"{out}: is a file. Give a folder as OUT.")
    if out.resolve() == root.resolve():
        raise PredictError(f"{out}: is the folder of the photographs. Choose another OUT.")
    files = [images] if images.is_file() else walk(root, [out, fov_folder or out])
    if not files:
        expected = ", ".join(EXTENSIONS)
        raise PredictError(f"{images}: no photograph in it. Expected files ending in {expected}.")
    stems = Counter(str(file.with_suffix("")).casefold() for file in files)
    double = [file for file in files if stems[str(file.with_suffix("")).casefold()] > 1]
    if double:
        names = ", ".join(str(file) for file in double[:4]) + (" …" if len(double) > 4 else "")
        raise PredictError(
            f"{names}: {len(double)} photographs share their names with others of different "
            "endings, which would write the same files. Rename or move all but one of each name."
        )
    targeted = {(out / file.relative_to(root)).parent.resolve() for file in files}
    if not out.resolve().is_relative_to(root.resolve()):
        for folder in (f for f in targeted if f.is_relative_to(root.resolve())):
            raise PredictError(f"{folder}: holds photographs. Choose an OUT that is not above it.")
    return root, files


def walk(root: Path, aside: Sequence[str | Path]) -> list[Path]:
    """The images of a folder and its sub-folders, but for those in ``aside``.

    Hidden folders and the maps of earlier calls, which are no photographs, are left out as well.
    """

    def refuse(error: OSError):
        raise PredictError(f"{error.filename}: {error.strerror}. Expected a folder to read.")

    if (root / "predict.json").exists():
        raise PredictError(f"{root}: holds maps of an earlier call. Give a folder of photographs.")
    aside, files = [Path(folder).resolve() for folder in aside], []
    for here, subfolders, _ in os.walk(root, onerror=refuse):
        here = Path(here)
        if (here / "predict.json").exists():
            print(f"{here}: left out, maps of an earlier call")
            subfolders.clear()
            continue
        subfolders[:] = sorted(
            s for s in subfolders if not s.startswith(".") and (here / s).resolve() not in aside
        )
        files += list_images(here)
    return files


def find_threshold(
    weights: str | Path, facts: dict, threshold: float | None, digest: str = ""
) -> tuple[float, str]:
    """The threshold and where it comes from: given, the checkpoint's, its run's, or one half.

    ``digest`` is that of the weights: it tells whether the run's threshold was chosen for them.
    """
    if threshold is not None:
        if not 0 < threshold < 1:
            raise PredictError(f"threshold {threshold}: expected a number between 0 and 1")
        return threshold, "as given"
    if facts.get("threshold") is not None:
        return float(facts["threshold"]), "the one that came with the weights"
    run = Path(weights).resolve().parent.parent
    if (run / "metrics.json").is_file():
        scores = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        found, scored = scores.get("threshold", {}), scores.get("network", {}).get("sha256")
        if found.get("chosen_on") == "validation":
            origin = f"chosen in {run.name} on validation photographs"
            same = scored in (None, digest)
            return float(found["value"]), origin + ("" if same else ", for other weights of it")
    return 0.5, "since nothing tells of a better one; --threshold sets another"


def find_fov_files(
    folder: str | Path | None, root: Path, files: Sequence[Path]
) -> dict[Path, Path]:
    """The FOV mask of each photograph that has one: in the sub-folder of its name, or on top."""
    if folder is None:
        return {}
    if not Path(folder).is_dir():
        raise PredictError(f"{folder}: no such folder. Expected one of FOV masks.")
    stems = Counter(file.stem for file in files)
    listed, found = {}, {}
    for file in files:
        places = [Path(folder) / file.parent.relative_to(root), Path(folder)]
        # Two photographs of one name in two folders must not share one mask.
        for place in places if stems[file.stem] == 1 else places[:1]:
            if place not in listed:
                masks = list_images(place) if place.is_dir() else []
                listed[place] = {mask.stem: mask for mask in masks}
            for suffix in SUFFIXES["fov"]:
                if file.stem + suffix in listed[place]:
                    found.setdefault(file, listed[place][file.stem + suffix])
    if not found:
        raise PredictError(
            f"{folder}: no mask in it bears the name of a photograph. Expected such as "
            f"{files[0].stem}_fov.png for {files[0].name}."
        )
    return found


def targets(out: str | Path, name: str) -> list[Path]:
    """The three files written for a photograph."""
    stem = Path(out) / Path(name).with_suffix("")
    return [stem.with_name(f"{stem.name}_{k}.png") for k in ("vessels", "probability", "overlay")]


def has_maps(out: Path, name: str) -> bool:
    """Whether all three files of a photograph are there."""
    return all(file.exists() for file in targets(out, name))


def mark_of(file: Path, fov_file: Path | None, settings: list) -> str:
    """A digest of a photograph's file and of all that decides its map."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in (file, fov_file):
        if path:
            with suppress(OSError):  # unreadable: reading it will say so
                digest.update(bytes.fromhex(sha256(path)))
    return digest.hexdigest()[:16]


def read_summary(path: Path) -> dict[str, Outcome]:
    """What earlier calls have done, by name; empty if there is nothing, or nothing readable."""
    if not path.exists():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("status") == "done"]
        found = (Outcome(**{key: row.get(key) or "" for key in Outcome._fields}) for row in rows)
        return {outcome.name: outcome for outcome in found}
    except (ValueError, csv.Error) as error:
        print(f"{path}: cannot be read ({error}), so all is done again", file=sys.stderr)
        return {}


def write_summary(path: Path, outcomes: dict[str, Outcome]) -> None:
    """One line for each photograph, whole or not at all."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8") as file,
    ):
        table = csv.writer(file)
        table.writerow(Outcome._fields)
        table.writerows(outcomes.values())


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of ``make predict``: 0 all done, 1 some failed, 2 could not begin."""
    parser = argparse.ArgumentParser(
        prog="python -m retina_utils.predict",
        description="Vessel maps for photographs without annotations.",
    )
    add = parser.add_argument
    add("images", help="a folder of photographs, with its sub-folders, or one file")
    add("--out", required=True, help="folder for the results")
    add("--weights", default="pretrained", help="a checkpoint; the network in the box by default")
    add("--threshold", type=float, help="instead of the one that belongs to the weights")
    add(
        "--flips",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="average over mirror images; --no-flips is a quarter of the work, a little worse",
    )
    add("--fov", metavar="FOLDER", help="FOV masks, named after their photographs")
    add("--device", default="auto", help="auto, cuda, mps or cpu")
    add("--force", action="store_true", help="do again what has been done")
    a = parser.parse_args(arguments)
    try:
        outcomes = predict_folder(
            a.images, a.out, a.weights, a.threshold, a.flips, a.fov, a.device, a.force
        )
    except (PredictError, CheckpointError, RunError, FileNotFoundError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"predict: stopped, {error}. The same command goes on from here.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    print(closing_words(outcomes, a.out))
    return 1 if any(outcome.status == "failed" for outcome in outcomes) else 0


def closing_words(outcomes: Sequence[Outcome], out: str) -> str:
    """How many of what, which ones to look at, and where."""
    count = Counter(outcome.status for outcome in outcomes)
    flagged = [outcome for outcome in outcomes if outcome.flags]
    lines = [f"{count['done']} done, {count['failed']} failed, {len(flagged)} flagged"]
    lines[0] += f", {count['left out']} masks left out" if count["left out"] else ""
    lines += [f"  look at {outcome.name}: {outcome.flags}" for outcome in flagged[:10]]
    lines += ["  … and others: column flags in summary.csv"] if len(flagged) > 10 else []
    return "\n".join([*lines, f"Maps, overlays and summary.csv are in {out}"])


if __name__ == "__main__":
    command = shlex.join(["python", "-m", "retina_utils.predict", *sys.argv[1:]])
    os.environ.setdefault("RETINA_COMMAND", command)  # to be recorded with the maps
    sys.exit(main())
