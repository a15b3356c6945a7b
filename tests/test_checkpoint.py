"""A network comes back from disk as it was, with what it was taught to see; or says why not."""

import os
import resource
import zipfile

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


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a.pth", "b.pth"):
        save_network(tmp_path / name, network(facts={"epoch": 1}))
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()


def test_a_crash_while_saving_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "unet.pth"
    save_network(path, network(facts={"epoch": 1}))

    def crash(content, file):
        file.write(b"half")
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


def first(content, change):
    """The content with its first weight put through ``change``."""
    name, tensor = next(iter(content["weights"].items()))
    return content | {"weights": content["weights"] | {name: change(tensor)}}


def put(tensor, value):
    tensor = tensor.clone()
    tensor.view(-1)[0] = value
    return tensor


def prepare(**changes):
    return lambda content: content | {"preparation": content["preparation"] | changes}


def settle(**changes):
    return lambda content: content | {"settings": content["settings"] | changes}


def give(**changes):
    return lambda content: content | changes


def weigh(change):
    return lambda content: first(content, change)


def all_levels_wide(content):
    """Tensors of the shapes that absurd widths ask for, which take no room in the file."""
    with torch.device("meta"):
        shapes = models.build_model("unet", {"widths": [40_000] * 3}).state_dict()
    weights = {k: torch.zeros((), dtype=v.dtype).expand(v.shape) for k, v in shapes.items()}
    return content | {"settings": {"widths": [40_000] * 3}, "weights": weights}


NAN, INF, BIG = float("nan"), float("inf"), 10**9
ODD = {
    "weights are no dict": (give(weights=[1, 2]), "no attribute"),
    "weights are None": (give(weights=None), "NoneType"),
    "weights are a tensor": (give(weights=torch.zeros(3)), "no attribute"),
    "no weights": (give(weights={}), "more weights than the file can hold"),
    "a weight is a list": (weigh(lambda t: t.tolist()), "down.0.0.weight"),
    "a weight is text": (weigh(lambda t: "x"), "down.0.0.weight"),
    "a weight is None": (weigh(lambda t: None), "down.0.0.weight"),
    "a weight is sparse": (weigh(lambda t: t.to_sparse()), "down.0.0.weight"),
    "a weight is sparse by rows": (weigh(lambda t: t.view(4, 9).to_sparse_csr()), "down.0.0"),
    "a weight is quantised": (
        weigh(lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8)),
        "damaged",
    ),
    "a weight is complex": (weigh(lambda t: t.to(torch.complex64)), "damaged"),
    "a weight has no values": (weigh(lambda t: t.to("meta")), "damaged"),
    "a weight is repeated from one value": (
        weigh(lambda t: torch.zeros(1).expand(10**12)),
        "more weights than the file can hold",
    ),
    "a weight is empty": (weigh(lambda t: t[:0]), "size mismatch"),
    "a weight is nan": (weigh(lambda t: put(t, NAN)), "unexpected values of down.0.0.weight"),
    "a weight is infinite": (weigh(lambda t: put(t, INF)), "unexpected values of down.0.0.weight"),
    "a variance is negative": (
        lambda c: give(weights=c["weights"] | {"down.0.1.running_var": -torch.ones(4)})(c),
        "unexpected values of down.0.1.running_var",
    ),
    "names are numbers": (lambda c: give(weights=dict(enumerate(c["weights"].values())))(c), "dam"),
    "preparation is text": (give(preparation="green"), "damaged"),
    "preparation is None": (give(preparation=None), "damaged"),
    "preparation has a stranger": (prepare(colour=1), "colour"),
    "patch size is text": (prepare(patch_size="64"), "damaged"),
    "patch size is broken": (prepare(patch_size=64.0), "unexpected values of patch_size"),
    "patch size is nan": (prepare(patch_size=NAN, stride=NAN), "stride"),
    "patch size is absurd": (prepare(patch_size=BIG), "unexpected values of patch_size"),
    "stride is true": (prepare(stride=True), "unexpected values of stride"),
    "stride is a tensor": (prepare(stride=torch.tensor(32)), "JSON"),
    "diameter is nan": (prepare(fov_diameter=NAN), "unexpected values of fov_diameter"),
    "diameter is absurd": (prepare(fov_diameter=BIG), "unexpected values of fov_diameter"),
    "diameter is None": (prepare(fov_diameter=None), "damaged"),
    "channels are a list": (prepare(channels=["green"]), "damaged"),
    "channels do not fit": (prepare(channels="rgb"), "unexpected values of c_in"),
    "mode is None": (prepare(mode=None), "mode=None"),
    "threshold is text": (give(threshold="0.5"), "unexpected values of threshold"),
    "threshold is nan": (give(threshold=NAN), "unexpected values of threshold"),
    "threshold is 7": (give(threshold=7), "unexpected values of threshold"),
    "threshold is negative": (give(threshold=-0.1), "unexpected values of threshold"),
    "threshold is true": (give(threshold=True), "unexpected values of threshold"),
    "threshold is a tensor": (give(threshold=torch.tensor(0.5)), "unexpected values of threshold"),
    "architecture is a list": (give(architecture=["unet"]), "damaged"),
    "architecture is unknown": (give(architecture="resnet"), "unknown 'resnet'"),
    "architecture is another": (give(architecture="unet256"), "widths"),
    "settings are a list": (give(settings=[]), "damaged"),
    "settings are None": (give(settings=None), "damaged"),
    "widths are text": (settle(widths="444"), "widths: expected positive whole numbers"),
    "widths are negative": (settle(widths=[-4, 8, 8]), "widths: expected positive whole numbers"),
    "widths are one number": (settle(widths=4), "damaged"),
    "widths are wide": (settle(widths=[20_000] * 3), "size mismatch"),
    "widths are absurd": (settle(widths=[10**12] * 3), "damaged"),
    "widths are beyond all numbers": (settle(widths=[10**30] * 3), "damaged"),
    "widths are many": (settle(widths=[1] * 10**6), "more weights than the file can hold"),
    "widths are absurd and the weights fit them": (all_levels_wide, "more weights than the file"),
    "fold is absurd": (settle(fold=BIG), "damaged"),
    "norm is a dict": (settle(norm={}), "damaged"),
    "channels are a tensor of terabytes": (prepare(channels=torch.zeros(1).expand(10**12)), "JSON"),
    "norm is a tensor of terabytes": (settle(norm=torch.zeros(1).expand(10**12)), "JSON"),
    "card holds a tensor of terabytes": (
        give(card={"photographs": {"hrf": torch.zeros(1).expand(10**12)}}),
        "JSON",
    ),
    "card is text": (give(card="CC0"), "damaged"),
    "card names no photographs": (give(card={"photographs": {"hrf": []}}), "damaged"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ODD)
