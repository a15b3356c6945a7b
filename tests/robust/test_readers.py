"""Every reader ends in correct data or in one sentence that names the file."""

import io
import json
import math
import tarfile
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from retina_utils import data, images, models
from retina_utils.checkpoint import Network, load_network, save_network
from retina_utils.commands.parameters import cast, read_preset
from retina_utils.datasets.download import import_data
from retina_utils.evaluate import Results, SplitScores, Threshold
from retina_utils.machine import files
from retina_utils.patches import Preparation
from robust.cases import damaged, one_case

FORMATS = {  # of images, with the modes each can hold
    "png": ("1", "L", "LA", "RGB", "RGBA", "P", "I;16"),
    "jpg": ("L", "RGB", "CMYK"),
    "tif": ("1", "L", "RGB", "RGBA", "P", "I;16", "I", "F", "CMYK"),
    "bmp": ("1", "L", "RGB", "P"),
    "gif": ("L", "P", "RGB"),
    "ppm": ("1", "L", "RGB", "I"),
}
SIZES = st.tuples(st.integers(1, 24), st.integers(1, 24))
NUMBERS = [0, -1, 7, 10**9, 10**30, 0.5, math.nan, math.inf]
ODD = st.sampled_from([None, True, "", "x", "../x", [], {}, [1], {"a": 1}, *NUMBERS])


@st.composite
def pictures(draw):
    """An image file: its ending, its bytes, and its array where 8 bits are kept as they are."""
    ending = draw(st.sampled_from(sorted(FORMATS)))
    mode = draw(st.sampled_from(FORMATS[ending]))
    shape = draw(SIZES)
    values = draw(
        st.one_of(
            arrays.arrays(np.uint8, shape),
            arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 255])),
            arrays.arrays(np.uint8, shape, elements=st.sampled_from([0, 1, 30, 255])),
        )
    )
    image = Image.fromarray(values)
    if mode in ("I;16", "I", "F"):
        scale = draw(st.sampled_from([1, 16, 257] if mode != "F" else [1, 1 / 255, 257, math.nan]))
        kind = {"I;16": np.uint16, "I": np.int32, "F": np.float32}[mode]
        image = Image.fromarray((values * np.float64(scale)).astype(kind))
    elif mode != "L":
        image = image.convert(mode)
    file = io.BytesIO()
    image.save(file, {"jpg": "jpeg", "tif": "tiff"}.get(ending, ending))
    plain = mode == "L" and ending in ("png", "tif", "bmp", "ppm")
    return ending, file.getvalue(), values if plain else None


@st.composite
def spoilt_pictures(draw):
    ending, content, values = draw(pictures())
    if draw(st.booleans()):
        return ending, content, values
    return ending, draw(damaged(content)), None


def written(folder, name, content):
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@given(spoilt_pictures())
def test_read_photograph(picture):
    ending, content, values = picture
    with TemporaryDirectory() as folder, one_case("read_photograph", f"a.{ending}"):
        found = images.read_photograph(written(folder, f"a.{ending}", content))
        assert found.dtype == np.uint8 and found.ndim == 3 and found.shape[2] == 3
        if values is not None:
            assert (found == values[..., None]).all()


@given(spoilt_pictures(), st.sampled_from(["vessels", "fov"]))
def test_read_binary(picture, what):
    ending, content, values = picture
    with TemporaryDirectory() as folder, one_case("read_binary", f"a.{ending}"):
        found = images.read_binary(written(folder, f"a.{ending}", content), what)
        assert found.dtype == bool and found.ndim == 2
        if values is not None and set(np.unique(values)) == {0, 255}:
            assert (found == (values == 255)).all()


@given(
    st.one_of(
        spoilt_pictures(), arrays.arrays(np.float32, SIZES, elements=st.floats(0, 1, width=32))
    )
)
def test_read_probability(case):
    with TemporaryDirectory() as folder, one_case("read_probability", "a."):
        if isinstance(case, np.ndarray):
            images.write_probability(Path(folder) / "a.png", case)
            found = images.read_probability(Path(folder) / "a.png")
            assert np.abs(found - case).max() <= 1 / 65535
        else:
            found = images.read_probability(written(folder, f"a.{case[0]}", case[1]))
        assert found.dtype == np.float32 and found.ndim == 2
        assert found.min() >= 0 and found.max() <= 1


