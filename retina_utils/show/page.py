"""The network in one HTML file: photographs are dropped into it, and nothing leaves the machine.

The file holds the network as ONNX, the engine that runs it (ONNX Runtime Web), and in JavaScript
what cannot be in the network's graph: finding the field of view, and the slider of the report.
"""

import base64
import gzip
from collections.abc import Mapping
from pathlib import Path

from retina_utils.checkpoint import Network
from retina_utils.machine.npm import fetch_package, read_member
from retina_utils.models import count_parameters
from retina_utils.show.pages import TEMPLATES
from retina_utils.show.viewer import EVEN, LEAST, MARKS, MOST, OWN, RAMP

ENGINE = "onnxruntime-web"
ENGINE_VERSION = "1.30.0"
ENGINE_INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7sv"
    "Nc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# The bundle that loads nothing by itself, and the WebAssembly that it is given.
MEMBERS = {"engine": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
TRACK = {"even": EVEN, "least": LEAST, "most": MOST}
SCORES = {"dice": "Expected Dice", "density": "Vessel density"}


def page_html(
    network: Network, model: bytes, facts: Mapping, origin: str, folder: str | Path
) -> str:
    """The page of a network; the engine's package is kept in ``folder``.

    ``model`` is the network as an ONNX file (:func:`retina_utils.commands.onnx.export`), ``facts``
    are what page.js and worker.js have to know: its "threshold", None for each photograph's own,
    of that ``origin``, the "fov_diameter" and the "limits" of flags and of the search for a scale.
    A RetinaError says if the engine cannot be had.
    """
    package = fetch_package(ENGINE, ENGINE_VERSION, ENGINE_INTEGRITY, folder)
    parts = {name: read_member(package, f"dist/{member}") for name, member in MEMBERS.items()}
    labels = MARKS | ({"chosen": OWN} if facts["threshold"] is None else {})
    facts = {**facts, "track": TRACK, "labels": labels}
    facts |= {name: network.facts.get(name) for name in ("learned_width", "promise")}
    viewer = {"ramp": RAMP, "cases": [], "scores": SCORES, "curve": "dice", "note": ""}
    card = network.card
    return TEMPLATES.get_template("page.html.j2").render(
        facts=facts,
        viewer=viewer | {"whole": None, "whole_label": ""},
        packed={name: _packed(part) for name, part in (parts | {"network": model}).items()},
        origin=origin,
        parameters=count_parameters(network.model),
        checksum=network.sha256[:12],
        learned=card.get("licences", []),
        engine_version=ENGINE_VERSION,
    )


def _packed(content: bytes) -> str:
    """Bytes as text in a page; no colon is in it, so no address either."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
