"""A data folder -> checked pairs of photographs and annotations, split by person."""

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retina_utils import RetinaError
from retina_utils.fov import find_fov
from retina_utils.images import ImageError, read_binary, read_photograph
from retina_utils.intake.checks import Look, digest, look_closely, same_eyes
from retina_utils.intake.listing import EXTENSIONS, list_images, list_unread, stem_of
from retina_utils.intake.people import patient_of, person_of
from retina_utils.machine.files import read_csv, write_csv
from retina_utils.machine.spreadsheet import plain_name, read_names

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
    ``_mask``. An optional ``people.csv`` (columns ``name,person``) says whose eye is whose; where
    it does not, a DICOM's patient does by a pseudonym, or the names may (`intake.people`). Without
    a validation folder ``validation_share`` of the training people, by ``seed``, are set aside.

    A DataError lists every problem found: orphans, duplicates, sizes that differ, unreadable
    files, masks that are not two-valued, FOVs that are none, vessels that lie on none in most of a
    split, a person or a photograph in two splits, also one saved again or mirrored, empty splits,
    lines of people.csv without a photograph. What is doubtful, or not read, is printed.
    """
    return Splits(**_load(Path(path), SPLITS, validation_share, seed))


def load_pairs(path: str | Path) -> list[Pair]:
    """The pairs of one folder that holds ``images/`` and ``masks/`` itself, checked likewise."""
    return _load(Path(path), ("given",))["given"]


def _load(root: Path, names: Sequence[str], share: float = 0, seed: int = 0) -> dict:
    """Checked pairs by the names of their splits; see :func:`load_data`."""
    if not root.is_dir():
        raise DataError(root, ["no such folder. Expected one with training/ and test/ inside."])
    file = root / "people.csv"
    people, problems = read_names(file, ("name", "person"), EXTENSIONS)
    known: set[str] = set()
    splits = {split: _pair_files(root, split, people, known, problems) for split in names}
    written = {}  # a person of two spellings is one: p3_LE and P3_RE
    for found in filter(None, splits.values()):
        people_of = [written.setdefault(p.person.casefold(), p.person) for p in found]
        found[:] = [p._replace(person=q) for p, q in zip(found, people_of, strict=True)]
    if splits.get("validation", 0) is None and not problems:  # before copies are looked for
        train, validation = _carve_validation(splits["train"], share, seed, problems)
        splits |= {"train": train, "validation": validation}
    pairs = [pair for split in names for pair in splits[split] or []]
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:  # decoding lets go of the lock
        found, looks = zip(*pool.map(check_pair, pairs), strict=True) if pairs else ((), ())
    seen = [(pair, look) for pair, look in zip(pairs, looks, strict=True) if look]
    doubts = _unread(pairs)
    problems += [*chain(*found), *_twice(seen, doubts), *_misfits(seen, doubts)]
    told = {pair for pair in pairs if plain_name(pair.name, EXTENSIONS) in people}
    told |= {pair for pair in pairs if pair.person != pair.name}
    problems += _in_two_splits(pairs, told)
    if lost := sorted(people.keys() - known):
        # Where every photograph has its line, one more is for a photograph that is not here.
        (problems if known - people.keys() else doubts).append(
            f"{file}: names {_some(lost)}, but there is no such photograph. Expected names of "
            "photographs, with or without their endings; correct or remove the lines."
        )
    if problems:
        raise DataError(root, problems)
    if alone := [pair.name for pair in pairs if pair not in told]:
        doubts.append(
            f"neither names nor people.csv say whose {len(alone)} of {len(pairs)} photographs are "
            f"({_some(alone)}): every photograph is counted as its own person."
        )
    if doubts:
        print("\n- ".join([f"{root}: nothing is refused, but look at this:", *doubts]))
    return splits


def files_read(path: str | Path) -> list[Path]:
    """The files of a data folder that :func:`load_data` reads; a system's own are not."""
    root = Path(path)
    found = [root / "people.csv", root / "README.md"]  # is_synthetic reads the latter
    for split, names in SPLIT_FOLDERS.items():
        kinds = [name.format(split) for name in chain.from_iterable(FOLDERS.values())]
        for folder in chain.from_iterable(_subfolders(f, kinds) for f in _subfolders(root, names)):
            found += list_images(folder)
    return sorted(file for file in found if file.is_file())


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
    root: Path, split: str, people: dict[str, str], known: set[str], problems: list[str]
) -> list[Pair] | None:
    """Pairs of one split by name, plain names into ``known``; None if it may be carved out."""
    folders = _subfolders(root, SPLIT_FOLDERS[split]) if split in SPLIT_FOLDERS else [root]
    if not folders and split == "validation":
        return None
    if len(folders) != 1:
        found = " and ".join(f.name for f in folders) or "no folder"
        problems.append(f"{split} split: found {found}. Expected {SPLIT_FOLDERS[split][0]}/ only.")
        return []
    files = {kind: _files_of(folders[0], kind, split, problems) for kind in FILES}
    if files["image"] is None:
        return []  # said already, and of their masks nothing can be said
    if not files["image"]:
        problems.append(f"{folders[0]}: no photograph found. An empty split cannot be used.")
    by_stem = defaultdict(list)
    for image in files["image"]:
        by_stem[stem_of(image)].append(image)
    known |= {plain_name(stem, EXTENSIONS) for stem in by_stem}
    pairs = []
    for stem, images in by_stem.items():
        if len(images) > 1:
            names = ", ".join(i.name for i in images)
            problems.append(f"{images[0].parent}: {names} share one name. Keep one of them.")
        parts = {kind: _companion(images[0], kind, files[kind], problems) for kind in SUFFIXES}
        if parts["vessels"]:
            person = people.get(plain_name(stem, EXTENSIONS))
            person = person or patient_of(images[0], root, problems) or person_of(stem)
            pairs.append(Pair(split, stem, person, images[0], **parts))
    for kind, suffixes in SUFFIXES.items():
        for file in files[kind] or []:
            stems = {file.stem.removesuffix(s) for s in suffixes if file.stem.endswith(s)}
            owners = sorted(stems & by_stem.keys())
            if len(owners) != 1:
                mend = "Rename one of them." if owners else "Add the photograph or remove the file."
                owner = " and to ".join(owners) or "no photograph"
                problems.append(f"{file}: belongs to {owner}. {mend}")
    return pairs


