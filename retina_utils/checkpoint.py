"""Weights in files, with all that belongs to them: preparation, threshold, and what made them."""

import hashlib
import io
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from retina_utils import RetinaError
from retina_utils.machine.files import atomic_path
from retina_utils.models import build_model
from retina_utils.patches import Preparation

# The network that comes with the package; its card, pretrained.md, lies beside it.
PRETRAINED = Path(__file__).with_name("weights") / "pretrained.pt"


@dataclass(frozen=True)
class Network:
    """A network with what it was taught to see: all that a prediction needs."""

    model: nn.Module  # gives logits (N, 1, H, W)
    preparation: Preparation  # what it sees of a photograph, in training and ever after
    threshold: float | None = None  # the one chosen in its own training
    facts: dict = field(default_factory=dict)  # what else is kept: epoch, seed, data, card

    @property
    def card(self) -> dict:
        """Data, licences, recipe and scores of a network made to be passed on; else empty."""
        return self.facts.get("card") or {}

    @property
    def sha256(self) -> str:
        """Checksum of the names and values of all weights, whatever file they lie in."""
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()


def save_network(path: str | Path, network: Network) -> None:
    """Write a network, in one step: a crash leaves the previous file as it was.

    Its facts may hold numbers, strings, tensors and lists and dicts of them: what loads again
    without running code from the file. It is read back before it takes its place.
    """
    model = network.model
    weights = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    content = {"architecture": model.architecture, "settings": model.settings, "weights": weights}
    content |= network.facts | {"preparation": network.preparation.as_dict()}
    if network.threshold is not None:
        content["threshold"] = float(network.threshold)
    with atomic_path(path) as unfinished:
        torch.save(content, unfinished)
        try:
            read_checkpoint(unfinished)
        except RetinaError as error:
            raise TypeError(
                f"{path}: not written, for of its facts {list(network.facts)} one would not load "
                "again. Convert it first, e.g. with float() or str()"
            ) from error


def load_network(path: str | Path, device: str | torch.device = "cpu") -> Network:
    """A saved network, rebuilt and in evaluation mode.

    ``path`` may be "pretrained": the network in the package, trained on CHASE_DB1 01-10 and HRF
    01-05, whose ``card`` says what it saw, how it scores and where it fails. A RetinaError says
    if there is no such file, or it holds no network of this package.
    """
    path = PRETRAINED if str(path) == "pretrained" else Path(path)
    content = read_checkpoint(path)
    try:
        model = build_model(content.pop("architecture"), content.pop("settings"))
        preparation = Preparation(**content.pop("preparation"))
        model.load_state_dict(content.pop("weights"))
    except (TypeError, ValueError, RuntimeError) as error:
        raise RetinaError(f"{path}: from another version of this code? {error}") from error
    return Network(model.to(device).eval(), preparation, content.pop("threshold", None), content)


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint, on the CPU; runs no code from the file."""
    if not path.is_file():
        raise RetinaError(f"{path}: no such checkpoint; train first (03_train), or check it")
    data = path.read_bytes()
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise a dozen kinds for a damaged file
        raise RetinaError(
            f"{path}: not a checkpoint, or cut short ({len(data)} bytes); "
            "copy or download it again, or train anew"
        ) from error
    needed = ("architecture", "settings", "weights", "preparation")
    if not isinstance(content, dict) or not set(needed) <= set(content):
        found = list(content)[:3] if isinstance(content, dict) else type(content).__name__
        raise RetinaError(
            f"{path}: expected {', '.join(needed)}, found {found}; bare weights can be turned "
            "into a checkpoint with model.load_state_dict(...) and "
            "save_network(path, Network(model, Preparation(...)))"
        )
    return content
