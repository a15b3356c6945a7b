"""House rules of the notebooks, read without running them."""

import ast
import inspect
import json
import re
from collections import Counter
from itertools import pairwise

import nbformat
import pytest
import torch
from conftest import ROOT
from IPython.core.inputtransformer2 import TransformerManager

from retina_utils import models, patches, train
from retina_utils.commands.parameters import declared_parameters
from retina_utils.machine.runs import NOTEBOOKS

LARGEST = 750_000  # bytes of a committed notebook
BOOKS = {
    name: nbformat.read(str(ROOT / "notebooks" / f"{name}.ipynb"), as_version=4)
    for name in NOTEBOOKS
}
# What takes a notebook's parameters as a whole, and picks them by their names.
RECEIVERS = "".join(
    inspect.getsource(part) for part in (train, models.network_of, patches.Preparation)
)
each = pytest.mark.parametrize("name", NOTEBOOKS)


def code_cells(name):
    return [cell for cell in BOOKS[name].cells if cell.cell_type == "code"]


def has_figure(cell):
    return any(
        kind in output.get("data", {})
        for output in cell.get("outputs", [])
        for kind in ("image/png", "image/jpeg")
    )


@each
def test_it_opens_with_title_badge_bootstrap_and_parameters(name):
    title, bootstrap, parameters = BOOKS[name].cells[:3]
    assert title.source.startswith(f"# {name[:2]} · ")
    assert f"/notebooks/{name}.ipynb" in title.source and "colab-badge.svg" in title.source
    assert bootstrap.source == BOOKS["01_data"].cells[1].source
    assert parameters.metadata["tags"] == ["parameters"]
    tagged = [c for c in BOOKS[name].cells if "parameters" in c.metadata.get("tags", [])]
    assert len(tagged) == 1


def test_badges_and_bootstrap_name_one_repository():
    found = set()
    for name in NOTEBOOKS:
        text = "\n".join(cell.source for cell in BOOKS[name].cells)
        found |= set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/blob| |\))", text))
    assert len(found) == 1, found


def test_shared_parameters_have_one_default():
    seen = {}
    for name in NOTEBOOKS:
        for key, value in declared_parameters(ROOT / "notebooks" / f"{name}.ipynb").items():
            assert seen.setdefault(key, value) == value, key


@each
def test_parameters_are_literals_each_with_its_meaning(name):
    lines = BOOKS[name].cells[2].source.splitlines()[1:]
    assert all(re.match(r"\w+: \w+ = \S.*", line) for line in lines)
    # papermill gives up on a comment with an equals sign in it, and would not know the parameter.
    declared = declared_parameters(ROOT / "notebooks" / f"{name}.ipynb")
    assert [line.split(":")[0] for line in lines] == list(declared)
    told = [line for line in lines if "  # " in line]
    assert len(told) >= len(lines) - 4
    # An unread parameter would be a switch that is wired to nothing.
    rest = "\n".join(cell.source for cell in code_cells(name)[2:])
    if "parameters_of(globals())" in rest.split("runs.record")[0]:  # handed on by name
        rest += RECEIVERS
    for line in lines:
        assert re.search(rf"\b{line.split(':')[0]}\b", rest), line


@each
def test_no_cell_is_longer_than_25_lines(name):
    assert max(len(cell.source.splitlines()) for cell in code_cells(name)) <= 25


@each
def test_every_figure_is_read_in_the_next_cell(name):
    cells, figures = BOOKS[name].cells, 0
    for cell, following in pairwise(cells):
        if cell.cell_type == "code" and has_figure(cell):
            figures += 1
            after = following if following.cell_type == "markdown" else None
            after = after or cells[cells.index(following) + 1]
            assert not after.source.startswith("#"), cell.source
    assert figures >= 2


