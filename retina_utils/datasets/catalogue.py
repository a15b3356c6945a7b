"""The public data sets (``sources.toml``), and which of them a network was trained on."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from retina_utils.checkpoint import Network


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
    usual_test: str | int  # people of the usual test split: a pattern, or the last so many of all
    usual: str  # that split in words
    people: str  # what tells one person from the next
    url: str
    citation: str
    licence: str
    fov: str = ""  # empty: not part of the download, found in the photograph instead
    second: str = ""  # empty: no second observer
    name: str = "{name}"  # of a photograph once imported
    person: str = "{person}"
    archives: Sequence[str] = ()  # names of archives that the download may consist of
    lacks: str = ""  # pattern of paths that some downloads lack
    wrong: str = ""  # pattern of names whose annotation is known to be wrong
    blank: str = ""  # pattern of names whose annotation may be blank
    tuned: Sequence[str] = ()  # people by whose photographs the presets' recipes were chosen


with Path(__file__).with_name("sources.toml").open("rb") as _file:
    SOURCES = {name: Source(**entry) for name, entry in tomllib.load(_file).items()}


def dataset_of(data_dir: str | Path) -> str:
    """The title of the public data set in an imported folder ("CHASE_DB1"); "" for any other."""
    page = Path(data_dir) / "SOURCE.md"
    if not page.is_file():
        return ""
    first = page.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ").strip()
    return first if first in {entry.title for entry in SOURCES.values()} else ""


def trained_on(network: Network) -> str:
    """The photographs a network was trained on, in words; "" where its file does not say."""
    words = []
    for key, names in network.card.get("photographs", {}).items():
        title = SOURCES[key].title if key in SOURCES else key
        words.append(f"{photographs(len(names))} of {title}, {min(names)} to {max(names)}")
    return "; and ".join(words) or network.facts.get("data", "")


def photographs(count: int, kind: str = "") -> str:
    """ "1 photograph", "3 photographs", and of a ``kind`` "3 test photographs"."""
    return f"{count} {kind} photograph".replace("  ", " ") + ("" if count == 1 else "s")