def _files_of(folder: Path, kind: str, split: str, problems: list[str]) -> list[Path]:
    """Image files of one kind in the folder of a split; None if it has no such folder."""
    names = [name.format(split) for name in FOLDERS[kind]]
    found = _subfolders(folder, names)
    if len(found) == 1:
        problems += [
            f"{file}: is a link to nothing. Put the file itself there, or remove the link."
            for file in list_unread(found[0])
            if not file.exists()
        ]
        return list_images(found[0])
    if found or kind in ("image", "vessels"):
        what = "both " + " and ".join(f.name for f in found)
        what = what if found else "neither " + " nor ".join(names)
        there = _some(sorted(f.name for f in folder.iterdir() if f.is_dir())) or "none"
        problems.append(
            f"{folder}: holds {what}. Expected exactly one of these folders, found {there}; "
            f"rename the one that holds {FOLDERS[kind][0]}, and remove others."
        )
    return None


def _subfolders(folder: Path, names: Sequence[str]) -> list[Path]:
    """The sub-folders of these names, in any case: Images is images."""
    folders = sorted(f for f in folder.iterdir() if f.is_dir())
    return [f for name in names for f in folders if f.name.casefold() == name]


def _companion(
    image: Path, kind: str, files: list[Path] | None, problems: list[str]
) -> Path | None:
    """The file of ``kind`` that bears the photograph's name."""
    if files is None:
        return None
    stems = {stem_of(image) + suffix for suffix in SUFFIXES[kind]}
    found = [f for f in files if f.stem in stems]
    if len(found) > 1:
        names = ", ".join(f.name for f in found)
        problems.append(f"{image}: has {len(found)} {kind} files ({names}). Keep one of them.")
    if not found and kind == "vessels":
        expected = f"{stem_of(image)}_mask.png"
        problems.append(f"{image}: has no mask. Expected {expected} in the masks folder; add it.")
    if not found and kind == "fov":
        problems.append(f"{image}: has no FOV file though others have. Add it, or remove fov/.")
    return found[0] if found else None


