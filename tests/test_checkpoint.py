"""A network comes back from disk as it was, with what it was taught to see; or says why not."""

import os

import pytest
import torch

from retina_utils import RetinaError, checkpoint, models
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.patches import Preparation

SMALL = {"unet": {"widths": [4, 8, 8]}, "unet256": {"base_width": 2}}


def network(architecture="unet", threshold=None, facts=None, **settings):
    torch.manual_seed(0)
    model = models.build_model(architecture, SMALL[architecture] | settings)
    return Network(model, Preparation(patch_size=64, stride=32), threshold, facts or {})


@pytest.mark.parametrize("architecture", models.ARCHITECTURES)
def test_a_saved_network_comes_back_whole_and_with_the_same_outputs(architecture, tmp_path):
    image = torch.rand(1, 1, 40, 40)
    saved = network(architecture, 0.4, {"epoch": 5, "card": {"licences": ["CC0"]}}, norm="group")
    save_network(tmp_path / "unet.pth", saved)
    loaded = load_network(tmp_path / "unet.pth")
    assert loaded.preparation == saved.preparation and loaded.threshold == 0.4
    assert loaded.facts == saved.facts and loaded.card == {"licences": ["CC0"]}
    assert not loaded.model.training and loaded.sha256 == saved.sha256
    assert loaded.model.settings == saved.model.settings
    assert torch.equal(loaded.model(image), saved.model.eval()(image))
    assert os.listdir(tmp_path) == ["unet.pth"]


def test_the_digest_of_the_weights_tells_one_value_from_another():
    first, second = network(), network()
    assert first.sha256 == second.sha256
    with torch.no_grad():
        second.model.head.bias += 1e-6
    assert first.sha256 != second.sha256


def test_an_optimisers_state_is_a_fact_that_can_be_stored(tmp_path):
    saved = network()
    optimizer = torch.optim.AdamW(saved.model.parameters())
    saved.model(torch.rand(2, 1, 8, 8)).sum().backward()
    optimizer.step()
    facts = {"optimizer": optimizer.state_dict()}
    save_network(tmp_path / "unet.pth", network(facts=facts))
    optimizer.load_state_dict(load_network(tmp_path / "unet.pth").facts["optimizer"])


def test_facts_that_could_not_be_loaded_are_refused_and_the_old_file_stays(tmp_path):
    path = tmp_path / "unet.pth"
    save_network(path, network(facts={"epoch": 1}))
    with pytest.raises(TypeError, match=r"unet.pth: not written, .*\['folder'\].*float\(\)"):
        save_network(path, network(facts={"folder": tmp_path}))
    assert load_network(path).facts == {"epoch": 1}
    assert os.listdir(tmp_path) == ["unet.pth"]


def test_a_crash_while_saving_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "unet.pth"
    save_network(path, network(facts={"epoch": 1}))

    def crash(content, file):
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.torch, "save", crash)
    with pytest.raises(OSError, match="disk full"):
        save_network(path, network(facts={"epoch": 2}))
    assert load_network(path).facts == {"epoch": 1}
    assert os.listdir(tmp_path) == ["unet.pth"]


def damage(path, kind):
    content = torch.load(path, weights_only=True)
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>404</html>")
    elif kind == "pickle":
        torch.save(network().model, path)
    elif kind == "bare weights":
        torch.save(content["weights"], path)
    elif kind == "list":
        torch.save([1, 2], path)
    elif kind == "other version":
        torch.save(content | {"settings": {"depth": 4}}, path)
    elif kind == "odd preparation":
        torch.save(content | {"preparation": {"channels": "infrared"}}, path)
    elif kind == "no preparation":
        del content["preparation"]
        torch.save(content, path)
    elif kind == "other shapes":
        content["weights"]["head.weight"] = torch.zeros(1, 9, 1, 1)
        del content["weights"]["head.bias"]
        torch.save(content, path)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "no such checkpoint"),
        ("truncated", r"not a checkpoint, or cut short \(5000 bytes\)"),
        ("empty", r"cut short \(0 bytes\)"),
        ("text", "not a checkpoint"),
        ("pickle", "not a checkpoint"),
        ("bare weights", r"expected architecture, settings, .* found \['down.0.0.weight'"),
        ("no preparation", r"expected .*preparation, found \['architecture'"),
        ("list", "found list"),
        ("other version", "another version of this code.*'depth'"),
        ("odd preparation", "another version of this code.*channels='infrared'"),
        ("other shapes", r"(?s)another version.*head.bias.*head.weight.*\[1, 9, 1, 1\]"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(kind, message, tmp_path):
    path = tmp_path / "unet.pth"
    save_network(path, network())
    damage(path, kind)
    with pytest.raises(RetinaError, match=message) as caught:
        load_network(path)
    assert "unet.pth" in str(caught.value)
