"""The network in one HTML file: photographs are dropped into it, and nothing leaves the machine.

The file holds the network as ONNX, the engine that runs it (ONNX Runtime Web), and in JavaScript
what cannot be in the network's graph: finding the field of view, and the slider of the report.
"""

import base64
import gzip
from collections.abc import Mapping
from pathlib import Path

from retina_utils import metrics
from retina_utils.checkpoint import Network
from retina_utils.machine.npm import fetch_package, read_member
from retina_utils.models import count_parameters
from retina_utils.show.pages import TEMPLATES
from retina_utils.show.viewer import slider_of

ENGINE = "onnxruntime-web"
ENGINE_VERSION = "1.30.0"
ENGINE_INTEGRITY = (
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7sv"
    "Nc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
# The bundle that loads nothing by itself, and the WebAssembly that it is given.
MEMBERS = {"engine": "ort.wasm.bundle.min.mjs", "wasm": "ort-wasm-simd-threaded.wasm"}
SCORES = {"dice": "Expected Dice", "density": "Vessel density"}


def page_html(network: Network, model: bytes, limits: Mapping, folder: str | Path) -> str:
    """The page of a network; the engine's package is kept in ``folder``.

    ``model`` is the network as an ONNX file (:func:`retina_utils.commands.onnx.export`), ``limits``
    are the numbers of fov.js and worker.js. A RetinaError says if the engine cannot be had.
    """
    package = fetch_package(ENGINE, ENGINE_VERSION, ENGINE_INTEGRITY, folder)
    parts = {name: read_member(package, f"dist/{member}") for name, member in MEMBERS.items()}
    threshold = 0.5 if network.threshold is None else network.threshold
    controls = slider_of({"chosen": threshold})
    controls["marks"]["chosen"]["label"] = "usual threshold"
    facts = controls | {"scores": SCORES, "limits": dict(limits)}
    facts["lowest"] = [metrics.lowest_level(level) for level in controls["levels"]]
    card, frame_side = network.card, network.preparation.fov_diameter
    return TEMPLATES.get_template("page.html.j2").render(
        facts=facts,
        packed={name: _packed(part) for name, part in (parts | {"network": model}).items()},
        threshold=threshold,
        parameters=count_parameters(network.model),
        checksum=network.sha256[:12],
        diameter=frame_side or network.preparation.patch_size,
        mirrored=card.get("recipe", {}).get("flips"),
        learned=card.get("licences", []),
        engine_version=ENGINE_VERSION,
    )


def _packed(content: bytes) -> str:
    """Bytes as text in a page; no colon is in it, so no address either."""
    return base64.b64encode(gzip.compress(content, 9, mtime=0)).decode()