def names_of(source):
    """Names a cell reads before it sets them, and names it sets; its own functions' aside."""
    tree, inner = ast.parse(TransformerManager().transform_cell(source)), set()
    for node in ast.walk(tree):
        bound = [g.target for g in getattr(node, "generators", [])]
        bound = {n.id for target in bound for n in ast.walk(target) if isinstance(n, ast.Name)}
        if isinstance(node, ast.Lambda | ast.FunctionDef):
            bound = {argument.arg for argument in node.args.args}
        inner |= {n for n in ast.walk(node) if isinstance(n, ast.Name) and n.id in bound}
    found = [n for n in ast.walk(tree) if isinstance(n, ast.Name) and n not in inner]
    first = {}
    for n in found:
        if isinstance(n.ctx, ast.Store):
            first[n.id] = min(n.lineno, first.get(n.id, n.lineno))
    read = {n.id for n in found if isinstance(n.ctx, ast.Load)}
    early = {n.id for n in found if n.lineno < first.get(n.id, n.lineno)}
    return early | (read - set(first)), set(first)


@each
def test_what_a_cell_takes_from_others_was_set_by_one_of_them_only(name):
    """A name used anew in between would come with whatever the last cell left in it."""
    count, wrong = Counter(), []
    for cell in code_cells(name):
        read, written = names_of(cell.source)
        wrong += [f"{n}, read by: {cell.source.splitlines()[0]}" for n in read if count[n] > 1]
        count.update(written)
    assert not wrong


def test_nothing_is_defined_twice():
    names = []
    for name in NOTEBOOKS:
        for cell in code_cells(name):
            names += re.findall(r"^def (\w+)", cell.source, re.MULTILINE)
    assert len(names) == len(set(names))


@each
def test_outputs_are_committed_run_in_order_and_clean(name):
    cells = code_cells(name)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    text = json.dumps(BOOKS[name])
    assert set(BOOKS[name].metadata) == {"kernelspec", "language_info"}
    assert not any(set(cell.metadata) - {"tags"} for cell in BOOKS[name].cells)
    assert "application/vnd.jupyter.widget" not in text
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.get("text")
        if "nbval-check-output" in cell.metadata.get("tags", []):
            assert cell.outputs, "a checked cell without output would check nothing"
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size < LARGEST


@each
def test_it_ends_with_findings_and_where_to_go_next(name):
    last = BOOKS[name].cells[-1].source
    assert "## In short" in last and "**Try:**" in last and "**Next:**" in last
    assert last.count("<details><summary>") == last.count("</details>") == 5
    position = NOTEBOOKS.index(name)
    if position + 1 < len(NOTEBOOKS):
        assert f"({NOTEBOOKS[position + 1]}.ipynb)" in last


@each
def test_links_lead_somewhere(name):
    for cell in BOOKS[name].cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(((?!http)[^)]+)\)", cell.source):
                assert (ROOT / "notebooks" / target).exists(), target


def test_a_training_is_kept_until_it_is_recorded_and_belongs_to_its_photographs():
    source = "\n".join(cell.source for cell in code_cells("03_train"))
    assert source.index("runs.record(") < source.index("state.unlink(")
    assert "runs.checksum(splits.train + splits.validation)" in source
    assert "resume_state(state, training, trained_on)" in source
    assert "save_state(state, training, trained_on)" in source


def test_a_pixel_that_depends_on_none_is_said_not_stumbled_over(capsys):
    cells = [cell.source for cell in code_cells("02_model")]
    first = next(i for i, source in enumerate(cells) if "one pixel depends on" in source)
    dead = torch.nn.Conv2d(1, 1, 3, padding=1)
    torch.nn.init.zeros_(dead.weight)
    names = {
        "torch": torch,
        "model": dead,
        "size": 96,
        "batch": {"image": torch.rand(2, 1, 96, 96)},
    }
    exec(cells[first], names)
    assert "one pixel depends on 0 x 0 pixels" in capsys.readouterr().out
    exec("\n".join(cells[first + 1].splitlines()[:2]), names)
    assert names["strength"].isfinite().all()
