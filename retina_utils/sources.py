"""Official downloads of public data sets -> ``data/<name>/`` in the layout the notebooks read.

    python -m retina_utils.sources chase_db1 CHASEDB1.zip
    python -m retina_utils.sources hrf downloads/HRF --out data/hrf --test-people 05

Everything is checked before anything is written, photographs are copied byte for byte, and the
split is by person, never by photograph: both eyes of one child stay together.
"""

import argparse
import csv
import hashlib
import os
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from retina_utils.fov import find_fov
from retina_utils.images import ImageError, read_binary, read_photograph, write_png

UNREADABLE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
SPLITS = {"train": "training", "validation": "validation", "test": "test"}  # split -> folder


class Source(NamedTuple):
    """How a data set is laid out, who made it, and how it is usually split."""

    title: str
    n_images: int  # in the complete download
    image: str  # pattern of a photograph's path, with groups ``name`` and ``person``
    vessels: str  # paths that belong to it, formatted with those groups
    fov: str  # empty: not part of the download, found in the photograph instead
    second: str  # empty: no second observer
    usual_test: range  # people of the usual test split, used when the download is complete
    usual: str  # that split in words
    people: str  # what tells one person from the next
    url: str
    citation: str
    licence: str


SOURCES = {
    "chase_db1": Source(
        title="CHASE_DB1",
        n_images=28,
        image=r"(?P<name>Image_(?P<person>\d\d)[LR])\.jpg",
        vessels="{name}_1stHO.png",
        fov="",
        second="{name}_2ndHO.png",
        usual_test=range(11, 15),
        usual="first 20 photographs, children 01-10, and last 8, children 11-14",
        people="the two digits of Image_01L: both eyes of a child",
        url="https://blogs.kingston.ac.uk/retinal/chasedb1/",
        citation=(
            "M. M. Fraz et al., An ensemble classification-based approach applied to retinal blood "
            "vessel segmentation, IEEE Transactions on Biomedical Engineering 59(9), 2012."
        ),
        licence="CC BY 4.0, Kingston University London",
    ),
    "hrf": Source(
        title="HRF (High-Resolution Fundus)",
        n_images=45,
        image=r"images/(?P<name>(?P<person>\d\d)_(?:h|g|dr))\.(?i:jpg)",
        vessels="manual1/{name}.tif",
        fov="mask/{name}_mask.tif",
        second="",
        usual_test=range(6, 16),
        usual="numbers 01-05 and 06-15",
        people="the number: 01_h, 01_g and 01_dr stay together, which is the cautious reading",
        url="https://www5.cs.fau.de/research/data/fundus-images/",
        citation=(
            "A. Budai et al., Robust vessel segmentation in fundus images, "
            "International Journal of Biomedical Imaging 2013, article 154860."
        ),
        licence="CC BY 4.0, Friedrich-Alexander-Universität Erlangen-Nürnberg",
    ),
}


class SourceError(ValueError):
    """A download that cannot be imported; the message lists every problem and what to do."""


class Photograph(NamedTuple):
    """The files of one photograph in the download; ``fov`` and ``second`` may be None."""

    name: str
    person: str
    image: Path
    vessels: Path
    fov: Path | None
    second: Path | None


def import_data(
    dataset: str,
    source: str | Path,
    out: str | Path | None = None,
    test_people: list[str] | None = None,
    validation_people: list[str] | None = None,
    force: bool = False,
) -> str:
    """Import a download into ``out`` and return a summary to print.

    Parameters
    ----------
    dataset : str
        A key of ``SOURCES``.
    source : path
        The unpacked folder or the zip file, as downloaded; one folder around it does not matter.
    out : path
        ``data/<dataset>`` by default. It appears complete or not at all.
    test_people, validation_people : list of str
        Replace the usual split, for example for cross-validation.
    force : bool
        Replace an earlier import in ``out``.

    Raises
    ------
    SourceError
        With every problem of the download; nothing has been written then.
    """
    if dataset not in SOURCES:
        raise SourceError(f"dataset {dataset!r} is unknown; expected one of {', '.join(SOURCES)}.")
    entry, out = SOURCES[dataset], Path(out or Path("data") / dataset)
    source = Path(source)
    _check_target(out, source, force)
    with _unpacked(source) as folder:
        photographs = find_photographs(entry, folder, source)
        split, why = split_people(entry, photographs, test_people, validation_people)
        _check_pixels(photographs, folder)
        with _replacing(out) as temporary:
            _write(photographs, split, temporary)
            rows = [(p.name, p.person) for p in photographs]
            _write_csv(temporary / "people.csv", ("name", "person"), rows)
            summary = _summary(entry, photographs, split, why)
            (temporary / "SOURCE.md").write_text(
                _source_page(entry, source, folder, photographs, summary), encoding="utf-8"
            )
            files = sorted(f for f in temporary.rglob("*") if f.is_file())
            sums = [(f.relative_to(temporary).as_posix(), _sha256(f)) for f in files]
            _write_csv(temporary / "checksums.csv", ("file", "sha256"), sums)
    return f"{summary}\nWritten to {out}"


