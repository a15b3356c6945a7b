"""Who took part: a checkpoint's ledger of photographs, asked wherever its network gives a score.

Of each photograph it keeps a digest of the pixels and a sketch, 512 bits, by which a copy is known
whatever its name or format, also recompressed or half as large. It holds no picture, no name and no
path: a person is a number or, in a public data set, a digest.

A sketch holds the signs of random projections (Charikar, STOC 2002). Measured on 52 photographs
(CHASE_DB1, HRF, STARE, data/tiny) and copies of them as JPEG of quality 30 and 50 and at half size:
a copy shares .84 and more of the bits, another photograph, of the same person too, at most .68.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from retina_utils import RetinaError
from retina_utils.checkpoint import Network
from retina_utils.data import Pair, Splits, load_sample
from retina_utils.datasets.catalogue import SOURCES, dataset_of, trained_on
from retina_utils.intake import likeness
from retina_utils.intake.checks import SIZE, SMALLEST, digest
from retina_utils.intake.listing import stem_of
from retina_utils.intake.people import person_of

ROLES = ("trained on", "chose the threshold", "chose the recipe")  # the worst first; a bit each
COPY, NONE, UNKNOWN = " (a copy)", "none", "not known"
BITS, ALIKE = 512, 0.75  # of a sketch; the share of them that tells a copy
ENTRY = np.dtype(
    [
        ("pixels", "V16"),  # the digest
        ("sketch", "V64"),
        ("person", "<u8"),
        ("set", "u1"),  # place in the list of titles
        ("roles", "u1"),
    ]
)


class Look(NamedTuple):
    """What a photograph is known by."""

    pixels: bytes
    sketch: bytes  # zeros where it is too plain or too small


class TookPart(NamedTuple):
    """What the photographs of a run have been to a network."""

    each: dict[str, dict[str, str]]  # split -> name -> such as "trained on", "camera trained on"
    words: str  # on the test photographs, to stand beside their scores


class Ledger:
    """The photographs of a training: ``entries``, (n,) of ENTRY, and the ``titles`` of their sets.

    The title is "" for photographs of one's own.
    """

    def __init__(self, entries: np.ndarray, titles: Sequence[str]):
        self.entries, self.titles = entries, titles

    def __reduce__(self):  # to other processes without what can be computed there
        return Ledger, (self.entries, self.titles)

    @classmethod
    def of(cls, network: Network) -> "Ledger | None":
        """That of a network; None if its file has none, a RetinaError if it is damaged."""
        kept = network.facts.get("ledger")
        return None if kept is None else cls.of_facts(kept)

    @classmethod
    def of_facts(cls, kept: dict) -> "Ledger":
        """What :func:`write_down` gave, also by way of a file; a RetinaError if it is damaged."""
        try:
            rows, titles = np.ascontiguousarray(kept["photographs"].numpy()), kept["titles"]
            entries = rows.view(ENTRY)[:, 0]
            roles, fits = entries["roles"], all(entries["set"] < len(titles))
            if rows.dtype != np.uint8 or not fits or not all((roles > 0) & (roles < 8)):
                raise ValueError("expected bytes of photographs, and the titles of their sets")
            return cls(entries, ["".join(title) for title in titles])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError) as error:
            raise RetinaError(
                "ledger: damaged, or from another version of this code. Copy the checkpoint again, "
                "or train anew."
            ) from error

    @property
    def facts(self) -> dict:
        """As a checkpoint keeps it."""
        rows = self.entries.view(np.uint8).reshape(len(self.entries), ENTRY.itemsize)
        return {"titles": list(self.titles), "photographs": torch.from_numpy(rows.copy())}

    @property
    def digest(self) -> str:
        return blake2b(self.entries.tobytes(), digest_size=8).hexdigest()

    @cached_property
    def _places(self) -> dict[bytes, int]:
        return {entry.tobytes(): place for place, entry in enumerate(self.entries["pixels"])}

    @cached_property
    def _signs(self) -> np.ndarray:
        return _signs_of(self.entries["sketch"].tobytes())

    def find(self, looks: Sequence[Look]) -> list[tuple[int, str] | None]:
        """For each photograph its place here and COPY or "", or None."""
        found = []
        for start in range(0, len(looks), 256):
            some = looks[start : start + 256]
            alike = _signs_of(b"".join(look.sketch for look in some)) @ self._signs.T / BITS
            for look, row in zip(some, alike, strict=True):
                place = self._places.get(look.pixels)
                if place is not None:
                    found.append((place, ""))
                elif any(look.sketch) and row.max(initial=-1) > 2 * ALIKE - 1:
                    found.append((int(row.argmax()), COPY))
                else:
                    found.append(None)
        return found

    def seen(self, image: np.ndarray, fov: np.ndarray) -> str:
        """What a photograph, (H, W, 3) uint8 with its FOV, (H, W) bool, has been; "" if nothing."""
        (found,) = self.find([look_at(image, fov)])
        return _word(self.entries["roles"][found[0]]) + found[1] if found else ""

    def compare(self, pairs: Sequence[Pair]) -> list[str]:
        """What each photograph, or else its person, or else its camera (data set) has been.

        People and cameras of one's own sets are known only by other photographs in ``pairs`` that
        took part: give those of the whole folder.
        """
        found = self.find(look_at_all(pairs))
        told = {(root_of(p), p.person) for p in pairs if p.person != p.name}
        people, cameras = defaultdict(int), defaultdict(int)
        for entry in self.entries:
            title, roles = self.titles[entry["set"]], int(entry["roles"])
            people[title, int(entry["person"])] |= roles
            cameras[title] |= roles
        keys = []
        for pair, here in zip(pairs, found, strict=True):
            title, root = title_of(pair), root_of(pair)
            person = (title, _number(title, pair.person)) if title else (root, pair.person)
            if not title and person not in told:
                person += (pair.split,)  # a bare number may be another person in every split
            keys.append((person, title or root))
            if here:
                people[person] |= int(self.entries["roles"][here[0]])
                cameras[title or root] |= int(self.entries["roles"][here[0]])
        words = []
        for here, (person, camera) in zip(found, keys, strict=True):
            if here:
                words.append(_word(self.entries["roles"][here[0]]) + here[1])
            elif people.get(person):
                words.append(f"person {_word(people[person])}")
            elif cameras.get(camera):
                words.append(f"camera {_word(cameras[camera])}")
            else:  # two sets of one's own may share people
                words.append(UNKNOWN if isinstance(camera, Path) and "" in self.titles else NONE)
        return words


# --- Writing it -----------------------------------------------------------------------------------


def write_down(
    *, training: Sequence[Pair], threshold: Sequence[Pair], others: Sequence[Pair] = ()
) -> dict:
    """The ledger of a training, as the ``ledger`` among the facts of its network.

    Of all given, ``others`` too, those that chose the recipes of the presets are noted.
    """
    roles = defaultdict(int)
    recipe = filter(_chose_recipe, _all(training, others))
    for bit, pairs in enumerate((training, threshold, recipe)):  # in the order of ROLES
        for pair in pairs:
            roles[pair] |= 1 << bit
    titles, numbers, rows = [], {}, []
    for (pair, role), look in zip(roles.items(), look_at_all(list(roles)), strict=True):
        title = title_of(pair)
        if title not in titles:
            titles.append(title)
        person = numbers.setdefault((root_of(pair), pair.person), len(numbers))
        person = _number(title, pair.person) if title else person
        rows.append((*look, person, titles.index(title), role))
    return Ledger(np.array(rows, ENTRY), titles).facts


def _all(*lists: Iterable[Pair]) -> list[Pair]:
    return [pair for pairs in lists for pair in pairs]


def _chose_recipe(pair: Pair) -> bool:
    """Whether the presets were chosen by how well this person's photographs came out."""
    sources = {entry.title: entry for entry in SOURCES.values()}
    title = title_of(pair)
    return bool(title) and pair.person in sources[title].tuned


