"""The page of a folder in a real browser, opened from disk with the network off."""

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from browser.conftest import WHITE_PIXELS
from retina_utils.commands.summary import Outcome, Summary, targets, write_summary
from retina_utils.evaluate import Case
from retina_utils.machine.files import read_csv, write_csv
from retina_utils.metrics import decide
from retina_utils.show import folder_page

RECORD = {"weights": "pretrained", "weights_sha256": "0" * 64, "threshold": 0.4}
RECORD |= {"threshold_from": "the one that came with the weights"}
NAMES = ("a/é #1 50%.png", "b <img src=x onerror=alert(1)>.png", "=1+1.png", "c\u202egnp.png")
LISTED = "#table tbody .name"
NOTES = ('=HYPERLINK("http://x")', 'two "quotes", a comma; é', "'-5 apostrophe", "-5")


def case_of(name: str, seed: int) -> Case:
    """Thirty to forty pixels, sure of nothing: all probabilities lie near one half."""
    rng = np.random.default_rng(seed)
    fov = np.ones((30 + seed, 40), bool)
    fov[:3] = False
    probability = rng.normal(0.5, 0.004, fov.shape).clip(0, 1).astype(np.float32) * fov
    image = rng.integers(0, 256, (*fov.shape, 3), np.uint8)
    return Case(name, image, probability, None, fov)


@pytest.fixture
def out(tmp_path):
    """A folder of maps with four photographs done and two failed, and what is written of it."""
    root, out = tmp_path / "photographs", tmp_path / "maps"
    root.mkdir(), out.mkdir()
    write(out, root)
    return out


def write(out, root):
    with Summary(out, root, lambda _: folder_page.write_page(out, RECORD, 2)) as summary:
        for seed, name in enumerate(NAMES):
            folder_page.write_parts(out, case_of(name, seed), 0.4)
            for path in targets(out, name):
                path.parent.mkdir(exist_ok=True)
                path.touch()
            flags = "too dark; blurred" if seed == 1 else ""
            dice = f"0.{7 - seed}"
            summary.add(Outcome(name, "done", flags, expected_dice=dice, fingerprint=f"{seed}e5"))
        for name in ("broken.png", "cut.png"):
            (root / name).touch()
            summary.add(Outcome(name, "failed", message=f"{name}: cannot be <b>read</b>."))
    return summary


def open_list(open_page, out, **how):
    return open_page(out / "index.html", ready=LISTED, **how)


def open_first(page):
    page.locator(f"{LISTED} a").first.click()
    page.wait_for_selector(".rv[data-case]")


def settle(page):
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")


def names_in(page):
    return [text.split("/")[-1] for text in page.locator(LISTED).all_inner_texts()]


def test_all_photographs_are_listed_by_their_names_and_failures_with_their_words(open_page, out):
    page = open_list(open_page, out)
    assert "2 not done yet" in page.locator(".banner").inner_text()
    assert page.locator("#shown").inner_text() == "6 photographs"
    text = page.locator("#table").inner_text()
    assert "b <img src=x onerror=alert(1)>.png" in text and "c\\u202egnp.png" in text
    assert "failed: broken.png: cannot be <b>read</b>." in text
    assert page.locator("#table img").count() == 4
    page.wait_for_function(
        "[...document.querySelectorAll('#table img')].every((i) => i.naturalWidth)"
    )


def test_sorted_and_filtered_by_what_is_known(open_page, out):
    write_csv(out / "measures.csv", [
        {"photograph": name, "density": 7 - n, "density_low": 1, "density_high": 9}
        for n, name in enumerate(NAMES)
    ])  # fmt: skip
    folder_page.write_page(out, RECORD)
    page = open_list(open_page, out)
    assert "1 to 9" in page.locator("#table").inner_text()
    page.get_by_role("button", name="expected Dice").click()
    assert names_in(page)[:2] == ["c\\u202egnp.png", "=1+1.png"]  # what has none comes last
    page.get_by_role("button", name="expected Dice").click()
    assert names_in(page)[0] == "é #1 50%.png"
    assert page.locator("th[aria-sort=descending]").inner_text() == "expected Dice"
    page.select_option("[name=show]", "flag: blurred")
    assert names_in(page) == ["b <img src=x onerror=alert(1)>.png"]
    page.get_by_role("button", name="2 failed").click()
    assert sorted(names_in(page)) == ["broken.png", "cut.png"]
    page.get_by_role("button", name="Clear").click()
    page.select_option("[name=measure]", "expected_dice")
    page.fill("[name=from]", "0,5")
    page.fill("[name=to]", "0.6")
    assert sorted(names_in(page)) == ["=1+1.png", "b <img src=x onerror=alert(1)>.png"]
    page.fill("[name=find]", "ONERROR")
    assert len(names_in(page)) == 1


