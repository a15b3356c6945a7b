"""The pages of a benchmark, and a network to be passed on with its card."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from retina_utils.checkpoint import PRETRAINED, Network, save_network
from retina_utils.datasets.catalogue import SOURCES
from retina_utils.intake import scale
from retina_utils.machine.files import read_json, render, write_text
from retina_utils.machine.runs import provenance
from retina_utils.models import count_parameters

OWN = "its training photographs"
HELD_OUT = ("photographs held out of the folds", "photographs of cameras left out")


def title(name: str) -> str:
    """What a data set is called by those who made it."""
    return SOURCES[name].title if name in SOURCES else name


def ship(
    path: Path,
    network: Network,
    *,
    photographs: dict[str, list[str]],
    ledger: dict,
    threshold_from: str,
    recipe: dict,
    result: dict,
    tables: Sequence[Path],
) -> None:
    """Write a network with its card inside, and the card as Markdown beside it.

    ``photographs`` names by data set all it was trained on, ``ledger`` is that of them (of
    `datasets.ledger`), ``threshold_from`` tells those its
    threshold was chosen on; ``result`` is the ``result.json`` of its training, ``tables`` are the
    ``table.json`` files of networks of its kind, as far as there are any.
    """
    read = [read_json(table) for table in tables if table.exists()]
    card = {
        "photographs": photographs,
        "licences": [licence(name, len(names)) for name, names in photographs.items()],
        "threshold": threshold_from,
        "recipe": recipe,
        "made": result["made"] | {"command": provenance()["command"]},
        "minutes": round(result["train_seconds"] / 60),
        "scores": list({json.dumps(row): row for table in read for row in table["rows"]}.values()),
        "protocol": [table["protocol"] for table in read],
        "calibration": [row for table in read for row in table.get("calibration", [])],
        "promise": next((table["promise"] for table in read if "promise" in table), {}),
    }
    network = replace(network, facts=network.facts | {"card": card, "ledger": ledger})
    save_network(path, network)
    write_text(path.with_suffix(".md"), card_page(network, path))


def licence(name: str, count: int) -> str:
    """Under what terms a data set was given, and by whom."""
    if name not in SOURCES:
        return f"{name}, {count} photographs: your own photographs, licence not stated."
    return f"{title(name)}, {count} photographs: {SOURCES[name].licence}. {SOURCES[name].citation}"


def card_page(network: Network, path: Path) -> str:
    """The card as Markdown of a network whose file lies at ``path``."""
    card = network.card
    return render(
        Path(__file__).with_name("card.md.j2"),
        card=card,
        network=network,
        scale=scale,
        parameters=count_parameters(network.model),
        size=path.stat().st_size,
        name="pretrained" if path.resolve() == PRETRAINED else path.name,
        rows=card["scores"],
        protocol="\n".join(card["protocol"]),
    )