def png(seed, what="image"):
    """A small photograph, or its mask, as bytes."""
    rng = np.random.default_rng(seed)
    array = rng.integers(60, 200, (24, 28, 3)).astype(np.uint8)
    if what != "image":
        array = np.zeros((24, 28), np.uint8)
        array[8 + seed : 11 + seed] = 255
        if what == "fov":
            array[1:] = 255
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


def small_folder():
    """A valid data folder: {path: content}."""
    tree = {}
    for seed, (split, name) in enumerate(
        [("training", "a_L"), ("training", "b"), ("validation", "c"), ("test", "d")]
    ):
        tree[f"{split}/images/{name}.png"] = png(seed)
        tree[f"{split}/masks/{name}_mask.png"] = png(seed, "vessels")
        tree[f"{split}/fov/{name}_fov.png"] = png(seed, "fov")
    return tree


TREE = small_folder()


@st.composite
def trees(draw, base):
    """A folder's files, some lost, renamed, doubled, damaged or exchanged."""
    tree = dict(base)
    for _ in range(draw(st.integers(0, 3))):
        name = draw(st.sampled_from(sorted(tree)))
        other = draw(st.sampled_from(sorted(tree)))
        folder, _, file = name.rpartition("/")
        change = draw(
            st.sampled_from(["lose", "rename", "copy", "damage", "swap", "stray", "move"])
        )
        if change == "lose" and len(tree) > 1:
            del tree[name]
        elif change == "rename":
            tree[draw(st.sampled_from([name.upper(), name.replace("_", "-"), f"{name} "]))] = (
                tree.pop(name)
            )
        elif change == "copy":
            tree[f"{folder}/{draw(st.sampled_from(['e.png', 'b.tif', 'a_R.png', 'x.txt']))}"] = (
                tree[name]
            )
        elif change == "damage":
            tree[name] = draw(damaged(tree[name]))
        elif change == "swap":
            tree[name], tree[other] = tree[other], tree[name]
        elif change == "stray":
            tree[f"{folder}/{draw(st.sampled_from(['.DS_Store', 'Thumbs.db', '~x.png']))}"] = b"x"
        elif change == "move":
            tree[f"{other.rpartition('/')[0]}/{file}"] = tree.pop(name)
    return tree


def unfold(folder, tree):
    for name, content in tree.items():
        try:
            written(folder, name, content)
        except OSError:  # a file where another wants a folder
            continue
    return Path(folder)


def check_splits(found):
    """No person and no photograph in two splits, and all of them readable."""
    people = [{pair.person for pair in split} for split in found]
    assert all(found) and not (people[0] & people[2] or people[1] & people[2])
    for pair in (pair for split in found for pair in split):
        sample = data.load_sample(pair)
        assert sample.image.shape[:2] == sample.vessels.shape == sample.fov.shape


@given(trees(TREE))
def test_load_data(tree):
    with TemporaryDirectory() as folder, one_case("load_data", folder):
        check_splits(data.load_data(unfold(folder, tree)))


@st.composite
def people_files(draw):
    """A people.csv as programs and people save it."""
    names = st.sampled_from(["a_L", "a_L.png", "A_L", "b", "c", "d", "e", "", " b ", "ä", "=b"])
    rows = draw(st.lists(st.tuples(names, st.sampled_from(["p1", "p2", "", "b", "ä"])), max_size=5))
    between = draw(st.sampled_from([",", ";", "\t", ", "]))
    heading = draw(st.sampled_from(["name,person", "Name,Person", "person,name", "a,b", "name"]))
    end = draw(st.sampled_from(["\n", "\r\n", "\r", ",\n"]))
    text = end.join([heading.replace(",", between), *map(between.join, rows), ""])
    coding = draw(st.sampled_from(["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le"]))
    content = text.encode(coding)
    return draw(damaged(content)) if content and draw(st.booleans()) else content


@given(people_files())
def test_people(content):
    with TemporaryDirectory() as folder, one_case("people.csv", "people.csv", folder):
        check_splits(data.load_data(unfold(folder, TREE | {"people.csv": content})))


CELLS = st.one_of(
    st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=8),
    st.text("=+-@\t\r\n'\",;1.e＝ ", max_size=6),
)


