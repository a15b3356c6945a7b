"""Training learns, repeats to the byte, goes on after an interruption, and stops with a reason."""

import numpy as np
import pytest
import torch
from conftest import TINY
from torch import nn

from retina_utils import augment, data, losses, models, train

CPU = torch.device("cpu")


def make_run(sample, seed=0, epochs=3, workers=0, **options):
    """Train a small network for some epochs; gives the weights and the history."""
    dataset = data.RetinaDataset(
        [sample], data.Preparation(patch_size=64, stride=64), 8,
        augment=augment.make_augment("full"), seed=seed,
    )  # fmt: skip
    loader = train.make_loader(dataset, 4, True, workers)
    torch.manual_seed(seed)
    model = models.UNet(widths=(4, 8))
    optimizer = train.make_optimizer("adamw", model, 1e-2, 1e-4)
    scheduler = train.make_scheduler("cosine", optimizer, epochs, 0, 0)
    stopping = train.EarlyStopping(0)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    state, stop_after = options.get("state"), options.get("stop_after", epochs)
    history = train.resume_state(state, {"seed": seed}, stopping, **parts) if state else []
    for epoch in range(len(history) + 1, stop_after + 1):
        dataset.set_epoch(epoch)
        row = train.train_epoch(model, loader, losses.bce_dice_loss, optimizer, "float32")
        train.step_schedule(scheduler, row["train_loss"])
        history.append(row)
        stopping.update(-row["train_loss"])
        if state:
            train.save_state(state, {"seed": seed}, history, stopping, **parts)
    return model.state_dict(), history


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


def test_a_state_of_another_recipe_is_not_resumed(sample, tmp_path):
    make_run(sample, epochs=2, state=tmp_path / "state.pt")
    model = models.UNet(widths=(4, 8))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    stopping = train.EarlyStopping(0)
    assert train.resume_state(tmp_path / "state.pt", {"seed": 9}, stopping, model=model) == []
    assert same(before, model.state_dict())


def test_training_learns(sample):
    history = make_run(sample, epochs=8)[1]
    assert history[-1]["train_loss"] < 0.9 * history[0]["train_loss"]


def test_a_loss_that_is_not_finite_stops_before_the_weights_move(sample):
    dataset = data.RetinaDataset([sample], data.Preparation(patch_size=32, stride=32), 4)
    loader = train.make_loader(dataset, 2, False)
    model = models.UNet(widths=(4, 8))
    optimizer = train.make_optimizer("adam", model, 1e-2, 0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}

    def broken(logits, vessels, fov):
        return logits.sum() * float("nan")

    with pytest.raises(train.TrainingError, match=r"nan at batch 1 of 2.*lower lr"):
        train.train_epoch(model, loader, broken, optimizer)
    assert same(before, dict(model.named_parameters()))


def test_losses_are_computed_in_float32_under_bfloat16(sample):
    dataset = data.RetinaDataset([sample], data.Preparation(patch_size=32, stride=32), 2)
    seen = []

    def spy(logits, vessels, fov):
        seen.append(logits.dtype)
        return losses.bce_dice_loss(logits, vessels, fov)

    model = models.UNet(widths=(4, 8))
    loader = train.make_loader(dataset, 2, False)
    train.train_epoch(model, loader, spy, train.make_optimizer("adamw", model, 1e-3, 0), "bfloat16")
    train.validate(model, loader, spy, "bfloat16")
    assert set(seen) == {torch.float32}


def test_validation_scores_are_those_of_the_network_at_one_half(sample):
    dataset = data.RetinaDataset([sample], data.Preparation(patch_size=64, stride=64))

    class Oracle(nn.Module):
        """Knows the answers in order."""

        def __init__(self, logits):
            super().__init__()
            self.logits, self.weight = logits, nn.Parameter(torch.zeros(1))

        def forward(self, image):
            return self.logits[: len(image)] + 0 * self.weight

    vessels = torch.stack([dataset[i]["vessels"] for i in range(len(dataset))])
    loader = train.make_loader(dataset, len(dataset), False)
    right = train.validate(Oracle(vessels * 20 - 10), loader, losses.bce_loss, "float32")
    assert right["validation_dice"] == right["validation_accuracy"] == 1.0
    assert right["validation_loss"] < 1e-3
    nothing = train.validate(Oracle(vessels * 0 - 10), loader, losses.bce_loss, "float32")
    assert nothing["validation_dice"] == 0.0 and nothing["predicted_share"] == 0.0


def test_a_collapse_to_background_is_said_plainly():
    assert "called vessel" in train.collapse_warning({"predicted_share": 0.001}, 0.1)
    assert train.collapse_warning({"predicted_share": 0.09}, 0.1) == ""


