"""The threshold slider of 05_visualize.ipynb in a real JupyterLab, with keyboard and mouse."""

import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
from conftest import ROOT
from fake_run import THRESHOLD, write_fake_run

from browser.conftest import barriers
from retina_utils.show import report
from retina_utils.show.viewer import threshold_levels

PATIENCE = 180  # seconds: a busy machine is no error
BOOK = "05_visualize.ipynb"
RUNTIME, PREFERENCES = "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR"
FOLDERS = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTERLAB_WORKSPACES_DIR", "IPYTHONDIR")
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    # Otherwise a dialog that asks for the kernel swallows the command to run all cells.
    "notebook-extension/tracker": {"autoStartDefaultKernel": True},
}
# The toolbar says "idle" before there is a kernel, so the kernel itself is asked.
READY = """() => {
  const notebook = window.jupyterapp?.shell.currentWidget;
  const kernel = notebook?.sessionContext?.session?.kernel;
  return notebook?.context?.isReady && kernel?.connectionStatus === "connected"
    && kernel.status === "idle";
}"""
RAN = """() => {
  const cells = jupyterapp.shell.currentWidget.content.model.toJSON().cells
    .filter((cell) => cell.cell_type === "code");
  const outputs = cells.flatMap((cell) => cell.outputs);
  const errors = outputs.filter((output) => output.output_type === "error");
  return (errors.length || cells.at(-1).execution_count) && { errors };
}"""
SHOWN = """() => {
  const explorer = document.querySelector(".threshold-explorer");
  const rows = [...explorer.querySelectorAll("tbody tr")].map((row) => [...row.children]);
  return {
    ...Object.fromEntries(rows.map((row) => [row[0].innerText, +row.at(-1).innerText])),
    threshold: parseFloat(explorer.querySelector("caption").innerText.split(" ")[1]),
    handle: track[Math.round(
      explorer.querySelector(".threshold-slider .slider").noUiSlider.get(true))],
    picture: explorer.querySelector("img").src,
  };
}"""
CUT_OFF = """(explorer) => [explorer, ...explorer.querySelectorAll(".widget-box, .widget-html")]
  .filter((box) => box.scrollWidth > box.clientWidth).map((box) => box.innerText)"""


