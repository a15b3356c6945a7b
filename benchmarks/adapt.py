"""What ``make adapt`` is worth: 2, 4 and 8 photographs of a camera that the network never met.

    make benchmark DATASET="chase_db1 hrf stare" ARGS=--leave-one-out
    python benchmarks/adapt.py --networks outputs/benchmark/left_out-chase_db1+hrf+stare
    python benchmarks/adapt.py --networks ... --no-tuning    # threshold and calibration: minutes

For each camera and number, five draws of people; of each drawn person one photograph, then the
second one. Dice is the mean over the photographs of all people who were not drawn, AUC is pooled.
Rows are written one by one to ``results/adapt.csv``: the same command goes on there.
"""

import argparse
import os
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np

from retina_utils import metrics
from retina_utils.checkpoint import load_network
from retina_utils.commands.adapt import adapt, dice_of
from retina_utils.commands.benchmark import read_photographs
from retina_utils.commands.folder import EXPECTED_DICE, USUAL, cut_of
from retina_utils.data import Pair, load_sample
from retina_utils.machine.files import read_csv, write_csv
from retina_utils.measures.calibration import calibrated
from retina_utils.predict import predict_image

COUNTS, DRAWS = (2, 4, 8), 5
RESULTS = Path(__file__).with_name("results") / "adapt.csv"
KEY = ("camera", "n", "draw", "trained", "start")  # tell rows apart


def draw(pairs: list[Pair], n: int, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Photographs to adapt with, and those of all people who are not among them."""
    eyes = defaultdict(list)
    for pair in pairs:
        eyes[pair.person].append(pair)
    people = list(np.random.default_rng(seed).permutation(sorted(eyes)))
    for count in range(min(n, len(people) // 2), len(people)):
        drawn = people[:count]
        turns = sorted((turn, k) for k, p in enumerate(drawn) for turn in range(len(eyes[p])))
        if len(turns) >= n:
            break
    given = [eyes[drawn[k]][turn] for turn, k in turns[:n]]
    return given, [pair for pair in pairs if pair.person not in drawn]


def measure(network, histograms: dict, pairs: list[Pair], n: int, seed: int, options) -> dict:
    """A row: the network before and after, on people it was not adapted with."""
    given, others = draw(pairs, n, seed)
    others, start = others[:: options.every], time.monotonic()
    before = [histograms[pair.name] for pair in others]
    known = [] if options.tuning else [histograms[pair.name] for pair in given]
    adapted = adapt(network, given, histograms=known, tunes=options.tuning, tell=lambda line: None)
    took = time.monotonic() - start
    kept = [step.name for step in adapted.steps[1:] if step.is_kept]
    if {"halfway", "all the way"} & set(kept):
        samples = map(load_sample, others)
        maps = ((predict_image(adapted.network, s.image, s.fov, flips=True), s) for s in samples)
        after = [metrics.histogram(p, s.vessels, s.fov) for p, s in maps]
    else:
        after = [calibrated(h, adapted.calibration) for h in before]
    row = {"kept": " + ".join(kept) or "start", "people": len({p.person for p in given})}
    row |= {"tested": len(others), "seconds": round(took)}
    for name, found, net in (("start", before, network), ("after", after, adapted.network)):
        cut = net.threshold if cut_of(net) == USUAL else None
        row[f"dice_{name}"] = round(float(np.mean([dice_of(h, cut) for h in found])), 4)
        row[f"auc_{name}"] = round(metrics.roc_auc(metrics.pool(found)), 4)
    return row


def table(rows: list[dict]) -> str:
    """The learning curve as Markdown: means over draws, and the worst of them."""
    lines = ["| camera | weights | photographs | Dice before | after | worst draw | AUC | kept |"]
    lines.append("|---" * 8 + "|")
    groups = defaultdict(list)
    for row in rows:
        groups[row["camera"], row["trained"], int(row["n"])].append(row)
    for (camera, trained, n), group in sorted(groups.items()):
        column = {k: np.array([float(row[k]) for row in group]) for k in group[0] if "_" in k}
        before, after = column["dice_start"], column["dice_after"]
        auc = f"{column['auc_start'].mean():.4f} to {column['auc_after'].mean():.4f}"
        kept = f"{sum(row['kept'] != 'start' for row in group)} of {len(group)}"
        lines.append(
            f"| {camera} | {'trained' if trained == 'yes' else 'as they were'} | {n} "
            f"| {before.mean():.3f} | {after.mean():.3f} | {(after - before).min():+.4f} "
            f"| {auc} | {kept} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing among the rows, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--networks", type=Path, required=True, help="holds without_CAMERA/")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--no-tuning", dest="tuning", action="store_false")
    parser.add_argument("--every", type=int, default=1, help="test on every so manieth photograph")
    parser.add_argument("--only", nargs="+", help="cameras")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--draws", type=int, default=DRAWS)
    parser.add_argument("--first", type=int, default=0, help="the first of the draws")
    options = parser.parse_args()
    os.environ["RETINA_QUIET"] = "1"
    rows = read_csv(options.out) if options.out.exists() else []
    done = {tuple(str(row[key]) for key in KEY) for row in rows}
    for folder in sorted(options.networks.glob("without_*")):
        camera = folder.name.removeprefix("without_")
        if options.only and camera not in options.only:
            continue
        network, pairs = (
            load_network(folder / "network.pt"),
            read_photographs(options.data / camera),
        )
        network = replace(network, facts=network.facts | {"cut": EXPECTED_DICE})  # as if in the box
        with np.load(folder / "histograms.npz") as arrays:
            histograms = {p.name: metrics.Histogram(*arrays[f"{camera}/{p.name}"]) for p in pairs}
        for seed in range(options.first, options.draws):
            for n in options.counts:
                row = {"camera": camera, "n": n, "draw": seed}
                row |= {"trained": "yes" if options.tuning else "no", "start": network.sha256[:12]}
                if tuple(str(row[key]) for key in KEY) in done:
                    continue
                rows.append(row | measure(network, histograms, pairs, n, seed, options))
                write_csv(options.out, rows)
                print(*rows[-1].values(), flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
