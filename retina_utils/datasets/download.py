"""Official downloads of public data sets -> ``data/<name>/`` in the layout the notebooks read.

Everything is checked before anything is written, photographs are copied byte for byte, and the
split is by person, never by photograph: both eyes of one child stay together.
"""

import hashlib
import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from tqdm import tqdm

from retina_utils import RetinaError
from retina_utils.data import FILES, SPLIT_FOLDERS, SPLITS, Pair, check_pair, load_sample
from retina_utils.datasets.archives import ARCHIVE, NOT_READ, open_download, raise_all
from retina_utils.datasets.catalogue import SOURCES, Source, photographs
from retina_utils.images import ImageError, read_binary, read_photograph, write_png
from retina_utils.machine.files import render, sha256, write_csv, write_text


def import_data(
    dataset: str,
    source: str | Path,
    out: str | Path | None = None,
    *,
    test_people: Collection[str] = (),
    validation_people: Collection[str] = (),
    force: bool = False,
) -> str:
    """Import a download into ``out`` and return a summary to print.

    ``dataset`` is a key of ``SOURCES``; ``source`` the unpacked folder, or the zip or tar file as
    downloaded, and folders around it do not matter; ``out`` is ``data/<dataset>`` by default, and
    only with ``force`` takes the place of an earlier import. ``test_people`` and
    ``validation_people`` replace the usual split, for example for cross-validation.

    A RetinaError lists every problem of the download; ``out`` is then as it was before.
    """
    if dataset not in SOURCES:
        raise RetinaError(f"dataset {dataset!r} is unknown; expected one of {', '.join(SOURCES)}.")
    entry, source, out = SOURCES[dataset], Path(source), Path(out or Path("data") / dataset)
    _check_target(out, source, force)
    with open_download(source, entry.archives) as files:
        files = _without_folders_around(entry, files, source)
        pairs, left_out = find_pairs(entry, files)
        _check_pixels(pairs, files)
        pairs, why = split_people(entry, pairs, test_people, validation_people)
        summary = _summary(entry, pairs, why, left_out)
        with _replacing(out) as temporary:
            _write_images(pairs, temporary)
            people = [{"name": p.name, "person": p.person, "split": p.split} for p in pairs]
            write_csv(temporary / "people.csv", people)
            write_text(temporary / "SOURCE.md", _source_page(entry, source, files, pairs, summary))
            written = sorted(f for f in temporary.rglob("*") if f.is_file())
            names = [f.relative_to(temporary).as_posix() for f in written]
            sums = [{"file": n, "sha256": sha256(temporary / n)} for n in names]
            write_csv(temporary / "checksums.csv", sums)
    return f"{summary}\nWritten to {out}"


def find_pairs(entry: Source, files: dict[str, Path]) -> tuple[list[Pair], dict[str, str]]:
    """The pairs of a download that can be used, in no split yet, and {name: why left out}.

    A RetinaError lists everything that is missing.
    """
    pairs, left_out, missing, names = [], {}, [], set()
    matches = [m for name in sorted(files) if (m := _matches(entry.image, name))]
    alike = defaultdict(list)
    for name in files:
        alike[_folded(name)].append(name)
    for match in tqdm(matches, "finding", disable=None, leave=False):
        groups = match.groupdict()
        name, person = entry.name.format(**groups), entry.person.format(**groups)
        wanted = [text.format(**groups) for text in (entry.vessels, entry.fov, entry.second)]
        found = [[w] if w in files else alike.get(_folded(w), []) for w in wanted]
        for text, hits in zip(wanted, found, strict=True):
            if text and not hits and not _matches(entry.lacks, text):
                missing.append(f"{text} is missing (it belongs to {match.group()})")
            if len(hits) > 1:
                missing.append(f"{' and '.join(hits)}: expected one of them ({text})")
        if name.lower() in names:
            missing.append(f"{match.group()}: another photograph is called {name}, too")
        names.add(name.lower())
        vessels, fov, second = (files[hits[0]] if hits else None for hits in found)
        if _matches(entry.wrong, name):
            left_out[name] = "known to have a wrong annotation"
        elif not vessels:
            left_out[name] = "without annotation in this download, which a score needs"
        elif _matches(entry.blank, name) and _is_blank(vessels):
            left_out[name] = "with a blank annotation"
        else:
            pairs.append(Pair("", name, person, files[match.group()], vessels, fov, second))
    raise_all(missing)
    return pairs, left_out


