"""The house: imports point one way, and README's map of it is true."""

import ast
import re
from graphlib import TopologicalSorter

import pytest
from conftest import ROOT

PACKAGE = ROOT / "retina_utils"
ROOMS = ("machine", "intake", "measures", "datasets", "show", "commands")
# What the files of a room may not import; the lesson is the package's top level.
FORBIDDEN = {
    "machine": ("lesson", "intake", "measures", "datasets", "show", "commands"),
    "intake": ("lesson", "measures", "datasets", "show", "commands"),
    "lesson": ("measures", "datasets", "show", "commands"),
    "measures": ("datasets", "show", "commands"),
    "datasets": ("measures", "show", "commands"),
    "show": ("commands",),
    "commands": (),
}
README = (ROOT / "README.md").read_text(encoding="utf-8")


def modules():
    """The package's modules by their dotted names below it, such as show.report."""
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    return {".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in paths}


MODULES = modules()


def imports(path):
    """The package's own modules that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("retina_utils"):
            below = node.module.removeprefix("retina_utils").lstrip(".")
            names = {f"{below}.{alias.name}".lstrip(".") for alias in node.names} | {below}
            found |= names & set(MODULES)
    return found


GRAPH = {name: imports(path) for name, path in MODULES.items()}


def room_of(name):
    return name.split(".")[0] if "." in name else "lesson"


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_point_one_way(room):
    own = [name for name in MODULES if room_of(name) == room]
    wrong = {
        (name, other) for name in own for other in GRAPH[name] if room_of(other) in FORBIDDEN[room]
    }
    assert own and not wrong


def test_there_are_no_circles():
    assert len(list(TopologicalSorter(GRAPH).static_order())) == len(MODULES)


def test_a_prediction_needs_no_training():
    reached, waiting = set(), ["predict"]
    while waiting:
        name = waiting.pop()
        reached.add(name)
        waiting += GRAPH[name] - reached
    assert not reached & {"train", "augment", "losses", "metrics", "evaluate"}


def test_the_lesson_can_be_read_in_a_day():
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in PACKAGE.glob("*.py")]
    assert sum(lines) < 3200


def test_the_layout_in_the_readme_is_the_packages():
    layout = README.split("## How it is laid out and tested")[1].split("```")[1]
    told = set(re.findall(r"^  (\w+)\.py ", layout, re.MULTILINE))
    assert told == {name for name in MODULES if "." not in name}
    assert set(re.findall(r"^  (\w+)/ ", layout, re.MULTILINE)) == {*ROOMS, "weights"}


ROWS = re.findall(r"^\| (.+?) \| (.+?) \|$", README.split("Where do I change")[1], re.MULTILINE)


@pytest.mark.parametrize(("wish", "answer"), ROWS[2:], ids=lambda text: text[:30])
def test_what_the_readme_says_to_change_is_there(wish, answer):
    names = re.findall(r"`([^`]+)`", answer)
    files = [
        PACKAGE / name for name in names if re.fullmatch(r"[\w/]+\.(py|toml|csv|j2|html\.j2)", name)
    ]
    assert all(file.is_file() for file in files)
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    for name in (name for name in names if re.fullmatch(r"[A-Za-z_.]+", name) and "." not in name):
        assert re.search(rf"\b{name}\b", text), f"{wish}: no {name} in {files}"
