"""The network as one ONNX file that takes a photograph and its FOV, and gives its probability."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from retina_utils import RetinaError, fov, predict
from retina_utils.checkpoint import Network, load_network
from retina_utils.commands import quality
from retina_utils.commands.folder import EXPECTED_DICE, find_threshold
from retina_utils.datasets.synthetic import draw_fundus
from retina_utils.intake import bars, checks, decode, scale
from retina_utils.machine.files import atomic_path, sha256, write_text
from retina_utils.patches import MARGIN
from retina_utils.predict import LARGEST, predict_image
from retina_utils.show.page import page_html

try:
    import onnx
    import onnx.compose
    import onnxruntime
    from onnxscript import optimizer

    from retina_utils.commands.graph import OPSET, multiple_of, whole_graph
except ImportError as error:
    raise RetinaError(
        f"{error.name} is not installed. Say make onnx, or pip install 'retina-utils[onnx]'."
    ) from error

LARGEST_DIFFERENCE = 1e-3  # of a probability, from PyTorch's
LARGEST_RESAMPLED = 0.1  # where a grey value beside it may be one off: .02 found
WIDEST = 2048  # pixels across the FOV in the page: at once, in the memory a browser gives it
# What the page has in common with `fov.py`, `predict.py`, `intake/scale.py` and `quality.py`.
LIMITS = {
    "working_size": fov.WORKING_SIZE,
    "cuts": fov.CUTS,
    "smallest": fov.SMALLEST_SHARE,
    "white": fov.WHITE,
    "deepest": bars.DEEPEST,
    "step": bars.STEP,
    "black": checks.DARKEST,
    "pixels": decode.LARGEST_PIXELS,
    "between": quality.BETWEEN,
    "darkest": quality.DARKEST,
    "oblong": quality.OBLONG,
    "filled": quality.FILLED,
    "grey": quality.GREY,
    "reddest": quality.REDDEST,
    "shares": quality.SHARES,
    "doubt": quality.LARGEST_DOUBT,
    "meaningless": sorted(quality.MEANINGLESS),
    "looks": predict.LOOKS,
    "near": scale.NEAR,
    "wide": scale.WIDE,
    "fewest": scale.FEWEST,
    "lowest": scale.LOWEST,
    "highest": scale.HIGHEST,
    "beyond": scale.BEYOND,
    "widest": WIDEST,
}
WAYS = """A photograph and its field of view -> the probability of vessel for each pixel.
image: (height, width, 3 or 4) uint8, red, green, blue; a fourth channel is not looked at.
fov: (height, width) bool, with at least one True. views: 1, or 4 to average the four mirror images.
fov_diameter: pixels that the FOV is brought to; the metadata's, or where they tell learned_width,
the one at which vessels are as wide as those learned, in shares of it (intake/scale.py finds it).
Inside: crop to the FOV, resampling, normalisation, network, sigmoid, and the way back to the
photograph's size. Not inside: decoding (8 bits a channel, turned as EXIF says), finding the FOV
and its diameter, and the decision, vessels = probability >= threshold, on probabilities rounded to
k / 65535."""


class Probability(nn.Module):
    """A network with its sigmoid."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, seen: torch.Tensor) -> torch.Tensor:
        return self.model(seen).sigmoid()


def write_onnx(weights: str | Path, out: str | Path) -> str:
    """Write a network as an ONNX file, checked; gives what was found, in words.

    A RetinaError says if the network cannot be kept so, or gives other probabilities than here.
    """
    network, out = load_network(weights), Path(out)
    model = export(network)
    with atomic_path(out) as unfinished:
        onnx.save(model, unfinished)
        alike, resampled = compare(network, unfinished)
    return (
        f"{out}: opset {OPSET}, {out.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256(out)}\n"
        f"onnxruntime {onnxruntime.__version__} differs from PyTorch {torch.__version__} in no "
        f"probability by more than {alike:.1e}, or {resampled:.1e} where a photograph is resampled"
    )


