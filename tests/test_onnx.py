"""The network as an ONNX file and as a page: the same probabilities, and nothing asked for."""

import base64
import hashlib
import io
import json
import re
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

from retina_utils import RetinaError
from retina_utils.checkpoint import Network
from retina_utils.machine import npm
from retina_utils.models import UNet
from retina_utils.patches import Preparation
from retina_utils.predict import predict_image
from retina_utils.show import page

onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from retina_utils.commands import onnx as command  # noqa: E402


def network(fold=1, norm="batch", **preparation):
    torch.manual_seed(0)
    preparation = Preparation(**{"fov_diameter": 90, "patch_size": 64, "stride": 64} | preparation)
    model = UNet(preparation.n_channels, (4, 8, 8), fold=fold, norm=norm).eval()
    for module in model.modules():  # else nearly everything would be one half
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 1, 3)
    torch.nn.init.normal_(model.head.weight, std=2)
    return Network(model, preparation, threshold=0.4)


@pytest.fixture(scope="module")
def usual(tmp_path_factory):
    """A network like the one in the box, and its file."""
    path, taught = tmp_path_factory.mktemp("onnx") / "n.onnx", network(2, channels="rgb")
    taught = Network(taught.model, network(normalisation="local", channels="rgb").preparation, 0.4)
    path.write_bytes(command.export(taught).SerializeToString())
    return taught, path


def run(path_or_bytes, image, fov, views=1, diameter=90):
    session = onnxruntime.InferenceSession(path_or_bytes, providers=["CPUExecutionProvider"])
    numbers = {"views": np.array(views), "fov_diameter": np.array(diameter)}
    return session.run(None, {"image": image, "fov": fov} | numbers)[0]


def eye(height, width, seed=0):
    """Random pixels, and a disc cut off above."""
    y, x = np.ogrid[:height, :width]
    radius = min(height, width) / 2 - 3
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return image, np.hypot(y - height / 2 + 9, x - width / 2) < radius


def test_the_field_of_view_may_be_given_any_diameter(usual):
    taught, path = usual
    image, fov = eye(237, 180)
    larger = replace(taught, preparation=replace(taught.preparation, fov_diameter=131))
    ours = predict_image(larger, image, fov, precision="float32")
    difference = np.abs(ours - run(path, image, fov, diameter=131))
    assert difference.mean() < 5e-4 and difference.max() < 0.05
    assert np.abs(ours - run(path, image, fov)).mean() > 0.01


@pytest.mark.parametrize("views", [1, 4])
@pytest.mark.parametrize("size", [(101, 93), (64, 201), (237, 180)])
def test_the_file_gives_the_probabilities_of_pytorch_at_any_size(usual, size, views):
    taught, path = usual
    image, fov = eye(*size)
    ours = predict_image(taught, image, fov, flips=views == 4, precision="float32")
    theirs = run(path, image, fov, views)
    assert ours[fov].std() > 0.01 and theirs.shape == size and theirs.dtype == np.float32
    difference = np.abs(ours - theirs)
    assert difference.mean() < 5e-4 and difference.max() < 0.05  # a grey value rounds otherwise
    assert (theirs[~fov] == 0).all()


def test_without_resampling_nothing_is_rounded_and_a_fourth_channel_is_not_looked_at(usual):
    taught, path = usual
    image, fov = eye(96, 120)
    fov[:] = False
    fov[3:93, 20:105] = True  # 90 pixels, as the network sees them
    ours = predict_image(taught, image, fov, precision="float32")
    theirs = run(path, np.dstack([image, np.full((96, 120), 7, np.uint8)]), fov)
    assert np.abs(ours - theirs).max() < 1e-4


class Mean(torch.nn.Module):
    """In place of a network, one that shows what it is given."""

    takes_any_size, multiple = True, 8

    def __init__(self):
        super().__init__()
        self.one = torch.nn.Parameter(torch.ones(1))

    def forward(self, seen):
        return seen.mean(1, keepdim=True) * self.one


MEAN = """<ir_version: 10, opset_import: ["" : 20]>
network (float[1, c, h, w] network_seen) => (float[1, 1, h, w] network_drawn) {
  network_axis = Constant<value_ints = [1]>()
  network_mean = ReduceMean(network_seen, network_axis)
  network_drawn = Sigmoid(network_mean)
}"""