def test_odd_content_is_refused_by_name_and_fills_no_memory(kind, tmp_path):
    path, (change, message) = tmp_path / "unet.pth", ODD[kind]
    save_network(path, network())
    torch.save(change(torch.load(path, weights_only=True)), path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RetinaError, match=f"(?s)^{path}: .*{message}"):
        load_network(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # KiB


def test_a_checkpoint_that_grows_when_it_is_opened_is_refused(tmp_path):
    path, packed = tmp_path / "unet.pth", tmp_path / "packed.pth"
    torch.save({"weights": torch.zeros(10**7)}, path)
    with (
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    with pytest.raises(RetinaError, match=r"packed\.pth: not a checkpoint"):
        load_network(packed)


def test_loading_draws_no_more_random_numbers_than_building(tmp_path):
    save_network(tmp_path / "unet.pth", network())
    torch.manual_seed(1)
    models.build_model("unet", SMALL["unet"])
    expected = torch.rand(1)
    torch.manual_seed(1)
    load_network(tmp_path / "unet.pth")
    assert torch.equal(torch.rand(1), expected)


def test_a_flipped_bit_is_seen(tmp_path):
    path = tmp_path / "unet.pth"
    save_network(path, network())
    data = bytearray(path.read_bytes())
    weights = torch.load(path, weights_only=True)["weights"]["up.0.weight"]
    data[data.index(weights.numpy().tobytes()) + 3] ^= 1
    path.write_bytes(data)
    with pytest.raises(RetinaError, match=r"unet\.pth: not a checkpoint, or cut short"):
        load_network(path)