@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=4))
def test_cells_come_back_as_they_were(rows):
    with TemporaryDirectory() as folder, one_case("read_csv"):
        rows = [{"one": one, "other": other} for one, other in rows]
        files.write_csv(Path(folder) / "a.csv", rows)
        assert files.read_csv(Path(folder) / "a.csv") == rows


def small_drive():
    """A part of DRIVE, the smallest that can be imported: {path: content}."""
    tree = {}
    for seed, (part, number) in enumerate(
        [("training", 21), ("training", 22), ("training", 23), ("test", "01")]
    ):
        for name, what in (
            (f"images/{number}_{part}.tif", "image"),
            (f"1st_manual/{number}_manual1.gif", "vessels"),
            (f"mask/{number}_{part}_mask.gif", "fov"),
        ):
            file = io.BytesIO()
            Image.open(io.BytesIO(png(seed, what))).save(file, "tiff" if what == "image" else "gif")
            tree[f"DRIVE/{part}/{name}"] = file.getvalue()
    return tree


DRIVE = small_drive()


@st.composite
def archives(draw):
    """A download in a zip or tar file: its name and bytes."""
    members = list(draw(trees(DRIVE)).items())
    for _ in range(draw(st.integers(0, 1))):
        name, content = draw(st.sampled_from(members))
        odd = ["../x", "/x", "C:/x", name, name.replace("/", "\\"), "a/../../x", "\x1b[31m", "眼"]
        members.append((draw(st.sampled_from(odd)), content))
    ending = draw(st.sampled_from(["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]))
    file = io.BytesIO()
    if ending == "zip":
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in members:
                archive.writestr(name, content)
    else:
        with tarfile.open(fileobj=file, mode=f"w:{ending[4:]}") as archive:
            for name, content in members:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                kinds = [tarfile.REGTYPE] * 60 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE]
                entry.type = draw(st.sampled_from(kinds))
                archive.addfile(entry, io.BytesIO(content))
    content = file.getvalue()
    return f"drive.{ending}", draw(damaged(content)) if draw(st.booleans()) else content


@pytest.mark.filterwarnings("ignore:Duplicate name")
@given(archives())
def test_import_data(case):
    name, content = case
    with TemporaryDirectory() as folder:
        source, out = written(folder, f"from/{name}", content), Path(folder) / "data" / "out"
        try:
            with one_case(
                "import_data",
                name,
                "drive",
                "DRIVE",
                "training/",
                "TRAINING/",
                "test/",
                "TEST/",
                "people",
            ):
                import_data("drive", source, out)
                check_splits(data.load_data(out))
                for row in files.read_csv(out / "checksums.csv"):
                    assert files.sha256(out / row["file"]) == row["sha256"]
        finally:
            beside = sorted(p.name for p in Path(folder).iterdir())
            assert beside in (["data", "from"], ["from"])
            assert not out.parent.exists() or [p.name for p in out.parent.iterdir()] in (
                [],
                ["out"],
            )


def checkpoint():
    torch.manual_seed(0)
    model = models.build_model("unet", {"widths": [4, 8]})
    return Network(model, Preparation(patch_size=64, stride=32), 0.4, {"epoch": 1})


with TemporaryDirectory() as _folder:
    save_network(Path(_folder) / "a.pth", checkpoint())
    CHECKPOINT = (Path(_folder) / "a.pth").read_bytes()
CONTENT = torch.load(io.BytesIO(CHECKPOINT), weights_only=True)


def leaves(value, path=()):
    """The paths of all that stands in nested dicts and lists."""
    yield path
    inner = value.items() if isinstance(value, dict) else ()
    inner = enumerate(value) if isinstance(value, list) else inner
    for key, item in inner:
        yield from leaves(item, (*path, key))


def replaced(value, path, by):
    """A copy of nested dicts and lists with something else in one place."""
    if not path:
        return by
    copy = value.copy()
    copy[path[0]] = replaced(value[path[0]], path[1:], by)
    return copy


@st.composite
def spoilt(draw, content, odd=ODD):
    for _ in range(draw(st.integers(1, 2))):
        path = draw(st.sampled_from(list(leaves(content))))
        content = replaced(content, path, draw(odd))
    return content


TENSORS = st.one_of(
    ODD,
    st.builds(torch.zeros, st.lists(st.integers(0, 8), max_size=4)),
    st.sampled_from(
        [
            torch.zeros(1).expand(10**10),
            torch.eye(3).to_sparse(),
            torch.full((4, 1, 3, 3), math.nan),
            torch.zeros(4, 1, 3, 3, dtype=torch.complex64),
            torch.zeros(4, dtype=torch.int64),
        ]
    ),
)


@pytest.mark.filterwarnings("ignore")
@given(st.one_of(damaged(CHECKPOINT), spoilt(CONTENT, TENSORS)))
def test_load_network(case):
    with TemporaryDirectory() as folder, one_case("load_network", "a.pth"):
        path = Path(folder) / "a.pth"
        if isinstance(case, bytes):
            path.write_bytes(case)
        else:
            torch.save(case, path)
        found = load_network(path)
        if isinstance(case, bytes):  # whatever was damaged was of no weight
            assert found.sha256 == checkpoint().sha256 and found.threshold == 0.4
            assert found.preparation == checkpoint().preparation
        assert found.threshold is None or 0 <= found.threshold <= 1
        with torch.inference_mode():
            assert torch.isfinite(
                found.model(torch.zeros(1, found.preparation.n_channels, 8, 8))
            ).all()


SCORES = {"dice": 0.8, "auc": None}
RESULTS = {
    "protocol": {"counted": "inside the FOV"},
    "threshold": {"value": 0.4, "chosen_on": "validation", "by": "dice", "best_test": 0.5},
    "splits": {"test": {"pooled": SCORES, "mean": SCORES, "sd": SCORES, "n": 4}},
    "network": {"weights": "", "sha256": "0"},
    "second_observer": None,
    "vessel_width": {"thin": 0.5},
    "intervals": {"photographs": {"dice": [0.7, 0.9]}},
    "calibration_error": 0.01,
}
JSON_ODD = ODD.filter(lambda value: value == value and value != math.inf)


@given(st.one_of(damaged(json.dumps(RESULTS).encode()), spoilt(RESULTS, JSON_ODD)))
def test_read_results(case):
    with TemporaryDirectory() as folder, one_case("Results.read", "metrics.json"):
        content = case if isinstance(case, bytes) else json.dumps(case).encode()
        written(folder, "metrics.json", content)
        found = Results.read(Path(folder))
        assert isinstance(found.threshold, Threshold) and 0 <= found.threshold.value <= 1
        for split in found.splits.values():
            assert isinstance(split, SplitScores)
            for scores in (split.pooled, split.mean, split.sd):
                assert all(type(value) in (int, float) for value in scores.values())


DEFAULTS = {
    "epochs": 30, "lr": 1e-3, "resume": True, "run": "tiny", "widths": [16, 32], "seed": 0,
}  # fmt: skip
TYPED = st.one_of(
    st.text(max_size=12),
    st.text("[]{}:,-&*!#'\"0123456789.eE_ \n", max_size=16),
    st.sampled_from(
        ["nan", "inf", "-.inf", "1e999", "010", "1:30", "0x10", "1_0", "yes", "null",
         "[" * 2000, "[1, x]", "[nan]", "2001-01-01", "!!python/name:os.system", "9" * 5000,
         "{a: 1}", "9" * 400, "&a [*a]", "[[1]]", "[true]", "1e-4", "[8, 16]", "false", "5", "5.0",
         "%", "@", "\x00"]
    ),
    ODD,
)  # fmt: skip


@given(st.sampled_from(sorted(DEFAULTS)), TYPED)
def test_parameters(name, value):
    with one_case("parameters", name):
        found = cast(name, value, DEFAULTS[name])
        assert type(found) is type(DEFAULTS[name])
        if type(found) is float:
            assert math.isfinite(found)
        if type(found) is int and isinstance(value, str) and len(value) < 16:
            assert found == float(value)
        if type(found) is list:
            assert all(type(item) is int for item in found)


PRESET = b"epochs: 5\nlr: 0.01\nwidths: [8, 16]\n"


@given(
    st.one_of(
        damaged(PRESET),
        st.binary(max_size=40),
        TYPED.map(lambda v: str(v).encode("utf-8", "replace")),
    )
)
def test_presets(content):
    with TemporaryDirectory() as folder, one_case("presets", "mine.yaml"):
        written(folder, "mine.yaml", content)
        found = read_preset(Path(folder), "mine")
        assert isinstance(found, dict) and all(isinstance(key, str) for key in found)
        if content == PRESET:
            assert found == {"epochs": "5", "lr": "0.01", "widths": ["8", "16"]}