@pytest.mark.parametrize("channels", ["green", "luminance", "rgb"])
@pytest.mark.parametrize("normalisation", ["photograph", "local"])
@pytest.mark.parametrize("mode", ["patches", "whole"])
def test_every_preparation_is_in_the_file(channels, normalisation, mode, monkeypatch):
    monkeypatch.setattr(command, "exported", lambda _: command.onnx.parser.parse_model(MEAN))
    preparation = Preparation(channels, mode, 64, 64, 90, normalisation)
    image, fov = eye(131, 120)
    taught = Network(Mean(), preparation, 0.5)
    ours = predict_image(taught, image, fov)
    model = command.export(taught)
    theirs = run(model.SerializeToString(), image, fov, diameter=command.usual_diameter(taught))
    assert ours[fov].std() > 0.05 and np.mean(np.abs(ours - theirs) > 1e-3) < 0.02


@pytest.mark.parametrize("taught", [network(fov_diameter=0), network(norm="group")])
def test_a_network_that_needs_patches_is_refused(taught):
    with pytest.raises(RetinaError, match="cut in patches"):
        command.export(taught)


def test_a_file_of_other_weights_is_refused(usual):
    taught, path = usual
    command.compare(taught, path)
    other = network(2, channels="rgb")
    torch.nn.init.normal_(other.model.head.weight, std=3)
    with pytest.raises(RetinaError, match="not written"):
        command.compare(Network(other.model, taught.preparation), path)


def test_the_file_says_what_is_in_it_and_what_is_not(usual):
    taught, path = usual
    model = command.onnx.load(path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert "Not inside: decoding" in model.doc_string
    assert (facts["fov_diameter"], facts["learned_width"]) == ("90", "None")
    assert float(facts["threshold"]) == 0.4 and facts["weights_sha256"] == taught.sha256
    assert json.loads(facts["preparation"]) == taught.preparation.as_dict()
    assert not re.search(rb"/(home|work|tmp)/", path.read_bytes())  # nothing of this machine


def package(folder, members):
    """A package of npm in a registry on disk; its name, version and checksum."""
    file = folder / "engine" / "-" / "engine-1.0.0.tgz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    digest = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
    return "engine", "1.0.0", f"sha512-{digest}"


def test_a_package_is_fetched_once_said_and_checked(tmp_path, monkeypatch, capsys):
    name, version, integrity = package(tmp_path / "registry", {"a/b.js": b"hello"})
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "registry").as_uri() + "/")
    with pytest.raises(RetinaError, match="its checksum is"):
        npm.fetch_package(name, version, "sha512-other", tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*.tgz"))
    kept = npm.fetch_package(name, version, integrity, tmp_path / "kept")
    assert npm.read_member(kept, "a/b.js") == b"hello"
    assert capsys.readouterr().out.count("Downloading engine 1.0.0 from") == 2
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", (tmp_path / "nowhere").as_uri())
    assert npm.fetch_package(name, version, integrity, tmp_path / "kept") == kept
    kept.write_bytes(kept.read_bytes() + b"x")
    with pytest.raises(RetinaError, match="Remove it"):
        npm.fetch_package(name, version, integrity, tmp_path / "kept")
    kept.unlink()
    with pytest.raises(RetinaError, match="cannot be reached"):
        npm.fetch_package(name, version, integrity, tmp_path / "kept")


def test_no_address_stands_in_the_page(usual, tmp_path, monkeypatch):
    members = {f"dist/{name}": b"see https://example.org/ " for name in page.MEMBERS.values()}
    engine = package(tmp_path, members)
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", tmp_path.as_uri())
    for name, value in zip(("ENGINE", "ENGINE_VERSION", "ENGINE_INTEGRITY"), engine, strict=True):
        monkeypatch.setattr(page, name, value)
    taught, path = usual
    given = {"threshold": 0.4, "fov_diameter": 90, "limits": command.LIMITS}
    html = page.page_html(taught, path.read_bytes(), given, "as given", tmp_path)
    assert "://" not in html and "default-src 'none'" in html
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', html).group(1))
    assert facts["threshold"] == 0.4 and facts["labels"]["chosen"] == "usual threshold"
    asked = set(re.findall(r"limits\.(\w+)", html))
    assert asked | {"lowest", "highest", "beyond"} == set(command.LIMITS)
