"""Official downloads of public data sets -> ``data/<name>/`` in the layout the notebooks read.

    python -m retina_utils.sources chase_db1 CHASEDB1.zip
    python -m retina_utils.sources stare downloads/STARE    # the three tar files lie in it
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
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from retina_utils.archives import ARCHIVE, NOT_READ, SourceError, open_download, raise_all
from retina_utils.fov import find_fov
from retina_utils.images import ImageError, read_binary, read_photograph, write_png
from retina_utils.runs import sha256

SPLITS = {"train": "training", "validation": "validation", "test": "test"}  # split -> folder


class Source(NamedTuple):
    """How a data set is laid out, who made it, and how it is usually split.

    Paths are those inside the download, however it is packed; ``{}`` is filled from the groups
    of ``image``.
    """

    title: str
    n_images: int  # in the complete download
    fov_degrees: int  # the camera's angle of view
    image: str  # pattern of a photograph's path
    vessels: str
    fov: str  # empty: not part of the download, found in the photograph instead
    second: str  # empty: no second observer
    usual_test: str | int  # people of the usual test split: a pattern, or the last so many of all
    usual: str  # that split in words
    people: str  # what tells one person from the next
    url: str
    citation: str
    licence: str
    name: str = "{name}"  # of a photograph once imported
    person: str = "{person}"
    archives: tuple[str, ...] = ()  # names of archives that the download may consist of
    lacks: str = ""  # pattern of paths that some downloads lack
    wrong: str = ""  # pattern of names whose annotation is known to be wrong
    blank: str = ""  # pattern of names whose annotation may be blank


SOURCES = {
    "chase_db1": Source(
        title="CHASE_DB1",
        n_images=28,
        fov_degrees=30,
        image=r"(?P<name>Image_(?P<person>\d\d)[LR])\.jpg",
        vessels="{name}_1stHO.png",
        fov="",
        second="{name}_2ndHO.png",
        usual_test="1[1-4]",
        usual="first 20 photographs, children 01-10, and last 8, children 11-14",
        people="the two digits of Image_01L: both eyes of a child",
        url="https://blogs.kingston.ac.uk/retinal/chasedb1/",
        citation=(
            "M. M. Fraz et al., An ensemble classification-based approach applied to retinal blood "
            "vessel segmentation, IEEE Transactions on Biomedical Engineering 59(9), 2012."
        ),
        licence="CC BY 4.0, Kingston University London",
    ),
    "drive": Source(
        title="DRIVE",
        n_images=40,
        fov_degrees=45,
        image=r"(?P<set>training|test)/images/(?P<name>(?P<person>\d\d)_(?:training|test))\.tif",
        vessels="{set}/1st_manual/{person}_manual1.gif",
        fov="{set}/mask/{name}_mask.gif",
        second="{set}/2nd_manual/{person}_manual2.gif",
        usual_test=r"0\d|1\d|20",
        usual="the 20 photographs in training/, 21-40, and the 20 in test/, 01-20",
        people="one photograph, known by its number",
        url="https://drive.grand-challenge.org/",
        citation=(
            "J. Staal et al., Ridge-based vessel segmentation in color images of the retina, "
            "IEEE Transactions on Medical Imaging 23(4), 2004."
        ),
        licence="for research, not to be redistributed: do not pass on the imported folder either",
        archives=("training", "test"),
        lacks=r"test/1st_manual/.*|\w+/2nd_manual/.*",
    ),
    "fives": Source(
        title="FIVES",
        n_images=800,
        fov_degrees=50,
        image=r"(?P<set>train|test)/Original/(?P<file>\d+_[ADGN])\.png",
        vessels="{set}/Ground truth/{file}.png",
        fov="",
        second="",
        usual_test="test_.*",
        usual="the 600 photographs in train/ and the 200 in test/",
        people=(
            "one photograph, as the download does not say which are of one person; 1_A in train/ "
            "and 1_A in test/ are different people, so they are called train_1_A and test_1_A"
        ),
        url="https://doi.org/10.6084/m9.figshare.19688169",
        citation=(
            "K. Jin et al., FIVES: A fundus image dataset for artificial intelligence based vessel "
            "segmentation, Scientific Data 9, 475, 2022."
        ),
        licence="CC BY 4.0, Second Affiliated Hospital of Zhejiang University",
        name="{set}_{file}",
        person="{set}_{file}",
        wrong=r"\w+_174_D",
        blank=r".*",  # 447_G and 448_G are, in the download of 2022
    ),
    "hrf": Source(
        title="HRF (High-Resolution Fundus)",
        n_images=45,
        fov_degrees=60,
        image=r"images/(?P<name>(?P<person>\d\d)_(?:h|g|dr))\.(?i:jpg)",
        vessels="manual1/{name}.tif",
        fov="mask/{name}_mask.tif",
        second="",
        usual_test=r"0[6-9]|1\d",
        usual="numbers 01-05 and 06-15",
        people="the number: 01_h, 01_g and 01_dr stay together, which is the cautious reading",
        url="https://www5.cs.fau.de/research/data/fundus-images/",
        citation=(
            "A. Budai et al., Robust vessel segmentation in fundus images, "
            "International Journal of Biomedical Imaging 2013, article 154860."
        ),
        licence="CC BY 4.0, Friedrich-Alexander-Universität Erlangen-Nürnberg",
    ),
    "stare": Source(
        title="STARE",
        n_images=20,
        fov_degrees=35,
        image=r"stare-images/(?P<name>im(?P<person>\d{4}))\.ppm",
        vessels="labels-ah/{name}.ah.ppm",
        fov="",
        second="labels-vk/{name}.vk.ppm",
        usual_test=10,
        usual=(
            "first 10 photographs and last 10 by number; leave-one-out over all 20 is usual too, "
            "so say which when you compare"
        ),
        people="one photograph, as the download does not say which are of one person",
        url="https://cecas.clemson.edu/~ahoover/stare/",
        citation=(
            "A. Hoover, V. Kouznetsova and M. Goldbaum, Locating blood vessels in retinal images "
            "by piecewise threshold probing of a matched filter response, IEEE Transactions on "
            "Medical Imaging 19(3), 2000."
        ),
        licence="none stated; ask before passing it on",
        archives=("stare-images", "labels-ah", "labels-vk"),
    ),
}


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
        The unpacked folder, or the zip or tar file as downloaded; folders around it do not matter.
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
    with open_download(source, entry.archives) as files:
        files = _without_folders_around(entry, files, source)
        found, left_out = find_photographs(entry, files)
        photographs, blank = _check_pixels(entry, found, files)
        left_out |= blank
        split, why = split_people(entry, photographs, test_people, validation_people)
        with _replacing(out) as temporary:
            _write(photographs, split, temporary)
            rows = [(p.name, p.person, split[p.person]) for p in photographs]
            _write_csv(temporary / "people.csv", ("name", "person", "split"), rows)
            rows = [(p.name, entry.fov_degrees) for p in photographs]
            _write_csv(temporary / "camera.csv", ("name", "fov_degrees"), rows)
            summary = _summary(entry, photographs, split, why, left_out)
            (temporary / "SOURCE.md").write_text(
                _source_page(entry, source, files, photographs, summary), encoding="utf-8"
            )
            written = sorted(f for f in temporary.rglob("*") if f.is_file())
            sums = [(f.relative_to(temporary).as_posix(), sha256(f)) for f in written]
            _write_csv(temporary / "checksums.csv", ("file", "sha256"), sums)
    return f"{summary}\nWritten to {out}"


def find_photographs(
    entry: Source, files: dict[str, Path]
) -> tuple[list[Photograph], dict[str, str]]:
    """The photographs of a download that can be used, and why others are left out, by name.

    ``files`` are paths by name, without folders around the download. Raises a SourceError that
    lists everything missing.
    """
    photographs, left_out, missing = [], {}, []
    for match in filter(None, (re.fullmatch(entry.image, name) for name in sorted(files))):
        groups = match.groupdict()
        name, person = entry.name.format(**groups), entry.person.format(**groups)
        wanted = [
            getattr(entry, kind) and getattr(entry, kind).format(**groups)
            for kind in ("vessels", "fov", "second")
        ]
        absent = [w for w in wanted if w and w not in files and not re.fullmatch(entry.lacks, w)]
        missing += [f"{w} is missing (it belongs to {match.group()})" for w in absent]
        if re.fullmatch(entry.wrong, name):
            left_out[name] = "known to have a wrong annotation"
        elif wanted[0] not in files:
            left_out[name] = "without annotation in this download, which a score needs"
        else:
            paths = [files.get(w) for w in wanted]
            photographs.append(Photograph(name, person, files[match.group()], *paths))
    raise_all(missing)
    return photographs, left_out


def split_people(
    entry: Source,
    photographs: list[Photograph],
    test: list[str] | None = None,
    validation: list[str] | None = None,
) -> tuple[dict[str, str], str]:
    """Which split each person is in, and the reason in words.

    The usual test people are the test split if any of them is here, else the last fifth of the
    people. Validation people are every tenth of the others.
    """
    people = sorted({p.person for p in photographs})
    for option, wanted in (("--test-people", test), ("--validation-people", validation)):
        if unknown := sorted(set(wanted or ()) - set(people)):
            raise SourceError(
                f"{option}: no {', '.join(unknown)} in this download; it has {_listed(people)}."
            )

    usual = _usual_test(entry, people, len(photographs) == entry.n_images)
    part = f"only {len(photographs)} of {entry.n_images} photographs are imported"
    if test:
        why = "test people chosen on the command line"
    elif usual and len(people) - len(usual) > 1:
        test, why = usual, f"the usual split: {entry.usual}"
        if len(photographs) < entry.n_images:
            why += f"; {part}"
    else:
        free = [p for p in people if p not in (validation or ())]
        test = free[-max(1, round(0.2 * len(people))) :]
        why = (
            f"{part}, so this is not the usual split ({entry.usual}) but the last fifth of the "
            f"people as test: {_listed(test)}"
        )
    if both := sorted(set(test) & set(validation or ())):
        raise SourceError(f"{', '.join(both)} cannot be both test and validation people.")
    rest = [p for p in people if p not in test]
    if validation:
        why += "; validation people chosen on the command line"
    else:
        count = max(1, round(0.1 * len(rest)))
        validation = [rest[len(rest) * (k + 1) // count - 1] for k in range(count) if rest]
        why += "; validation is every tenth of the remaining people"
    split = {p: "validation" if p in validation else "train" for p in rest}
    split |= dict.fromkeys(test, "test")
    if len(set(split.values())) < 3:
        raise SourceError(
            f"{len(people)} people ({_listed(people)}) leave a split empty; training, "
            "validation and test need at least one person each. Import more, or choose others."
        )
    return split, why


def _usual_test(entry: Source, people: list[str], complete: bool) -> list[str]:
    """Those of ``people`` that are in the usual test split."""
    if isinstance(entry.usual_test, int):
        return people[-entry.usual_test :] if complete else []
    return [p for p in people if re.fullmatch(entry.usual_test, p)]


def main(arguments: list[str] | None = None) -> None:
    """The command line of ``make import-data``."""
    parser = argparse.ArgumentParser(prog="python -m retina_utils.sources", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("dataset", help=", ".join(SOURCES))
    parser.add_argument("source", help="the download: a folder, or a zip or tar file")
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


def _without_folders_around(entry: Source, files: dict[str, Path], source: Path) -> dict[str, Path]:
    """The files of the folder that holds most photographs, named from there."""
    pattern = re.compile(f"(?P<_around>(?:.*/)?){entry.image}")
    counts = Counter(m["_around"] for name in files if (m := pattern.fullmatch(name)))
    if not counts:
        packed = next((n for n in files if ARCHIVE.fullmatch(n) or NOT_READ.fullmatch(n)), None)
        raise SourceError(
            f"{source}: no photograph of {entry.title}, whose paths match {entry.image}. Found "
            f"{', '.join(sorted(files)[:3]) or 'no files'}. "
            + (f"If they are in {packed}, unpack it first, then give the folder. " * bool(packed))
            + "Check the dataset's name and the download."
        )
    around = max(sorted(counts), key=counts.get)
    return {n.removeprefix(around): path for n, path in files.items() if n.startswith(around)}


def _check_pixels(
    entry: Source, photographs: list[Photograph], files: dict[str, Path]
) -> tuple[list[Photograph], dict[str, str]]:
    """Read every file once; the photographs that can be used, and why others are left out.

    Raises one error that lists all files that cannot be used.
    """
    kept, left_out, problems = [], {}, []
    names = {path: name for name, path in files.items()}
    for photograph in tqdm(photographs, "checking", disable=None, leave=False):
        if re.fullmatch(entry.blank, photograph.name) and _is_blank(photograph.vessels):
            left_out[photograph.name] = "with a blank annotation"
        else:
            kept.append(photograph)
            problems += _pixel_problems(photograph, names)
    raise_all(problems)
    return kept, left_out


def _pixel_problems(photograph: Photograph, names: dict[Path, str]) -> list[str]:
    """What is wrong with the pixels of one photograph's files, by their names in the download."""
    path, problems = photograph.image, []
    try:
        height, width = read_photograph(path).shape[:2]
    except ImageError as error:
        return [str(error).replace(str(path), names[path])]
    for kind in ("vessels", "fov", "second"):
        if path := getattr(photograph, kind):
            try:
                found = read_binary(path, "fov" if kind == "fov" else "vessels").shape
            except ImageError as error:
                problems.append(str(error).replace(str(path), names[path]))
                continue
            if found != (height, width):
                problems.append(
                    f"{names[path]}: {found[1]}x{found[0]} pixels, but "
                    f"{names[photograph.image]} has {width}x{height}"
                )
    return problems


