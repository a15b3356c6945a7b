"""A folder of photographs by `make predict`, against the network alone; and its summary's growth.

    python benchmarks/folder.py [FOLDER ...]

For each folder (of imported data sets if none is given): seconds a photograph from file to files,
and those of the network on photographs already decoded, in the same process; a ratio of 1 would
mean that reading, FOV, flags, encoding and writing cost no time. Then seconds for a summary of
many outcomes, against writing the table anew for each. At the end what a million would take.
"""

import contextlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

from retina_utils.checkpoint import load_network
from retina_utils.commands import summary
from retina_utils.commands.folder import predict_folder
from retina_utils.fov import find_fov
from retina_utils.images import read_photograph
from retina_utils.intake import listing
from retina_utils.machine.compute import peak_memory_gib
from retina_utils.predict import predict_image

DATA = Path(__file__).parent.parent / "data"
COUNTS = (1_000, 10_000, 100_000)
SOME, TIMES = 6, 3  # photographs of a folder, and how often they are timed


def rows(folders: list[Path] | None = None) -> list[dict]:
    """One row for each folder with and without flips, and one for each size of a summary."""
    found = [DATA / name / "training" / "images" for name in ("chase_db1", "hrf")]
    folders = [folder for folder in folders or found if folder.is_dir()]
    photographs = [of_folder(folder, flips) for folder in folders for flips in (False, True)]
    return photographs + [of_summary(count) for count in COUNTS]


def of_folder(source: Path, flips: bool) -> dict:
    """Seconds a photograph, of the command and of the network alone."""
    network, ours, alone = load_network("pretrained"), [], []
    with tempfile.TemporaryDirectory() as here:
        files = [f for f in listing.list_images(source) if f.suffix.lower() != ".png"][:SOME]
        folder, out = Path(here) / "photographs", Path(here) / "maps"
        folder.mkdir()
        for file in files:
            (folder / file.name).symlink_to(file.resolve())
        read = [read_photograph(file) for file in files]
        decoded = [(image, find_fov(image)) for image in read]
        predict_image(network, *decoded[0])
        for n in range(TIMES):
            start = time.perf_counter()
            with contextlib.redirect_stdout(None):
                predict_folder(folder, out / str(n), flips=flips)
            between = time.perf_counter()
            for image, fov in decoded:
                predict_image(network, image, fov, flips=flips)
            alone.append((time.perf_counter() - between) / len(files))
            ours.append((between - start) / len(files))
        kept = sum(f.stat().st_size for f in (out / "0").iterdir()) / len(files)
    height, width = read[0].shape[:2]
    note = f"{kept / 1e6:.1f} MB a photograph, peak {peak_memory_gib():.2f} GiB"
    name = f"{width} x {height}, {'four views' if flips else 'one view'}: s a photograph"
    return row(name, ours, alone, note)


def of_summary(count: int) -> dict:
    """Seconds to keep ``count`` outcomes; the plain way is timed up to a thousand."""
    outcome = summary.Outcome("", "done", "", 999, 960, 700_000, 0.7, 0.1, 0.459, 1.2, "", "f" * 16)
    outcomes = [outcome._replace(name=f"{n:07d}.jpg") for n in range(count)]
    ours, plain = [], []
    with tempfile.TemporaryDirectory() as here:
        for n in range(TIMES if count <= 10_000 else 1):
            out = Path(here) / str(n)
            out.mkdir()
            start = time.perf_counter()
            with summary.Summary(out, out) as kept:
                for outcome in outcomes:
                    kept.add(outcome)
            ours.append(time.perf_counter() - start)
            if count <= 1_000:
                start, told = time.perf_counter(), {}
                for outcome in outcomes:
                    told[outcome.name] = outcome
                    summary.write_summary(out, told)
                plain.append(time.perf_counter() - start)
    each = f"{1e3 * min(ours) / count:.2f} ms an outcome"
    return row(f"summary of {count:,} outcomes: s", ours, plain, each)


def row(work: str, ours: list[float], baseline: list[float], note: str) -> dict:
    """Medians, their ratio, and the spread of ours."""
    found = {"work": work, "ours": statistics.median(ours)}
    found["baseline"] = statistics.median(baseline) if baseline else None
    found["ratio"] = found["ours"] / found["baseline"] if baseline else None
    spread = (max(ours) - min(ours)) / found["ours"]
    return found | {"ceiling_share": None, "spread": spread, "note": note}


def plan(photographs: list[dict]) -> None:
    """What many photographs take, from what was measured: hours, and terabytes of maps."""
    for measured in photographs:
        for count in (1_000, 100_000, 10_000_000):
            hours = count * measured["ours"] / 3600
            size = count * float(measured["note"].split()[0]) / 1e6
            print(f"{measured['work']:45} {count:10,}: {hours:10.1f} h, {size:8.2f} TB")


if __name__ == "__main__":
    found = rows([Path(folder) for folder in sys.argv[1:]])
    for line in found:
        print(json.dumps(line))
    plan([line for line in found if "photograph" in line["work"]])
