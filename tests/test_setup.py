"""One source of pins, and the commands the README promises."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata

import pytest
import yaml
from conftest import ROOT

import retina_utils

LOCK = {}
for line in (ROOT / "requirements.lock").read_text().splitlines():
    requirement = re.match(r"([\w.-]+)==(\S+)", line)
    assert requirement, f"requirements.lock: {line!r} is not an exact pin"
    LOCK.setdefault(requirement[1].lower(), set()).add(requirement[2])
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
NEEDED = PROJECT["dependencies"] + PROJECT["optional-dependencies"]["dev"]


def test_conda_and_the_makefile_install_the_same_file():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [for_pip] = [entry for entry in environment["dependencies"] if isinstance(entry, dict)]
    assert "-r requirements.lock" in for_pip["pip"]
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


@pytest.fixture
def checkout(tmp_path):
    """A copy of what is installed, in which pip may build."""
    for name in ("pyproject.toml", "README.md", "LICENSE", "requirements.lock"):
        shutil.copy(ROOT / name, tmp_path)
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "retina_utils", tmp_path / "retina_utils", ignore=ignored)
    return tmp_path


def pip(folder, *arguments):
    """Run pip without a network; what it said."""
    command = [sys.executable, "-m", "pip", *arguments, "--no-index", "--no-build-isolation"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_pip_builds_holds_every_file_of_the_package(checkout):
    pip(checkout, "wheel", "--quiet", "--no-deps", "--wheel-dir", "built", ".")
    [wheel] = (checkout / "built").glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if "dist-info" not in name}
    files = (file for file in (ROOT / "retina_utils").rglob("*") if file.is_file())
    there = {file.relative_to(ROOT).as_posix() for file in files if file.suffix != ".pyc"}
    assert packed == there


def test_pip_takes_condas_list_and_changes_no_pin(checkout):
    """Conda writes the list into a file beside environment.yml and hands that to pip."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    (checkout / "conda.txt").write_text("\n".join(environment["dependencies"][-1]["pip"]))
    # Without a GPU these are not installed, or in another build.
    others = r"(?m)^(torch|torchvision|triton|cuda-|nvidia-).*\n"
    lock = re.sub(others, "", (ROOT / "requirements.lock").read_text())
    (checkout / "requirements.lock").write_text(lock)
    said = pip(checkout, "install", "--dry-run", "-r", "conda.txt")
    assert re.findall("Would install (.*)", said) == [f"retina-utils-{retina_utils.__version__}"]


