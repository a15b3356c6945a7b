"""The training of 03 on several processes, started by torchrun; ``make run-all`` goes on from it.

The first process runs 01 and 02, validates, and alone writes. All have to see the same disk.
"""

import os
from pathlib import Path

import torch.distributed as dist

from retina_utils import data, patches, train
from retina_utils.commands import series
from retina_utils.commands.parameters import declared_parameters, find_notebooks
from retina_utils.datasets import ledger
from retina_utils.machine import compute, distributed, runs


def train_together(*, preset: str, data: str, notebooks: str, parameters: list) -> str | None:
    """Train a preset's recipe on all processes; gives the first one's last words.

    BatchNorm measures each process's share of a batch, and the first one's statistics are kept.
    """
    folder, given = find_notebooks(notebooks), dict(parameters)
    given |= {"data_dir": str(Path(data).resolve())} if data else {}
    chosen, names = series.collect_parameters(folder, preset, given)
    rank, world = distributed.join()
    os.environ["RETINA_QUIET"] = "1"
    try:
        place = prepare(folder, chosen, names) if rank == 0 else None
        place = distributed.told_by_first(place)
        recipe = declared_parameters(folder / "03_train.ipynb")
        recipe |= {name: value for name, value in chosen.items() if name in recipe}
        trained = train_run(place, recipe, rank, world)
    finally:
        if world > 1:
            dist.destroy_process_group()
    return (
        f"{len(trained.history)} epochs are trained. Now: make run-all, as before."
        if not rank
        else None
    )


def prepare(folder: Path, chosen: dict, names: tuple[str, ...]) -> Path:
    """Run 01 and 02 where they are not up to date; gives the run's folder, which is ours now."""
    place = runs.open_run(chosen["outputs_dir"], chosen["run"])
    os.environ[runs.LENT] = str(place)
    before = None
    try:
        for name in names[:2]:
            series.run_notebook(folder / f"{name}.ipynb", place, chosen, before, fresh=False)
            before = place / "notebooks" / f"{name}.done"
    finally:
        series.OwnKernel.dismiss()
    return place


def train_run(place: Path, settings: dict, rank: int = 0, world: int = 1) -> train.Training:
    """The loop of 03 in a run's folder, going on where it was interrupted."""
    first, second = (runs.require(place, name) for name in ("01_data", "02_model"))
    about, recipe = first["results"], first["parameters"] | second["parameters"] | settings
    splits = data.read_splits(place / "splits.csv", Path(about["data_dir"]))
    training = train.assemble(recipe, splits.train, compute.choose_device(recipe["device"]))
    if world > 1:
        training.loader = distributed.share_of(training.loader, rank, world)
        distributed.average_gradients(training.optimizer)
    if rank == 0:
        dataset = patches.RetinaDataset(splits.validation, training.preparation)
        validation = patches.make_loader(dataset, recipe["batch_size"], False, recipe["workers"])
    state = place / "weights" / "interrupted.pt"
    trained_on = first["files"] | {"pairs": runs.checksum(splits.train + splits.validation)}
    done = train.resume_state(state, training, trained_on) if recipe["resume"] else 0
    if rank == 0:
        print(f"{world} processes, going on after epoch {done}" if done else f"{world} processes")
    if rank == 0:
        book = ledger.write_down(training=splits.train, threshold=splits.validation)
    if rank == 0 and not done:
        train.forget_weights(place / "weights")
    for epoch in training.epochs_left():
        row = {"epoch": epoch, "lr": training.rate} | train.train_epoch(training)
        row["train_loss"] = distributed.mean_of_all(row["train_loss"])
        if rank == 0:
            row |= train.validate(training, validation)
        row = distributed.told_by_first(row)
        is_best = train.finish_epoch(training, row)
        if rank == 0:
            facts = {"data": about["data"], "seed": recipe["seed"], "ledger": book}
            train.save_weights(place / "weights", training, is_best, facts)
            train.save_state(state, training, trained_on)
            print(train.epoch_line(row, is_best), flush=True)
    return training
