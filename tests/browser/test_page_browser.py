"""The network in one file, opened from disk without a network, in Chromium and in Firefox."""

import base64
import csv
import json
import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT, TINY
from PIL import Image
from scipy import ndimage
from test_fov import barred, circle, iou, photograph

from retina_utils import RetinaError, images, metrics
from retina_utils.checkpoint import load_network
from retina_utils.commands.folder import promise
from retina_utils.commands.quality import map_flags
from retina_utils.fov import find_fov
from retina_utils.intake import scale
from retina_utils.predict import at_fitting_scale, predict_image
from retina_utils.show import page as writer
from retina_utils.show.pages import TEMPLATES

pytest.importorskip("onnxscript")
from retina_utils.commands import onnx as command

PATIENCE = 240_000  # milliseconds: a busy machine is no error
DONE = """() => document.querySelector("#list li") &&
  !document.querySelector("#list [data-state=waiting]")"""
STATES = 'rows => rows.map((row) => row.querySelector("span").textContent)'
PHOTOGRAPHS = sorted((TINY / "test" / "images").glob("*.png"))


def boxed(*_):
    """The network in the box, which looks for its scale and tells how far its promise is off."""
    network = load_network("pretrained")
    return replace(network, facts={"learned_width": 0.0118, "promise": 0.07} | network.facts)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The page of the network in the box; its engine as `make page` has left it."""
    kept = ROOT / "outputs" / "page" / f"{writer.ENGINE}-{writer.ENGINE_VERSION}.tgz"
    if not kept.exists() and os.environ.get("RETINA_REQUIRE_BROWSER") != "1":
        pytest.skip("the engine is not here: make page fetches it")
    out = tmp_path_factory.mktemp("page") / "vessels.html"
    if kept.exists():
        shutil.copy(kept, out.parent)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "load_network", boxed)
        try:
            command.write_page("pretrained", out)
        except RetinaError as error:
            if "cannot be reached" not in str(error):
                raise
            pytest.skip(f"the page's engine is not here: {error}")
    return out


@pytest.fixture
def opened(browser, file):
    """A function that opens the page offline; what is requested or goes wrong fails the test."""
    problems, contexts = [], []

    def opened(width: int = 1280, scheme: str = "light"):
        size = {"width": width, "height": 900}
        context = browser.new_context(viewport=size, color_scheme=scheme, offline=True)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        page.on("request", lambda request: asked(request.url))
        page.goto(file.as_uri())
        return page

    def asked(url):
        if url != file.as_uri() and not url.startswith(("blob:", "data:")):
            problems.append(url)

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def drop(page, files) -> list[str]:
    page.set_input_files("#files", files)
    page.wait_for_function(DONE, timeout=PATIENCE)
    return page.eval_on_selector_all("#list li", STATES)


def saved(page, button, folder):
    with page.expect_download() as download:
        page.click(button)
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


def show(page, name):
    page.get_by_role("button", name=f"show {name}").click()
    page.wait_for_selector(f".rv[data-case='{name}']")


def test_the_page_is_small(file):
    assert file.stat().st_size < 10e6 and "://" not in file.read_text(encoding="utf-8")


def test_its_maps_are_those_of_predict_image(opened, tmp_path):
    page, network = opened(), boxed()
    assert all(words.startswith("done") for words in drop(page, PHOTOGRAPHS))
    table = saved(page, "#save-measures", tmp_path)
    rows = list(csv.DictReader(table.read_text(encoding="utf-8-sig").splitlines()))
    for path, row in zip(PHOTOGRAPHS, rows, strict=True):
        show(page, path.name)
        probability = images.read_probability(saved(page, "#save-probability", tmp_path))
        vessels = images.read_binary(saved(page, "#save-vessels", tmp_path))
        image = images.read_photograph(path)
        fov = find_fov(image)
        ours = predict_image(network, image, fov, precision="float32")
        expected = metrics.expect(np.bincount(metrics.to_levels(ours[fov]), minlength=65536))
        decided = metrics.decide(ours, expected.threshold) & fov
        counts = metrics.confusion(vessels, decided, fov | vessels)
        assert metrics.scores(counts)["dice"] > 0.997
        assert float(row["threshold"]) == pytest.approx(expected.threshold, abs=2e-3)
        assert page.locator(".rv-marks button").first.inner_text().endswith("its own threshold")
        levels = np.bincount(metrics.to_levels(probability[probability > 0]), minlength=65536)
        assert (vessels == metrics.decide(probability, metrics.expect(levels).threshold)).all()
        assert row["name"] == path.name and row["status"] == "done"
        area, share = float(row["fov_area"]), float(row["vessel_share"])
        assert area == pytest.approx(fov.sum(), rel=5e-3)
        assert share == pytest.approx(vessels.sum() / area, abs=1e-4)
        flags = map_flags(ours, vessels, fov)
        told = [row[name] for name in ("expected_dice", "expected_dice_low", "expected_dice_high")]
        ends = promise(expected.dice, flags, network.facts["promise"])
        assert np.array(told, float) == pytest.approx(np.array(ends), abs=3e-3)
        assert row["flags"] == "; ".join(flags)
        seen_at = at_fitting_scale(network, image, fov, batch_size=1, precision="float32")
        diameter = seen_at.preparation.fov_diameter
        assert float(row["network_diameter"]) == pytest.approx(diameter, rel=0.01)


@pytest.fixture
def steps(browser):
    """A page with the functions of the page's other thread, and nothing else."""
    page = browser.new_page()
    names = ("fov.js", "png.js", "worker.js")
    page.add_script_tag(content="".join(map(TEMPLATES.globals["text_of"], names)))
    given = {"fov_diameter": 1024, "learned_width": 0.0118, "limits": command.LIMITS}
    page.evaluate("(given) => { facts = given; }", given)
    yield page
    page.close()


