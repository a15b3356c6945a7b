"""The series as pages to read without installing: ``make site`` writes ``outputs/site``.

Notebooks and Markdown lie in it where they lie in the repository, so that a link between them is
the same link. What a page links to comes along as a page of its own, pictures as they are, and
every page has a way back to the first. Nothing is loaded from a network. Here is what is gathered;
notebooks are converted by nbconvert, the modules' docstrings by pdoc.
"""

import ast
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import nbformat
import pdoc
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from retina_utils import RetinaError
from retina_utils.machine.files import read_csv, write_text
from retina_utils.show.pages import TEMPLATES
from retina_utils.show.tables import Table

PACKAGE = Path(__file__).parents[1]
START = "index.md"  # as if it lay there: show/site.md, and what it links to is the site
REPORT, API = "report.html", "api/index.html"  # where they lie in the site
MODULES = {"The lesson": "*.py", "Numbers of a vessel map": "measures/*.py"}
TEXT = (".md", ".ipynb")  # a link to one is a link to its page; of other files it is name.csv.html
PICTURES = (".jpg", ".png", ".svg")
NOBODY = re.compile("/OWNER/")  # links to it lead nowhere until `make badges`
SLIDER = "On these pages the slider has no kernel: move the one of "  # said by the site alone
SCRIPT = re.compile(r"(<script\b[^>]*>).*?(?=</script>)", re.DOTALL)  # its own marks are no links
TAG = re.compile(r"<(a|img|script|link|iframe)\b[^>]*?\s(?:href|src)\s*=\s*[\"']([^\"']*)[\"']")


def build_site(out: Path, run: Path, repository: Path = Path()) -> Path:
    """Write the site and return its first page; ``run`` is the run whose report is the sample.

    ``out`` is replaced as a whole, and only by a site without a link to nowhere and without
    anything loaded from a network: a RetinaError names what is wrong.
    """
    if not (run / "report.html").is_file():
        raise RetinaError(f"{run}/report.html: not there; expected a finished run. make run-all")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent) as folder:
        site = Path(folder) / "site"
        write_api(site / "api")
        write_text(site / REPORT, with_way_back((run / "report.html").read_text("utf-8"), REPORT))
        waiting, done = [START], set()
        while waiting:
            name = waiting.pop()
            done.add(name)
            linked = write_page(repository, name, site)
            waiting += [other for other in linked if other not in {*done, *waiting}]
        if wrong := sorted(problems(site)):
            raise RetinaError("The site is not written:\n" + "\n".join(wrong))
        shutil.rmtree(out, ignore_errors=True)
        site.rename(out)
    return out / "index.html"


def write_api(folder: Path) -> None:
    """What the docstrings of the modules say, and a table of contents with a line for each."""
    contents, names = "# The package\n\nWhat the notebooks import, module by module.\n", []
    for room, pattern in MODULES.items():
        contents += f"\n## {room}\n\n"
        for path in sorted(PACKAGE.glob(pattern)):
            if path.stem == "__init__":
                continue
            name = path.relative_to(PACKAGE.parent).with_suffix("")
            names.append(name.as_posix().replace("/", "."))
            about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0]
            contents += f"- [{names[-1]}]({name.as_posix()}.html): {about}\n"
    pdoc.render.configure(docformat="numpy", footer_text="retina_utils: what the notebooks import")
    pdoc.pdoc(*names, output_directory=folder)
    for page in folder.rglob("*.html"):
        name = page.relative_to(folder.parent).as_posix()
        write_text(page, with_way_back(page.read_text(encoding="utf-8"), name))
    soup = BeautifulSoup(markdown2html(contents), "html.parser")
    write_soup(folder / "index.html", soup, "The package", home_of(API))


def home_of(target: str) -> str:
    """The first page, seen from another."""
    return "../" * target.count("/") + "index.html"


def with_way_back(page: str, target: str) -> str:
    """A page written by others, with a link to the contents at its top."""
    link = f'<p><a href="{home_of(target)}">Retinal vessels: contents</a></p>'
    return re.sub(r"<main\b[^>]*>", lambda found: found[0] + link, page, count=1)