@pytest.fixture
def house(tmp_path):
    """The Makefile among a few small files, with a Python that only says how it was called."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    tests = ("nbval_conftest.py", "nbval_outcome.py")
    names = ["requirements.lock", "pyproject.toml", "notebooks/01_data.ipynb", "data/README.md"]
    names += ["data/tiny/people.csv", "data/fives/test/images/1.png", "outputs/README.md"]
    names += [
        "benchmarks/results/one.csv",
        "outputs/mine/metrics.json",
        *(f"tests/{name}" for name in tests),
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        """#!/bin/sh
printf '%s\\n' "command $RETINA_COMMAND" "arguments $*"
case "$*" in *nbval*) cd "$4" && find . -type f | sort;; esac
"""
    )
    python.chmod(0o755)
    (tmp_path / ".venv" / ".installed").touch()
    return tmp_path


def make(folder, *arguments):
    """The lines that a command of the Makefile says."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RETINA_", "MAKE"))}
    command = ["make", "--no-print-directory", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def test_the_notebooks_are_tested_in_a_copy_without_imported_data(house):
    copied = make(house, "test-notebooks")
    assert {"./data/README.md", "./data/tiny/people.csv", "./notebooks/01_data.ipynb"} <= {*copied}
    assert not [line for line in copied if "fives" in line or "mine" in line]


def test_make_clean_leaves_data_and_what_is_committed(house):
    make(house, "clean")
    assert not (house / ".venv").exists() and not (house / "outputs" / "mine").exists()
    assert (house / "outputs" / "README.md").exists()
    assert (house / "data" / "fives" / "test" / "images" / "1.png").exists()


BADGE = "https://colab.research.google.com/github/OWNER/retina/blob/main/notebooks/01_data.ipynb"


@pytest.mark.parametrize(
    "repo",
    [
        "you/fork",
        "https://github.com/you/fork",
        "github.com/you/fork/",
        "git@github.com:you/fork.git",
    ],
)
def test_badges_point_at_a_repository_however_it_is_written(house, repo):
    book = house / "notebooks" / "01_data.ipynb"
    book.write_text(f"{BADGE} git clone https://github.com/OWNER/retina")
    make(house, "badges", f"REPO={repo}")
    wanted = f"{BADGE} git clone https://github.com/OWNER/retina".replace(
        "OWNER/retina", "you/fork"
    )
    assert book.read_text() == wanted


@pytest.mark.parametrize(
    "repo", ["you", "https://gitlab.com/you/fork", "https://github.com/you/fork/tree/main", "a/b#c"]
)
def test_badges_of_no_repository_are_refused_in_a_sentence(house, repo):
    book = house / "notebooks" / "01_data.ipynb"
    book.write_text(BADGE)
    command = ["make", "badges", f"REPO={repo}"]
    done = subprocess.run(command, cwd=house, capture_output=True, text=True)
    assert done.returncode == 2 and f"REPO={repo}: expected owner/name" in done.stderr
    assert book.read_text() == BADGE


@pytest.mark.parametrize(
    ("user", "arguments", "status"),
    [("0", "", 2), ("0", "--allow-root", 0), ("1000", "--port 9", 0)],
)
def test_lab_takes_arguments_and_tells_root_what_to_do(house, user, arguments, status):
    for name, says in {"jupyter": 'echo "lab: $*"', "id": f"echo {user}"}.items():
        (house / ".venv" / "bin" / name).write_text(f"#!/bin/sh\n{says}\n")
        (house / ".venv" / "bin" / name).chmod(0o755)
    path = f"{house / '.venv' / 'bin'}:{os.environ['PATH']}"
    command = ["make", "-s", "lab", f"ARGS={arguments}"]
    done = subprocess.run(
        command, cwd=house, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == status
    told = "make lab ARGS=" in done.stderr
    ran = f"lab: lab notebooks/01_data.ipynb {arguments}".strip() in done.stdout
    assert (told, ran) == (status == 2, status == 0)


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["run-all"], 'make run-all PRESET="tiny"'),
        (
            ["run-all", "DATA=my data", "ARGS=-p widths '[8, 16]'"],
            """make run-all PRESET="tiny" DATA="my data" ARGS="-p widths '[8, 16]'\"""",
        ),
        (["benchmark", "DATASET=hrf"], 'make benchmark DATASET="hrf"'),
        (["predict", "IMAGES=a", "OUT=b"], 'make predict IMAGES="a" OUT="b"'),
        (["adapt", "DATA=a", "RUN=b"], 'make adapt DATA="a" RUN="b"'),
        (["verify", "RUN=tiny"], 'make verify RUN="tiny"'),
    ],
)
def test_the_command_is_recorded_as_it_was_typed(house, arguments, command):
    assert f"command {command}" in make(house, *arguments)


AUDITS = {  # what a pip-audit does that is given the file for its table as TABLE
    "exit 0": (0, "No known weakness"),
    "echo 'torch 1.0 CVE-1' > TABLE; exit 1": (2, "torch 1.0 CVE-1"),  # make's 2, for our 1
    "echo 'a Traceback' >&2; echo 'ConnectionError: no net' >&2; exit 1": (2, "no answer"),
}


@pytest.mark.parametrize("audit", AUDITS)
def test_an_audit_says_what_it_found_or_that_it_found_nothing_out(house, audit):
    program = house / ".venv" / "bin" / "pip-audit"
    table = 'while [ "$1" != --output ]; do echo "$1" >> asked; shift; done; table=$2\n'
    program.write_text(f"#!/bin/sh\n{table}{audit.replace('TABLE', '$table')}\n")
    program.chmod(0o755)
    done = subprocess.run(["make", "audit"], cwd=house, capture_output=True, text=True)
    status, words = AUDITS[audit]
    said = done.stdout + done.stderr
    assert done.returncode == status and words in said
    assert "Traceback" not in said and ("ConnectionError: no net" in said) == (words == "no answer")
    # Without it a package that the service does not know counts as one without weaknesses.
    assert "--strict" in (house / "asked").read_text().split()


def test_make_alone_lists_the_commands():
    said = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for command in ("run-all", "verify", "test", "lab", "import-data", "diff", "audit", "clean"):
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
               "benchmarks", "CITATION.cff"}  # fmt: skip
    assert {name for name in tracked if not name.startswith(".")} <= allowed
