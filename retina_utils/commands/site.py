"""The series as pages to read without installing: ``make site`` writes ``outputs/site``.

Notebooks and Markdown lie in it where they lie in the repository, so that a link between them is
the same link. What a page links to comes along: Markdown as a page of its own, a table or a picture
as it is. Nothing is loaded from a network. Here is what is gathered; notebooks are converted by
nbconvert, the modules' docstrings by pdoc.
"""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote, urlsplit

import pdoc
from bs4 import BeautifulSoup
from markupsafe import Markup
from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from pygments.formatters import HtmlFormatter

from retina_utils import RetinaError
from retina_utils.machine.files import write_text
from retina_utils.show.pages import TEMPLATES

PACKAGE = Path(__file__).parents[1]
START = "index.md"  # as if it lay there: show/site.md, and what it links to is the site
REPORT, API = "report.html", "api/index.html"  # where they lie in the site
TEXT = (".md", ".ipynb")  # what becomes a page
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
        shutil.copy(run / "report.html", site / REPORT)
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
    """What the docstrings of the lesson's modules say."""
    names = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem != "__init__")
    pdoc.render.configure(docformat="numpy", footer_text="retina_utils: the lesson's modules")
    pdoc.pdoc(*(f"retina_utils.{name}" for name in names), output_directory=folder)


def write_page(repository: Path, name: str, site: Path) -> list[str]:
    """Write one notebook or Markdown file as a page; the names of the others it links to."""
    source, target = repository / name, Path(name).with_suffix(".html").as_posix()
    if name == START:
        source = PACKAGE / "show" / "site.md"
    if source.suffix == ".ipynb":
        options = {"exclude_input_prompt": True, "exclude_output_prompt": True}
        body, _ = HTMLExporter(template_name="basic", **options).from_filename(str(source))
    else:
        body = markdown2html(source.read_text(encoding="utf-8"))
    soup, linked = BeautifulSoup(body, "html.parser"), []
    for mark in soup.find_all("a", class_="anchor-link"):
        mark.decompose()
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
        elif Path(other).suffix in TEXT and (repository / other).is_file():
            linked.append(other)
            element[key] = re.sub(r"\.(md|ipynb)(?=$|#)", ".html", element[key])
        elif (repository / other).is_file():
            (site / other).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / other, site / other)
    for wide in soup.find_all("table"):  # scrolls by itself, so that the page need not
        wide.wrap(soup.new_tag("div", attrs={"class": "scroll", "tabindex": "0"}))
    title = soup.find("h1").get_text().strip("¶ \n") if soup.find("h1") else source.stem
    code = Markup(HtmlFormatter(style="default").get_style_defs(".highlight"))
    home = "" if name == START else "../" * target.count("/") + "index.html"
    page = TEMPLATES.get_template("site.html.j2").render(
        title=title, body=Markup(soup), code=code, home=home
    )
    write_text(site / target, page)
    return linked


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
