"""One Chromium for the browser tests.

Skipped where Chromium or playwright is missing, unless RETINA_REQUIRE_BROWSER=1. Set
RETINA_SCREENSHOTS to a folder to keep pictures of what was tested, light, dark and narrow.
"""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


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


@pytest.fixture
def screenshots(tmp_path) -> Path:
    """Where pictures go: the folder in RETINA_SCREENSHOTS, or one that is forgotten."""
    folder = Path(os.environ.get("RETINA_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
