"""The tables of README.md, cameras.md and this folder's, written from the rows they come from.

    python benchmarks/tables.py     # when rows were made anew; tests/test_said.py compares

A table is known by its headings: the text may leave some out, or turn them around.
"""

import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np

from retina_utils.datasets.catalogue import SOURCES
from retina_utils.machine.files import read_csv, read_json, write_text

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PAGES = ("README.md", "benchmarks/cameras.md", "benchmarks/README.md")
TABLE = re.compile(r"^\|(.*)\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", re.MULTILINE)
# Dice at the default threshold, and AUC.
AIMED = {"CHASE_DB1": (0.78, 0.977), "STARE": (0.825, 0.987)}
AIMED["HRF (High-Resolution Fundus)"] = (0.8, 0.983)
CHANGES = {
    "control": "control",
    "JPEG of quality 20 to 70, 40 % of the patches": "jpeg",
    "detail lost in 50 % of the patches, not 15 %": "unsharp",
    "a sharpening halo": "halo",
    "light and colour changed two thirds more": "light",
    "scale up to 1.8 times, not 1.4": "scale",
    "vessels drawn up to 1.5 pixels wider and thinner": "style",
    "JPEG, lost detail, halo and blur along rows together": "together",
}

FED = {
    "control": "the same photographs, longer",
    "observers": "the second observer's drawings besides",
    "itself": "its own maps of the camera besides",
}


@cache
def rows(name: str) -> list[dict]:
    return read_csv(RESULTS / f"{name}.csv")


def short(value: str | float, digits: int = 3, sign: str = "") -> str:
    """A number as the pages write it, such as .798; what is not known is empty."""
    return re.sub(r"\b0\.", ".", f"{float(value):{sign}.{digits}f}") if value != "" else ""


def title(text: str) -> str:
    """A data set, or several, by the name without its explanation."""
    name = SOURCES[text].title if text in SOURCES else text
    *others, last = re.sub(r" \(.*?\)", "", name).split(" + ")
    return " and ".join([", ".join(others), last] if others else [last])


def bold(text: str) -> str:
    return f"**{text}**" if text else ""


def scored(row: dict) -> dict:
    """What two tables say of a network in the same words."""
    return {
        "trained on": title(row["trained_on"]),
        "tested on": f"{title(row['tested_on'])}, {row['photographs']} photographs",
        "best possible Dice": short(row["best_dice"]),
    }


def left_out() -> list[dict]:
    """Cameras left out: by heading, the cells of each line."""
    return [
        scored(row)
        | {
            "Dice, own threshold of each photograph": bold(short(row["own_dice"])),
            "Dice, usual threshold": short(row["dice"]),
            "per photograph, usual": f"{short(row['dice_mean'])} ± {short(row['dice_sd'])}",
            "ROC-AUC": short(row["auc"]),
            "found": short(row["found"]),
            "on a vessel": short(row["on_vessel"]),
            "width": short(row["width_ratio"], 2),
        }
        for row in rows("left_out")
    ]


def aimed() -> list[dict]:
    """What came of it on cameras left out, beside what was aimed at."""
    return [
        {
            "tested on": title(row["tested_on"]),
            "aimed at: Dice": short(AIMED[row["tested_on"]][0]),
            "aimed at: ROC-AUC": short(AIMED[row["tested_on"]][1]),
            "Dice, own threshold": bold(short(row["own_dice"])),
            "Dice, usual threshold": short(row["dice"]),
            "best possible Dice": short(row["best_dice"]),
            "ROC-AUC": bold(short(row["auc"], 4)),
        }
        for row in rows("left_out")
        if row["own_dice"]
    ]


def home() -> list[dict]:
    """Cross-validation."""
    return [
        scored(row)
        | {
            "Dice": bold(short(row["dice"])),
            "Dice, own threshold": short(row["own_dice"]),
            "calibration error": short(row["calibration_error"]),
            "Dice per photograph": f"{short(row['dice_mean'])} ± {short(row['dice_sd'])}",
            "IoU": short(row["iou"]),
            "ROC-AUC": short(row["auc"], 4),
            "threshold": re.sub(r"\b0\.", ".", row["threshold"]),
        }
        for row in rows("home")
    ]


def adapted() -> list[dict]:
    """Gain on a camera by the number of photographs given; in brackets the worst draw's.

    Draws of several networks that had not met the camera stand together.
    """
    lines, counts = defaultdict(list), sorted({int(row["n"]) for row in rows("adapt")})
    for row in rows("adapt"):
        lines[row["camera"], row["trained"]].append(row)
    table = []
    for (camera, trained), draws in lines.items():
        start = np.array([float(row["dice_start"]) for row in draws])
        gain = np.array([float(row["dice_after"]) for row in draws]) - start
        given = np.array([int(row["n"]) for row in draws])
        cells = {"tested on": title(camera), "as it comes": short(start.mean())}
        cells["weights"] = "trained" if trained == "yes" else "as they were"
        for n in counts:
            heading = f"with {n} photographs" if n == counts[0] else f"with {n}"
            found = gain[given == n]
            both = (short(f(found), sign="+") for f in (np.mean, np.min)) if len(found) else ()
            cells[heading] = "{} ({})".format(*both).replace("+.000", ".000") if len(found) else ""
        table.append(cells)
    return table