# --- Asking it ------------------------------------------------------------------------------------


def took_part(network: Network, splits: Splits) -> TookPart:
    """What all photographs of a run have been to the network that it scores.

    A network that brings no threshold has it chosen by the validation photographs here.
    """
    book, known = Ledger.of(network), trained_on(network)
    pairs = _all(*splits)
    words = book.compare(pairs) if book else [UNKNOWN] * len(pairs)
    each = {split: {} for split in splits._fields}
    for pair, word in zip(pairs, words, strict=True):
        chose = pair.split == "validation" and network.threshold is None
        worse = word.startswith(ROLES[0])
        each[pair.split][pair.name] = ROLES[1] if chose and not worse else word
    if book is None:
        words = "Not known which photographs these weights were trained on: they keep no ledger."
        return TookPart(each, words + (f" They name {known}." if known else ""))
    start = f"These weights were trained on {known}. " if known else ""
    return TookPart(each, start + in_words(list(each["test"].values())))


def in_words(words: Sequence[str]) -> str:
    """What the tested photographs have been, in sentences; loud where their scores are no test."""
    count = Counter(word.removesuffix(COPY) for word in words)
    of = f"of these {len(words)} test photographs"
    aside = (*(f"camera {role}" for role in ROLES), NONE, UNKNOWN)
    met = {word: n for word, n in count.items() if word not in aside}
    if met:
        what = ", ".join(f"{n} {word}" for word, n in met.items())
        loud = any(ROLES[2] not in word for word in met)
        return f"{'THESE SCORES ARE NO TEST: ' * loud}{of[0].upper()}{of[1:]}: {what}."
    people = "" if UNKNOWN in count else " or their people"
    cameras = {
        NONE: "Neither did their camera.",
        UNKNOWN: "Of their people and camera nothing is known.",
    }
    were = {ROLES[0]: f"were {ROLES[0]}"}
    cameras |= {
        f"camera {role}": f"Others of their camera {were.get(role, role)}." for role in ROLES
    }
    last = " ".join(cameras[word] for word in count)
    return f"None {of}{people} took part in training, or chose threshold or recipe. {last}"


