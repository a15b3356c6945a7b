"""Every number of the pages comes from a file, and is what that file says now.

Tables are written by ``benchmarks/tables.py``. Of sentences ``SAID`` has the file, the words, with
``{}`` for each number, and what the file gives. A number that neither knows may not be written.
"""

import difflib
import importlib.util
import math
import re
from functools import cache
from io import BytesIO

import nbformat
import pytest
from conftest import ROOT
from PIL import Image

from retina_utils import metrics, patches, predict
from retina_utils.checkpoint import PRETRAINED, load_network
from retina_utils.commands import adapt, verify
from retina_utils.commands.benchmark import promised
from retina_utils.data import load_data, load_sample
from retina_utils.datasets import archives, ledger, published
from retina_utils.datasets.catalogue import SOURCES
from retina_utils.datasets.synthetic import SIZES
from retina_utils.intake import decode
from retina_utils.machine.files import read_csv
from retina_utils.machine.runs import NOTEBOOKS
from retina_utils.measures import numbers, widths
from retina_utils.models import count_parameters
from retina_utils.show import folder_page, viewer

spec = importlib.util.spec_from_file_location("tables", ROOT / "benchmarks" / "tables.py")
tables = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tables)

PAGES = ["README.md", "benchmarks/cameras.md", "data/samples/README.md"]
PAGES += sorted(f"notebooks/pages/{path.name}" for path in (ROOT / "notebooks/pages").glob("*.md"))
PAGES += [f"notebooks/{name}.ipynb" for name in NOTEBOOKS]
EDGE = ("drawn_at_edge", "annotated_at_edge")
WORDS = ["half", "third", "quarter", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth"]
WORDS = {f"a{'n' * (word[0] == 'e')} {word}": 1 / n for n, word in enumerate(WORDS, 2)}
WORDS |= {"nine tenths": 0.9, "one hundredth": 0.01, "nothing": 0, "two and a half": 2.5}
WORDS |= {"half a minute": 0.5, "a minute": 1, "a minute and a half": 1.5, "two minutes": 2}
WORDS |= {"two hundred": 200}
NUMBER = rf"([+−-]?\d{{1,3}}(?:,\d{{3}})+|[+−-]?\d*\.?\d+|(?i:{'|'.join(WORDS)}))"
# Numbers that are no results.
PLAIN = re.compile(
    "|".join(
        (
            r"```.*?```|`[^`\n]*`|<[^>\n]*>",  # code
            r"\]\([^)]*\)|https?:\S+|\[doi:[^]]*\]",  # addresses
            r"^#[^\n]*|^\| \d+ \|",  # headings, numbered rows
            r"CC BY 4\.0|Python 3\.\d+|JPEG 2000|\b\d+\(\d\)|article \d+",  # names, volumes
            r"\b(?:19|20)\d\d\b(?! pixels| times)",  # years
            r"01 to 10|(?<!\.)\b0\d\b",  # notebooks, numbers of children and photographs
            r"\d+[ -]bits?|65535 = 1|kept in 16|\d+ epochs",  # formats, recipes
            r"95 % (?:limits|interval|of the scores)|44 items",  # what words mean
            r"(?:about )?70 % (?:are vessel|of them)|given \.7, seven in ten",
        )
    ),
    re.DOTALL | re.MULTILINE,
)
UNITS = "%|°|[kMG]i?B|thousand|million|seconds|minutes|hours|photographs|pixels|times|bytes"
RESULT = re.compile(rf"(?<![\w.,])(?:[\d.,]*\d[.,]?\d|\.\d|\d(?= ?(?:{UNITS})))")


@cache
def text_of(page):
    """What is to be read of a page: of a notebook its Markdown."""
    if not page.endswith(".ipynb"):
        return (ROOT / page).read_text(encoding="utf-8")
    cells = nbformat.read(ROOT / page, as_version=4).cells
    text = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    return re.sub(r"(?<![\w.])0?\.\d\b(?! ?%)", lambda m: "_" * len(m[0]), text)  # .5: an example


def found(file, pattern):
    """The numbers of the pattern's groups in a file."""
    text = (ROOT / file).read_text(encoding="utf-8")
    return [float(number) for number in re.search(pattern, text).groups()]


def rows(name):
    """The rows of a file of results, with numbers for what reads as one."""
    table = read_csv(ROOT / "benchmarks" / "results" / f"{name}.csv")
    return [
        {k: float(v) if re.fullmatch(r"-?[\d.]+", v) else v for k, v in r.items()} for r in table
    ]


def column(table, key, **where):
    """A column's numbers, of the rows whose cells begin like ``where``."""
    chosen = (row for row in table if all(str(row[k]).startswith(v) for k, v in where.items()))
    return [row[key] for row in chosen if row[key] != ""]


def whole(cells):
    """All whole numbers in cells such as "9 to 12" or "3,000 patches"."""
    return [int(n.replace(",", "")) for cell in cells for n in re.findall(r"\d[\d,]*", cell)]


def ends(values):
    return [min(values), max(values)]


CARD = "retina_utils/weights/pretrained.md"
BOX = load_network("pretrained")
(LITTLE,) = (row for row in published.ROWS if row["method"].startswith("Little W-Net"))
(IDIAP,) = {float(row["parameters"].split()[0]) for row in published.ROWS if "VGG" in row["method"]}


def left_out():
    """Sentences on cameras never met."""
    networks = [row for row in rows("left_out") if row["own_dice"] != ""]
    camera = [tables.title(row["tested_on"]) for row in networks]
    gains = {
        name: row["own_dice"] - row["dice"] for name, row in zip(camera, networks, strict=True)
    }
    width = dict(zip(camera, column(networks, "width_ratio"), strict=True))
    finds = [row["found"] for row in networks if row["tested_on"] != "CHASE_DB1"]
    promise = promised(rows("left_out_photographs"))
    held = [100 * promise["covered"][name] for name in ("chase_db1", "hrf", "stare")]
    return {
        "left_out.csv": {
            "and was {}, {} and {} where": column(networks, "calibration_error"),
            "{} are found, and drawn {} % wider on HRF and {} % thinner on STARE": [
                *(sum(finds) / len(finds), 100 * width["HRF"] - 100, 100 - 100 * width["STARE"])
            ],
            "by {} on CHASE_DB1, {} on HRF and {} on STARE": [
                gains[c] for c in ("CHASE_DB1", "HRF", "STARE")
            ],
            "on average by {}, no clear": [sum(gains.values()) / len(gains)],
        },
        "left_out_photographs.csv": {
            "its interval of ±{} (": [promise["margin"]],
            "off by {} on average": [promise["error"]],
            "held {} %, {} % (HRF) and {} % of": held,
            "was {} on CHASE_DB1, {} on HRF and {} on STARE. It does": [
                *promise["within"].values()
            ],
            "compare cameras ({} over all": [promise["rank_correlation"]],
        },
        "folder.html.j2": {
            'so "{} %" is': found("retina_utils/show/folder.html.j2", r"its (\d+) % interval")
        },
        "pretrained.md": {
            "{} to {} minutes a training": found(CARD, r"took (\d+) to (\d+) minutes")
        },
    }


def at_home():
    """Sentences on cross-validation, and what was tried for it."""
    home, trials, drawn = map(rows, ("home", "trials", "hrf_widths"))
    both, alone = (
        [row for row in home if (" + " in row["trained_on"]) == is_both]
        for is_both in (True, False)
    )
    (folds,) = column(home, "photographs", trained_on="HRF (High-Resolution Fundus), 5-fold")
    (long_2048,) = column(trials, "parameters", trial="long 2048")
    dice = {row["trial"]: row["dice"] for row in trials}
    shown = {row["trial"]: whole([row["tried"]])[-1:] for row in trials}  # patches
    healthy = [row["width"] for row in drawn if row["photograph"].endswith("h")]
    ill = [row["width"] for row in drawn if not row["photograph"].endswith("h")]
    return {
        "home.csv": {
            "own folds ({}, {})": column(alone, "dice", tested_on="HRF"),
            "is {} on CHASE_DB1, {} on HRF and {} on STARE here": column(
                both, "calibration_error", trained_on="CHASE"
            ),
            "learned from {} photographs, the folds from {}.": [
                *(column(home, "photographs", trained_on="CHASE_DB1, 5-fold")[0], folds * 4 / 5)
            ],
            "trained in {} to {} minutes": ends(whole(column(alone, "minutes"))),
            "with all three together in {} to {},": ends(whole(column(both, "minutes"))),
        },
        "published.csv": {"such a count, {} (Little": [float(LITTLE["HRF"].split()[0])]},
        "trials.csv": {
            "{} times the training": [shown["long"][0] / shown["short"][0]],
            "gave number 03 {} more": [dice["long"] - dice["short"]],
            "{} pixels across instead of {} gave {}": [
                *whole([long_2048]),
                *found("notebooks/presets/hrf.yaml", r"fov_diameter: (\d+)"),
                dice["long 2048"] - dice["long"],
            ],
        },
        "hrf_widths.csv": {
            "drawn {} to {} pixels wide in HRF's healthy eyes": ends(healthy),
            "and {} to {} in the others": ends(ill),
        },
    }


def adapting():
    """Sentences on ``make adapt``."""
    table = rows("adapt")
    change = [row["dice_after"] - row["dice_start"] for row in table]
    minutes = [max(1, round(row["seconds"] / 60)) for row in table]
    return {
        "adapt.csv": {
            "None of these {} lost": [len(change) if min(change) >= 0 else math.nan],
            "; {} stayed as they were": [column(table, "kept").count("start")],
            "took {} to {} minutes on one CPU core": ends(minutes),
        },
        "commands/adapt.py": {"with more than {}, train": [adapt.MOST]},
    }


def constants():
    """Sentences whose numbers stand in the code, or are the network's own."""
    learned = sum(map(len, BOX.card["photographs"].values()))
    (each,) = found("tests/robust/conftest.py", r'"many", max_examples=(\d+)')
    generated = each * text_of("tests/robust/test_readers.py").count("@given")
    seeds = rows("experiments/seeds")
    shape, turned = (
        found("tests/test_numbers.py", rf"{words}\.(\d\d)") for words in ("expected, rel=0", "<= 0")
    )
    return {
        "Makefile": {
            "({} GB to download": found("Makefile", r"([\d.]+) GB on Linux"),
            "index saves {} GB": found("Makefile", r"GPU ([\d.]+) GB of it"),
        },
        "pretrained.pt": {
            "{} thousand parameters": [count_parameters(BOX.model) / 1e3],
            "parameters, {} MB;": [PRETRAINED.stat().st_size / 1e6],
            "about {} seconds a photograph on one CPU core": [
                round(60 * BOX.card["minutes"] / learned, -1)
            ],
        },
        "sources.toml": {
            "{} degrees of the eye": [SOURCES["hrf"].fov_degrees],
            "one that shows {}, so": [SOURCES["chase_db1"].fov_degrees],
        }
        | {f"| `{name}` | {{}}, ": [source.n_images] for name, source in SOURCES.items()},
        "show/folder_page.py": {"a JPEG of at most {} pixels": [folder_page.LONGEST]},
        "show/viewer.py": {"decision at {} thresholds": [2 * viewer.EVEN]},
        "measures/numbers.py": {
            "boxes of 1/{} to 1/{} of": 1 / numbers.BOXES[[0, -1]],
            "laid in {} ways": [len(numbers.SHIFTS) ** 2 * len(numbers.TURNS)],
            "cut at {}, {}, {}, {} and its threshold:": numbers.CUTS,
            "its threshold: a {} % interval": [100 * (numbers.CUTS[-1] - numbers.CUTS[0])],
        },
        "tests/test_numbers.py": {"come out within {} %": shape, "and within {} % of each": turned},
        "intake/decode.py": {"up to {} megapixels": [decode.LARGEST_PIXELS / 1e6]},
        "datasets/ledger.py": {"{} bytes each": [ledger.ENTRY.itemsize]},
        "tests/test_ledger.py": {
            "JPEG of quality {}, at half": found("tests/test_ledger.py", r'"quality": (\d+)')
        },
        "datasets/archives.py": {
            "grows beyond {} GB or {} times": [archives.LARGEST / 1e9, archives.RATIO]
        },
        "seeds.csv": {
            "pooled Dice {} and {} for one seed": [
                *column(seeds, "dice", source="one"),
                *column(seeds, "dice", source="another"),
            ]
        },
        "commands/verify.py": {"are judged, within {}.": [verify.SCORES_WITHIN]},
        "tests/robust": {"over {} generated files": [min(generated, 10_000)]},
    }


def measures():
    """Sentences on what is measured."""
    table = rows("measures")
    pens = [row for row in table if re.match("width_(mean|median|q90)", row["measure"])]
    pens = [abs(100 * row["network_bias"] / row["mean"]) for row in pens]
    return {
        "measures.csv": {
            "widths lie up to {} % off": [max(pens) // -10 * -10],
            "{} photographs each;": ends(column(table, "photographs"))[:1],
        }
    }


def cameras():
    """Sentences of cameras.md."""
    across = found("notebooks/presets/pretrained.yaml", r"fov_diameter: (\d+)")
    table = rows("without_training")
    wide = column(table, "value", measure="widest vessels")
    degrees = [SOURCES[name].fov_degrees for name in ("chase_db1", "stare", "hrf")]
    smaller = [row for row in table if row["tried"].startswith("shown at")]
    bars = {row["measure"]: [row["with_bars"], row["without"]] for row in rows("bars")}
    return {
        "pretrained.yaml": {
            "With every FOV {} pixels across": across,
            "the FOV {} pixels across, one view": across,
        },
        "bars.csv": {
            "{} % was drawn and {} % annotated": [100 * bars[k][0] for k in EDGE],
            "best possible Dice {} to {}, AUC": bars["best_dice"],
            "AUC {} to {}, Dice": bars["auc"],
            "usual threshold {} to {}.": bars["dice"],
        },
        "without_training.csv": {
            "{} pixels wide in CHASE_DB1 ({}° of the eye), {} in STARE ({}°) and {} in HRF ({}°)": [
                number for pair in zip(wide, degrees, strict=True) for number in pair
            ],
            "lost {} of Dice on it at {} pixels and {} at {}.": [
                number for row in smaller for number in (row["value"], *whole([row["tried"]]))
            ],
            "({} to {} pixels, mirrored)": column(table, "value", measure="pixels"),
            "of one: STARE {} for {}.": column(table, "value", tried="four"),
            "CHASE_DB1 {}, STARE {}, HRF {}; where": column(table, "value", tried="batch norms"),
            "from {} to {}, and {} of Dice": column(table, "value", tried="temperature"),
        },
    }


def notebooks():
    """Sentences of the notebooks: what their cells and the experiments do."""
    one, two = "notebooks/01_data.ipynb", "notebooks/02_model.ipynb"
    size = found(one, r"patch_size: int = (\d+)")
    (larger,) = found("benchmarks/experiments.py", r"large = drawn\(([\d.]+)\)")
    sides = [round(larger * side, -1) for pair in SIZES for side in pair]
    small = found("benchmarks/experiments.py", r'"whole, made (\d+) pixels')
    (half,) = found(two, r"size // 2 \+ (\d+)")
    return {
        one: {
            "its first cell": {
                "looks at {} × {} pixels at a time": size * 2,
                "in {}-pixel patches": size,
                "hardly larger than {} pixels": size,
            },
            "its code": {"one drawn at {} × {} pixels": found(one, r"\(100, \((\d+), (\d+)\)\)")},
            "patches.py": {"with {} black pixels around": [patches.MARGIN]},
            "experiments.py": {
                "drawn at {} to {} pixels": ends(sides),
                "saw them whole at {} pixels": small,
            },
        },
        two: {
            "01": {"one patch of {} pixels": size},
            "eight halvings": {'"U-Net {}"': [2**8], "shrinks {} pixels to one": [2**8]},
            "published.csv": {
                "of {} thousand, the Little": whole([LITTLE["parameters"]]),
                "one of {} million on four data sets": [IDIAP],
            },
            "its code": {
                "So: {} steps on the same": found(two, r"in range\((\d+)\):"),
                "the same {} × {} pixels": [2 * half] * 2,
            },
        },
        "notebooks/03_train.ipynb": {
            "losses.csv": {
                "{} trainings": [len(rows("experiments/losses"))],
            }
        },
        "notebooks/04_evaluate.ipynb": {
            "its code": {
                "A grid of {} pixels": found(
                    "notebooks/04_evaluate.ipynb", r"a drawing of (\d+) pixels"
                )
            },
            "predict.py": {"up to {} pixels across": [predict.LARGEST]},
            "metrics.py": {"replacement, {} times": [metrics.RESAMPLES]},
            "widths.py": {"at most {} % of the FOV": [100 * widths.THIN]},
            "experiments.py": {
                "lens: {} times as large": found(
                    "benchmarks/experiments.py", r"in drawn\(([\d.]+)\)"
                )
            },
        },
    }


def samples():
    """The quality of which the embedded photographs bear the tables."""
    qualities = {}
    for quality in range(50, 100):
        Image.new("RGB", (8, 8)).save(file := BytesIO(), "JPEG", quality=quality)
        qualities[str(Image.open(file).quantization)] = quality
    files = (ROOT / "data" / "samples").glob("*.jpg")
    (quality,) = {qualities[str(Image.open(file).quantization)] for file in files}
    return {"its files": {"JPEG of quality {}.": [quality]}}


def how_to_read():
    """Sentences of how_to_read.md: the vessels' share of real retinas and of drawn ones."""
    real = column(rows("measures"), "mean", measure="density")
    drawn = [load_sample(pair) for split in load_data(ROOT / "data/tiny", 0.2, 0) for pair in split]
    vessels = sum(sample.vessels[sample.fov].sum() for sample in drawn)
    return {
        "the middle": {"And {} has no special right": [0.5]},
        "measures.csv": {"Vessels are about {} of the retina": [sum(real) / len(real)]},
        "data/tiny": {"(and {} in the drawn": [vessels / sum(s.fov.sum() for s in drawn)]},
    }


SAID = {
    "README.md": [constants(), measures(), left_out(), at_home(), adapting()],
    "benchmarks/cameras.md": [cameras()],
    "data/samples/README.md": [samples()],
    "notebooks/pages/how_to_read.md": [how_to_read()],
} | {page: [part] for page, part in notebooks().items()}
EACH = [
    (page, source, words, [float(value) for value in values])
    for page, parts in SAID.items()
    for part in parts
    for source, sentences in part.items()
    for words, values in sentences.items()
]


def number_of(text):
    """What a number of a page says, and how far it may be off: half of its last digit."""
    if text.lower() in WORDS:
        return WORDS[text.lower()], 0.1 * WORDS[text.lower()] + 0.0005
    text = text.replace(",", "").replace("−", "-")
    return float(text), 0.5 * 10.0 ** -len(text.partition(".")[2]) + 1e-9


def places(words, text):
    """Where a page has these words; the groups are their numbers."""
    pattern = re.escape(words).replace(r"\{\}", NUMBER).replace(r"\ ", r"\s+")
    return list(re.finditer(pattern, text))


def line_of(text, position):
    return text.count("\n", 0, position) + 1


@pytest.mark.parametrize("page", tables.PAGES)
def test_tables_are_what_their_rows_give(page):
    text = text_of(page)
    both = (text.splitlines(), tables.anew(text).splitlines(), page, "its rows")
    wrong = list(difflib.unified_diff(*both, n=0, lineterm=""))
    assert not wrong, "\n".join([*wrong, "python benchmarks/tables.py writes it from its rows."])


@pytest.mark.parametrize(("page", "source", "words", "values"), EACH, ids=[e[2] for e in EACH])
def test_a_sentence_says_what_its_file_gives(page, source, words, values):
    text = text_of(page)
    assert places(words, text), (
        f"{page} has no {words!r} any more: take it out of {__name__}, or write its new words."
    )
    for place in places(words, text):
        assert len(place.groups()) == len(values)
        for said, value in zip(place.groups(), values, strict=True):
            number, reach = number_of(said)
            assert abs(number - value) <= reach, (
                f"{page}, line {line_of(text, place.start())}: {place[0]!r} says {said}, but "
                f"{source} gives {value:.4g}."
            )


@pytest.mark.parametrize("page", PAGES)
def test_no_number_comes_from_nowhere(page):
    def blank(match):
        return re.sub(r"[^\n]", " ", match[0])

    whole_text = text_of(page)
    text = tables.TABLE.sub(lambda m: blank(m) if tables.written(m) else m[0], whole_text)
    for _, _, words, _ in (each for each in EACH if each[0] == page):
        for place in places(words, whole_text):
            for start, end in map(place.span, range(1, len(place.groups()) + 1)):
                text = text[:start] + " " * (end - start) + text[end:]
    unknown = [
        f"{page}, line {line_of(text, m.start())}: "
        f"... {whole_text[max(0, m.start() - 30) : m.end() + 20]!r} ..."
        for m in RESULT.finditer(PLAIN.sub(blank, text))
    ]
    told = f"Say in {__name__} where each comes from, or do not write it."
    assert not unknown, "\n".join([*unknown, told])


def test_the_card_has_the_rows_of_the_left_out_table():
    kept = [{k: str(v) for k, v in row.items()} for row in BOX.card["scores"]]
    assert all(row in kept for row in read_csv(tables.RESULTS / "left_out.csv")), (
        "left_out.csv is not of the networks that the card tells of: copy outputs/benchmark/"
        "left_out-.../table.csv there, and photographs.csv as left_out_photographs.csv."
    )
