"""The pages to read without installing, and what of real eyes may be passed on."""

import re
import subprocess

import nbformat
import pytest
import yaml
from conftest import ROOT

from retina_utils import RetinaError, __version__
from retina_utils.commands import site

PICTURES = [
    *(ROOT / "data" / "samples").glob("*.jpg"),
    *(ROOT / "notebooks" / "images").glob("held_out*"),
]
PICTURES.append(ROOT / "notebooks" / "images" / "slider.jpg")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The site, with a report that only says that it is one."""
    run = tmp_path_factory.mktemp("outputs") / "tiny"
    run.mkdir()
    (run / "report.html").write_text('<main><h1>A report</h1><p id="slider"></main>')
    return site.build_site(run.with_name("site"), run, ROOT).parent


def test_every_page_is_there_and_says_what_its_source_says(built):
    pages = {path.relative_to(built).as_posix() for path in built.rglob("*.html")}
    assert {"index.html", "README.html", "report.html", "api/index.html"} <= pages
    notebooks = [path.stem for path in (ROOT / "notebooks").glob("*.ipynb")]
    assert len(notebooks) == 5 and {f"notebooks/{name}.html" for name in notebooks} <= pages
    own = [path.stem for path in (ROOT / "notebooks" / "pages").glob("*.md")]
    assert {f"notebooks/pages/{name}.html" for name in own} <= pages
    modules = [path.stem for path in site.PACKAGE.glob("*.py") if path.stem != "__init__"]
    modules += ["measures/compare", "measures/mistakes"]
    assert {f"api/retina_utils/{name}.html" for name in modules} <= pages
    contents = (built / "api" / "index.html").read_text()
    assert all(f'href="retina_utils/{name}.html"' in contents for name in modules)
    assert "Is B better than A? Two runs on the same test photographs" in contents
    assert "best Dice" in (built / "notebooks" / "pages" / "how_to_read.html").read_text()
    assert 'href="../report.html#slider"' in (built / "notebooks" / "05_visualize.html").read_text()


def links_of(page):
    return re.findall(r'<a [^>]*href="([^"#]+)', site.SCRIPT.sub("", page.read_text()))


def test_every_page_has_a_way_back_and_links_to_pages(built):
    """What is no page, such as a table, is linked to from a page of its own alone."""
    first = built / "index.html"
    for page in built.rglob("*.html"):
        inside = [link for link in links_of(page) if not re.match("[a-z]+:", link)]
        assert page == first or any((page.parent / link).resolve() == first for link in inside)
        assert {link for link in inside if not link.endswith(".html")} <= {page.stem}
    code = (built / "retina_utils" / "datasets" / "sources.toml.html").read_text()
    assert "n_images" in code and 'href="sources.toml"' in code


@pytest.mark.parametrize(("owner", "shown"), [("OWNER", False), ("you", True)])
def test_colab_is_offered_where_somebody_has_the_repository(tmp_path, owner, shown):
    address = f"https://colab.research.google.com/github/{owner}/eyes/blob/main/a.ipynb"
    badge = f"[![Open in Colab](https://example.org/badge.svg)]({address})"
    cells = [nbformat.v4.new_markdown_cell(f"# A\n\n{badge}\n\nText.")]
    cells.append(nbformat.v4.new_code_cell(f"!git clone https://github.com/{owner}/eyes"))
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "a.ipynb")
    site.write_page(tmp_path, "a.ipynb", tmp_path / "site")
    page = (tmp_path / "site" / "a.html").read_text()
    found = [words in page for words in ("Open in Colab", "clone", address)]
    assert found == [shown] * 3
    assert "Text." in page


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('<a href="nowhere.html">', "nowhere.html, which is not there"),
        ('<a href="page.html#absent">', "a place that is not there"),
        ('<script src="https://example.org/x.js">', "from a network"),
        ('<img alt="a" src="//example.org/x.png">', "from a network"),
    ],
)
def test_links_to_nowhere_and_what_is_loaded_from_a_network_are_found(tmp_path, line, words):
    page = tmp_path / "page.html"
    page.write_text('<p id="here"><a href="#here"><a href="https://example.org">')
    assert not list(site.problems(tmp_path))
    page.write_text(line)
    (problem,) = site.problems(tmp_path)
    assert words in problem


def test_without_a_finished_run_the_command_to_make_one_is_said(tmp_path):
    with pytest.raises(RetinaError, match="make run-all"):
        site.build_site(tmp_path / "site", tmp_path / "tiny", ROOT)
    assert not (tmp_path / "site").exists()


def test_real_photographs_are_few_small_and_attributed():
    readme = (ROOT / "data" / "samples" / "README.md").read_text(encoding="utf-8")
    photographs = {path.name for path in (ROOT / "data" / "samples").iterdir()} - {"README.md"}
    assert photographs == set(re.findall(r"^\| `(.+?)`", readme, re.MULTILINE))
    assert readme.count("CC BY 4.0") == len(photographs) == 2 and "Changes made" in readme
    assert sum(path.stat().st_size for path in PICTURES) < 1_200_000
    said = (ROOT / "notebooks" / "pages" / "held_out.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in said and "changes made" in said


def test_git_lets_the_samples_in_and_no_other_photograph():
    names = ["data/samples/new.jpg", "data/chase_db1/training/images/Image_01L.jpg"]
    done = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == names[1:]


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__ and citation["license"] == "MIT"


def test_who_is_cited_with_a_year_stands_in_the_references():
    sources = [*site.PACKAGE.rglob("*.py"), *ROOT.glob("*.md"), *ROOT.glob("notebooks/**/*.md")]
    text = "\n".join(path.read_text() for path in [*sources, *ROOT.glob("notebooks/*.ipynb")])
    authors = r"([A-Z][a-z]+)\s+(?:et\s+al\.|(?:and|&) [A-Z][a-z]+)"
    cited = set(re.findall(authors + r"[^.;)]{0,25}\b(?:19|20)\d\d\b", text))
    references = (ROOT / "notebooks" / "REFERENCES.md").read_text()
    assert {"Lipton", "Hart", "Wortsman", "Shrout"} <= cited
    assert not [name for name in cited if name not in references]
