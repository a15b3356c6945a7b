"""Do two checkouts give the same results? For changes of the code that may change no result.

In each checkout (on the same machine), after ``make import-data DATASET=chase_db1 SRC=...``:

    make run-all
    make run-all PRESET=chase_db1 RUN=chase ARGS="-p epochs 2 -p patches_per_image 2 -p flips false"
    make predict IMAGES=<a few photographs> OUT=outputs/maps
    make benchmark DATASET=chase_db1 \
      ARGS="--folds 2 --jobs 1 -p epochs 1 -p patches_per_image 1 -p flips false"

and then ``python benchmarks/same_results.py OLD NEW``, with the paths of both.
"""

import sys
from pathlib import Path

from retina_utils.commands.verify import differences

KINDS = ("splits.csv", "history.csv", "metrics.csv", "table.csv", "*.png", "people.csv")
KINDS += ("metrics.json", "*.pth", "*.pt", "histograms.npz")
ASIDE = ("figures", "notebooks")  # pictures for looking at, and notebooks with times in them


def compare(old: Path, new: Path) -> int:
    """Print a line for each kind of result; gives how many of them differ."""
    different = 0
    for kind in KINDS:
        found = sorted(
            path.relative_to(old)
            for path in [*old.glob(f"outputs/**/{kind}"), *old.glob(f"data/*/{kind}")]
            if not set(path.relative_to(old).parts) & set(ASIDE)
        )
        wrong = [path for path in found if differences(old / path, new / path)]
        different += len(wrong)
        print(f"{kind:15} {len(found):4d} compared, {len(wrong)} differ", *wrong[:5], sep="  ")
    return different


if __name__ == "__main__":
    sys.exit(bool(compare(*map(Path, sys.argv[1:3]))))