@pytest.mark.parametrize("seed", range(4))
def test_each_opens_in_the_viewer_and_decides_as_the_metrics_do(open_page, out, seed):
    page, case = open_list(open_page, out), case_of(NAMES[seed], seed)
    page.evaluate("(name) => { location.hash = encodeURIComponent(name); }", NAMES[seed])
    page.wait_for_selector(".rv[data-case]")
    assert page.locator(".rv").get_attribute("data-case") == case.name
    assert page.locator(".rv").get_attribute("data-exact") == "true"
    page.click("[data-view=vessels]")
    page.focus(".rv-threshold")
    counts = []
    for key in ("Home", *["PageUp"] * 8):
        page.keyboard.press(key)
        settle(page)
        threshold = float(page.locator(".rv-value").inner_text())
        expected = np.count_nonzero(decide(case.probability, threshold) & case.fov)
        assert page.evaluate(WHITE_PIXELS) == expected
        counts.append(expected)
    # Everything lies between 0.48 and 0.52: even steps would decide the same almost everywhere.
    assert len(set(counts)) > 4


def test_next_and_previous_follow_the_list_and_escape_goes_back_to_it(open_page, out):
    page = open_list(open_page, out)
    page.select_option("[name=show]", "without a flag")
    order = page.locator(f"{LISTED} a").evaluate_all("(links) => links.map((a) => a.hash)")
    open_first(page)
    assert page.locator(".rv-place").inner_text() == "1 of 3"
    for key, index in (("n", 1), ("n", 2), ("n", 2), ("p", 1)):
        page.keyboard.press(key)
        page.wait_for_function("(hash) => location.hash === hash", arg=order[index])
    page.get_by_role("button", name="Next").click()
    page.wait_for_function("(hash) => location.hash === hash", arg=order[2])
    assert page.get_by_role("button", name="Next").get_attribute("aria-disabled") == "true"
    page.keyboard.press("Escape")
    page.locator("#table").wait_for()
    assert page.evaluate("document.activeElement.hash") == order[2]


def test_judgements_are_saved_and_joined_into_the_summary(open_page, out, tmp_path):
    page = open_list(open_page, out)
    open_first(page)
    for index, note in enumerate(NOTES):
        page.locator(".rv-stage").focus()
        page.keyboard.press("123"[index % 3])
        page.fill("#note", note)
        page.locator("#note").press("n")  # a letter of the note, and no step to the next
        page.fill("#note", note)
        page.locator(".rv-stage").focus()
        page.keyboard.press("n")
        page.wait_for_timeout(100)
    page.keyboard.press("Escape")
    assert page.locator("#unsaved").inner_text() == "4 not saved yet"
    with page.expect_download() as download:
        page.get_by_role("button", name="Save judgements").click()
    assert download.value.suggested_filename == "judged.csv"
    assert page.locator("#unsaved").inner_text() == ""
    download.value.save_as(out / "judged.csv")
    cells = [line.split(",")[2] for line in (out / "judged.csv").read_text().splitlines()[1:]]
    assert not any(cell.startswith('"=') for cell in cells)
    with Summary(out, tmp_path / "photographs"):
        pass
    rows = {row["name"]: row for row in read_csv(out / "summary.csv")}
    assert sorted(row["note"] for row in rows.values() if row["note"]) == sorted(NOTES)
    words = sorted(row["judged"] for row in rows.values() if row["judged"])
    assert words == ["doubtful", "good", "good", "not usable"]
    folder_page.write_page(out, RECORD)
    page = open_list(open_page, out)
    page.select_option("[name=show]", "judged good")
    assert len(names_in(page)) == 2


def test_ten_thousand_photographs_are_one_light_page(open_page, out):
    outcomes = [Outcome(f"p{n:05d}.png", "done", expected_dice=n / 1e4) for n in range(10_000)]
    write_summary(out, {outcome.name: outcome for outcome in outcomes})
    folder_page.write_page(out, RECORD)
    page = open_page(out / "index.html", ready=LISTED, fails=r"\.small\.jpg$")
    assert page.locator("#shown").inner_text() == "1 to 100 of 10,000 photographs"
    assert page.locator("*").count() < 2500
    page.select_option("[name=sort]", "expected_dice")
    page.select_option("[name=order]", "-1")
    assert names_in(page)[0] == "p09999.png"
    page.get_by_role("button", name="Later").click()
    assert names_in(page)[0] == "p09899.png"
    page.fill("[name=find]", "p0123")
    assert page.locator("#shown").inner_text() == "10 photographs, of 10,000"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_too_wide_or_hard_to_read(open_page, out, screenshots, width, scheme):
    page = open_list(open_page, out, width=width, scheme=scheme)
    for name in ("list", "one"):
        if name == "one":
            open_first(page)
        found = Axe().run(page).response["violations"]
        assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        shot = screenshots / f"folder_{name}_{width}_{scheme}.png"
        page.screenshot(path=shot, full_page=True)


def test_pictures_that_are_gone_are_told(open_page, out):
    for path in (out / folder_page.PARTS).rglob("*.js"):
        path.unlink()
    page = open_page(out / "index.html", ready=LISTED, fails=r"\.js$")
    page.locator(f"{LISTED} a").first.click()
    page.get_by_text("Give the command again").wait_for()
