"""From a folder of photographs to checked pairs, and from pairs to tensors.

:func:`load_data` finds and checks the files; :class:`Preparation` says once and for all what the
network sees of a photograph; :class:`RetinaDataset` cuts the patches.
"""

import csv
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import Dataset

from retina_utils.fov import Frame, find_fov, frame_of
from retina_utils.images import ImageError, list_images, read_binary, read_photograph

SPLITS = ("train", "validation", "test")

# Folder names understood for each split, and the suffixes a companion file may carry.
SPLIT_FOLDERS = {
    "train": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
SUFFIXES = {
    "vessels": ("_mask", "", "_vessels", "_manual1", "_1stHO"),
    "fov": ("_fov", "", "_mask"),
    "second": ("_second", "", "_2ndHO"),
}
EYE = re.compile(r"^(.*\d)[_-]?(l|r|od|os|left|right)$", re.IGNORECASE)

CHANNELS = {"green": 1, "luminance": 1, "rgb": 3}


class DataError(ValueError):
    """Everything that is wrong with a data folder, one line for each problem."""

    def __init__(self, folder: Path, problems: Sequence[str]):
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(
            "\n- ".join([f"{folder}: {count} to mend before anything runs:", *problems])
        )
        self.problems = list(problems)


class Pair(NamedTuple):
    """The files of one photograph; ``fov`` and ``second`` (a second observer) may be None."""

    split: str
    name: str
    person: str
    image: Path
    vessels: Path
    fov: Path | None = None
    second: Path | None = None


class Splits(NamedTuple):
    """Checked pairs, each list in order of name."""

    train: list[Pair]
    validation: list[Pair]
    test: list[Pair]


class Sample(NamedTuple):
    """A decoded photograph at native size."""

    name: str
    image: np.ndarray  # (H, W, 3) uint8
    vessels: np.ndarray  # (H, W) bool
    fov: np.ndarray  # (H, W) bool


# --- Finding and checking files ----------------------------------------------------------------


def load_data(path: str | Path, validation_share: float = 0.2, seed: int = 0) -> Splits:
    """Train, validation and test pairs of a data folder, paired by name and checked.

    Two layouts are read: ``training|validation|test`` with ``images/`` and ``masks/`` (and, if
    wanted, ``fov/`` and ``second/``), and ``training/train_x``, ``training/train_y``,
    ``validation/validation_x``, ... A mask bears its photograph's name, with or without
    ``_mask``. If there is no validation folder, people are set aside from training.

    Parameters
    ----------
    path : path
        The data folder. An optional ``people.csv`` in it (columns ``name,person``) says whose
        eye is whose; without it ``05L`` and ``05R`` are one person, other names one each.
    validation_share : float
        Share of the training people to set aside if there is no validation folder.
    seed : int
        Decides which people these are.

    Raises
    ------
    DataError
        Listing every problem found: orphans, duplicates, sizes that differ, unreadable files,
        masks that are not two-valued, a photograph or a person in two splits, empty splits.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(root, ["no such folder. Expected one with training/ and test/ inside."])
    problems: list[str] = []
    people = _read_people(root, problems)
    splits = {split: _pair_files(root, split, people, problems) for split in SPLITS}
    pairs = [pair for split in SPLITS for pair in splits[split] or []]
    with ThreadPoolExecutor() as pool:  # decoding lets go of Python's lock
        checks = list(pool.map(_check_pair, pairs))
    for found, _ in checks:
        problems += found
    problems += _content_problems(pairs, [digest for _, digest in checks])
    problems += _person_problems(pairs)
    if splits["validation"] is None and not problems:
        train, validation = _carve_validation(splits["train"], validation_share, seed, problems)
        splits |= {"train": train, "validation": validation}
    if problems:
        raise DataError(root, problems)
    return Splits(**splits)


def _pair_files(
    root: Path, split: str, people: dict[str, str], problems: list[str]
) -> list[Pair] | None:
    """Pairs of one split by name; None if it has no folder and may be carved out."""
    folders = [root / name for name in SPLIT_FOLDERS[split] if (root / name).is_dir()]
    if not folders and split == "validation":
        return None
    if len(folders) != 1:
        found = " and ".join(f.name for f in folders) or "no folder"
        problems.append(f"{split} split: found {found}. Expected {SPLIT_FOLDERS[split][0]}/ only.")
        return []
    files = {
        "image": _files_of(folders[0], ("images", f"{split}_x"), problems),
        "vessels": _files_of(folders[0], ("masks", f"{split}_y"), problems),
        "fov": _files_of(folders[0], ("fov", f"{split}_fov"), None),
        "second": _files_of(folders[0], ("second", f"{split}_second"), None),
    }
    if not files["image"]:
        problems.append(f"{folders[0]}: no photograph found. An empty split cannot be used.")
    by_stem = defaultdict(list)
    for image in files["image"]:
        by_stem[image.stem].append(image)
    pairs, used = [], set()
    for stem, images in by_stem.items():
        if len(images) > 1:
            names = ", ".join(i.name for i in images)
            problems.append(f"{images[0].parent}: {names} share one name. Keep one of them.")
        parts = {}
        for kind in ("vessels", "fov", "second"):
            parts[kind] = _companion(images[0], kind, files[kind], problems)
            used.add(parts[kind])
        if parts["vessels"]:
            person = people.get(stem) or person_of(stem)
            pairs.append(Pair(split, stem, person, images[0], **parts))
    for kind in ("vessels", "fov", "second"):
        problems += [
            f"{orphan}: belongs to no photograph. Add the photograph or remove the file."
            for orphan in files[kind] or []
            if orphan not in used and not _is_spare(orphan, kind, by_stem)
        ]
    return pairs


def _files_of(
    folder: Path, names: tuple[str, ...], problems: list[str] | None
) -> list[Path] | None:
    """Image files in the one of ``names`` that exists; None if none does."""
    found = [folder / name for name in names if (folder / name).is_dir()]
    if len(found) == 1:
        return list_images(found[0])
    if problems is not None:
        what = "both " + " and ".join(names) if found else "neither " + " nor ".join(names)
        problems.append(f"{folder}: holds {what}. Expected exactly one of these folders.")
    return None


def _companion(
    image: Path, kind: str, files: list[Path] | None, problems: list[str]
) -> Path | None:
    """The file of ``kind`` that bears the photograph's name."""
    if files is None:
        return None
    stems = {image.stem + suffix for suffix in SUFFIXES[kind]}
    found = [f for f in files if f.stem in stems]
    if len(found) > 1:
        names = ", ".join(f.name for f in found)
        problems.append(f"{image}: has {len(found)} {kind} files ({names}). Keep one of them.")
    if not found and kind == "vessels":
        expected = f"{image.stem}_mask.png"
        problems.append(f"{image}: has no mask. Expected {expected} in the masks folder; add it.")
    if not found and kind == "fov":
        problems.append(f"{image}: has no FOV file though others have. Add it, or remove fov/.")
    return found[0] if found else None


def _is_spare(file: Path, kind: str, stems: dict[str, list[Path]]) -> bool:
    """Whether a file names a photograph that has another companion (reported already)."""
    return any(file.stem == stem + suffix for stem in stems for suffix in SUFFIXES[kind])


def _check_pair(pair: Pair) -> tuple[list[str], str]:
    """Problems inside the files of one pair, and a digest of the photograph's pixels."""
    problems, digest = [], ""
    try:
        image = read_photograph(pair.image)
        digest = hashlib.sha256(image.tobytes()).hexdigest()
    except ImageError as error:
        return [str(error)], digest
    for what in ("vessels", "fov", "second"):
        file = getattr(pair, what)
        if file is None:
            continue
        try:
            found = read_binary(file, "fov" if what == "fov" else "vessels")
        except ImageError as error:
            problems.append(str(error))
            continue
        if found.shape != image.shape[:2]:
            (h, w), (height, width) = found.shape, image.shape[:2]
            problems.append(
                f"{file}: is {w}x{h} pixels, its photograph {pair.image.name} is {width}x{height}. "
                "Expected the same size; export it again at the photograph's size."
            )
    return problems, digest


def _content_problems(pairs: list[Pair], digests: list[str]) -> list[str]:
    """Photographs that stand in the data twice, whatever their names."""
    copies = defaultdict(list)
    for pair, digest in zip(pairs, digests, strict=True):
        if digest:
            copies[digest].append(pair)
    return [
        f"{' and '.join(str(p.image) for p in same)}: the same photograph"
        f"{', in ' + ' and '.join(sorted(splits)) if len(splits) > 1 else ''}. Keep one of them."
        for same in copies.values()
        if len(same) > 1 and (splits := {p.split for p in same})
    ]


def _person_problems(pairs: list[Pair]) -> list[str]:
    """People whose eyes stand in two splits, where names or people.csv say so."""
    splits = defaultdict(set)
    for pair in pairs:
        # A bare number may mean another person in every split (FIVES counts so).
        if pair.person != pair.name:
            splits[pair.person].add(pair.split)
    return [
        f"person {person}: has photographs in {' and '.join(sorted(found))}, which would flatter "
        "the scores. Move them into one split, or say in people.csv that these are two people."
        for person, found in splits.items()
        if len(found) > 1
    ]


def _read_people(root: Path, problems: list[str]) -> dict[str, str]:
    """The optional people.csv as {name: person}."""
    file = root / "people.csv"
    if not file.exists():
        return {}
    with file.open(newline="", encoding="utf-8-sig") as lines:
        rows = csv.DictReader(lines)
        if not {"name", "person"} <= set(rows.fieldnames or []):
            problems.append(f"{file}: has columns {rows.fieldnames}. Expected name,person.")
            return {}
        return {row["name"]: row["person"] for row in rows}


def person_of(name: str) -> str:
    """Whose eye a name tells of: ``Image_05L`` and ``Image_05R`` both give ``Image_05``."""
    eye = EYE.match(name)
    return eye.group(1) if eye else name


def _carve_validation(
    pairs: list[Pair], share: float, seed: int, problems: list[str]
) -> tuple[list[Pair], list[Pair]]:
    """Set people aside for validation, and say so."""
    people = sorted({pair.person for pair in pairs})
    if len(people) < 2:
        problems.append("training: one person only, none to set aside for validation. Add people.")
        return pairs, []
    count = min(len(people) - 1, max(1, round(share * len(people))))
    chosen = set(np.random.default_rng(seed).permutation(people)[:count])
    print(
        f"No validation folder: {count} of {len(people)} training people set aside for it "
        f"(seed {seed}): {', '.join(sorted(chosen))}."
    )
    kept = [pair for pair in pairs if pair.person not in chosen]
    aside = [pair._replace(split="validation") for pair in pairs if pair.person in chosen]
    return kept, aside


def write_splits(path: Path, splits: Splits, root: Path) -> None:
    """Write who is in which split as CSV, with file paths relative to ``root``."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(Pair._fields)
        for pair in (pair for split in splits for pair in split):
            files = [f.relative_to(root).as_posix() if f else "" for f in pair[3:]]
            table.writerow([*pair[:3], *files])


def read_splits(path: Path, root: Path) -> Splits:
    """The splits written by :func:`write_splits`."""
    splits = Splits([], [], [])
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for key in ("image", "vessels", "fov", "second"):
                row[key] = root / row[key] if row[key] else None
            getattr(splits, row["split"]).append(Pair(**row))
    return splits


def is_synthetic(path: str | Path) -> bool:
    """Whether a data folder holds drawn photographs, whose scores say nothing about real ones."""
    readme = Path(path) / "README.md"
    return readme.exists() and readme.read_text(encoding="utf-8").startswith("# Synthetic")


def load_sample(pair: Pair) -> Sample:
    """Decode one pair at native size; a missing FOV is found in the photograph."""
    image = read_photograph(pair.image)
    fov = read_binary(pair.fov, "fov") if pair.fov else find_fov(image)
    return Sample(pair.name, image, read_binary(pair.vessels), fov)


# --- What the network sees -----------------------------------------------------------------------


@dataclass(frozen=True)
class Preparation:
    """What the network sees of a photograph: one choice for training and for prediction.

    Saved in every checkpoint, so that the two cannot differ.
    """

    channels: str = "green"  # "green", "luminance" or "rgb"
    mode: str = "patches"  # "patches" of the photograph, or the "whole" of it at patch size
    patch_size: int = 256  # pixels
    stride: int = 128  # pixels between neighbouring patches of the grid
    fov_diameter: int = 0  # pixels; 0 keeps the native scale
    normalisation: str = "photograph"  # by its mean and deviation, or by those of the "local" area

    def __post_init__(self):
        if self.channels not in CHANNELS:
            raise ValueError(f"channels={self.channels!r}: expected one of {', '.join(CHANNELS)}")
        if self.mode not in ("patches", "whole"):
            raise ValueError(f"mode={self.mode!r}: expected 'patches' or 'whole'")
        if self.patch_size < 16:
            raise ValueError(f"patch_size={self.patch_size}: expected at least 16 pixels")
        if not 0 < self.stride <= self.patch_size:
            raise ValueError(
                f"stride={self.stride}: expected 1 to patch_size={self.patch_size} pixels, "
                "or pixels between the patches would never be seen"
            )
        if self.fov_diameter < 0:
            raise ValueError(f"fov_diameter={self.fov_diameter}: expected pixels, or 0 for native")
        if self.normalisation not in ("photograph", "local"):
            raise ValueError(
                f"normalisation={self.normalisation!r}: expected 'photograph' or 'local'"
            )

    @property
    def n_channels(self) -> int:
        """Channels of the network's input."""
        return CHANNELS[self.channels]

    def as_dict(self) -> dict:
        """All settings, for a checkpoint or a manifest."""
        return asdict(self)

    def frame(self, fov: np.ndarray) -> Frame:
        """The crop and scale that bring a photograph with this FOV into the network's view."""
        return frame_of(fov, self.patch_size if self.mode == "whole" else self.fov_diameter)

    def view(self, image: np.ndarray, fov: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A photograph as the network sees it: (C, h, w) uint8 and its FOV (h, w) bool."""
        frame = self.frame(fov)
        image, fov = frame.view(image), frame.view(fov)
        if self.channels == "green":
            return image[None, ..., 1].copy(), fov
        if self.channels == "luminance":
            return np.asarray(Image.fromarray(image).convert("L"))[None].copy(), fov
        return np.ascontiguousarray(image.transpose(2, 0, 1)), fov

    def normalise(
        self,
        image: torch.Tensor,
        fov: torch.Tensor,
        statistics: tuple[torch.Tensor, torch.Tensor],
        diameter: int,
    ) -> torch.Tensor:
        """What the network is given: values around 0 with a deviation around 1, 0 outside the FOV.

        Parameters
        ----------
        image : (C, h, w) float32 in [0, 1]
            A photograph or a patch of it.
        fov : (1, h, w) float32 in {0, 1}
        statistics : mean and deviation of the whole photograph, (C, 1, 1) float32 each
            Taken away by "photograph", which keeps where the photograph is bright and dark.
        diameter : int
            Pixels across the photograph's FOV. "local" takes away mean and deviation of the
            surroundings instead, about a tenth of it wide, and with them the light of the
            camera's flash, the pigment of the eye and most of the camera's colours.
        """
        if self.normalisation == "local":
            return normalise_locally(image, fov, diameter)
        mean, deviation = statistics
        return (image - mean) / deviation * fov


def statistics_of(image: np.ndarray, fov: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each channel inside the FOV, for values in [0, 1].

    (C, h, w) uint8 and (h, w) bool -> two (C, 1, 1) float32; the deviation is at least 1/255.
    """
    inside = image[:, fov] / 255
    mean, std = inside.mean(axis=1), inside.std(axis=1).clip(min=1 / 255)
    return tuple(torch.from_numpy(a.astype(np.float32)[:, None, None]) for a in (mean, std))


def normalise_locally(image: torch.Tensor, fov: torch.Tensor, diameter: int) -> torch.Tensor:
    """Each pixel against the mean and deviation of its surroundings inside the FOV.

    (C, h, w) float32 in [0, 1] and (1, h, w) float32 in {0, 1} -> (C, h, w) float32 in [-6, 6],
    0 outside. The surroundings are a tent of a fifteenth of the FOV's diameter to each side
    (after Foracchia et al., Medical Image Analysis 2005), worked out at a quarter of the size.
    """
    size = image.shape[-2:]
    side = max(1, round(diameter / 120)) * 2 + 1  # of a box, in quarters

    def smooth(array: torch.Tensor) -> torch.Tensor:
        quarter = F.avg_pool2d(array, 4, ceil_mode=True, count_include_pad=False)
        for kernel in 2 * ((side, 1), (1, side)):  # twice a box makes a tent
            padding = (kernel[0] // 2, kernel[1] // 2)
            quarter = F.avg_pool2d(quarter, kernel, stride=1, padding=padding)
        return quarter

    def surroundings(array: torch.Tensor) -> torch.Tensor:
        mean = smooth(array * fov[None]) / weight
        wide = (mean.shape[-2] * 4, mean.shape[-1] * 4)
        whole = F.interpolate(mean, size=wide, mode="bilinear", align_corners=False)
        return whole[..., : size[0], : size[1]]

    image, weight = image[None], smooth(fov[None]).clamp(min=1e-3)
    away = (image - surroundings(image)) * fov
    deviation = surroundings(away.square()).sqrt().clamp(min=1 / 255)
    return (away / deviation).clamp(-6, 6)[0]


def patch_grid(height: int, width: int, size: int, stride: int) -> list[tuple[int, int]]:
    """Top-left corners of overlapping patches that cover every pixel, edges included.

    The last row and column are moved inwards to end at the edge. Along a side shorter than
    ``size`` there is one patch, to be padded.

    >>> len(patch_grid(512, 512, size=256, stride=128))
    9
    """

    def starts(length: int) -> list[int]:
        last = max(length - size, 0)
        return [*range(0, last, stride), last]

    return [(top, left) for top in starts(height) for left in starts(width)]


def cut(array: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """A (..., size, size) window of (..., H, W); zeros where it reaches beyond the array."""
    height, width = array.shape[-2:]
    t, b = np.clip([top, top + size], 0, height)
    le, r = np.clip([left, left + size], 0, width)
    out = np.zeros((*array.shape[:-2], size, size), array.dtype)
    out[..., t - top : b - top, le - left : r - left] = array[..., t:b, le:r]
    return out


class RetinaDataset(Dataset):
    """Patches of photographs, as a dict of tensors.

    Each item holds ``image`` (C, P, P) float32, normalised (:meth:`Preparation.normalise`) and
    0 outside the FOV; ``vessels`` (1, P, P) float32, the share of each pixel
    that is vessel, which is 0 or 1 at the photograph's own scale; ``fov`` (1, P, P) in {0, 1}.

    Every photograph is decoded once, when the dataset is made. Randomness is a function of
    ``(seed, epoch, index)``: the number of loader workers changes nothing, and
    :meth:`set_epoch` moves on to the next draw.

    Parameters
    ----------
    pairs : sequence of Pair or Sample
        Photographs of one split.
    preparation : Preparation
        Channels, scale and patch size.
    patches_per_image : int
        Random patches of each photograph and epoch; 0 takes the grid of overlapping patches.
    vessel_share : float
        Share of the random patches centred on a vessel; the others are centred anywhere inside
        the FOV. Use it to balance sampling.
    augment : callable, optional
        Takes a window of uint8 arrays, larger than the patch by the factor
        ``augment.context``, and gives float32 tensors of the patch's size with the image in
        [0, 1]; see :mod:`retina_utils.augment`.
    seed : int
        Everything random follows from it.
    """

    def __init__(
        self,
        pairs: Sequence[Pair | Sample],
        preparation: Preparation,
        patches_per_image: int = 0,
        vessel_share: float = 0.0,
        augment: Callable | None = None,
        seed: int = 0,
    ):
        if not pairs:
            raise ValueError("RetinaDataset: no photographs given; expected at least one pair")
        self.preparation, self.augment, self.seed = preparation, augment, seed
        self.patches_per_image, self.vessel_share = patches_per_image, vessel_share
        self.epoch = 0
        with ThreadPoolExecutor() as pool:
            self.photographs = list(pool.map(self._prepare, pairs))
        self.items = [
            (which, corner)
            for which, photograph in enumerate(self.photographs)
            for corner in self._corners(photograph)
        ]

    def _prepare(self, pair: Pair | Sample) -> dict:
        """One photograph in the network's frame: uint8 and bool, as small as it can be kept."""
        sample = load_sample(pair) if isinstance(pair, Pair) else pair
        image, fov = self.preparation.view(sample.image, sample.fov)
        share = self.preparation.frame(sample.fov).share(sample.vessels)
        statistics, diameter = statistics_of(image, fov), max(fov.shape)
        return {"image": image, "vessels": share, "fov": fov, "given": (statistics, diameter)}

    def _corners(self, photograph: dict) -> list[tuple[int, int] | None]:
        """Grid corners, or None for each patch that will be drawn at random."""
        if self.patches_per_image:
            return [None] * self.patches_per_image
        size, stride = self.preparation.patch_size, self.preparation.stride
        return patch_grid(*photograph["fov"].shape, size, stride)

    def set_epoch(self, epoch: int) -> None:
        """Move on to another epoch's random patches (not with ``persistent_workers``)."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        with one_thread():
            return self._item(index)

    def _item(self, index: int) -> dict[str, torch.Tensor]:
        which, corner = self.items[index]
        photograph, size = self.photographs[which], self.preparation.patch_size
        rng = np.random.default_rng([self.seed, self.epoch, index])
        if corner is None:
            corner = random_corner(photograph, size, self.vessel_share, rng)
        reach = round(size * (self.augment.context - 1) / 2) if self.augment else 0
        window = (corner[0] - reach, corner[1] - reach, size + 2 * reach)

        item = {key: cut(photograph[key], *window) for key in ("image", "vessels", "fov")}
        if self.augment:
            item = self.augment(item, size, seed=int(rng.integers(2**62)))
        else:
            item = as_tensors(item)
        item["image"] = self.preparation.normalise(item["image"], item["fov"], *photograph["given"])
        return item

    def vessel_prevalence(self) -> float:
        """Share of the FOV's area that is vessel, over all photographs."""
        vessels = sum(int(p["vessels"][p["fov"]].sum()) for p in self.photographs) / 255
        return vessels / sum(int(p["fov"].sum()) for p in self.photographs)


def as_tensors(item: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    """A window of a photograph in float32: ``image`` (C, h, w), ``vessels``, ``fov`` (1, h, w).

    Image and vessels come as uint8 and are divided by 255; the FOV comes as bool.
    """
    return {
        "image": torch.from_numpy(item["image"]) / 255,
        "vessels": torch.from_numpy(item["vessels"])[None] / 255,
        "fov": torch.from_numpy(item["fov"])[None].float(),
    }


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep torch to one thread, as a loader's worker does.

    A patch is too small to share out: on a busy machine two threads take ten times as long. And
    the sums in it come out the same, to the bit, in a worker and in the main process.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def random_corner(
    photograph: dict, size: int, vessel_share: float, rng: np.random.Generator
) -> tuple[int, int]:
    """Top-left corner of a patch centred inside the FOV, or on a vessel for a set share."""
    allowed = photograph["vessels" if rng.random() < vessel_share else "fov"]
    height, width = allowed.shape
    for _ in range(1000):  # about ten tries find a vessel; the last try is taken as it is
        row, column = int(rng.integers(height)), int(rng.integers(width))
        if allowed[row, column]:
            break
    top = min(max(row - size // 2, 0), max(height - size, 0))
    left = min(max(column - size // 2, 0), max(width - size, 0))
    return top, left


def split_table(splits: Splits) -> list[dict]:
    """One row for each split: photographs, people, and how many of each."""
    return [
        {
            "split": name,
            "photographs": len(pairs),
            "people": len(Counter(p.person for p in pairs)),
            "names": ", ".join(p.name for p in pairs[:4]) + (" …" if len(pairs) > 4 else ""),
        }
        for name, pairs in zip(SPLITS, splits, strict=True)
    ]
