"""Do two checkouts give the same results? For changes of the code that may change no result.

In each checkout (on the same machine), after ``make import-data DATASET=chase_db1 SRC=...``:

    make run-all
    make run-all PRESET=chase_db1 RUN=chase ARGS="-p epochs 2 -p patches_per_image 2 -p flips false"
    make predict IMAGES=<a few photographs> OUT=outputs/maps
    make benchmark DATASET=chase_db1 \
      ARGS="--folds 2 --jobs 1 -p epochs 1 -p patches_per_image 1 -p flips false"

and then ``python benchmarks/same_results.py OLD NEW``, with the paths of both.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch

KINDS = ("splits.csv", "history.csv", "metrics.csv", "table.csv", "*.png", "people.csv")
KINDS += ("metrics.json", "*.pth", "*.pt", "histograms.npz")
ASIDE = ("figures", "notebooks")  # pictures for looking at, and notebooks with times in them


def equal(old: Path, new: Path) -> bool:
    """Whether two results are the same: weights by value, JSON and CSV by content, else bytes."""
    if old.suffix in (".pt", ".pth"):
        first, second = (torch.load(p, weights_only=True) for p in (old, new))
        names = first["weights"].keys() | second["weights"].keys()
        rest = [{k: v for k, v in f.items() if k != "weights"} for f in (first, second)]
        pairs = ((first["weights"].get(n), second["weights"].get(n)) for n in names)
        return rest[0] == rest[1] and all(torch.equal(*pair) for pair in pairs)
    if old.suffix == ".json":
        return json.loads(old.read_text()) == json.loads(new.read_text())
    if old.suffix == ".csv":
        return old.read_text().splitlines() == new.read_text().splitlines()
    if old.suffix == ".npz":
        with np.load(old) as first, np.load(new) as second:
            return set(first) == set(second) and all((first[k] == second[k]).all() for k in first)
    return old.read_bytes() == new.read_bytes()


def compare(old: Path, new: Path) -> int:
    """Print a line for each kind of result; gives how many of them differ."""
    different = 0
    for kind in KINDS:
        found = sorted(
            path.relative_to(old)
            for path in [*old.glob(f"outputs/**/{kind}"), *old.glob(f"data/*/{kind}")]
            if not set(path.relative_to(old).parts) & set(ASIDE)
        )
        wrong = [p for p in found if not (new / p).exists() or not equal(old / p, new / p)]
        different += len(wrong)
        print(f"{kind:15} {len(found):4d} compared, {len(wrong)} differ", *wrong[:5], sep="  ")
    return different


if __name__ == "__main__":
    sys.exit(bool(compare(*map(Path, sys.argv[1:3]))))
