"""Training learns, repeats to the byte, goes on after an interruption, and stops with a reason."""

import weakref

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import nn

from retina_utils import RetinaError, data, losses, metrics, models, patches, train
from retina_utils.checkpoint import load_network
from retina_utils.machine import compute

CPU = torch.device("cpu")
# The notebooks' parameters, small.
RECIPE = {
    "channels": "green", "mode": "patches", "patch_size": 64, "stride": 64, "fov_diameter": 0,
    "normalisation": "photograph", "patches_per_image": 8, "vessel_share": 0.0, "augment": "full",
    "architecture": "unet", "widths": [4, 8], "norm": "batch", "activation": "relu", "fold": 1,
    "loss": "bce_dice", "epochs": 3, "batch_size": 4, "optimizer": "adamw", "lr": 1e-2,
    "weight_decay": 1e-4, "schedule": "cosine", "schedule_patience": 0, "patience": 0, "ema": 0.0,
    "precision": "float32", "threads": 0, "workers": 0, "seed": 0,
}  # fmt: skip


def assembled(pairs, **changes):
    return train.assemble(RECIPE | changes, pairs, CPU)


def make_run(sample, state=None, stop_after=None, **changes):
    """Train a small network for some epochs; gives the weights and the history."""
    training = assembled([sample], **changes)
    if state:
        train.resume_state(state, training, {"photographs": "one"})
    for epoch in training.epochs_left():
        row = train.train_epoch(training)
        train.finish_epoch(training, row | {"validation_dice": -row["train_loss"]})
        if state:
            train.save_state(state, training, {"photographs": "one"})
        if epoch == stop_after:
            break
    return training.model.state_dict(), training.history


def same(first, second):
    return all(torch.equal(first[key], second[key]) for key in first)


def test_the_same_seed_gives_the_same_weights_to_the_byte(sample):
    first, second = make_run(sample), make_run(sample)
    assert same(first[0], second[0]) and first[1] == second[1]
    assert not same(first[0], make_run(sample, seed=1)[0])


def test_worker_processes_change_nothing(sample):
    alone, helped = make_run(sample, epochs=2), make_run(sample, epochs=2, workers=2)
    assert same(alone[0], helped[0])


def test_an_interrupted_training_goes_on_to_the_same_weights(sample, tmp_path):
    whole = make_run(sample, epochs=4)
    make_run(sample, epochs=4, state=tmp_path / "state.pt", stop_after=2)
    resumed = make_run(sample, epochs=4, state=tmp_path / "state.pt")
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


def test_dropout_goes_on_as_if_there_had_been_no_interruption(sample, tmp_path):
    deep = {"architecture": "unet256", "widths": [2], "patches_per_image": 2, "batch_size": 2}
    whole = make_run(sample, **deep)
    make_run(sample, state=tmp_path / "state.pt", stop_after=1, **deep)
    torch.rand(7)  # a new process is at another place
    resumed = make_run(sample, state=tmp_path / "state.pt", **deep)
    assert same(whole[0], resumed[0]) and whole[1] == resumed[1]


def test_a_training_that_stopped_early_does_not_go_on_after_an_interruption(sample, tmp_path):
    stopped = {"patience": 1, "epochs": 9, "state": tmp_path / "state.pt"}
    training = assembled([sample], patience=1, epochs=9)
    for score in (0.5, 0.4):
        train.finish_epoch(training, {"validation_dice": score})
        train.save_state(tmp_path / "state.pt", training, {"photographs": "one"})
    assert len(make_run(sample, **stopped)[1]) == 2