def find_photographs(entry: Source, folder: Path, source: Path) -> list[Photograph]:
    """The photographs of a download by name, or a SourceError that lists what is missing."""
    roots = [folder, *sorted(f for f in folder.iterdir() if f.is_dir())]
    matches = {root: _matches(entry, root) for root in roots}
    root = max(roots, key=lambda r: len(matches[r]))
    if not matches[root]:
        example = sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*.*"))[:3]
        raise SourceError(
            f"{source}: no photograph of {entry.title}, whose paths match {entry.image}. Found "
            f"{', '.join(example) or 'no files'}. Check the dataset's name and the download."
        )
    photographs, missing = [], []
    for match in matches[root]:
        groups = match.groupdict()
        paths = [
            root / getattr(entry, kind).format(**groups) if getattr(entry, kind) else None
            for kind in ("vessels", "fov", "second")
        ]
        missing += [
            f"{path.relative_to(folder).as_posix()} is missing (it belongs to {match.group()})"
            for path in paths
            if path and not path.is_file()
        ]
        image = root / match.group()
        photographs.append(Photograph(groups["name"], groups["person"], image, *paths))
    _raise_all(missing)
    return photographs


def split_people(
    entry: Source,
    photographs: list[Photograph],
    test: list[str] | None = None,
    validation: list[str] | None = None,
) -> tuple[dict[str, str], str]:
    """Which split each person is in, and the reason in words.

    A complete download gets the usual test people, a part of it the last fifth of the people
    present. Validation people are the last tenth of the others.
    """
    people = sorted({p.person for p in photographs})
    for option, wanted in (("--test-people", test), ("--validation-people", validation)):
        if unknown := sorted(set(wanted or ()) - set(people)):
            raise SourceError(
                f"{option}: no {', '.join(unknown)} in this download; it has {', '.join(people)}."
            )

    if test:
        why = "test people chosen on the command line"
    elif len(photographs) == entry.n_images:
        test = [p for p in people if int(p) in entry.usual_test]
        why = f"the usual split: {entry.usual}"
    else:
        free = [p for p in people if p not in (validation or ())]
        test = free[-max(1, round(0.2 * len(people))) :]
        why = (
            f"only {len(photographs)} of {entry.n_images} photographs are here, so this is not "
            f"the usual split ({entry.usual}) but the last fifth of the people as test"
        )
    if both := sorted(set(test) & set(validation or ())):
        raise SourceError(f"{', '.join(both)} cannot be both test and validation people.")
    rest = [p for p in people if p not in test]
    if validation:
        why += "; validation people chosen on the command line"
    else:
        validation = rest[-max(1, round(0.1 * len(rest))) :]
        why += "; validation is the last tenth of the remaining people"
    split = {p: "validation" if p in validation else "train" for p in rest}
    split |= dict.fromkeys(test, "test")
    if len(set(split.values())) < 3:
        raise SourceError(
            f"{len(people)} people ({', '.join(people)}) leave a split empty; training, "
            "validation and test need at least one person each. Import more, or choose others."
        )
    return split, why


def main(arguments: list[str] | None = None) -> None:
    """The command line of ``make import-data``."""
    parser = argparse.ArgumentParser(prog="python -m retina_utils.sources", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dataset", help=", ".join(SOURCES))
    parser.add_argument("source", help="the download: a folder or a zip file")
    parser.add_argument("--out", help="target folder; default data/<dataset>")
    numbers = {"type": lambda text: re.findall(r"[^,\s]+", text), "metavar": "01,02"}
    parser.add_argument("--test-people", help="instead of the usual test people", **numbers)
    parser.add_argument("--validation-people", help="instead of the default", **numbers)
    parser.add_argument("--force", action="store_true", help="replace an earlier import")
    a = parser.parse_args(arguments)
    try:
        people = a.test_people, a.validation_people
        print(import_data(a.dataset, a.source, a.out, *people, a.force))
    except (SourceError, ImageError) as error:
        sys.exit(f"import-data: {error}")


@contextmanager
def _unpacked(source: Path) -> Iterator[Path]:
    """The folder itself, or a temporary one with the contents of a zip file."""
    if source.is_dir():
        yield source
        return
    if not source.is_file():
        raise SourceError(f"{source}: no such folder or zip file. Download the data set first.")
    with tempfile.TemporaryDirectory() as temporary:
        try:
            with zipfile.ZipFile(source) as archive:
                outside = [n for n in archive.namelist() if not _is_inside(n)]
                _raise_all([f"{source}: {n!r} would be written outside" for n in outside])
                archive.extractall(temporary)
        except UNREADABLE as error:
            raise SourceError(
                f"{source}: not a complete zip file ({error}). Download it again; other archives "
                "have to be unpacked first, then give the folder."
            ) from error
        yield Path(temporary)


def _is_inside(name: str) -> bool:
    """Whether a zip member's name stays below the folder it is unpacked into."""
    parts = name.replace("\\", "/").split("/")
    return not (name.startswith(("/", "\\")) or ".." in parts or ":" in parts[0])


def _matches(entry: Source, root: Path) -> list[re.Match]:
    """Photographs in ``root`` by path; a folder beside them is not searched."""
    names = sorted(f.relative_to(root).as_posix() for f in root.rglob("*") if f.is_file())
    return [match for name in names if (match := re.fullmatch(entry.image, name))]


def _check_pixels(photographs: list[Photograph], folder: Path) -> None:
    """Read every file once; raise one error that lists all that cannot be used."""
    problems = []
    for photograph in photographs:
        try:
            shape = read_photograph(photograph.image).shape[:2]
        except ImageError as error:
            problems.append(str(error))
            continue
        for kind in ("vessels", "fov", "second"):
            if path := getattr(photograph, kind):
                try:
                    found = read_binary(path, "fov" if kind == "fov" else "vessels").shape
                except ImageError as error:
                    problems.append(str(error))
                    continue
                if found != shape:
                    problems.append(
                        f"{path}: {found[1]}x{found[0]} pixels, but {photograph.image.name} has "
                        f"{shape[1]}x{shape[0]}"
                    )
    _raise_all([p.replace(f"{folder}{os.sep}", "") for p in problems])


def _raise_all(problems: list[str]) -> None:
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems)
        raise SourceError(f"{len(problems)} problem(s), nothing was written:{listed}")


