"""One source of pins, and the commands the README promises."""

import re
import subprocess
import tomllib
from importlib import metadata

import pytest
import yaml
from conftest import ROOT

LOCK = {}
for line in (ROOT / "requirements.lock").read_text().splitlines():
    requirement = re.match(r"([\w.-]+)==(\S+)", line)
    assert requirement, f"requirements.lock: {line!r} is not an exact pin"
    LOCK.setdefault(requirement[1].lower(), set()).add(requirement[2])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]


def test_conda_and_the_makefile_install_the_same_file():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [entry for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert "-r requirements.lock" in pip["pip"]
    others = [e for e in environment["dependencies"] if isinstance(e, str)]
    assert {re.split("[=<>]", e)[0] for e in others} == {"python", "pip"}
    makefile = (ROOT / "Makefile").read_text()
    assert "install --quiet -r requirements.lock" in makefile
    assert not re.findall(r"\w==\d", makefile + (ROOT / ".ci" / "run").read_text())


@pytest.mark.parametrize("requirement", NEEDED)
def test_every_dependency_has_a_floor_and_a_pin_above_it(requirement):
    name, floor = requirement.split(">=")
    pins = LOCK[name.lower()]
    as_numbers = [tuple(map(int, re.findall(r"\d+", pin)[:3])) for pin in pins]
    assert min(as_numbers) >= tuple(map(int, floor.split(".")))


def test_torch_and_torchvision_are_a_pair_that_imports():
    import torch
    import torchvision

    assert LOCK["torch"] == {torch.__version__.partition("+")[0]}
    assert LOCK["torchvision"] == {torchvision.__version__.partition("+")[0]}


@pytest.mark.parametrize("name", ["numpy", "pillow", "papermill", "nbval", "jupyterlab", "scipy"])
def test_what_is_installed_is_what_is_locked(name):
    assert metadata.version(name) in LOCK[name]


def test_make_alone_lists_the_commands():
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("run-all", "test", "lab", "import-data", "diff", "clean"):
        assert re.search(rf"^  make {command} +\S", said, re.MULTILINE), command


def test_ci_calls_the_readmes_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()


def test_only_the_agreed_folders_stand_at_the_top():
    tracked = subprocess.run(
        ["git", "ls-tree", "--name-only", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    allowed = {"notebooks", "retina_utils", "data", "outputs", "environment.yml", "Makefile",
               "README.md", "pyproject.toml", "requirements.lock", "LICENSE", "tests",
               "benchmarks"}  # fmt: skip
    assert {name for name in tracked if not name.startswith(".")} <= allowed