@pytest.mark.parametrize(("every", "kept"), [(0, [5]), (2, [2, 4, 5]), (9, [5])])
def test_the_best_the_last_and_every_nth_network_are_kept(sample, tmp_path, every, kept):
    training = assembled([sample], epochs=5, save_every=every)
    for _ in training.epochs_left():
        is_best = train.finish_epoch(training, {"validation_dice": 0.5})
        train.save_weights(tmp_path, training, is_best, {"seed": 0})
    names = [f"unet_epoch{n:02d}.pth" for n in kept]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["unet_best.pth", *names]
    assert load_network(tmp_path / "unet_best.pth").facts == {"epoch": 1, "seed": 0}
    train.forget_weights(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["unet_best.pth"]


def test_validation_holds_one_histogram_at_a_time(sample, monkeypatch):
    training, alive, most = assembled([sample]), [], [0]
    count = metrics.histogram

    def counted(*arrays):
        found = count(*arrays)
        alive.append(weakref.ref(found.vessel))
        most[0] = max(most[0], sum(ref() is not None for ref in alive))
        return found

    monkeypatch.setattr(metrics, "histogram", counted)
    train.validate(training, patches.make_loader(training.loader.dataset, 1, False))
    assert len(alive) == 8 and most[0] <= 2


def test_a_state_of_another_recipe_or_other_photographs_is_not_resumed(sample, tmp_path):
    make_run(sample, epochs=2, state=tmp_path / "state.pt")
    training = assembled([sample], epochs=2, seed=9)
    before = {key: value.clone() for key, value in training.model.state_dict().items()}
    assert train.resume_state(tmp_path / "state.pt", training, {"photographs": "one"}) == 0
    assert same(before, training.model.state_dict()) and training.history == []
    training = assembled([sample], epochs=2)
    assert train.resume_state(tmp_path / "state.pt", training, {"photographs": "others"}) == 0
    assert train.resume_state(tmp_path / "state.pt", training, {"photographs": "one"}) == 2


def other_version(path):
    state = torch.load(path, weights_only=True)
    torch.save({key: state[key] for key in state if key != "random"}, path)


def other_tensors(path):
    state = torch.load(path, weights_only=True)
    state["optimizer"] = {"param_groups": []}
    torch.save(state, path)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:9000]),
        lambda path: path.write_text("<html>"),
        lambda path: torch.save([1], path),
        lambda path: torch.save({}, path),
        other_version,
        other_tensors,
    ],
    ids=["empty", "cut short", "text", "list", "nothing", "other version", "other tensors"],
)
def test_a_state_that_cannot_be_read_is_said_and_trained_anew(sample, tmp_path, capsys, spoil):
    path = tmp_path / "interrupted.pt"
    expected = make_run(sample, epochs=2, state=path)
    spoil(path)
    found = make_run(sample, epochs=2, state=path)
    assert "interrupted.pt: cannot be gone on from" in capsys.readouterr().out
    assert same(expected[0], found[0]) and expected[1] == found[1]


def test_training_learns(sample):
    history = make_run(sample, epochs=8)[1]
    assert history[-1]["train_loss"] < 0.9 * history[0]["train_loss"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(sample):
    training = assembled([sample], patches_per_image=4, batch_size=2, optimizer="adam")
    before = {name: p.detach().clone() for name, p in training.model.named_parameters()}
    training.loss = lambda logits, vessels, fov: logits.sum() * float("nan")
    with pytest.raises(RetinaError, match=r"nan at batch 1 of 2.*lower lr"):
        train.train_epoch(training)
    assert same(before, dict(training.model.named_parameters()))


def test_losses_are_computed_in_float32_under_bfloat16(sample):
    training, seen = assembled([sample], patches_per_image=2, precision="bfloat16"), []

    def spy(logits, vessels, fov):
        seen.append(logits.dtype)
        return losses.bce_dice_loss(logits, vessels, fov)

    training.loss = spy
    train.train_epoch(training)
    train.validate(training, training.loader)
    assert set(seen) == {torch.float32}


def test_validation_scores_are_those_of_the_network_at_one_half(sample):
    dataset = patches.RetinaDataset([sample], patches.Preparation(patch_size=64, stride=64))

    class Oracle(nn.Module):
        """Knows the answers in order."""

        def __init__(self, logits):
            super().__init__()
            self.logits, self.weight = logits, nn.Parameter(torch.zeros(1))

        def forward(self, image):
            return self.logits[: len(image)] + 0 * self.weight

    vessels = torch.stack([dataset[i]["vessels"] for i in range(len(dataset))])
    loader = patches.make_loader(dataset, len(dataset), False)
    training = assembled([sample], loss="bce")
    training.model = Oracle(vessels * 20 - 10)
    right = train.validate(training, loader)
    assert right["validation_dice"] == right["validation_accuracy"] == 1.0
    assert right["validation_loss"] < 1e-3
    training.model = Oracle(vessels * 0 - 10)
    nothing = train.validate(training, loader)
    assert nothing["validation_dice"] == 0.0 and nothing["predicted_share"] == 0.0


def test_a_collapse_to_background_is_said_plainly():
    assert "called vessel" in train.collapse_warning({"predicted_share": 0.001}, 0.1)
    assert train.collapse_warning({"predicted_share": 0.09}, 0.1) == ""


def test_early_stopping_waits_as_long_as_it_says(sample):
    training = assembled([sample], patience=2, epochs=9)
    rows = [{"validation_dice": score} for score in (0.5, 0.6, 0.6, 0.5)]
    assert [train.finish_epoch(training, row) for row in rows] == [True, True, False, False]
    assert training.is_stopped and training.best == 2 and list(training.epochs_left()) == []
    training.recipe["patience"] = 0
    assert not training.is_stopped and next(training.epochs_left()) == 5


def scheduler_of(optimizer, **changes):
    return train.make_scheduler(RECIPE | changes, optimizer)


def test_early_stopping_may_not_beat_the_schedule_to_it():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="stop before the learning rate ever dropped"):
        scheduler_of(optimizer, schedule="plateau", schedule_patience=10, patience=7)
    scheduler_of(optimizer, schedule="plateau", schedule_patience=3, patience=7)