def as_html(source: Path) -> str:
    """A file's text as HTML: a notebook, Markdown, a table, or code as it is."""
    if source.suffix == ".ipynb":
        book = nbformat.read(source, as_version=4)
        book.cells = [c for c in book.cells if c.cell_type != "code" or not NOBODY.search(c.source)]
        options = {"exclude_input_prompt": True, "exclude_output_prompt": True}
        return HTMLExporter(template_name="basic", **options).from_notebook_node(book)[0]
    if source.suffix == ".md":
        return markdown2html(source.read_text(encoding="utf-8"))
    head = f'<h1>{source.name}</h1><p><a href="{source.name}">The file itself</a></p>'
    if source.suffix == ".csv":
        return head + Table(read_csv(source))._repr_html_()
    try:
        lexer = get_lexer_for_filename(source.name)
    except ClassNotFound:
        lexer = TextLexer()
    return head + highlight(source.read_text(encoding="utf-8"), lexer, HtmlFormatter())


def page_of(name: str) -> str:
    """Where a file's page lies in the site, or what a link to it becomes."""
    return re.sub(r"\.(md|ipynb)(?=$|#)|$", ".html", name, count=1)


def write_page(repository: Path, name: str, site: Path) -> list[str]:
    """Write one file as a page; the names of the others it links to."""
    source = PACKAGE / "show" / "site.md" if name == START else repository / name
    soup, linked = BeautifulSoup(as_html(source), "html.parser"), []
    for badge in soup.find_all("a", href=NOBODY):
        badge.decompose()
    for picture in soup.find_all("img", src=re.compile("^https?:")):  # a badge: its words will do
        picture.replace_with(picture.get("alt", ""))
    for element in soup.find_all(["a", "img"]):
        key = "href" if element.name == "a" else "src"
        link = urlsplit(element.get(key, ""))
        if link.scheme or not link.path:
            continue
        other = os.path.normpath(os.path.join(os.path.dirname(name), unquote(link.path)))
        if (repository / other).is_dir():
            element.unwrap()
            continue
        if not (repository / other).is_file() or other == name:
            continue
        if Path(other).suffix not in TEXT:
            (site / other).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / other, site / other)
        if Path(other).suffix not in PICTURES:
            linked.append(other)
            element[key] = page_of(element[key])
    for told in [p for p in soup.find_all("p") if p.get_text().startswith("Drag the slider")]:
        note = BeautifulSoup(f'<p class="note">{SLIDER}<a>the report</a>.</p>', "html.parser")
        note.a["href"] = "../" * name.count("/") + REPORT + "#slider"
        told.insert_before(note)
    for wide in soup.find_all("table"):  # scrolls by itself, so that the page need not
        wide.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    title = soup.find("h1").get_text().strip("¶ \n") if soup.find("h1") else source.stem
    target = page_of(name)
    write_soup(site / target, soup, title, "" if name == START else home_of(target))
    return linked


def write_soup(path: Path, body: BeautifulSoup, title: str, home: str) -> None:
    """Write what a page says into the template of all pages."""
    for mark in body.find_all("a", class_="anchor-link"):
        mark.decompose()
    code = Markup(HtmlFormatter(style="default").get_style_defs(".highlight"))
    page = TEMPLATES.get_template("site.html.j2")
    write_text(path, page.render(title=title, body=Markup(body), code=code, home=home))


def problems(site: Path) -> Iterator[str]:
    """Links to nowhere, and what would be loaded from a network."""
    pages = {path: path.read_text(encoding="utf-8") for path in site.rglob("*.html")}
    for path, text in pages.items():
        for tag, address in TAG.findall(SCRIPT.sub(r"\1", text)):
            link = urlsplit(address)
            if link.scheme or link.netloc:
                if tag != "a" and link.scheme != "data":
                    yield f"{path.relative_to(site)}: loads {address[:80]} from a network"
                continue
            target = Path(os.path.normpath(path.parent / unquote(link.path))) if link.path else path
            if not target.is_file():
                yield f"{path.relative_to(site)}: links to {address}, which is not there"
            elif link.fragment and not re.search(
                rf"\bid\s*=\s*[\"']{re.escape(unquote(link.fragment))}[\"']", pages.get(target, "")
            ):
                yield f"{path.relative_to(site)}: links to {address}, a place that is not there"
