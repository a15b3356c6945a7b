// Names for screen readers that ipywidgets does not give: its sliders' handles bear no label, its
// pictures no alternative text. Views come a little later than this script, and once more when a
// cell is shown again.
(() => {
  const name = (times) => {
    for (const box of document.querySelectorAll(".threshold-explorer .widget-slider")) {
      const label = box.querySelector(".widget-label"), handle = box.querySelector(".noUi-handle");
      if (label && handle) handle.setAttribute("aria-label", label.textContent);
    }
    for (const picture of document.querySelectorAll(".threshold-explorer img"))
      picture.alt = "The photograph in the chosen view, at the threshold of the slider";
    if (times) setTimeout(() => name(times - 1), 500);
  };
  name(20);
})();
