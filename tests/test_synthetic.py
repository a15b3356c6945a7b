"""The drawings: repeatable, plausible, and not solved by a threshold."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from retina_utils.commands.__main__ import main
from retina_utils.datasets import synthetic

TINY = Path(__file__).parent.parent / "data" / "tiny"


@pytest.fixture(scope="module")
def drawings():
    """Both eyes of three persons, at the size of the first photographs of data/tiny."""
    return [synthetic.draw_fundus(seed, synthetic.SIZES[0]) for seed in range(6)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """data/tiny, drawn again from its seed."""
    folder = tmp_path_factory.mktemp("tiny")
    assert main(["tiny", str(folder), "--seed", "0"]) == 0
    return folder


def files(folder):
    return sorted(f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file())


def test_the_committed_drawings_are_what_the_seed_draws(written):
    assert files(TINY) == files(written)
    assert len(files(TINY)) == 3 * 14 + 2
    for name in files(TINY):
        if name.endswith(".png"):
            committed, drawn = (np.asarray(Image.open(f / name)) for f in (TINY, written))
            assert committed.dtype == drawn.dtype == np.uint8, name
            assert np.array_equal(committed, drawn), name
        else:
            assert (TINY / name).read_text() == (written / name).read_text(), name


def test_the_committed_drawings_take_two_megabytes_at_most():
    assert sum((TINY / name).stat().st_size for name in files(TINY)) <= 2e6


def test_every_photograph_has_its_vessels_and_its_fov_at_its_own_size():
    sizes = set()
    for path in TINY.glob("*/images/*.png"):
        with Image.open(path) as image:
            assert image.mode == "RGB"
            sizes.add(image.size)
        for kind, ending in (("masks", "mask"), ("fov", "fov")):
            values = np.asarray(Image.open(path.parent.parent / kind / f"{path.stem}_{ending}.png"))
            assert values.shape == image.size[::-1]
            assert set(np.unique(values)) == {0, 255}
    assert len(sizes) > 3


def test_both_eyes_of_a_person_are_in_one_split():
    with open(TINY / "people.csv", newline="") as file:
        person = {row["name"]: row["person"] for row in csv.DictReader(file)}
    splits = {}
    for path in TINY.glob("*/images/*.png"):
        splits.setdefault(person.pop(path.stem), []).append(path.parent.parent.name)
    assert not person  # no row without a photograph
    assert all(len(both) == 2 and len(set(both)) == 1 for both in splits.values())


def test_vessels_lie_inside_the_field_of_view_and_cover_a_tenth_of_it(drawings):
    for drawing in drawings:
        assert not (drawing.vessels & ~drawing.fov).any()
        assert not (drawing.arteries & ~drawing.vessels).any()
        assert 0.08 < drawing.vessels.sum() / drawing.fov.sum() < 0.14


def test_the_same_seed_draws_the_same_and_another_seed_something_else(drawings):
    again = synthetic.draw_fundus(2, synthetic.SIZES[0])
    assert all(np.array_equal(a, b) for a, b in zip(again, drawings[2], strict=True))
    for other in (0, 1, 3, 4, 5):
        both, either = (
            f(again.vessels, drawings[other].vessels) for f in (np.logical_and, np.logical_or)
        )
        assert both.sum() < 0.3 * either.sum()


def test_the_optic_disc_is_on_the_left_in_left_eyes_and_on_the_right_in_right_eyes(drawings):
    for seed, drawing in enumerate(drawings):
        green = ndimage.gaussian_filter(drawing.image[..., 1].astype(float), 8)
        brightest = np.unravel_index(green.argmax(), green.shape)[1]
        assert (brightest > green.shape[1] / 2) == (seed % 2 == 1)


def test_two_eyes_of_a_person_are_more_alike_in_colour_than_two_persons(drawings):
    hues = [d.image[d.fov].mean(0) for d in drawings]
    hues = np.array([hue / hue.sum() for hue in hues])
    own = np.abs(hues[0::2] - hues[1::2]).sum(1).mean()
    others = np.abs(hues[0::2] - np.roll(hues[1::2], 1, axis=0)).sum(1).mean()
    assert own < 0.5 * others


def test_wide_veins_are_darker_than_wide_arteries(drawings):
    for drawing in drawings:
        inside = ndimage.binary_erosion(drawing.fov, iterations=8)  # away from the rim's ramp
        green = drawing.image[..., 1] / ndimage.gaussian_filter(drawing.image[..., 1] * 1.0, 12)
        width = ndimage.distance_transform_edt(drawing.vessels)
        veins = inside & drawing.vessels & ~drawing.arteries
        arteries = inside & drawing.arteries
        assert np.median(green[veins & (width > 1.5)]) < np.median(green[arteries & (width > 1.5)])


def test_the_widest_vein_is_wider_than_the_widest_artery():
    eye = synthetic.Eye(np.array([-0.5, 0.0]), np.array([0.17, 0.05]), 0.02)
    tree = synthetic.grow_tree(np.random.default_rng(0), eye)
    widest = {kind: max(v.radii.max() for v in tree if v.artery == kind) for kind in (True, False)}
    assert 1.1 < widest[False] / widest[True] < 1.8


def test_no_threshold_of_the_green_channel_finds_the_vessels(drawings):
    """Otherwise there would be nothing to learn. Vessels are darker than what surrounds them."""
    for drawing in drawings:
        green, vessels = drawing.image[..., 1][drawing.fov], drawing.vessels[drawing.fov]
        dice = [
            2 * (vessels & (green < t)).sum() / (vessels.sum() + (green < t).sum())
            for t in range(1, 255)
        ]
        assert 0.2 < max(dice) < 0.6


def test_lesions_change_the_photograph_but_not_the_annotation(monkeypatch):
    seed = next(s for s in range(100) if lesions_of(s) == "diabetic")
    with_lesions = synthetic.draw_fundus(seed, (256, 256))
    draw_lesions = synthetic.draw_lesions

    def leave_out(rng, person, eye, image, *others):
        draw_lesions(rng, person, eye, image, *others)  # the same random numbers are used up
        return image

    monkeypatch.setattr(synthetic, "draw_lesions", leave_out)
    without = synthetic.draw_fundus(seed, (256, 256))
    assert np.array_equal(with_lesions.vessels, without.vessels)
    smooth = [ndimage.gaussian_filter(d.image[..., 1] * 1.0, 1) for d in (with_lesions, without)]
    background = with_lesions.fov & ~with_lesions.vessels
    changed = (smooth[0] - smooth[1])[background]
    assert (changed < -8).sum() > 20  # dark spots outside the annotation
    assert (changed > 8).sum() > 20  # and bright ones


def lesions_of(seed):
    return synthetic.draw_person(np.random.default_rng([seed // 2, 0])).lesions


def test_the_daughters_of_a_symmetrical_branching_leave_at_the_angle_murray_gives():
    daughter = 0.5 ** (1 / 3)
    # Murray (1926): cos(half the angle) = 2**(-1/3), so 37.5 degrees on either side.
    assert np.degrees(synthetic.murray_angle(1, daughter, daughter)) == pytest.approx(
        37.47, abs=0.01
    )


def test_a_folder_with_files_in_it_is_refused_unless_forced(tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.txt").write_text("keep me")
    assert main(["tiny", str(tmp_path)]) == 2
    assert "not empty" in capsys.readouterr().err
    assert main(["tiny", str(tmp_path / "mine.txt")]) == 2
    assert "is a file" in capsys.readouterr().err
    assert files(tmp_path) == ["mine.txt"]
    blank = np.zeros((8, 8), bool)
    drawing = synthetic.Drawing(np.zeros((8, 8, 3), np.uint8), blank, blank, blank)
    monkeypatch.setattr(synthetic, "draw_fundus", lambda seed, size: drawing)
    assert main(["tiny", str(tmp_path), "--force"]) == 0
    assert files(tmp_path) == sorted(["mine.txt", *files(TINY)])
    assert (tmp_path / "mine.txt").read_text() == "keep me"


def test_a_negative_seed_is_refused_before_anything_is_written(tmp_path, capsys):
    assert main(["tiny", str(tmp_path / "new"), "--seed", "-1"]) == 2
    assert "--seed -1: want 0 or more" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("seed", "size"), [(-1, (256, 256)), (0, (100, 256))])
def test_what_cannot_be_drawn_is_refused(seed, size):
    with pytest.raises(ValueError, match="draw_fundus: got seed="):
        synthetic.draw_fundus(seed, size)
