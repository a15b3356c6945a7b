"""Pictures of what to expect of a camera the network never met: best, middle and worst.

    python benchmarks/gallery.py --networks outputs/benchmark/left_out-chase_db1+hrf+stare

The folder is that of ``make benchmark … --leave-one-out``: for each camera ``without_NAME`` with
its network and what that was counted to reach. A network that has met a camera is refused. Written
are ``notebooks/images/held_out_NAME.jpg``, the middle one of CHASE_DB1 as ``held_out.jpg``,
``slider.jpg`` (a Chromium that playwright finds), and ``results/gallery.csv``. Only photographs
whose licence lets them be passed on are shown: CHASE_DB1 and HRF are CC BY 4.0.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from playwright.sync_api import sync_playwright

from retina_utils import RetinaError
from retina_utils.checkpoint import Network, load_network
from retina_utils.commands.benchmark import dice_at, read_photographs
from retina_utils.data import Pair, load_sample
from retina_utils.evaluate import Case
from retina_utils.images import read_binary
from retina_utils.machine.compute import choose_device
from retina_utils.machine.files import atomic_path, read_json, write_csv
from retina_utils.metrics import Histogram, confusion, decide, scores
from retina_utils.predict import predict_image
from retina_utils.show import figures, pictures
from retina_utils.show.viewer import viewer_html

ROOT = Path(__file__).parent.parent
IMAGES = ROOT / "notebooks" / "images"
CAMERAS = ("chase_db1", "hrf")
SHOWN = ("best", "middle", "worst")
PANEL = 400  # pixels: the longer side of a picture among others
NEAR = 0.005  # Dice: how far a prediction may be from what was counted, on another processor


def choose(folder: Path, pairs: list[Pair]) -> tuple[float, dict[str, tuple[Pair, float]]]:
    """The threshold, and the photographs to show with their Dice as counted there.

    Of an even number the lower middle is shown. A RetinaError names those that the network has met.
    """
    result = read_json(folder / "result.json")
    met = {pair.name for pair in pairs} & {*result["trained_on"], *result["threshold_from"]}
    if met:
        raise RetinaError(
            f"{folder}: its network has met {', '.join(sorted(met))}; expected one that was "
            "trained without this camera (make benchmark … --leave-one-out)"
        )
    with np.load(folder / "histograms.npz") as kept:
        counted = {Path(name).name: Histogram(*kept[name]) for name in kept.files}
    dice = {pair: dice_at(counted[pair.name], result["threshold"]) for pair in pairs}
    order = sorted(pairs, key=dice.get, reverse=True)
    places = (order[0], order[len(order) // 2], order[-1])
    chosen = {word: (pair, dice[pair]) for word, pair in zip(SHOWN, places, strict=True)}
    return result["threshold"], chosen


def look(
    pair: Pair, network: Network, threshold: float, counted: float
) -> tuple[Case, np.ndarray | None, float]:
    """The photograph with its map, the second observer's drawing, and the map's Dice."""
    sample = load_sample(pair)
    probability = predict_image(network, sample.image, sample.fov, flips=True)
    case = Case(pair.name, sample.image, probability, sample.vessels, sample.fov)
    reached = dice_of(decide(probability, threshold), case)
    if abs(reached - counted) > NEAR:
        raise RetinaError(
            f"{pair.name}: Dice {reached:.3f}, but {counted:.3f} was counted; is the folder's "
            "network.pt the one that its histograms.npz were counted with?"
        )
    return case, read_binary(pair.second) if pair.second else None, reached


def dice_of(drawn: np.ndarray, case: Case) -> float:
    return scores(confusion(drawn, case.vessels, case.fov))["dice"]


def strip(case: Case, second: np.ndarray | None, threshold: float, words: str) -> dict:
    """The pictures of a row by their titles, (h, w[, 3]) each."""
    size = pictures.size_within(case.fov.shape, PANEL)
    found, whole = decide(case.probability, threshold), pictures.shrink(case.image, size)
    row = {words: whole, "probability": pictures.shrink(case.probability, size)}
    row["errors"] = pictures.error_map(found, case.vessels, case.fov, size)
    if second is not None:
        title = f"a second person: Dice {dice_of(second, case):.3f}"
        return row | {title: pictures.error_map(second, case.vessels, case.fov, size)}
    part = pictures.worst_window((found ^ case.vessels) & case.fov)
    cut = [array[part] for array in (found, case.vessels, case.fov)]
    return row | {"where most errors are": pictures.error_map(*cut)}


def draw(rows: list[dict], path: Path) -> None:
    """Write rows of pictures as one JPEG, the colours of errors explained below."""
    height, width = next(iter(rows[0].values())).shape[:2]
    inches = 9.6 / 4 * height / width + 0.22
    size = (9.6, inches * len(rows) + 0.25)
    fig, axes = plt.subplots(len(rows), 4, figsize=size, squeeze=False, layout="constrained")
    for line, row in zip(axes, rows, strict=True):
        for ax, (title, picture) in zip(line, row.items(), strict=True):
            ax.imshow(picture, cmap=pictures.PROBABILITY_MAP, vmin=0, vmax=1)
            ax.set_title(title, parse_math=False)
            ax.axis("off")
    colours = pictures.ERROR_COLOURS.items()
    patches = [plt.Rectangle((0, 0), 1, 1, fc=c, ec="grey", lw=0.5) for _, c in colours]
    fig.legend(patches, [name for name, _ in colours], loc="outside lower center", ncols=3)
    with atomic_path(path) as temporary:
        options = {"quality": 80, "optimize": True, "progressive": True}
        fig.savefig(temporary, format="jpeg", dpi=150, pil_kwargs=options)
    plt.close(fig)


def photograph_slider(case: Case, threshold: float, path: Path) -> None:
    """A picture of the threshold slider as a browser shows it."""
    fragment = viewer_html([case], {"chosen": threshold}, max_side=1200)
    head = "<!doctype html><meta charset='utf-8'><body style='margin:1rem;font-family:sans-serif'>"
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        page_file = Path(folder) / "slider.html"
        page_file.write_text(head + fragment, encoding="utf-8")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser")
        options = {"executable_path": chromium, "args": ["--no-sandbox"]}
        browser = playwright.chromium.launch(**options)
        page = browser.new_page(viewport={"width": 1060, "height": 800})
        page.goto(page_file.as_uri())
        page.wait_for_selector(".rv[data-case]")
        page.click("[data-view=errors]")
        page.wait_for_timeout(300)
        with atomic_path(path) as temporary:
            page.locator(".rv").screenshot(path=temporary, type="jpeg", quality=80)
        browser.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--networks", type=Path, required=True, help="folder of left-out networks")
    networks, lines = parser.parse_args().networks, []
    plt.switch_backend("agg")
    plt.style.use(figures.STYLE)
    for name in CAMERAS:
        folder = networks / f"without_{name}"
        network = load_network(folder / "network.pt", choose_device("cpu"))
        threshold, chosen = choose(folder, read_photographs(ROOT / "data" / name))
        rows = []
        for place, (pair, counted) in chosen.items():
            case, second, dice = look(pair, network, threshold, counted)
            words = f"{place}: {pair.name}, Dice {dice:.3f}"
            rows.append(strip(case, second, threshold, words))
            line = {"data": name, "place": place, "photograph": pair.name, "dice": round(dice, 4)}
            line["second"] = "" if second is None else round(dice_of(second, case), 4)
            lines.append(line | {"threshold": round(threshold, 4)})
            print(*lines[-1].values(), flush=True)
            if (name, place) == (CAMERAS[0], "middle"):
                draw(rows[-1:], IMAGES / "held_out.jpg")
                photograph_slider(case, threshold, IMAGES / "slider.jpg")
        draw(rows, IMAGES / f"held_out_{name}.jpg")
    write_csv(ROOT / "benchmarks" / "results" / "gallery.csv", lines)


if __name__ == "__main__":
    main()