def split_people(
    entry: Source, pairs: list[Pair], test: Collection[str] = (), validation: Collection[str] = ()
) -> tuple[list[Pair], str]:
    """The pairs with their splits, and the reason for these in words.

    The usual test people are the test split if any of them is here, else the last fifth of the
    people. Validation people are every tenth of the others.
    """
    people = sorted({pair.person for pair in pairs})
    for option, wanted in (("--test-people", test), ("--validation-people", validation)):
        if unknown := sorted(set(wanted) - set(people)):
            raise RetinaError(
                f"{option}: no {', '.join(unknown)} in this download; it has {_listed(people)}."
            )
    if isinstance(entry.usual_test, str):
        usual = [p for p in people if _matches(entry.usual_test, p)]
    else:
        usual = people[-entry.usual_test :] if len(pairs) == entry.n_images else []
    part = f"only {len(pairs)} of {entry.n_images} photographs are imported"
    if test:
        why = "test people chosen on the command line"
    elif usual and len(people) - len(usual) > 1:
        test, why = usual, f"the usual split: {entry.usual}"
        why += f"; {part}" if len(pairs) < entry.n_images else ""
    else:
        free = [p for p in people if p not in validation]
        test = free[-max(1, round(0.2 * len(people))) :]
        why = (
            f"{part}, so this is not the usual split ({entry.usual}) but the last fifth of the "
            f"people as test: {_listed(test)}"
        )
    if both := sorted(set(test) & set(validation)):
        raise RetinaError(f"{', '.join(both)} cannot be both test and validation people.")
    rest = [p for p in people if p not in test]
    if validation:
        why += "; validation people chosen on the command line"
    else:
        count = max(1, round(0.1 * len(rest)))
        validation = [rest[len(rest) * (k + 1) // count - 1] for k in range(count) if rest]
        why += "; validation is every tenth of the remaining people"
    split = dict.fromkeys(people, "train")
    split |= dict.fromkeys(validation, "validation") | dict.fromkeys(test, "test")
    if len(set(split.values())) < 3:
        raise RetinaError(
            f"{len(people)} people ({_listed(people)}) leave a split empty; training, "
            "validation and test need at least one person each. Import more, or choose others."
        )
    return [pair._replace(split=split[pair.person]) for pair in pairs], why


def _matches(pattern: str, text: str) -> re.Match | None:
    """Whether a name fits, be it in capitals: the data sets are passed on as .JPG as well."""
    return re.fullmatch(pattern, text, re.IGNORECASE)


def _folded(name: str) -> str:
    """A path whatever its case and spaces: FIVES has ``Ground truth``, copies ``ground_truth``."""
    return re.sub(r"[\s_]", "", name.lower())


def _without_folders_around(entry: Source, files: dict[str, Path], source: Path) -> dict[str, Path]:
    """The files of the folder that holds most photographs, named from there."""
    pattern = re.compile(f"(?P<_around>(?:.*/)?){entry.image}", re.IGNORECASE)
    counts = Counter(m["_around"] for name in files if (m := pattern.fullmatch(name)))
    if not counts:
        packed = next((n for n in files if ARCHIVE.fullmatch(n) or NOT_READ.fullmatch(n)), None)
        raise RetinaError(
            f"{source}: no photograph of {entry.title}, whose paths match {entry.image}. Found "
            f"{', '.join(sorted(files)[:3]) or 'no files'}. "
            + (f"If they are in {packed}, unpack it first, then give the folder. " * bool(packed))
            + "Check the dataset's name and the download."
        )
    around = max(sorted(counts), key=counts.get)
    return {n.removeprefix(around): path for n, path in files.items() if n.startswith(around)}


def _check_pixels(pairs: list[Pair], files: dict[str, Path]) -> None:
    """Read every file once; one error lists all that cannot be used, by their names inside."""
    names, problems = {path: name for name, path in files.items()}, []
    for pair in tqdm(pairs, "checking", disable=None, leave=False):
        found, _ = check_pair(pair)
        for path in _files_of(pair):
            found = [problem.replace(str(path), names[path]) for problem in found]
        problems += found
    raise_all(problems)


def _files_of(pair: Pair) -> list[Path]:
    return [path for kind in FILES if (path := getattr(pair, kind))]


def _is_blank(path: Path) -> bool:
    """Whether every pixel of an image has one value; an unreadable one is not blank."""
    try:
        return not np.ptp(read_photograph(path))
    except ImageError:
        return False


def _check_target(out: Path, source: Path, force: bool) -> None:
    """Refuse to overwrite anything but an earlier import, and that only with ``force``."""
    if out.resolve() in (source.resolve(), *source.resolve().parents):
        raise RetinaError(f"{out}: the download itself lies there; choose another --out.")
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        if not force:
            raise RetinaError(
                f"{out}: exists already. Add --force (make: ARGS=--force) to replace it."
            )
        if not (out / "checksums.csv").is_file() or not (out / "SOURCE.md").is_file():
            raise RetinaError(f"{out}: was not made by an import, so --force leaves it alone.")


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


def _write_images(pairs: list[Pair], out: Path) -> None:
    """Photographs as they are; annotations and FOVs as 0/255 PNG files."""
    problems = []
    for pair in tqdm(pairs, "importing", disable=None, leave=False):
        folder, name = out / SPLIT_FOLDERS[pair.split][0], pair.name
        (folder / "images").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pair.image, folder / "images" / f"{name}{pair.image.suffix}")
        try:
            sample = load_sample(pair)
        except ValueError as error:
            problems.append(f"{pair.image.name}: {error}")
            continue
        write_png(folder / "masks" / f"{name}_mask.png", sample.vessels)
        write_png(folder / "fov" / f"{name}_fov.png", sample.fov)
        if pair.second:
            write_png(folder / "second" / f"{name}_second.png", read_binary(pair.second))
    raise_all(problems)


def _summary(entry: Source, pairs: list[Pair], why: str, left_out: dict[str, str]) -> str:
    """One line per split, the reason for it, and what was left out."""
    lines = [f"{entry.title}: {len(pairs)} photographs of {len({p.person for p in pairs})} people"]
    for split in SPLITS:
        people = [pair.person for pair in pairs if pair.split == split]
        listed = _listed(sorted(set(people)))
        lines.append(f"  {split:<10} {len(people):3d} photographs, people {listed}")
    lines += [f"Split by person: {why}.", f"A person is {entry.people}."]
    for reason in sorted(set(left_out.values())):
        names = [name for name in sorted(left_out) if left_out[name] == reason]
        lines.append(f"Left out, {photographs(len(names))} {reason}: {', '.join(names)}.")
    return "\n".join(lines)


def _listed(people: list[str]) -> str:
    """Names in a line; of more than 40 only the ends, as people.csv has them all."""
    if len(people) > 40:
        return f"{', '.join(people[:3])} ... {people[-1]} ({len(people)}, see people.csv)"
    return ", ".join(people)


def _source_page(
    entry: Source, source: Path, files: dict[str, Path], pairs: list[Pair], summary: str
) -> str:
    """The text of SOURCE.md."""
    used = {path for pair in pairs for path in _files_of(pair)}
    lines = [f"{sha256(path)}  {name}\n" for name, path in sorted(files.items()) if path in used]
    return render(
        Path(__file__).with_name("source.md.j2"),
        entry=entry,
        source=source,
        summary=summary,
        twice=sum(pair.second is not None for pair in pairs),
        lines=lines,
        digest=hashlib.sha256("".join(lines).encode()).hexdigest(),
        archive=sha256(source) if source.is_file() else "",
    )
