"""A data folder -> checked pairs of photographs and annotations, split by person."""

import csv
import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retina_utils import RetinaError
from retina_utils.fov import find_fov
from retina_utils.images import ImageError, list_images, read_binary, read_photograph
from retina_utils.machine.files import read_csv, write_csv

SPLITS = ("train", "validation", "test")

# Folder names understood for each split, and the suffixes a companion file may carry.
SPLIT_FOLDERS = {
    "train": ("training", "train"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
FOLDERS = {  # of each kind of file in the two layouts; {} is the split
    "image": ("images", "{}_x"),
    "vessels": ("masks", "{}_y"),
    "fov": ("fov", "{}_fov"),
    "second": ("second", "{}_second"),
}
SUFFIXES = {
    "vessels": ("_mask", "", "_vessels", "_manual1", "_1stHO"),
    "fov": ("_fov", "", "_mask"),
    "second": ("_second", "", "_2ndHO"),
}
EYE = re.compile(r"^(.*\d)[_-]?(l|r|od|os|left|right)$", re.IGNORECASE)


class DataError(RetinaError):
    """Everything that is wrong with a data folder, one line for each problem."""

    def __init__(self, folder: Path, problems: Sequence[str]):
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = [f"{folder}: {count} to mend before anything runs:", *problems]
        super().__init__("\n- ".join(lines))
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


FILES = ("image", "vessels", "fov", "second")  # of a pair


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


def load_data(path: str | Path, validation_share: float = 0.2, seed: int = 0) -> Splits:
    """Train, validation and test pairs of a data folder, paired by name and checked.

    Two layouts are read: ``training|validation|test`` with ``images/`` and ``masks/`` (and, if
    wanted, ``fov/`` and ``second/``), and ``training/train_x``, ``training/train_y``,
    ``validation/validation_x``, ... A mask bears its photograph's name, with or without
    ``_mask``. An optional ``people.csv`` (columns ``name,person``) says whose eye is whose;
    without it ``05L`` and ``05R`` are one person, other names one each. If there is no validation
    folder, ``validation_share`` of the training people, chosen by ``seed``, are set aside.

    A DataError lists every problem found: orphans, duplicates, sizes that differ, unreadable
    files, masks that are not two-valued, a photograph or a person in two splits, empty splits.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataError(root, ["no such folder. Expected one with training/ and test/ inside."])
    problems: list[str] = []
    people = _read_people(root, problems)
    splits = {split: _pair_files(root, split, people, problems) for split in SPLITS}
    pairs = [pair for split in SPLITS for pair in splits[split] or []]
    with ThreadPoolExecutor() as pool:  # decoding lets go of Python's lock
        found, digests = zip(*pool.map(check_pair, pairs), strict=True) if pairs else ((), ())
    problems += [*chain(*found), *_twice(pairs, digests), *_in_two_splits(pairs)]
    if splits["validation"] is None and not problems:
        train, validation = _carve_validation(splits["train"], validation_share, seed, problems)
        splits |= {"train": train, "validation": validation}
    if problems:
        raise DataError(root, problems)
    return Splits(**splits)


def load_sample(pair: Pair) -> Sample:
    """Decode one pair at native size; a missing FOV is found in the photograph."""
    image = read_photograph(pair.image)
    fov = read_binary(pair.fov, "fov") if pair.fov else find_fov(image)
    return Sample(pair.name, image, read_binary(pair.vessels), fov)


def is_synthetic(path: str | Path) -> bool:
    """Whether a data folder holds drawn photographs, whose scores say nothing about real ones."""
    readme = Path(path) / "README.md"
    return readme.exists() and readme.read_text(encoding="utf-8").startswith("# Synthetic")


def write_splits(path: Path, splits: Splits, root: Path) -> None:
    """Write who is in which split as CSV, with file paths relative to ``root``."""
    rows = [pair._asdict() for pairs in splits for pair in pairs]
    for row in rows:
        for key in FILES:
            row[key] = row[key].relative_to(root).as_posix() if row[key] else ""
    write_csv(path, rows, Pair._fields)


def read_splits(path: Path, root: Path) -> Splits:
    """The splits written by :func:`write_splits`."""
    splits = Splits([], [], [])
    for row in read_csv(path):
        for key in FILES:
            row[key] = root / row[key] if row[key] else None
        getattr(splits, row["split"]).append(Pair(**row))
    return splits


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
    files = {kind: _files_of(folders[0], kind, split, problems) for kind in FILES}
    if not files["image"]:
        problems.append(f"{folders[0]}: no photograph found. An empty split cannot be used.")
    by_stem = defaultdict(list)
    for image in files["image"]:
        by_stem[image.stem].append(image)
    pairs = []
    for stem, images in by_stem.items():
        if len(images) > 1:
            names = ", ".join(i.name for i in images)
            problems.append(f"{images[0].parent}: {names} share one name. Keep one of them.")
        parts = {kind: _companion(images[0], kind, files[kind], problems) for kind in SUFFIXES}
        if parts["vessels"]:
            person = people.get(stem) or person_of(stem)
            pairs.append(Pair(split, stem, person, images[0], **parts))
    for kind, suffixes in SUFFIXES.items():
        expected = {stem + suffix for stem in by_stem for suffix in suffixes}
        problems += [
            f"{orphan}: belongs to no photograph. Add the photograph or remove the file."
            for orphan in files[kind] or []
            if orphan.stem not in expected  # else used, or reported as one of several
        ]
    return pairs


def _files_of(folder: Path, kind: str, split: str, problems: list[str]) -> list[Path]:
    """Image files of one kind in the folder of a split; None if it has no such folder."""
    names = [name.format(split) for name in FOLDERS[kind]]
    found = [folder / name for name in names if (folder / name).is_dir()]
    if len(found) == 1:
        return list_images(found[0])
    if found or kind in ("image", "vessels"):
        what = "both " + " and ".join(names) if found else "neither " + " nor ".join(names)
        problems.append(f"{folder}: holds {what}. Expected exactly one of these folders.")
    return [] if kind == "image" else None


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


def check_pair(pair: Pair) -> tuple[list[str], str]:
    """Problems inside the files of one pair, and a checksum of the photograph's pixels."""
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


def _twice(pairs: list[Pair], digests: Sequence[str]) -> list[str]:
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


def _in_two_splits(pairs: list[Pair]) -> list[str]:
    """People whose eyes stand in two splits, where names or people.csv say so."""
    splits = defaultdict(set)
    # A bare number may mean another person in every split (FIVES counts so).
    for pair in (pair for pair in pairs if pair.person != pair.name):
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
