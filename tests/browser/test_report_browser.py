"""The report and its slider in a real browser, opened from disk with the network off."""

from pathlib import Path

import pytest
from fake_run import THRESHOLD, write_fake_run

from retina_utils import data, images, metrics
from retina_utils.show import report

WHITE_PIXELS = """() => {
  const canvas = document.querySelector(".rv canvas");
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < pixels.length; i += 4) count += pixels[i] === 255 && pixels[i + 3] === 255;
  return count;
}"""


@pytest.fixture
def open_page(browser):
    """A function that opens a file in a browser without a network and waits for the slider."""
    problems, contexts = [], []

    def open_page(path: Path, width: int = 1280, scheme: str = "light"):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, offline=True
        )
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("requestfailed", lambda request: problems.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector(".rv[data-case]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = write_fake_run(tmp_path_factory.mktemp("run"))
    report.write_report(run)
    return run


def shown_scores(page) -> dict[str, list[str]]:
    rows = page.locator(".rv tbody tr").all()
    return {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}


def settle(page) -> None:
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def test_canvas_and_numbers_equal_numpy_at_three_thresholds(open_page, run):
    page = open_page(run / "report.html")
    page.click("[data-view=vessels]")
    name = page.locator(".rv").get_attribute("data-case").split(" ")[0]
    pair = next(p for p in report.read_run(run).splits.test if p.name == name)
    sample = data.load_sample(pair)
    probability = images.read_probability(run / "probability" / "test" / f"{name}.png")
    assert page.locator(".rv").get_attribute("data-exact") == "true"
    for threshold in (0.2, THRESHOLD, 0.8):  # 0.2 is a tie with a 16-bit level
        page.evaluate(
            """(threshold) => {
              const root = document.querySelector(".rv"), slider = root.querySelector("input");
              const text = root.querySelector("script[type='application/json']").textContent;
              slider.value = JSON.parse(text).levels.indexOf(threshold);
              slider.dispatchEvent(new Event("input"));
            }""",
            threshold,
        )
        settle(page)
        predicted = metrics.decide(probability, threshold) & sample.fov
        assert page.evaluate(WHITE_PIXELS) == predicted.sum()
        expected = metrics.scores(metrics.confusion(predicted, sample.vessels, sample.fov))
        for score, (this, _) in shown_scores(page).items():
            assert float(this) == pytest.approx(expected[score.lower()], abs=6e-4)


def test_the_keyboard_moves_the_threshold_the_picture_and_the_numbers(open_page, run):
    page = open_page(run / "report.html")
    page.click("[data-view=vessels]")
    settle(page)
    before, scores = page.evaluate(WHITE_PIXELS), shown_scores(page)
    page.focus(".rv-threshold")
    for key in ("ArrowLeft", "-", "PageDown"):
        count = page.evaluate(WHITE_PIXELS)
        page.keyboard.press(key)
        settle(page)
        assert page.evaluate(WHITE_PIXELS) > count, key
    assert shown_scores(page) != scores
    assert page.locator(".rv-value").inner_text() in page.locator(".rv-threshold").get_attribute(
        "aria-valuetext"
    )
    page.keyboard.press("End")
    settle(page)
    assert page.evaluate(WHITE_PIXELS) < before
    page.get_by_role("button", name="chosen").click()
    settle(page)
    assert (page.evaluate(WHITE_PIXELS), shown_scores(page)) == (before, scores)


def test_the_mouse_drags_the_threshold(open_page, run):
    page = open_page(run / "report.html")
    page.click("[data-view=vessels]")
    slider = page.locator(".rv-threshold")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    middle, counts = box["y"] + box["height"] / 2, []
    page.mouse.move(box["x"] + 0.2 * box["width"], middle)
    page.mouse.down()
    for share in (0.2, 0.5, 0.8):
        page.mouse.move(box["x"] + share * box["width"], middle, steps=5)
        settle(page)
        counts.append(page.evaluate(WHITE_PIXELS))
    page.mouse.up()
    assert counts[0] > counts[1] > counts[2]
    assert float(page.locator(".rv-value").inner_text()) == pytest.approx(0.8, abs=0.03)


def test_another_photograph_other_views_and_zoom(open_page, run):
    page = open_page(run / "report.html")
    first, scores = page.locator(".rv").get_attribute("data-case"), shown_scores(page)
    page.select_option(".rv-pick", index=1)
    page.wait_for_function(
        "(name) => document.querySelector('.rv').dataset.case !== name", arg=first
    )
    assert shown_scores(page) != scores
    pictures = set()
    for view in ("probability", "vessels", "overlay", "errors"):
        page.click(f"[data-view={view}]")
        settle(page)
        pictures.add(page.evaluate("() => document.querySelector('.rv canvas').toDataURL()"))
    assert len(pictures) == 4
    page.locator(".rv-stage").click()
    for key in ("+", "+", "ArrowRight"):
        page.keyboard.press(key)
    moved = page.locator(".rv-sheet").get_attribute("style")
    page.mouse.wheel(0, -300)
    page.wait_for_function(
        "(s) => document.querySelector('.rv-sheet').style.cssText !== s", arg=moved
    )
    page.keyboard.press("0")
    assert "translate(0px, 0px)" in page.locator(".rv-sheet").get_attribute("style")
    page.click("[data-zoom=native]")


def test_no_window_is_too_narrow(open_page, run, screenshots):
    for name, width, scheme in (
        ("light", 1280, "light"),
        ("dark", 1280, "dark"),
        ("narrow", 390, "light"),
    ):
        page = open_page(run / "report.html", width, scheme)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        page.screenshot(path=screenshots / f"report_{name}.png", full_page=True)
        background = page.evaluate(
            "() => getComputedStyle(document.documentElement).backgroundColor"
        )
        assert (background == "rgb(255, 255, 255)") == (scheme == "light")
