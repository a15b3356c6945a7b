"""What is measured of vessels: the network against a person, beside a person against a person.

    python benchmarks/measures.py chase_db1=<network.pt> stare=<network.pt>

Each network has to be one that never met the camera. Photographs are measured one by one into
``results/measures_photographs.csv`` and not again by a later call with the same network; then
``results/measures.csv`` is written from it. Lengths are shares of the FOV's diameter.
"""

import sys
from pathlib import Path

from retina_utils.checkpoint import load_network
from retina_utils.commands.benchmark import read_photographs
from retina_utils.data import Pair, load_sample
from retina_utils.frame import fov_diameter
from retina_utils.images import read_binary
from retina_utils.machine.compute import choose_device
from retina_utils.machine.files import read_csv, write_csv
from retina_utils.measures.agreement import agreement
from retina_utils.measures.numbers import MEASURES, measure, measure_map
from retina_utils.measures.widths import by_width
from retina_utils.metrics import decide
from retina_utils.predict import predict_image

ROOT = Path(__file__).parent.parent
EACH = ROOT / "benchmarks" / "results" / "measures_photographs.csv"
TABLE = EACH.with_name("measures.csv")
NAMES = {key: f"{key}_fov" if power else key for key, power in MEASURES.items()}


def measured(pair: Pair, network) -> list[dict]:
    """A row for the network and for each observer."""
    sample, second = load_sample(pair), read_binary(pair.second)
    probability = predict_image(network, sample.image, sample.fov)
    found = measure_map(probability, sample.fov, network.threshold)
    bounds = [f"{name}{end}" for name in NAMES.values() for end in ("", "_low", "_high")]
    drawn = decide(probability, network.threshold)
    truth = (sample.vessels, sample.fov)
    rows = [{"drawn_by": "network"} | {key: found[key] for key in bounds} | by_width(drawn, *truth)]
    for name, drawing in {"first observer": sample.vessels, "second observer": second}.items():
        numbers, unit = measure(drawing, sample.fov), 1 / fov_diameter(sample.fov)
        row = {NAMES[key]: numbers[key] * unit**power for key, power in MEASURES.items()}
        rows.append({"drawn_by": name} | row | by_width(drawing, *truth))
    return rows


def table(rows: list[dict]) -> list[dict]:
    """A line for each data set and measure."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        names = dict.fromkeys(row["photograph"] for row in rows if row["data"] == data)
        by = {(row["photograph"], row["drawn_by"]): row for row in rows if row["data"] == data}
        for name in NAMES.values():
            network, first, second = (
                [float(by[n, who][name]) for n in names]
                for who in ("network", "first observer", "second observer")
            )
            line = {"data": data, "measure": name, "photographs": len(names)}
            line["mean"] = sum(first) / len(first)
            for who, values in {"network": network, "second": second}.items():
                line |= {f"{who}_{k}": v for k, v in agreement(values, first).items()}
            line["network_second_icc"] = agreement(network, second)["icc"]
            reached = [
                float(by[n, "network"][f"{name}_low"])
                <= value
                <= float(by[n, "network"][f"{name}_high"])
                for n, value in zip(names, first, strict=True)
            ]
            line["first_within_interval"] = sum(reached) / len(reached)
            worse = line["network_icc"] < line["second_icc"]
            lines.append(line | {"agrees_less_than_people": "yes" if worse else ""})
    return lines


def main(given: list[str]) -> None:
    rows = read_csv(EACH) if EACH.exists() else []
    for name, path in (word.split("=", 1) for word in given):
        network = load_network(path, choose_device("cpu"))
        key = {"data": name, "network": network.sha256[:12]}
        rows = [row for row in rows if row["data"] != name or row["network"] == key["network"]]
        done = {row["photograph"] for row in rows if row["data"] == name}
        for pair in read_photographs(ROOT / "data" / name):
            if pair.second and pair.name not in done:
                rows += [key | {"photograph": pair.name} | row for row in measured(pair, network)]
                columns = list(dict.fromkeys(column for row in rows for column in row))
                write_csv(EACH, rows, columns)
                print(name, pair.name, flush=True)
    write_csv(TABLE, table(rows))
    print("Written. Now python benchmarks/tables.py, for the README.")


if __name__ == "__main__":
    main(sys.argv[1:])
