"""One Chromium for the browser tests.

Skipped where Chromium or playwright is missing, unless RETINA_REQUIRE_BROWSER=1. Set
RETINA_SCREENSHOTS to a folder to keep pictures of what was tested, light, dark and narrow.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)

# What is drawn as vessel, or hit, on the canvas of a viewer.
WHITE_PIXELS = """() => {
  const canvas = document.querySelector(".rv canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < pixels.length; i += 4) count += pixels[i] === 255 && pixels[i + 3] === 255;
  return count;
}"""


@pytest.fixture(scope="module")
def browser():
    """Chromium, closed after the module: its event loop would disturb other tests."""
    missing = pytest.fail if os.environ.get("RETINA_REQUIRE_BROWSER") == "1" else pytest.skip
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright: pip install playwright")
    if not CHROMIUM:
        missing("Chromium: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def barriers(page, where: str = "body") -> list[str]:
    """What axe-core calls serious or critical: what keeps somebody from using a page."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, where).response["violations"]
    return [
        f"{one['id']}: {node['html'][:120]}"
        for one in found
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.fixture
def open_page(browser):
    """A function that opens a file in a browser without a network and waits until it is ready."""
    problems, contexts = [], []

    def open_page(
        path: Path, width: int = 1280, scheme="light", ready=".rv[data-case]", fails="$^"
    ):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda m: (
                problems.append(m.text)
                if m.type == "error" and not re.search(fails, m.location["url"])
                else None
            ),
        )
        page.on(
            "requestfailed",
            lambda request: re.search(fails, request.url) or problems.append(request.url),
        )
        page.goto(path.as_uri())
        page.wait_for_selector(ready)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where pictures go: the folder in RETINA_SCREENSHOTS, or one that is forgotten."""
    folder = Path(os.environ.get("RETINA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