def test_the_plateau_schedule_lowers_the_rate_and_the_cosine_ends_low(sample):
    plateau = assembled([sample], lr=1.0, schedule="plateau", schedule_patience=1)
    for _ in range(4):
        train.finish_epoch(plateau, {"validation_loss": 1.0})
    assert plateau.optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    cosine = assembled([sample], lr=1.0, epochs=5)
    for _ in range(5):
        cosine.optimizer.step()
        train.finish_epoch(cosine, {})
    assert cosine.optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: train.make_optimizer({"optimizer": "sgd"}, None), "adamw, adam"),
        (lambda: scheduler_of(None, schedule="step"), "cosine, onecycle, plateau"),
        (lambda: compute.autocast(CPU, "half"), "auto, bfloat16 or float32"),
        (lambda: patches.make_loader([1], 0, True), "at least 1"),
        (lambda: train.make_average(models.UNet(widths=(4,)), 1), "ema=1"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_running_out_of_memory_names_the_knobs():
    with pytest.raises(compute.OutOfMemory, match="Halve batch_size first"):  # noqa: SIM117
        with compute.explain_memory(torch.Size([8, 1, 256, 256])):
            raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match=r"^something else$"):  # noqa: SIM117
        with compute.explain_memory(torch.Size([1])):
            raise RuntimeError("something else")


def test_the_last_batch_is_never_a_single_patch_for_batchnorm(sample):
    preparation = patches.Preparation(patch_size=32, stride=32)
    dataset = patches.RetinaDataset([sample], preparation, patches_per_image=9)
    sizes = [len(batch["image"]) for batch in patches.make_loader(dataset, 4, True)]
    assert sizes == [4, 4]
    assert np.sum([len(b["image"]) for b in patches.make_loader(dataset, 4, False)]) == 9


def test_a_network_trained_on_the_tiny_data_finds_vessels():
    """A few seconds of training on two photographs must beat "dark is vessel" by far."""
    splits = data.load_data(TINY)
    changes = {"patch_size": 128, "stride": 128, "augment": "none", "widths": [8, 16]}
    changes |= {"epochs": 6, "schedule": "constant", "precision": "auto"}
    training = assembled(splits.train[:4], **changes)
    for _ in training.epochs_left():
        train.finish_epoch(training, train.train_epoch(training))
    validation = patches.RetinaDataset(splits.validation[:1], training.preparation)
    row = train.validate(training, patches.make_loader(validation, 4, False))
    assert row["validation_dice"] > 0.55


def test_a_progress_bar_goes_to_the_terminal_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RETINA_TERMINAL", str(tmp_path / "terminal"))
    assert list(compute.progress(range(3), "training")) == [0, 1, 2]
    assert "training" in (tmp_path / "terminal").read_text()
    monkeypatch.delenv("RETINA_TERMINAL")
    monkeypatch.setenv("RETINA_QUIET", "1")
    assert list(compute.progress([1, 2], "training")) == [1, 2]


def test_the_running_average_follows_the_weights_and_forgets_the_start():
    torch.manual_seed(0)
    model = models.UNet(widths=[2, 4])
    average = train.make_average(model, 0.9)
    target = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    model.load_state_dict(target, strict=False)
    for _ in range(120):
        average.update_parameters(model)
    kept = dict(average.module.named_parameters())
    assert all(torch.allclose(kept[name], target[name], atol=1e-2) for name in target)
    model.load_state_dict({n: 2 * t for n, t in target.items()}, strict=False)
    average.update_parameters(model)
    first = next(iter(target))
    assert dict(average.module.named_parameters())[first].mean().item() == pytest.approx(
        1.1, abs=0.02
    )
    assert train.make_average(model, 0) is None


def test_one_cycle_rises_to_the_rate_and_falls_to_a_thousandth():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    scheduler = scheduler_of(optimizer, schedule="onecycle", epochs=40)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    assert rates[0] == pytest.approx(0.001) and max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates.index(max(rates)) in (5, 6) and rates[-1] < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0}, {"batch_size": 0}, {"save_every": -1}, {"lr": float("nan")}, {"lr": -1.0},
        {"lr": 0.0}, {"seed": -1}, {"threads": -1}, {"workers": -1}, {"widths": []}, {"widths": 8},
        {"widths": [8, 100_000]}, {"patches_per_image": 0},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_no_training_takes_are_refused_by_name(sample, change):
    with pytest.raises(RetinaError, match=f"^{next(iter(change))}="):
        assembled([sample], **change)
