"""One move of the report's slider in a browser, against thresholding and recounting every pixel.

    python benchmarks/viewer.py        (needs Chromium and playwright, as make test-browser)

The plain way runs in the same page: compare every probability with the threshold, count hits and
false alarms, and paint the decision. Medians over sixty moves; nothing is asserted.
"""

import shutil
import tempfile
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

from retina_utils.evaluate import Case
from retina_utils.show.viewer import viewer_html

OURS = """async () => {
  const root = document.querySelector(".rv"), slider = root.querySelector(".rv-threshold");
  const next = () => new Promise(requestAnimationFrame), costs = [];
  for (let i = 0; i < 60; i++) {
    slider.value = 40 + 2 * i;
    slider.dispatchEvent(new Event("input"));
    await next();
    costs.push(+root.dataset.milliseconds);
  }
  return costs.sort((a, b) => a - b)[30];
}"""
PLAIN = """(size) => {
  const n = size * size, p = Float32Array.from({ length: n }, Math.random);
  const truth = Uint8Array.from({ length: n }, () => Math.random() < 0.1), costs = [];
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), data = context.createImageData(size, size);
  for (let move = 0; move < 60; move++) {
    const began = performance.now(), threshold = 0.2 + 0.01 * move;
    let hits = 0, alarms = 0;
    for (let i = 0; i < n; i++) {
      const found = p[i] >= threshold;
      hits += found && truth[i];
      alarms += found && !truth[i];
      data.data[4 * i] = data.data[4 * i + 1] = data.data[4 * i + 2] = found ? 255 : 0;
      data.data[4 * i + 3] = 255;
    }
    context.putImageData(data, 0, 0);
    costs.push(performance.now() - began);
  }
  return costs.sort((a, b) => a - b)[30];
}"""


def main() -> None:
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        chromium = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for size in (512, 2048):
            path = Path(folder) / "viewer.html"
            fragment = viewer_html([noise(size)], {"chosen": 0.5}, max_bytes=10**9)
            path.write_text(f'<!DOCTYPE html><meta charset="utf-8">{fragment}', encoding="utf-8")
            page = browser.new_page()
            page.goto(path.as_uri())
            page.wait_for_selector(".rv[data-case]")
            ours, plain = page.evaluate(OURS), page.evaluate(PLAIN, size)
            print(
                f"{size:4} x {size:4}: {ours:6.1f} ms a move, plain {plain:6.1f} ms,"
                f" {plain / ours:.1f} times"
            )
            page.close()
        browser.close()


def noise(size: int) -> Case:
    """The worst case: every pixel changes at another threshold."""
    rng = np.random.default_rng(0)
    probability = (rng.integers(0, 65536, (size, size)) / 65535).astype(np.float32)
    vessels = rng.random((size, size)) < 0.1
    image = np.full((size, size, 3), 120, np.uint8)
    return Case("noise", image, probability, vessels, np.ones((size, size), bool))


if __name__ == "__main__":
    main()