@contextmanager
def jupyterlab(folder: Path):
    """A JupyterLab of its own, without a token, that serves ``folder``; its address."""
    home, log = folder / "jupyter", folder / "server.log"
    for name, content in SETTINGS.items():
        path = home / PREFERENCES / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--IdentityProvider.token="]
    options += [f"--ServerApp.root_dir={folder}", "--LabApp.expose_app_in_browser=True"]
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            env=os.environ | {name: str(home / name) for name in (*FOLDERS, RUNTIME, PREFERENCES)},
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not (found := list((home / RUNTIME).glob("jpserver-*.json"))):
            started = server.poll() is None and time.monotonic() < deadline
            assert started, f"JupyterLab did not start:\n{log.read_text()}"
            time.sleep(0.2)
        yield json.loads(found[0].read_text())["url"]
    finally:
        server.terminate()  # it stops its kernels; killed, they see that it is gone and end
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run that the notebook finds with its default parameters."""
    return write_fake_run(tmp_path_factory.mktemp("lab"), name="tiny")


@pytest.fixture(scope="module")
def page(browser, run):
    """The notebook in JupyterLab with all its cells run; the same page for every test."""
    folder = run.parents[1]
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    book = json.loads((folder / "notebooks" / BOOK).read_text(encoding="utf-8"))
    for cell in book["cells"]:
        cell |= {"outputs": [], "execution_count": None} if cell["cell_type"] == "code" else {}
    (folder / "notebooks" / BOOK).write_text(json.dumps(book), encoding="utf-8")
    with jupyterlab(folder) as url:
        context = browser.new_context(viewport={"width": 1280, "height": 1000})
        context.set_default_timeout(1000 * PATIENCE)
        page = context.new_page()
        page.goto(f"{url}lab/tree/notebooks/{BOOK}")
        page.wait_for_function(READY)
        command(page, "notebook:run-all-cells")
        page.wait_for_function(RAN)
        page.wait_for_function(READY)
        pooled = report.read_run(run).measured["validation"].pooled
        track = threshold_levels({"chosen": THRESHOLD}, sum(pooled))
        page.evaluate(f"() => {{ window.track = {track.tolist()}; }}")
        yield page
        context.close()


@pytest.fixture
def explorer(page):
    """The explorer with the chosen threshold and the overlay, whatever happened before."""
    explorer = page.locator(".threshold-explorer")
    explorer.scroll_into_view_if_needed()
    explorer.get_by_role("button", name="overlay", exact=True).click()
    explorer.get_by_role("button", name="usual threshold").click()
    page.wait_for_function(f"() => ({SHOWN})().threshold === {THRESHOLD:.3f}")
    explorer.get_by_text("decided to be vessel").wait_for()
    return explorer


def command(page, name: str, **arguments) -> None:
    """Give JupyterLab a command; waiting for its promise would hang."""
    page.evaluate(f"() => {{ jupyterapp.commands.execute('{name}', {json.dumps(arguments)}); }}")


def shown(page, since: dict | None = None) -> dict:
    """Scores, threshold and picture, once all have followed the slider and left ``since``."""
    old = json.dumps(since["picture"] if since else "")
    settled = f"Math.abs(now.threshold - now.handle) < 0.003 && now.picture !== {old} && now"
    found = page.wait_for_function(f"() => {{ const now = ({SHOWN})(); return {settled}; }}")
    return found.json_value()


def assert_traded(low: dict, high: dict) -> None:
    """A higher threshold finds fewer vessels, and more of what it finds is one."""
    assert low["threshold"] < high["threshold"]
    assert low["recall"] > high["recall"]
    assert low["precision"] < high["precision"]


def test_the_notebook_runs_without_an_error_and_shows_the_explorer(page):
    assert page.evaluate(RAN) == {"errors": []}
    page.locator(".threshold-explorer img").wait_for()
    assert shown(page)["threshold"] == round(THRESHOLD, 3)


def test_keys_move_the_threshold_the_picture_and_the_numbers(page, explorer):
    explorer.locator(".threshold-slider .noUi-handle").focus()
    states = [shown(page)]
    for key, times in (("ArrowRight", 6), ("ArrowUp", 6), ("PageUp", 4)):
        for _ in range(times):
            page.keyboard.press(key)
        states.append(shown(page, states[-1]))
    for low, high in pairwise(states):
        assert_traded(low, high)
    for _ in range(9):
        page.keyboard.press("ArrowLeft")
    page.keyboard.press("PageDown")
    assert_traded(shown(page, states[-1]), states[-1])
    page.keyboard.press("End")
    highest = shown(page, states[-1])
    page.keyboard.press("Home")
    lowest = shown(page, highest)
    assert (lowest["threshold"], lowest["recall"], highest["threshold"]) == (0, 1, 1)
    assert_traded(lowest, highest)


def test_the_mouse_drags_the_threshold_the_picture_and_the_numbers(page, explorer):
    track = explorer.locator(".threshold-slider .noUi-base").bounding_box()
    handle = explorer.locator(".threshold-slider .noUi-handle").bounding_box()
    y, states = handle["y"] + handle["height"] / 2, [shown(page)]
    page.mouse.move(handle["x"] + handle["width"] / 2, y)
    page.mouse.down()
    for share in (0.6, 0.8):
        page.mouse.move(track["x"] + share * track["width"], y, steps=20)
        states.append(shown(page, states[-1]))
        expected = page.evaluate(f"() => track[Math.round({share} * (track.length - 1))]")
        assert states[-1]["threshold"] == pytest.approx(expected, abs=0.02)
        assert_traded(*states[-2:])
    page.mouse.move(track["x"] + 0.2 * track["width"], y, steps=20)
    page.mouse.up()
    assert_traded(shown(page, states[-1]), states[0])


def test_buttons_do_what_the_slider_does(page, explorer):
    states = [shown(page)]
    for _ in range(8):
        explorer.get_by_role("button", name="+", exact=True).click()
    states.append(shown(page, states[-1]))
    for low, high in pairwise(states):
        assert_traded(low, high)


@pytest.mark.parametrize(("key", "typed"), [("Enter", "0.62"), ("Tab", ".9")])
def test_a_number_that_is_typed_moves_the_slider(page, explorer, key, typed):
    before = shown(page)
    number = explorer.get_by_role("spinbutton", name="threshold")
    # A number of the kernel that comes later would take the place of what is typed.
    page.wait_for_function(f"(box) => +box.value === {THRESHOLD}", arg=number.element_handle())
    number.press("ControlOrMeta+a")
    number.press_sequentially(typed)
    number.press(key)
    after = shown(page, before)
    assert after["threshold"] == pytest.approx(after["handle"]) == float(typed)
    assert_traded(before, after)


def test_the_explorer_bars_nobody(page, explorer):
    page.wait_for_function(
        "() => document.querySelector('.threshold-explorer [aria-label=opacity]')"
    )
    assert barriers(page, ".threshold-explorer") == []


def test_the_keyboard_switches_views(page, explorer):
    states = [shown(page)]
    explorer.get_by_role("button", name="overlay", exact=True).focus()
    keys = {"false alarm": "Space", "decided to be vessel": "Enter", "0 1": "Space"}
    for words, key in keys.items():
        page.keyboard.press("Tab")
        page.keyboard.press(key)
        explorer.get_by_text(words).wait_for()
        states.append(shown(page, states[-1]))
    assert len({state["picture"] for state in states}) == 4
    assert len({state["recall"] for state in states}) == 1


def test_a_choice_by_eye_is_kept_in_the_run_with_its_reason(page, explorer, run):
    explorer.locator(".threshold-slider .noUi-handle").focus()
    page.keyboard.press("PageUp")
    reason = "odd added bits are cut off"  # letters that are JupyterLab's commands elsewhere
    explorer.get_by_label("reason").press_sequentially(reason)
    explorer.get_by_role("button", name="use this threshold").click()
    explorer.get_by_role("alert").filter(has_text=reason).wait_for()
    kept = json.loads((run / "threshold_by_eye.json").read_text(encoding="utf-8"))
    assert (kept["chosen"], kept["reason"]) == ("by eye", reason)
    assert kept["threshold"] == pytest.approx(shown(page)["threshold"], abs=5e-4)
    assert kept["threshold"] > THRESHOLD


@pytest.mark.parametrize("theme", ["Light", "Dark"])
def test_all_of_it_is_seen_at_once_in_either_theme(page, explorer, screenshots, theme):
    command(page, "apputils:change-theme", theme=f"JupyterLab {theme}")
    light = "true" if theme == "Light" else "false"
    page.wait_for_selector(f"body[data-jp-theme-light={light}]", state="attached")
    page.wait_for_timeout(1000)  # the theme's style sheet
    explorer.screenshot(path=screenshots / f"explorer_{theme.lower()}.png")
    assert explorer.bounding_box()["height"] < 800
    assert explorer.evaluate(CUT_OFF) == []