def export(network: Network) -> onnx.ModelProto:
    """The whole graph of a network, as :data:`WAYS` says, past onnx's checker.

    Heights and widths are free. A RetinaError says if its photographs have to be cut in patches.
    """
    preparation, model = network.preparation, network.model
    at_once = preparation.mode == "whole"
    if getattr(model, "takes_any_size", False):
        at_once |= 0 < preparation.fov_diameter <= LARGEST - 2 * MARGIN
    if not at_once:
        raise RetinaError(
            "the network's photographs are cut in patches, which the file does not do. Expected "
            f"one that takes any size and sees a FOV of 1 to {LARGEST - 2 * MARGIN} pixels."
        )
    whole, part = whole_graph(network), exported(network)
    put_inside(whole.graph, part.graph)
    whole.graph.initializer.extend(part.graph.initializer)
    whole = optimizer.optimize(whole)  # functions in their places, constants worked out
    whole.doc_string = WAYS
    card = network.card
    facts = {
        "threshold": repr(network.threshold if network.threshold is not None else 0.5),
        "fov_diameter": str(usual_diameter(network)),
        "learned_width": repr(network.facts.get("learned_width")),
        "preparation": json.dumps(preparation.as_dict()),
        "weights_sha256": network.sha256,
        "learned_from": "\n".join(card.get("licences", [])),
        "purpose": "research and teaching, not for diagnosis",
    }
    onnx.helper.set_model_props(whole, facts)
    onnx.checker.check_model(whole, full_check=True)
    return whole


def usual_diameter(network: Network) -> int:
    """Pixels that the network brings every FOV to, as far as it does not look for its scale."""
    return max(network.preparation.frame(np.ones((8, 8), bool)).size)


def exported(network: Network) -> onnx.ModelProto:
    """The network itself with its sigmoid, by PyTorch's exporter: "seen" -> "probability"."""
    multiple = multiple_of(network.model)
    sides = {2 + k: multiple * torch.export.Dim(f"side{k}", min=2) for k in (0, 1)}
    seen = torch.zeros(1, network.preparation.n_channels, 3 * multiple, 4 * multiple)
    with warnings.catch_warnings():  # of what is old inside PyTorch
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Probability(network.model).eval(),
            (seen,),
            dynamo=True,
            dynamic_shapes={"seen": sides},
            input_names=["seen"],
            output_names=["probability"],
            opset_version=OPSET,
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # traces of this machine
    return onnx.compose.add_prefix(model, "network/")


def put_inside(graph: onnx.GraphProto, part: onnx.GraphProto) -> None:
    """Put the nodes of the network where the graph, or a loop in it, calls it."""
    for node in list(graph.node):
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                put_inside(attribute.g, part)
    for place, node in enumerate(graph.node):
        if node.op_type == "Network":
            ends = [onnx.helper.make_node("Identity", node.input, [part.input[0].name])]
            ends += part.node
            ends += [onnx.helper.make_node("Identity", [part.output[0].name], node.output)]
            nodes = [*graph.node[:place], *ends, *graph.node[place + 1 :]]
            del graph.node[:]
            return graph.node.extend(nodes)


def compare(network: Network, model: str | Path | bytes) -> tuple[float, float]:
    """Largest differences of a probability from PyTorch's: as it is, and where it is resampled.

    The first photograph has the network's scale already. In the other a grey value in 50,000 is
    one higher or lower after resampling, as halves are rounded by one or the other. A RetinaError
    says if a difference is larger than rounding explains.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # what it does not fold is no trouble
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    diameter, found = usual_diameter(network), []
    network = replace(network, facts={})  # the graph is told the scale, and looks for none
    for seed, (side, views) in enumerate(((diameter, 1), (301, 4))):
        image = draw_fundus(seed, (max(side + 20, 128), max(side + 31, 128))).image
        y, x = np.mgrid[: image.shape[0], : image.shape[1]]
        inside = np.hypot(y - side / 2 - 4.5, x - side / 2 - 9.5) <= side / 2
        ours = predict_image(network, image, inside, flips=views == 4, precision="float32")
        feeds = {"image": image, "fov": inside, "views": np.array(views)}
        feeds["fov_diameter"] = np.array(diameter)
        found.append(float(np.abs(session.run(None, feeds)[0] - ours).max()))
    alike, resampled = found
    if alike > LARGEST_DIFFERENCE or resampled > LARGEST_RESAMPLED:
        raise RetinaError(
            f"not written: onnxruntime's probabilities differ from PyTorch's by {alike:.4f}, and "
            f"by {resampled:.4f} after resampling; expected at most {LARGEST_DIFFERENCE} and "
            f"{LARGEST_RESAMPLED}. Another version of onnx or onnxruntime?"
        )
    return alike, resampled


def write_page(weights: str | Path, out: str | Path) -> str:
    """Write a network as one HTML file that opens offline; gives its place, in words."""
    network, out = load_network(weights), Path(out)
    model = export(network).SerializeToString()
    compare(network, model)
    threshold, origin = find_threshold(network, weights)
    facts = {"threshold": None if threshold == EXPECTED_DICE else threshold, "limits": LIMITS}
    facts |= {"fov_diameter": usual_diameter(network)}
    write_text(out, page_html(network, model, facts, origin, out.parent))
    return f"{out}: {out.stat().st_size / 1e6:.1f} MB. Open it in a browser; it needs no network."