def fov_of(steps, image) -> np.ndarray:
    """The FOV that the page finds: (H, W) bool."""
    height, width = image.shape[:2]
    pixels = np.dstack([image, np.full((height, width), 255, np.uint8)]).tobytes()
    find = """([pixels, width, height]) =>
      findFov({ data: bytesOf(pixels), width, height }, facts.limits).fov.join("")"""
    found = steps.evaluate(find, [base64.b64encode(pixels).decode(), width, height])
    return (np.frombuffer(found.encode(), np.uint8) == ord("1")).reshape(height, width)


DISCS = {
    "whole": photograph(circle()),
    "cut off": photograph(circle(height=300, radius=220, cy=150)),
    "bars": barred(0)[0],
    "glowing bars": barred(30)[0],
    "glowing bars, a side in shadow": barred(15, fading=True)[0],
    "bars at the sides": np.rot90(barred(15)[0]),
    "large": np.rot90(barred(45, shape=(960, 1120), radius=500)[0], -1),
}


@pytest.mark.parametrize("image", DISCS.values(), ids=DISCS)
def test_the_field_of_view_is_found_as_in_python(steps, image):
    assert iou(fov_of(steps, image), find_fov(image)) > 0.999


def test_the_scale_is_found_as_in_python(steps):
    page, rng = steps, np.random.default_rng(0)
    for blur, cut in ((1, 0.55), (3, 0.5), (6, 0.45), (3, 0.8)):
        probability = ndimage.gaussian_filter(rng.random((90, 130), np.float32), blur)
        probability = np.interp(probability, np.quantile(probability, [0, cut, 1]), [0, 0.5, 1])
        arguments = [probability.ravel().tolist(), *probability.shape[::-1], 80]
        ours = scale.widest(probability >= 0.5, 80)
        found = page.evaluate("(all) => widest(...all)", arguments)
        assert ours > 0.02 and found == pytest.approx(ours, rel=1e-12)
    assert np.isnan(page.evaluate("() => widest([.9, .8, .1, .1], 2, 2, 2)"))
    for found in (np.nan, 0.001, 0.006, 0.0118, 0.02, 0.3):
        for native in (300, 900, 3000):
            ours = scale.fitting_diameter(1024, 0.0118, found, native)
            told = page.evaluate("(all) => fittingDiameter(...all)", [found, native])
            seen_at = page.evaluate("(all) => seenAt(...all)", [found, native])
            assert told == ours
            assert seen_at == {"fitting": min(ours, 2048), "small": ours > 1.25 * 2048}


def test_the_slider_decides_what_is_saved(opened, tmp_path):
    page = opened()
    drop(page, PHOTOGRAPHS[:1])
    first = images.read_binary(saved(page, "#save-vessels", tmp_path))
    page.get_by_role("button", name="one half").click()
    half = images.read_binary(saved(page, "#save-vessels", tmp_path))
    probability = images.read_probability(saved(page, "#save-probability", tmp_path))
    assert (half == metrics.decide(probability, 0.5)).all() and half.sum() < first.sum()
    assert page.locator(".rv tbody tr").all_inner_texts()[1].split()[-1] == (
        page.evaluate("([n, area]) => (n / area).toFixed(3)", [int(half.sum()), area_of(page)])
    )


def area_of(page) -> int:
    """Pixels of the shown photograph that the page has for its FOV: those not black on 0."""
    page.click("[data-view=vessels]")
    page.focus(".rv-threshold")
    page.keyboard.press("Home")
    page.wait_for_function('() => document.querySelector(".rv-value").textContent === "0.000"')
    area = page.evaluate("""() => new Promise((done) => requestAnimationFrame(() => {
      const canvas = document.querySelector(".rv canvas"), context = canvas.getContext("2d");
      const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data;
      done(pixels.filter((value, i) => i % 4 === 0 && value === 255).length);
    }))""")
    page.get_by_role("button", name="one half").click()
    page.wait_for_function('() => document.querySelector(".rv-value").textContent === "0.500"')
    return area


