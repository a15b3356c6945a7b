"""From a photograph to one probability map at its own size, and from a folder to many.

python -m retina_utils.predict photographs --out maps
"""

import argparse
import csv
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from retina_utils import metrics, quality
from retina_utils.data import Preparation, cut, patch_grid, statistics_of
from retina_utils.fov import find_fov, frame_of
from retina_utils.images import (
    EXTENSIONS,
    atomic_path,
    list_images,
    read_binary,
    read_photograph,
    write_png,
    write_probability,
)
from retina_utils.models import CheckpointError, load_model
from retina_utils.runs import RunError, choose_device
from retina_utils.train import autocast, explain_memory, progress

OUTLINE = (0, 229, 255)  # a cyan that no retina has
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
        Patches at once; only speed and memory depend on it.
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
        with explain_memory(patches.shape), autocast(device, precision):
            logits = model(patches)
        probabilities = logits.float().sigmoid()[:, 0].cpu().numpy()
        for (top, left), probability in zip(part, probabilities, strict=True):
            total[top : top + size, left : left + size] += probability * weight
            weights[top : top + size, left : left + size] += weight
    return (total / weights)[:height, :width]


def patch_weight(size: int) -> np.ndarray:
    """How much each pixel of a patch counts: (size, size) float32, 1 amid, above 0 at edges."""
    ramp = np.minimum(np.arange(size), np.arange(size)[::-1]) + 1.0
    ramp = (ramp / ramp.max()).astype(np.float32)
    return np.outer(ramp, ramp)


# --- A folder of photographs ----------------------------------------------------------------------


class PredictError(ValueError):
    """A prediction that cannot begin; the message says why and what to do."""