def check_pair(pair: Pair) -> tuple[list[str], Look | None]:
    """Problems inside the files of one pair, and a look at what they hold if there are none."""
    problems, found = [], {}
    try:
        image = read_photograph(pair.image)
    except ImageError as error:
        return [str(error)], None
    for what in ("vessels", "fov", "second"):
        file = getattr(pair, what)
        if file is None:
            continue
        try:
            found[what] = read_binary(file, "fov" if what == "fov" else "vessels")
        except ImageError as error:
            problems.append(str(error))
            continue
        if found[what].shape != image.shape[:2]:
            (h, w), (height, width) = found[what].shape, image.shape[:2]
            turned = " (turned by its EXIF?)" * ((h, w) == (width, height))
            problems.append(
                f"{file}: is {w}x{h} pixels, its photograph {pair.image.name} is {width}x{height}"
                f"{turned}. Expected the same size; export it again at the photograph's size."
            )
    if pair.fov is None:
        try:
            found["fov"] = find_fov(image)
        except ValueError as error:
            problems.append(f"{pair.image}: {error}")
    if problems:
        return problems, Look(digest(image))
    look = look_closely(image, **found)
    return [f"{getattr(pair, what) or pair.image}: {why}" for what, why in look.wrong], look


def _twice(seen: list[tuple[Pair, Look]], doubts: list[str]) -> list[str]:
    """Photographs that stand in the data twice, whatever their names."""
    copies, problems = defaultdict(list), []
    for pair, look in seen:
        copies[look.digest].append(pair)
    groups = [(same, "the same photograph") for same in copies.values() if len(same) > 1]
    for places in same_eyes([look for _, look in seen]):
        alike = "one photograph saved again, or its mirror image"
        groups.append(([seen[place][0] for place in places], alike))
    for same, what in groups:
        splits = sorted({pair.split for pair in same})
        where = f", in {' and '.join(splits)}" if len(splits) > 1 else ""
        # What only looks the same may stay in one split.
        (problems if where or what == "the same photograph" else doubts).append(
            f"{' and '.join(str(p.image) for p in same)}: {what}{where}. Keep one of them."
        )
    return problems


def _misfits(seen: list[tuple[Pair, Look]], doubts: list[str]) -> list[str]:
    """Splits most of whose vessels lie on none; doubts of single photographs go to ``doubts``."""
    fits, problems = defaultdict(list), []
    for pair, look in seen:
        doubts += [f"{getattr(pair, what)}: {why}" for what, why in look.doubts]
        fits[pair.split] += [] if look.fits is None else [look.fits]
    for split, found in fits.items():
        if (odd := found.count(False)) > len(found) / 2:
            problems.append(f"{split} split: {odd} of {len(found)} drawings lie on no vessels:")
            problems += [doubt for doubt in doubts if "does not lie" in doubt]
    return problems


def _unread(pairs: list[Pair]) -> list[str]:
    """What lies beside the files of the pairs and is not read, a line for each folder."""
    files = chain.from_iterable(pair[pair._fields.index("image") :] for pair in pairs)
    lines = []
    for folder in sorted({file.parent for file in files if file}):
        below = {f for f in folder.iterdir() if f.is_dir() and f.name[0] not in ".@"}
        if names := sorted(f.name for f in below | {*list_unread(folder)}):
            lines.append(f"{folder}: {len(names)} not read: {_some(names)}.")
    return lines


def _in_two_splits(pairs: list[Pair], told: set[Pair]) -> list[str]:
    """People whose eyes stand in two splits, where names or people.csv say so."""
    # A bare number may mean another person in every split (FIVES counts so).
    people = {pair.person for pair in told}
    splits = defaultdict(set)
    for pair in pairs:
        splits[pair.person].add(pair.split)
    return [
        f"person {person}: has photographs in {' and '.join(sorted(found))}, which would flatter "
        "the scores. Move them into one split, or say in people.csv that these are two people."
        for person, found in splits.items()
        if person in people and len(found) > 1
    ]


def _some(names: Sequence[str]) -> str:
    """Names in a line, of many the first."""
    return ", ".join(names[:6]) + (" ..." if len(names) > 6 else "")


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
    return kept, [pair._replace(split="validation") for pair in pairs if pair.person in chosen]
