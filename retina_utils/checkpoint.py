"""Weights in files, with all that belongs to them: preparation, threshold, and what made them."""

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from retina_utils import RetinaError
from retina_utils.machine.files import atomic_path
from retina_utils.models import build_model
from retina_utils.patches import Preparation

NEEDED = ("architecture", "settings", "weights", "preparation")
LARGEST = 8192  # pixels of a patch or a FOV; more could only be meant to fill the memory

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
        with unfinished.open("wb") as file:  # torch would write a path's own name into the file
            torch.save(content, file)
        try:
            read_checkpoint(unfinished)
        except RetinaError as error:
            raise TypeError(
                f"{path}: not written, for of its facts {list(network.facts)} one would not load "
                "again. Convert it first, e.g. with float() or str()"
            ) from error


def load_network(path: str | Path, device: str | torch.device = "cpu") -> Network:
    """A saved network, rebuilt and in evaluation mode.

    ``path`` may be "pretrained": the network in the package, trained on CHASE_DB1 01-10, HRF 01-05
    and STARE, whose ``card`` says what it saw, how it scores and where it fails. A RetinaError says
    if there is no such file, or it holds no network of this package with finite weights that
    fit its settings.
    """
    path = PRETRAINED if str(path) == "pretrained" else Path(path)
    content, size = read_checkpoint(path), path.stat().st_size
    try:
        network = _rebuild(*[content.pop(key) for key in NEEDED], facts=content, size=size)
    except Exception as error:  # whatever stands in a file raises a dozen kinds
        message = f"{path}: damaged, or from another version of this code? {error}"
        raise RetinaError(message) from error
    network.model.to(device).eval()
    return network


def _rebuild(architecture, settings, weights, preparation, *, facts: dict, size: int) -> Network:
    """The network of a file of ``size`` bytes; all is looked at before memory is given to it."""
    json.dumps([architecture, settings, preparation, facts.get("card")])  # a TypeError for tensors
    preparation, threshold = Preparation(**preparation), facts.pop("threshold", None)
    odd = list(_odd_settings(settings, preparation, threshold, facts.get("card") or {}))
    odd = odd or list(_odd_weights(weights, len(settings.get("widths", ())), size))
    if odd:
        raise ValueError(f"found unexpected values of {', '.join(odd[:5])}")
    with torch.device("meta"):  # only shapes
        build_model(architecture, settings).load_state_dict(weights, assign=True)
    model = build_model(architecture, settings)
    model.load_state_dict(weights)
    return Network(model, preparation, threshold, facts)


def _odd_settings(settings: dict, preparation: Preparation, threshold, card: dict) -> Iterator[str]:
    """Names of what no network of ours is saved with."""
    for name, value in preparation.as_dict().items():
        too_large = type(value) is int and value > LARGEST
        if type(value) is not type(getattr(Preparation, name)) or too_large:
            yield name
    if settings.get("c_in", 1) != preparation.n_channels:
        yield "c_in"
    if threshold is not None and (type(threshold) not in (int, float) or not 0 <= threshold <= 1):
        yield "threshold"
    if not isinstance(card.get("recipe", {}), dict):
        yield "recipe"
    if not all(min(names) for names in card.get("photographs", {}).values()):
        yield "photographs"


def _odd_weights(weights: dict, levels: int, size: int) -> Iterator[str]:
    """Names of weights that are no finite numbers, or that a file of ``size`` bytes cannot hold."""
    strange = [k for k, v in weights.items() if getattr(v, "layout", None) is not torch.strided]
    if strange:
        yield from strange
    elif sum(tensor.nbytes for tensor in weights.values()) > size or levels > len(weights):
        yield "more weights than the file can hold"
    else:
        for name, tensor in weights.items():  # a negative variance gives nan, too
            found = tensor.sqrt() if name.endswith("running_var") else tensor
            if tensor.is_complex() or not torch.isfinite(found).all():
                yield name


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint, on the CPU; runs no code from the file."""
    if not path.is_file():
        raise RetinaError(f"{path}: no such checkpoint; train first (03_train), or check it")
    try:
        content = load_saved(path)
    except Exception as error:  # torch and pickle raise a dozen kinds for a damaged file
        raise RetinaError(
            f"{path}: not a checkpoint, or cut short ({path.stat().st_size} bytes); "
            "copy or download it again, or train anew"
        ) from error
    if not isinstance(content, dict) or not set(NEEDED) <= set(content):
        found = list(content)[:3] if isinstance(content, dict) else type(content).__name__
        raise RetinaError(
            f"{path}: expected {', '.join(NEEDED)}, found {found}; bare weights can be turned "
            "into a checkpoint with model.load_state_dict(...) and "
            "save_network(path, Network(model, Preparation(...)))"
        )
    return content


def load_saved(path: Path):
    """What torch saved; runs no code from the file. torch alone would not see a flipped bit."""
    data = io.BytesIO(path.read_bytes())
    with zipfile.ZipFile(data) as archive:  # torch packs without compressing
        packed = sum(entry.file_size for entry in archive.infolist()) <= len(data.getbuffer())
        if not packed or archive.testzip():
            raise ValueError("its checksums are wrong, or it grows when it is opened")
    data.seek(0)
    return torch.load(data, map_location="cpu", weights_only=True)