def in_short(words: Sequence[str]) -> str:
    """The same for a cell of a table: "camera trained on (14), chose the recipe (6)"."""
    count = Counter(words)
    return ", ".join(f"{k} ({n})" if len(count) > 1 else k for k, n in sorted(count.items()))


def same_people(seen: dict[str, str]) -> list[str]:
    """Of photographs by name, those not seen whose names tell a person of one that was."""
    people = {}
    for name in seen:
        path = Path(name)
        stem = stem_of(path)
        person = person_of(stem)
        people[name] = (path.parent, person) if person != stem else None
    known = {people[name] for name, word in seen.items() if word} - {None}
    return [name for name, word in seen.items() if not word and people[name] in known]


# --- What a photograph is known by ----------------------------------------------------------------


def look_at(image: np.ndarray, fov: np.ndarray) -> Look:
    """Digest and sketch of a photograph, (H, W, 3) uint8, with its FOV, (H, W) bool."""
    pixels, factor = bytes.fromhex(digest(image))[:16], max(1, round(max(image.shape) / SIZE))
    green, inside = (
        np.asarray(Image.fromarray(np.ascontiguousarray(a)).reduce(factor))
        for a in (image[..., 1], fov.astype(np.uint8) * 255)
    )
    if not fov.any() or min(np.ptp(np.nonzero(inside > 127), axis=1), default=0) < SMALLEST:
        return Look(pixels, bytes(BITS // 8))
    view = likeness.view(green.astype(np.float32), inside > 127)
    plain = np.linalg.norm(view) < 0.99
    bits = np.packbits(view.ravel() @ _directions() > 0).tobytes()
    return Look(pixels, bytes(BITS // 8) if plain else bits)


def look_at_all(pairs: Sequence[Pair]) -> list[Look]:
    """The looks of photographs in their files, each read once a process."""
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        times = [pair.image.stat().st_mtime_ns for pair in pairs]
        return list(pool.map(_look, pairs, times))


@cache
def _look(pair: Pair, modified: int) -> Look:
    sample = load_sample(pair)
    return look_at(sample.image, sample.fov)


@cache
def _directions() -> np.ndarray:
    """Of the projection, (VIEW², BITS); this generator of NumPy never changes its numbers."""
    return np.random.RandomState(0).randn(likeness.VIEW**2, BITS).astype(np.float32)


def _signs_of(sketches: bytes) -> np.ndarray:
    """(n, BITS) float32 of -1 and 1."""
    bits = np.unpackbits(np.frombuffer(sketches, np.uint8)).reshape(-1, BITS)
    return bits.astype(np.float32) * 2 - 1


def _word(roles: int) -> str:
    return next(role for bit, role in enumerate(ROLES) if roles >> bit & 1)


def _number(title: str, person: str) -> int:
    """A person of a public data set, whose labels are public too."""
    return int.from_bytes(blake2b(f"{title}/{person}".encode(), digest_size=8).digest(), "little")


def root_of(pair: Pair) -> Path:
    """The data folder that a photograph lies in: root/training/images/name."""
    return pair.image.parents[2]


def title_of(pair: Pair) -> str:
    return _title(root_of(pair))


@cache
def _title(root: Path) -> str:
    return dataset_of(root)