class Outcome(NamedTuple):
    """What became of one photograph: a line of ``summary.csv``."""

    name: str  # path below the folder of photographs
    status: str  # "done" or "failed"
    flags: str  # what to look at, from `quality`; empty if nothing
    width: int | str = ""  # pixels
    height: int | str = ""
    fov_area: int | str = ""  # pixels
    fov_share: float | str = ""  # of the photograph
    vessel_share: float | str = ""  # of the FOV
    threshold: float | str = ""
    message: str = ""  # what went wrong
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
    ``NAME_overlay.png``; for all, ``summary.csv``. One photograph is in memory at a time. What
    has been done already with the same weights and settings is not done again.

    Parameters
    ----------
    images : path
        A folder, read with its sub-folders, or one file.
    out : path
        Folder for the results, not the one of the photographs.
    weights : path or "pretrained"
        A checkpoint of this package.
    threshold : float, optional
        That of the checkpoint, or of the run it lies in, if not given.
    flips : bool
        Average over four mirror images: four times the work, a little better.
    fov_folder : path, optional
        FOV masks named after their photographs, ``NAME.png`` or ``NAME_fov.png``; found in the
        photograph where there is none.
    device : "auto", "cuda", "mps" or "cpu"
    force : bool
        Do again what has been done.

    Returns
    -------
    outcomes : list of Outcome
        One for each photograph, those of earlier calls included; a photograph that cannot be used
        has the status "failed" and a message, and the others are done.

    Raises
    ------
    PredictError, CheckpointError, FileNotFoundError
        If there is no photograph, two would write the same file, or the weights cannot be used.
    """
    root, files = find_photographs(Path(images), Path(out))
    model, facts = load_model(weights, choose_device(device))
    threshold, origin = find_threshold(weights, facts, threshold)
    preparation = Preparation(**facts.get("preparation", {}))
    print(f"{len(files)} photographs; threshold {threshold:.3f}, {origin}")
    settings = [weights_digest(model), asdict(preparation), round(threshold, 6), bool(flips)]
    known = {} if force else read_summary(Path(out) / "summary.csv")
    outcomes = {}
    for file in progress(files, "photographs"):
        name = file.relative_to(root).as_posix()
        fov_file = find_companion(fov_folder, file)
        mark = mark_of(file, fov_file, settings)
        before = known.get(name)
        if before and before.mark == mark and all(p.exists() for p in targets(out, name)):
            outcomes[name] = before
            continue
        try:
            outcomes[name] = predict_file(
                model, file, fov_file, Path(out), name, preparation, threshold, flips
            )._replace(mark=mark)
        except (ValueError, OSError, MemoryError) as error:
            message = str(error) or type(error).__name__
            outcomes[name] = Outcome(name, "failed", "", message=" ".join(message.split()))
            print(f"{name}: failed. {message}", file=sys.stderr, flush=True)
        # After each photograph, so that nothing done is lost; earlier lines not reached yet stay.
        write_summary(Path(out) / "summary.csv", known | outcomes)
    write_summary(Path(out) / "summary.csv", outcomes)
    return list(outcomes.values())


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
    fov = read_binary(fov_file, "fov") if fov_file else find_fov(image)
    probability = predict_image(model, image, fov, preparation, flips)
    vessels = metrics.decide(probability, threshold) & fov
    vessels_file, probability_file, overlay_file = targets(out, name)
    write_png(vessels_file, vessels)
    write_probability(probability_file, probability)
    write_png(overlay_file, draw_outline(image, vessels, fov))
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
    wide = max(1, round(max(frame_of(fov).size) / 1200))
    edge = ndimage.binary_dilation(vessels, iterations=wide) & ~vessels
    picture = image.copy()
    picture[edge] = OUTLINE
    return picture


def find_photographs(images: Path, out: Path) -> tuple[Path, list[Path]]:
    """The folder and the photographs in it, or a PredictError."""
    if images.is_file():
        return images.parent, [images]
    if not images.is_dir():
        raise PredictError(f"{images}: no such file or folder. Give the folder of photographs.")
    if out.resolve() == images.resolve():
        raise PredictError(f"{out}: is the folder of the photographs. Choose another OUT.")
    files = []
    for folder, subfolders, _ in os.walk(images):
        here = Path(folder)
        subfolders[:] = sorted(s for s in subfolders if (here / s).resolve() != out.resolve())
        files += list_images(here)
    if not files:
        expected = ", ".join(EXTENSIONS)
        raise PredictError(f"{images}: no photograph in it. Expected files ending in {expected}.")
    stems = Counter(file.with_suffix("") for file in files)
    if double := [str(stem) for stem, count in stems.items() if count > 1]:
        raise PredictError(
            f"{double[0]}: there are {stems[Path(double[0])]} photographs of this name with "
            "different endings, which would write the same files. Rename or move one of them."
        )
    return images, files


def find_threshold(weights: str | Path, facts: dict, threshold: float | None) -> tuple[float, str]:
    """The threshold and where it comes from: given, the checkpoint's, its run's, or one half."""
    if threshold is not None:
        if not 0 < threshold < 1:
            raise PredictError(f"threshold {threshold}: expected a number between 0 and 1")
        return threshold, "as given"
    if "threshold" in facts:
        return float(facts["threshold"]), "the one that came with the weights"
    scores = Path(weights).resolve().parent.parent / "metrics.json"
    if scores.is_file():
        found = json.loads(scores.read_text(encoding="utf-8")).get("threshold")
        found = found["value"] if isinstance(found, dict) else found
        if found is not None:
            return float(found), f"chosen in {scores.parent.name} on validation photographs"
    return 0.5, "since nothing tells of a better one; --threshold sets another"


def find_companion(folder: str | Path | None, file: Path) -> Path | None:
    """The FOV mask of a photograph in a folder of masks, if there is one."""
    if folder is None:
        return None
    wanted = {file.stem, f"{file.stem}_fov", f"{file.stem}_mask"}
    found = [f for f in list_images(Path(folder)) if f.stem in wanted]
    return found[0] if found else None


def targets(out: str | Path, name: str) -> list[Path]:
    """The three files written for a photograph."""
    stem = Path(out) / Path(name).with_suffix("")
    return [stem.with_name(f"{stem.name}_{k}.png") for k in ("vessels", "probability", "overlay")]


def weights_digest(model: nn.Module) -> str:
    """A digest of the weights themselves, wherever their file lies."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def mark_of(file: Path, fov_file: Path | None, settings: list) -> str:
    """A digest of a photograph's file and of all that decides its map."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in (file, fov_file):
        if path:
            with suppress(OSError):  # unreadable: reading it will say so
                digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def read_summary(path: Path) -> dict[str, Outcome]:
    """What an earlier call has done, by name; empty if there is none."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("status") == "done"]
    return {row["name"]: Outcome(**{k: row.get(k, "") for k in Outcome._fields}) for row in rows}


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
    add("--no-flips", action="store_true", help="a quarter of the work, a little worse")
    add("--fov", metavar="FOLDER", help="FOV masks, named after their photographs")
    add("--device", default="auto", help="auto, cuda, mps or cpu")
    add("--force", action="store_true", help="do again what has been done")
    a = parser.parse_args(arguments)
    try:
        outcomes = predict_folder(
            a.images, a.out, a.weights, a.threshold, not a.no_flips, a.fov, a.device, a.force
        )
    except (PredictError, CheckpointError, RunError, FileNotFoundError) as error:
        print(f"predict: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped. The same command goes on from here.", file=sys.stderr)
        return 130
    failed = [o for o in outcomes if o.status == "failed"]
    flagged = [o for o in outcomes if o.flags]
    print(f"{len(outcomes) - len(failed)} done, {len(failed)} failed, {len(flagged)} flagged")
    for outcome in flagged[:10]:
        print(f"  look at {outcome.name}: {outcome.flags}")
    print(f"Maps, overlays and summary.csv are in {a.out}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