def _is_blank(path: Path) -> bool:
    """Whether every pixel of an image has one value; an unreadable one is not blank."""
    try:
        return not np.ptp(read_photograph(path))
    except ImageError:
        return False


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
    for photograph in tqdm(photographs, "importing", disable=None, leave=False):
        folder, name = out / SPLITS[split[photograph.person]], photograph.name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        image = folder / "images" / f"{name}{photograph.image.suffix}"
        shutil.copyfile(photograph.image, image)
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


def _summary(
    entry: Source,
    photographs: list[Photograph],
    split: dict[str, str],
    why: str,
    left_out: dict[str, str],
) -> str:
    """One line per split, the reason for it, and what was left out."""
    lines = [f"{entry.title}: {len(photographs)} photographs of {len(split)} people"]
    for name in SPLITS:
        people = sorted(p for p in split if split[p] == name)
        count = sum(split[p.person] == name for p in photographs)
        lines.append(f"  {name:<10} {count:3d} photographs, people {_listed(people)}")
    lines += [f"Split by person: {why}.", f"A person is {entry.people}."]
    for reason in sorted(set(left_out.values())):
        names = [name for name in sorted(left_out) if left_out[name] == reason]
        count = "1 photograph" if len(names) == 1 else f"{len(names)} photographs"
        lines.append(f"Left out, {count} {reason}: {', '.join(names)}.")
    return "\n".join(lines)


