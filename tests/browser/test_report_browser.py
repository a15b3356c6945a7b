"""The report and its slider in a real browser, opened from disk with the network off."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from fake_run import THRESHOLD, write_fake_run

from browser.conftest import WHITE_PIXELS, barriers
from retina_utils import data, images, metrics
from retina_utils.evaluate import Case
from retina_utils.show import report
from retina_utils.show.viewer import viewer_html

LEVELS = "JSON.parse(document.querySelector('.rv script').textContent).levels"


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
              const data = JSON.parse(root.querySelector("script").textContent);
              slider.value = data.levels.indexOf(threshold);
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
    page.get_by_role("button", name="usual threshold").click()
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
    levels = page.evaluate(LEVELS)
    expected = levels[round(0.8 * (len(levels) - 1))]
    assert float(page.locator(".rv-value").inner_text()) == pytest.approx(expected, abs=0.03)


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


def moved_to(page, selector: str, value: float) -> None:
    page.locator(selector).evaluate(
        "(slider, value) => { slider.value = value; slider.dispatchEvent(new Event('input')); }",
        value,
    )
    settle(page)


def opacity_of(page) -> str:
    return page.locator(".rv canvas").evaluate("(canvas) => canvas.style.opacity")


def test_another_view_keeps_the_opacity_that_was_chosen(open_page, run):
    page = open_page(run / "report.html")
    assert opacity_of(page) == "0.8"
    moved_to(page, ".rv-opacity", 35)
    for view, expected in (("errors", "0.35"), ("photograph", "0"), ("overlay", "0.35")):
        page.click(f"[data-view={view}]")
        settle(page)
        assert opacity_of(page) == expected, view


def test_one_to_one_is_the_photographs_own_size_also_where_it_is_small(open_page, run):
    page = open_page(run / "report.html")
    percent = page.locator(".rv-scale")
    assert percent.inner_text() != "100 %"  # it was enlarged to fill its frame
    page.click("[data-zoom=native]")
    assert percent.inner_text() == "100 %"
    sheet, stage = (page.locator(s).bounding_box() for s in (".rv-sheet", ".rv-stage"))
    assert sheet["width"] == pytest.approx(page.evaluate("document.querySelector('canvas').width"))
    middle = stage["x"] + stage["width"] / 2
    assert sheet["x"] + sheet["width"] / 2 == pytest.approx(middle, abs=1)
    page.click("[data-zoom=fit]")
    assert percent.inner_text() != "100 %"


def test_keys_and_buttons_go_on_and_back_and_keep_what_is_looked_at(open_page, run):
    page = open_page(run / "report.html")
    name = page.locator(".rv").get_attribute
    first = name("data-case")
    page.locator(".rv-stage").focus()
    for key in ("+", "+", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
    where = page.locator(".rv-sheet").get_attribute("style")
    moved_to(page, ".rv-threshold", 30)
    page.keyboard.press("n")
    page.wait_for_selector(f".rv:not([data-case='{first}'])")
    second = name("data-case")
    assert page.locator(".rv-pick").input_value() == "1"
    assert page.locator(".rv-sheet").get_attribute("style") == where
    assert page.locator(".rv-threshold").input_value() == "30"
    page.get_by_role("button", name="Previous").click()
    page.wait_for_selector(f".rv[data-case='{first}']")
    page.keyboard.press("n")
    page.wait_for_selector(f".rv[data-case='{second}']")
    page.keyboard.press("p")
    page.wait_for_selector(f".rv[data-case='{first}']")


def test_long_names_keep_the_end_that_differs(open_page, tmp_path):
    image, inside = np.zeros((20, 30, 3), np.uint8), np.ones((20, 30), bool)
    names = [f"{'clinic_of_many_words_' * 4}{end} (Dice 0.812, worst)" for end in ("OD_1", "OS_2")]
    cases = [Case(name, image, np.float32(inside) / 2, inside, inside) for name in names]
    fragment = viewer_html(cases, {"chosen": 0.5})
    (tmp_path / "page.html").write_text(f'<!DOCTYPE html><meta charset="utf-8">{fragment}', "utf-8")
    page = open_page(tmp_path / "page.html", 390)
    first, second = page.locator(".rv-pick option").all_inner_texts()
    assert "OD_1 (Dice" in first and "OS_2 (Dice" in second and len(first) < 60
    assert page.locator(".rv-full").inner_text() == names[0]
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [1440, 390])
def test_the_slider_has_no_serious_fault_for_those_who_cannot_see_it(open_page, run, width):
    page = open_page(run / "report.html", width)
    found = Axe().run(page, context=".rv").response["violations"]
    assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []


def test_paper_gets_the_picture_as_it_is_seen(open_page, run, screenshots):
    page = open_page(run / "report.html")
    page.emulate_media(media="print")
    assert page.locator(".rv canvas").is_visible() and page.locator(".rv-value").is_visible()
    assert not page.locator(".rv-threshold").is_visible()
    assert not page.locator(".rv-fallback").is_visible()
    page.locator(".rv").screenshot(path=screenshots / "viewer_printed.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_the_report_bars_nobody(open_page, run, width, scheme):
    page = open_page(run / "report.html", width, scheme)
    assert barriers(page) == []
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert barriers(page) == []


def test_on_a_phone_picture_threshold_and_scores_are_seen_at_once(open_page, run):
    page = open_page(run / "report.html", 390)
    boxes = [
        page.locator(f".rv {part}").bounding_box() for part in ("canvas", ".rv-threshold", "table")
    ]
    ends = [box["y"] + box["height"] for box in boxes]
    assert ends == sorted(ends)
    assert ends[-1] - boxes[0]["y"] < 844  # pixels of such a phone


def test_on_a_phone_the_text_of_the_charts_can_be_read_and_what_is_cut_can_be_moved(open_page, run):
    page = open_page(run / "report.html", 390)
    heights = page.evaluate("""() => [...document.querySelectorAll(".chart svg text")]
      .filter((text) => text.textContent.trim())
      .map((text) => text.getBoundingClientRect().height)""")
    assert min(heights) >= 9
    chart = page.locator(".chart .scroll").first
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("() => document.querySelector('.chart .scroll').scrollLeft > 0")


def test_on_paper_the_colours_of_the_legend_stay_and_no_checksum_is_cut(open_page, run):
    page = open_page(run / "report.html", 700)
    page.emulate_media(media="print")
    page.evaluate("() => document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    exact = "(e) => getComputedStyle(e).printColorAdjust"
    assert page.locator(".swatch").first.evaluate(exact) == "exact"
    cut = "(e) => e.getBoundingClientRect().right > innerWidth + 1"
    assert not any(cell.evaluate(cut) for cell in page.locator(".checksums td:last-child").all())
    assert (
        page.locator(".scroll").first.evaluate("(e) => getComputedStyle(e).overflowX") == "visible"
    )


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
