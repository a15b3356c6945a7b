"""Move the threshold and see what it does: a widget for JupyterLab and Colab.

Nothing is recounted while the slider moves: every photograph is counted once, as a histogram of
its probabilities, and drawn at screen size from levels that were rounded once.
"""

import base64
import io
import math
from collections.abc import Callable, Sequence
from functools import partial
from html import escape

import ipywidgets as widgets
import matplotlib.pyplot as plt
import numpy as np
from IPython.display import Javascript
from matplotlib.colors import to_hex
from PIL import Image

from retina_utils import metrics
from retina_utils.datasets.catalogue import photographs
from retina_utils.evaluate import Case
from retina_utils.show import figures, pictures
from retina_utils.show.pages import TEMPLATES
from retina_utils.show.tables import OF_A_DECISION, Table
from retina_utils.show.viewer import MARKS, threshold_levels

HTML = TEMPLATES.get_template("slider.html.j2", globals={"grey": pictures.GREY}).module

NAMES = TEMPLATES.globals["text_of"]("slider.js")  # for screen readers
WRAP = {"flex_flow": "row wrap"}
PICTURE = "560px"  # the widest it is shown: with the slider it must fit on a screen
# Each view with the colours to explain; the probability has a scale instead.
DECIDED = "decided to be vessel"
VIEWS = {
    "overlay": {DECIDED: pictures.SKY},
    "errors": pictures.ERROR_COLOURS,
    "vessels": {DECIDED: pictures.ERROR_COLOURS["hit"]},
    "probability": {},
    "photograph": {},
}