def _listed(people: list[str]) -> str:
    """Names in a line; of more than 40 only the ends, as people.csv has them all."""
    if len(people) > 40:
        return f"{', '.join(people[:3])} ... {people[-1]} ({len(people)}, see people.csv)"
    return ", ".join(people)


def _source_page(
    entry: Source,
    source: Path,
    files: dict[str, Path],
    photographs: list[Photograph],
    summary: str,
) -> str:
    """The text of SOURCE.md."""
    names = {path: name for name, path in files.items()}
    inputs = sorted({names[path] for p in photographs for path in p[2:] if path})
    lines = "".join(f"{sha256(files[name])}  {name}\n" for name in inputs)
    digest = hashlib.sha256(lines.encode()).hexdigest()
    archive = f" The archive's own SHA-256 is `{sha256(source)}`." if source.is_file() else ""
    fov = (
        f"The FOVs are the data set's own (`{entry.fov}`)."
        if entry.fov
        else "The data set has no FOVs; they were found in the photographs (`retina_utils.fov`)."
    )
    count = sum(p.second is not None for p in photographs)
    second = f"A second observer's annotations of {count} are in `second/`.\n" if count else ""
    return f"""# {entry.title}

- Origin: {entry.url}
- Please cite: {entry.citation}
- Licence: {entry.licence}

## What was done

Imported from `{source.name}` by `python -m retina_utils.sources`. Photographs are copied byte for
byte; the first observer's annotations in `masks/` and the FOVs in `fov/` are PNG files of 0 and
255. {fov}
{second}`people.csv` says whose photograph each is and in which split, `camera.csv` the camera's
angle of view ({entry.fov_degrees} degrees), `checksums.csv` the SHA-256 of every file here.

The import read {len(inputs)} files. The SHA-256 of their list (`sha256  path` a line, by path) is
`{digest}`.{archive}

## Split

```
{summary}
```
"""


def _write_csv(path: Path, header: tuple[str, ...], rows: list[tuple]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


if __name__ == "__main__":
    main()