def measured() -> list[dict]:
    """Measures: bias and limits in percent of the first observer's mean."""
    table = []
    for row in rows("measures"):
        cells = {"": title(row["data"])}
        cells["measure"] = row["measure"].removesuffix("_fov").replace("_", " ")
        for who, words in {"network": "network", "second": "second observer"}.items():
            bias, low, high = (
                100 * float(row[f"{who}_{key}"]) / float(row["mean"])
                for key in ("bias", "low", "high")
            )
            cells[f"{words}: bias, limits"] = f"{bias:+.0f} % ({low:+.0f} to {high:+.0f})"
            cells[f"{words}: ICC"] = f"{float(row[f'{who}_icc']):.2f}"
        cells["network: ICC"] += " ↓" if row["agrees_less_than_people"] else ""
        cells["in its interval"] = f"{float(row['first_within_interval']):.0%}"
        table.append(cells)
    return table


def changed() -> list[dict]:
    """Changes of the augmentation: Dice at own thresholds, by camera."""
    kept = [row for row in rows("cameras") if row["recipe"] == "before"]
    dice = {(row["change"], row["tested_on"]): short(row["own_dice"]) for row in kept}
    cameras = {title(row["tested_on"]): row["tested_on"] for row in kept}
    return [
        {"change": words} | {name: dice.get((key, k), "") for name, k in cameras.items()}
        for words, key in CHANGES.items()
    ]


def fed() -> list[dict]:
    """Changes of what is learned from, by today's recipe."""
    return [
        {
            "learned from": FED[row["change"]],
            "tested on": title(row["tested_on"]),
            "Dice, own threshold": short(row["own_dice"]),
            "best possible Dice": short(row["best_dice"]),
            "ROC-AUC": short(row["auc"], 4),
        }
        for row in rows("cameras")
        if row["recipe"] == "today"
    ]


def scaled() -> list[dict]:
    """The scale at which a photograph is seen."""
    return [
        {
            "tested on": title(row["tested_on"]),
            "FOV, pixels across": row["fov_diameter"],
            "Dice, own threshold": short(row["own_dice"]),
            "ROC-AUC": short(row["auc"]),
        }
        for row in rows("scale")
    ]


def matched() -> list[dict]:
    """HRF learned from at the usual scale, and at that of the others' vessels."""
    return [
        {
            "tested on": f"{title(row['tested_on'])}, {row['photographs']} photographs",
            "HRF learned from, pixels across": row["hrf_diameter"],
            "best possible Dice": short(row["best_dice"]),
            "ROC-AUC": short(row["auc"]),
        }
        for row in rows("matched")
    ]


def longer() -> list[dict]:
    """Cameras left out, by how long the networks had trained."""
    return [
        {
            "tested on": title(row["tested_on"]),
            "epochs": row["epochs"],
            "Dice, own threshold": short(row["own_dice"]),
            "best possible Dice": short(row["best_dice"]),
            "ROC-AUC": short(row["auc"], 4),
        }
        for row in rows("longer")
    ]


def limited() -> list[dict]:
    """How far the scale may be moved: small photographs, and a wide field."""
    of = {"wide": "the usual"}
    return [
        {
            "made of": title(row["tested_on"]),
            "what": row["pictures"],
            "its FOV, pixels across": row["across"],
            "limit": f"{short(row['limit'], 1)} × {of.get(row['pictures'], 'its own')}",
            "seen at": row["seen_at"],
            "Dice, own threshold": short(row["own_dice"]),
            "ROC-AUC": short(row["auc"]),
        }
        for row in rows("scales")
    ]


def timed() -> list[dict]:
    """Times against a baseline."""
    files = ("training", "prediction", "folder", "scores", "topology")
    found = [row for name in files for row in read_json(RESULTS / f"{name}.json")["rows"]]
    form = {"ours": "{:.3g}", "baseline": "{:.3g}", "ratio": "{:.2f}"}
    form |= {"ceiling_share": "{:.0%}", "spread": "{:.0%}"}
    heading = {"ours": "ours, s", "baseline": "baseline, s", "ceiling_share": "ceiling"}
    return [
        {"work": row["work"], "note": row["note"]}
        | {
            heading.get(key, key): "" if row[key] is None else form[key].format(row[key])
            for key in form
        }
        for row in found
    ]


TABLES = (left_out, aimed, home, adapted, measured, changed, fed, scaled, matched, longer)
TABLES += (limited, timed)


def written(table: re.Match) -> str:
    """A table of a page with the cells of its rows; empty if its headings are none of these."""
    headings = [cell.strip() for cell in table[1].split("|")]
    for cells in TABLES:
        lines = cells()
        if all(set(headings) <= set(line) for line in lines):
            rows = ("| " + " | ".join(line[h] for h in headings) + " |\n" for line in lines)
            return table[0].removesuffix(table[2]) + "".join(rows)
    return ""


def anew(text: str) -> str:
    """A page with its tables as their rows are now."""
    return TABLE.sub(lambda table: written(table) or table[0], text)


if __name__ == "__main__":
    for page in PAGES:
        write_text(ROOT / page, anew((ROOT / page).read_text(encoding="utf-8")))