class ThresholdExplorer(widgets.VBox):
    """Photographs, a threshold slider, and the scores at that threshold.

    ``cases`` are photographs of one split, the threshold in force is ``chosen``, and ``best`` the
    best possible one, if it may be shown; both are in [0, 1]. ``on_choose`` is called with
    (threshold, reason) when the reader decides by eye; without it there is nothing to decide.

    Everything works without a browser: ``explorer.slider.value = 0.7`` redraws ``picture`` and
    rewrites ``numbers``. The track has the thresholds of the viewer in the report.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        chosen: float,
        best: float | None = None,
        split: str = "validation",
        on_choose: Callable[[float, str], None] | None = None,
    ):
        if not cases:
            raise ValueError(f"cases: no {split} photograph to show; expected at least one")
        self.cases = list(cases)
        self.chosen, self.split, self.on_choose = chosen, split, on_choose
        self.marks = {"half": 0.5, "chosen": chosen} | ({} if best is None else {"best": best})
        self.histograms = [
            None if case.vessels is None else metrics.histogram(*case[2:]) for case in self.cases
        ]
        counted = [histogram for histogram in self.histograms if histogram]
        self.pooled, self.n_counted = metrics.pool(counted) if counted else None, len(counted)
        counts = sum(self.pooled) if self.pooled else None
        marked = {name: value for name, value in self.marks.items() if name != "half"}
        self.offered = threshold_levels(marked, counts).tolist()
        super().__init__(self._build_controls())
        self.add_class("threshold-explorer")
        self._load_case()
        self.photograph.observe(self._load_case, "value")
        for control in (self.zoom, self.across, self.down):
            control.observe(self._load_window, "value")
        self.slider.observe(self._tell_number, "value")  # before drawing: somebody may type there
        for control in (self.slider, self.view, self.opacity):
            control.observe(self._draw, "value")
        self.number.observe(self._take_number, "value")

    def _build_controls(self) -> list[widgets.Widget]:
        """All controls, in the order in which the tab key visits them.

        The picture with the slider beneath it, and beside them, or below where there is no room,
        the numbers: all are seen at once while the slider moves.
        """
        names = [(case.name, index) for index, case in enumerate(self.cases)]
        hint = f"a {self.split} photograph"
        self.photograph = _control(widgets.Dropdown, "photograph", hint, "280px", options=names)
        self.view = widgets.ToggleButtons(options=list(VIEWS))
        self.view.tooltips = [f"show the {view}" for view in VIEWS]
        self.view.style.button_width = "auto"
        self.picture = widgets.Image(format="jpeg", layout={"width": "100%", "margin": "0"})
        self.key = widgets.HTML(layout={"height": "28px"})
        hint = "pixels at least this probable are vessels"
        steps = [(self._shown(value), value) for value in self.offered]
        options = {"options": steps, "value": self.chosen, "readout": False}
        self.slider = _control(widgets.SelectionSlider, "threshold", hint, "auto", **options)
        self.slider.add_class("threshold-slider")
        limits = {"min": 0, "max": 1, "step": 0.001, "value": round(self.chosen, 4)}
        self.number = _control(widgets.BoundedFloatText, "threshold", hint, "180px", **limits)
        self.less = _button("−", "one step lower", partial(self._step, -1))
        self.more = _button("+", "one step higher", partial(self._step, 1))
        self.jumps = []
        for name, value in self.marks.items():
            jump = partial(setattr, self.slider, "value", value)
            words, hint = f"{self._shown(value)} {MARKS[name]}", "go to this threshold"
            self.jumps.append(_button(words, hint, jump))
        hint, zooms = "enlarge a part of the photograph", [(f"{n}×", n) for n in (1, 2, 4, 8)]
        self.zoom = _control(widgets.Dropdown, "zoom", hint, "150px", options=zooms)
        self.across = _slider(0.5, "left–right", "move the part across")
        self.down = _slider(0.5, "up–down", "move the part up or down")
        self.opacity = _slider(0.8, "opacity", "of the vessels over the photograph")
        self.numbers, self.status = widgets.HTML(), widgets.HTML()
        last = len(self.offered) - 1
        at = {MARKS[name]: self.offered.index(v) / last for name, v in self.marks.items()}
        ticks = widgets.HTML(HTML.ticks(at), layout={"margin": "-6px 0 6px"})
        named = widgets.Output(layout={"display": "none"})
        named.append_display_data(Javascript(NAMES))
        left = [self.picture, self.key, self.slider, ticks]
        right = [self.numbers, widgets.HBox([self.number, self.less, self.more])]
        right += [widgets.HBox(self.jumps, layout=WRAP)]
        right += [self.zoom, self.across, self.down, self.opacity]
        left = widgets.VBox(left, layout={"flex": "3 1 400px", "max_width": PICTURE})
        right = widgets.VBox(right, layout={"flex": "1 1 320px", "max_width": "360px"})
        top = widgets.HBox([self.photograph, self.view], layout=WRAP)
        middle = widgets.HBox([left, right], layout=WRAP | {"grid_gap": "0 16px"})
        return [top, middle, *self._build_choice(), named]

    def _build_choice(self) -> list[widgets.Widget]:
        """The reason, the button and what came of it; nothing without ``on_choose``."""
        self.reason = _control(widgets.Text, "reason", "a sentence that says why")
        self.reason.layout = {"flex": "1 1 280px", "max_width": PICTURE}
        self.reason.placeholder = "why this one? (kept with the choice)"
        hint = "keep this threshold, chosen by eye"
        self.choose = _button("use this threshold", hint, self._choose)
        if self.on_choose is None:
            return []
        if self.split == "test":
            self._say("A threshold chosen on test photographs flatters their scores.")
        return [widgets.HBox([self.reason, self.choose], layout=WRAP), self.status]

    def _load_case(self, _change=None) -> None:
        """Round the probabilities of the photograph to 16 bits, once."""
        self.case = self.cases[self.photograph.value]
        inside = np.where(self.case.fov, self.case.probability, 0)
        self.levels = metrics.to_levels(inside).astype(np.uint16)
        self._load_window()

    def _load_window(self, _change=None) -> None:
        """Cut out the visible part; what the threshold does not change is resized here."""
        zoom, shape = self.zoom.value, self.case.fov.shape
        self.across.disabled = self.down.disabled = zoom == 1
        sides = tuple(max(n // zoom, 1) for n in shape)
        at = (self.down.value, self.across.value)
        centre = [sides[axis] / 2 + at[axis] * (shape[axis] - sides[axis]) for axis in (0, 1)]
        self.window = pictures.window_at(shape, sides, centre)
        self.size = pictures.size_within(sides, screen_pixels(max(shape)))
        self.fov, self.window_levels = self.case.fov[self.window], self.levels[self.window]
        self.small_photograph = pictures.shrink(self.case.image[self.window], self.size)
        self._draw()

    def _draw(self, _change=None) -> None:
        buffer = io.BytesIO()
        Image.fromarray(self._view()).save(buffer, format="JPEG", quality=85)
        self.picture.value = buffer.getvalue()
        self.key.value, self.numbers.value = self._key(), self._numbers()

    @property
    def threshold(self) -> float:
        """Where the slider stands."""
        return self.slider.value

    def _shown(self, value: float) -> str:
        """A threshold in three digits, or in four where neighbours would look alike."""
        return f"{value:.{3 if value in self.marks.values() or round(value, 3) == value else 4}f}"

    def _step(self, by: int) -> None:
        """Go to a neighbour on the track."""
        self.slider.index = min(max(self.slider.index + by, 0), len(self.offered) - 1)

    def _tell_number(self, _change=None) -> None:
        self.number.value = round(self.threshold, 4)

    def _take_number(self, _change=None) -> None:
        """Go where the number says, or to the nearest threshold on the track."""
        typed = self.number.value
        if typed != round(self.threshold, 4):  # else the slider itself has told it
            self.slider.value = min(self.offered, key=lambda value: abs(value - typed))
            self._tell_number()

    def _view(self) -> np.ndarray:
        """The visible part in the chosen view: (h, w, 3) uint8 at screen size."""
        view, vessels = self.view.value, self.case.vessels
        if view == "photograph":
            return self.small_photograph
        if view == "probability":
            colours = plt.get_cmap(pictures.PROBABILITY_MAP)(np.linspace(0, 1, 256), bytes=True)
            grey = np.right_shift(self.window_levels, 8).astype(np.uint8)
            return colours[pictures.shrink(grey, self.size), :3]
        predicted = self.window_levels >= metrics.lowest_level(self.threshold)
        if view == "overlay":
            look = {"opacity": self.opacity.value, "size": self.size}
            return pictures.overlay(self.small_photograph, predicted & self.fov, **look)
        # Without an annotation, "vessels" and "errors" are the same: all that was found.
        truth = predicted if view == "vessels" or vessels is None else vessels[self.window]
        return pictures.error_map(predicted, truth, self.fov, self.size)

    def _key(self) -> str:
        """What the colours of the view mean, and a word where errors cannot be drawn."""
        if self.case.vessels is None:
            return "This photograph has no annotation: no scores, and no errors to show."
        if self.view.value == "probability":
            shades = plt.get_cmap(pictures.PROBABILITY_MAP)(np.linspace(0, 1, 9))
            return HTML.scale(map(to_hex, shades))
        return HTML.key(VIEWS[self.view.value])

    def _numbers(self) -> str:
        """The scores of this photograph and of the whole split, as an HTML table."""
        histograms = {
            "this photograph": self.histograms[self.photograph.value],
            f"{photographs(self.n_counted, self.split)}, pooled": self.pooled,
        }
        rows = [{"": words} for words in OF_A_DECISION.values()]
        for name, histogram in histograms.items():
            if histogram:
                scores = metrics.scores(metrics.confusion_at(histogram, self.threshold))
                for row, key in zip(rows, OF_A_DECISION, strict=True):
                    row[name] = scores[key]
        caption = f"threshold {self._shown(self.threshold)}, inside the field of view"
        table = Table(rows if self.pooled else [], caption=caption)._repr_html_()
        return f'<div style="line-height:1.5">{table}</div>'

    def _choose(self) -> None:
        """Hand the threshold and its reason on, and say that an eye made the choice."""
        threshold, reason = self.threshold, self.reason.value.strip()
        if not reason:
            return self._say("<b>Not kept.</b> Write the reason first.")
        try:
            self.on_choose(threshold, reason)
            words = f"chosen by eye on {self.split} photographs: {reason}"
            self._say(f"<b>Threshold {self._shown(threshold)}</b>, {escape(words)}")
        except (OSError, ValueError) as error:  # a widget's errors would be seen by nobody
            self._say(f"<b>Not kept:</b> {escape(str(error))}")

    def _say(self, words: str) -> None:
        """Show a line that a screen reader reads at once."""
        self.status.value = f'<span role="alert">{words}</span>'

    def _repr_mimebundle_(self, **options) -> tuple[dict, dict]:
        """The widget, and for readers without a kernel a figure with three thresholds."""
        with plt.ioff():
            fig = figures.plot_three_thresholds(self.case, figures.low_and_high(self.chosen))
        still = base64.b64encode(figures.encode(fig)).decode()
        plt.close(fig)
        shown = photographs(len(self.cases), self.split)
        words = f"ThresholdExplorer: {shown}; needs a kernel"
        bundle = super()._repr_mimebundle_(**options)
        alt = f"{self.case.name} at a low, the chosen and a high threshold."
        return bundle | {"image/jpeg": still, "text/plain": words}, {"image/jpeg": {"alt": alt}}


def _button(words: str, tooltip: str, on_click: Callable[[], None]) -> widgets.Button:
    button = widgets.Button(description=words, tooltip=tooltip, layout={"width": "auto"})
    button.on_click(lambda _button: on_click())
    return button


def _control(kind, words: str, tooltip: str, width: str | None = None, **options):
    options |= {"style": {"description_width": "80px"}, "layout": {"width": width}}
    return kind(description=words, tooltip=tooltip, **options)


def _slider(value: float, words: str, tooltip: str):
    """A slider from 0 to 1 without a number beside it."""
    options = {"value": value, "max": 1, "step": 0.02, "readout": False}
    return _control(widgets.FloatSlider, words, tooltip, "240px", **options)


def screen_pixels(longest: int) -> int:
    """The longer side of the picture, 512 to 768, for a photograph ``longest`` pixels long."""
    if longest > 1152:  # reduced by a whole number, which is several times faster
        return math.ceil(longest / math.ceil(longest / 768))
    return min(max(longest, 512), 768)