def test_early_stopping_waits_as_long_as_it_says():
    stopping = train.EarlyStopping(patience=2)
    assert [stopping.update(score) for score in (0.5, 0.6, 0.6, 0.5)] == [True, True, False, False]
    assert stopping.is_over and stopping.best == 0.6
    never = train.EarlyStopping(patience=0)
    [never.update(0.0) for _ in range(50)]
    assert not never.is_over


def test_early_stopping_may_not_beat_the_schedule_to_it():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))])
    with pytest.raises(ValueError, match="stop before the learning rate ever dropped"):
        train.make_scheduler("plateau", optimizer, 10, schedule_patience=10, patience=7)
    train.make_scheduler("plateau", optimizer, 10, schedule_patience=3, patience=7)


def test_the_plateau_schedule_lowers_the_rate_and_the_cosine_ends_low():
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
    plateau = train.make_scheduler("plateau", optimizer, 10, 1, 5)
    for _ in range(4):
        train.step_schedule(plateau, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.2)
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=1.0)
    cosine = train.make_scheduler("cosine", optimizer, 5, 0, 0)
    for _ in range(5):
        optimizer.step()
        train.step_schedule(cosine, 1.0)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda: train.make_optimizer("sgd", models.UNet(widths=(4,)), 1, 0), "adamw, adam"),
        (lambda: train.make_scheduler("step", None, 1, 0, 0), "cosine, onecycle, plateau"),
        (lambda: train.autocast(CPU, "half"), "auto, bfloat16 or float32"),
        (lambda: train.make_loader([1], 0, True), "at least 1"),
    ],
)
def test_unknown_choices_are_refused_with_the_known_ones(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_running_out_of_memory_names_the_knobs():
    with pytest.raises(train.TrainingError, match="Halve batch_size first"):  # noqa: SIM117
        with train.explain_memory(torch.Size([8, 1, 256, 256])):
            raise torch.OutOfMemoryError("CUDA out of memory.")
    with pytest.raises(RuntimeError, match=r"^something else$"):  # noqa: SIM117
        with train.explain_memory(torch.Size([1])):
            raise RuntimeError("something else")


def test_the_last_batch_is_never_a_single_patch_for_batchnorm(sample):
    dataset = data.RetinaDataset([sample], data.Preparation(patch_size=32, stride=32), 9)
    sizes = [len(batch["image"]) for batch in train.make_loader(dataset, 4, True)]
    assert sizes == [4, 4]
    assert np.sum([len(b["image"]) for b in train.make_loader(dataset, 4, False)]) == 9


def test_a_network_trained_on_the_tiny_data_finds_vessels():
    """A few seconds of training on two photographs must beat "dark is vessel" by far."""
    splits = data.load_data(TINY)
    preparation = data.Preparation(patch_size=128, stride=128)
    dataset = data.RetinaDataset(splits.train[:4], preparation, 8)
    validation = data.RetinaDataset(splits.validation[:1], preparation)
    torch.manual_seed(0)
    model = models.UNet(widths=(8, 16))
    loader = train.make_loader(dataset, 4, True)
    optimizer = train.make_optimizer("adamw", model, 1e-2, 1e-4)
    for epoch in range(1, 7):
        dataset.set_epoch(epoch)
        train.train_epoch(model, loader, losses.bce_dice_loss, optimizer)
    row = train.validate(model, train.make_loader(validation, 4, False), losses.bce_dice_loss)
    assert row["validation_dice"] > 0.55


def test_a_progress_bar_goes_to_the_terminal_that_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("RETINA_TERMINAL", str(tmp_path / "terminal"))
    assert list(train.progress(range(3), "training")) == [0, 1, 2]
    assert "training" in (tmp_path / "terminal").read_text()
    monkeypatch.delenv("RETINA_TERMINAL")
    monkeypatch.setenv("RETINA_QUIET", "1")
    assert list(train.progress([1, 2], "training")) == [1, 2]


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
    with pytest.raises(ValueError, match="ema=1"):
        train.make_average(model, 1)


def test_one_cycle_rises_to_the_rate_and_falls_to_a_thousandth():
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.AdamW([weight], lr=0.01)
    scheduler = train.make_scheduler("onecycle", optimizer, 40, 0, 0)
    rates = []
    for _ in range(40):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        train.step_schedule(scheduler, 0.0)
    assert rates[0] == pytest.approx(0.001) and max(rates) == pytest.approx(0.01, rel=0.02)
    assert rates.index(max(rates)) in (5, 6) and rates[-1] < 1e-4