def test_what_is_no_photograph_gets_a_sentence_and_the_next_its_map(opened, tmp_path):
    photograph = images.read_photograph(PHOTOGRAPHS[0])
    whole = tmp_path / "whole.jpg"
    Image.fromarray(photograph).save(whole)
    given = {
        "note.txt": (b"Dear colleague", "Is no photograph"),
        "empty.png": (b"", "Is empty"),
        "paper.pdf": (b"%PDF-1.7 ...", "Is a PDF"),
        "cut.jpg": (half_of(whole), "damaged or cut short"),
        "cut.png": (half_of(PHOTOGRAPHS[0]), "damaged or cut short"),
        "noise.jpg": (b"\xff\xd8\xff" + bytes(500) + b"\xff\xd9", "damaged or cut short"),
    }
    arrays = {
        "film.tif": (photograph, "Is a TIFF file"),
        "black.png": (photograph // 64, "No field of view: 95 % of the pixels are darker"),
        "mask.png": (np.uint8(255 * find_fov(photograph)), "Has two values only"),
        "deep.png": (np.uint16(photograph[..., 1]) * 16, "Has 16 bits a channel"),
        "letters.png": (spots(), "No round field of view"),
        "dark.png": (photograph // 5, "too dark"),
        "landscape.png": (np.roll(photograph[60:160, 60:220], 1, -1), "not red (no retina?)"),
    }
    for name, (content, _) in given.items():
        (tmp_path / name).write_bytes(content)
    for name, (content, _) in arrays.items():
        Image.fromarray(content).save(tmp_path / name)
    wanted = [words for _, words in [*given.values(), *arrays.values()]]
    files = [tmp_path / name for name in [*given, *arrays]]
    page = opened()
    found = drop(page, [*files, PHOTOGRAPHS[0]])
    for file, words, sentence in zip(files, wanted, found, strict=False):
        assert words in sentence, f"{file.name}: {sentence}"
    assert found[-1].startswith("done")
    with pytest.raises((RetinaError, ValueError)):  # as in Python
        find_fov(photograph // 64)


def half_of(file) -> bytes:
    content = file.read_bytes()
    return content[: len(content) // 2]


def spots() -> np.ndarray:
    """A dark page with letters on it: (H, W, 3) uint8."""
    page = np.full((300, 300, 3), 10, np.uint8)
    page += np.arange(300, dtype=np.uint8)[:, None] % 50  # paper is not of one grey
    for y in range(20, 280, 40):
        page[y : y + 14, 20:280:2] = page[y : y + 14, 21:280:6] = 200
    return page


def test_it_works_by_keyboard_and_on_a_phone(opened, screenshots):
    for name, width, scheme in (("light", 1280, "light"), ("phone", 390, "dark")):
        page = opened(width, scheme)
        page.screenshot(path=screenshots / f"page_{name}_empty.png", full_page=True)
        drop(page, PHOTOGRAPHS[:2])
        page.screenshot(path=screenshots / f"page_{name}.png", full_page=True)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    page.locator("body").press("Tab")
    assert page.evaluate("() => document.activeElement.id") == "files"
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("() => document.activeElement.className") == "rv-threshold":
            break
    before = page.locator(".rv-value").inner_text()
    page.keyboard.press("ArrowRight")
    page.wait_for_function(
        '(before) => document.querySelector(".rv-value").textContent !== before', arg=before
    )


def test_the_browser_refuses_what_the_page_never_asks_for(browser, file):
    page = browser.new_page()
    page.goto(file.as_uri())
    ask = """() => new Promise((done) => {
      document.addEventListener("securitypolicyviolation", (event) => done(event.blockedURI));
      fetch("http://127.0.0.1:9/x").catch(() => {});
    })"""
    assert page.evaluate(ask).startswith("http://127.0.0.1:9")
    page.close()


def test_firefox_draws_the_same_map(file, tmp_path):
    firefox = pytest.importorskip("browser.firefox")
    if not firefox.FIREFOX:
        pytest.skip("Firefox: apt-get install firefox-esr")
    with firefox.open_firefox(tmp_path / "profile", file.as_uri()) as page:
        page.give("#files", [PHOTOGRAPHS[0], ROOT / "README.md"])
        while not page.value(f"({DONE})() ? 1 : 0"):
            time.sleep(1)
        states = page.value(
            f"JSON.stringify(({STATES})([...document.querySelectorAll('#list li')]))"
        )
        shown = page.value("document.querySelector('.rv tbody').innerText")
    done, refused = json.loads(states)
    assert done.startswith("done") and "no photograph" in refused
    assert {url.split(":")[0] for url in page.asked} <= {"file", "blob", "data"}
    image = images.read_photograph(PHOTOGRAPHS[0])
    fov = find_fov(image)
    levels = metrics.to_levels(predict_image(boxed(), image, fov, precision="float32"))
    own = metrics.expect(np.bincount(levels[fov], minlength=65536)).threshold
    vessels = levels >= metrics.lowest_level(own)
    assert float(shown.split("Vessel density")[1].split()[0]) == pytest.approx(
        vessels[fov].mean(), abs=2e-3
    )