def _check_target(out: Path, source: Path, force: bool) -> None:
    """Refuse to overwrite anything but an earlier import, and that only with ``force``."""
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise SourceError(f"{out}: the download itself lies there; choose another --out.")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        if not force:
            raise SourceError(
                f"{out}: exists already. Add --force (make: ARGS=--force) to replace it."
            )
        if not (out / "checksums.csv").is_file() or not (out / "SOURCE.md").is_file():
            raise SourceError(f"{out}: was not made by an import, so --force leaves it alone.")


@contextmanager
def _replacing(out: Path) -> Iterator[Path]:
    """A temporary folder beside ``out`` that takes its place if the block succeeds."""
    temporary, old = (out.with_name(f".{out.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if out.exists():
            out.rename(old)
        temporary.rename(out)
    except BaseException:
        if old.exists():
            old.rename(out)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _write(photographs: list[Photograph], split: dict[str, str], out: Path) -> None:
    """Photographs as they are; annotations and FOVs as 0/255 PNG files."""
    for photograph in photographs:
        folder, name = out / SPLITS[split[photograph.person]], photograph.name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(photograph.image, folder / "images" / photograph.image.name)
        write_png(folder / "masks" / f"{name}_mask.png", read_binary(photograph.vessels))
        write_png(folder / "fov" / f"{name}_fov.png", _fov(photograph))
        if photograph.second:
            write_png(folder / "second" / f"{name}_second.png", read_binary(photograph.second))


def _fov(photograph: Photograph) -> np.ndarray:
    if photograph.fov:
        return read_binary(photograph.fov, "fov")
    try:
        return find_fov(read_photograph(photograph.image))
    except ValueError as error:
        raise SourceError(f"{photograph.image.name}: {error}") from error


def _summary(entry: Source, photographs: list[Photograph], split: dict[str, str], why: str) -> str:
    """One line per split, and the reason for it."""
    lines = [f"{entry.title}: {len(photographs)} photographs of {len(split)} people"]
    for name in SPLITS:
        people = sorted(p for p in split if split[p] == name)
        count = sum(p.person in people for p in photographs)
        lines.append(f"  {name:<10} {count:3d} photographs, people {', '.join(people)}")
    return "\n".join([*lines, f"Split by person: {why}.", f"A person is {entry.people}."])


def _source_page(
    entry: Source, source: Path, folder: Path, photographs: list[Photograph], summary: str
) -> str:
    """The text of SOURCE.md."""
    inputs = sorted({path for p in photographs for path in p[2:] if path})
    lines = "".join(f"{_sha256(f)}  {f.relative_to(folder).as_posix()}\n" for f in inputs)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    archive = f" The archive's own SHA-256 is `{_sha256(source)}`." if source.is_file() else ""
    fov = (
        f"The FOVs are the data set's own (`{entry.fov}`)."
        if entry.fov
        else "The data set has no FOVs; they were found in the photographs (`retina_utils.fov`)."
    )
    second = " A second observer's annotations are in `second/`." if entry.second else ""
    return f"""# {entry.title}

- Origin: {entry.url}
- Please cite: {entry.citation}
- Licence: {entry.licence}

## What was done

Imported from `{source.name}` by `python -m retina_utils.sources`. Photographs are copied byte for
byte; the first observer's annotations in `masks/` and the FOVs in `fov/` are PNG files of 0 and
255. {fov}{second}
`people.csv` says whose photograph each is, `checksums.csv` gives the SHA-256 of every file here.

The import read {len(inputs)} files. The SHA-256 of their list (`sha256  path` a line, by path) is
`{digest}`.{archive}

## Split

```
{summary}
```
"""


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
