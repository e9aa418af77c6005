"""`raycsr train` and `raycsr sweep` on two workers of Ray Train."""

import json
import os
import signal
from pathlib import Path

import pytest
from nodes import pids_below

from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, SearchOptions, WorkerOptions
from raycsr.distributed.training import fit as module
from raycsr.distributed.training.fit import load_history
from raycsr.distributed.training.ray_train import check_workers
from raycsr.errors import UserError
from raycsr.models.checkpoints import load_training_state
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.sweep import sweep
from raycsr.verbs.train import train

TWO = WorkerOptions(2, cpus=1)
ADAMW = {"batch_size": 32, "optimizer": "adamw", "lr": 2e-3, "precision": "fp32"}  # losses are compared


def options_in(folder):
    return {
        "data": DataOptions(source="digits", split="train", limit=300),
        "model": ModelOptions("test_convnext", input_size=32),  # without batch norm, which would see a worker's share
        "sigma": 1e-4,  # so little that it does not matter which worker draws it
        "results": str(folder / "results"),
        "costs": "seed:4",
        "objective": ObjectiveOptions("gaussian_cs"),
        "training": TrainingOptions(**ADAMW, epochs=3, weight_decay=0.05, ema=0.5),
        "validation": ValidationOptions(every=2, images=20, sensitive=10, n0=8, n=64),
    }


@pytest.fixture
def options(tmp_path):
    return options_in(tmp_path)


@pytest.fixture(scope="module")
def two(cluster, tmp_path_factory):
    """The checkpoint of a training on two workers."""
    return train(**options_in(tmp_path_factory.mktemp("two")), workers=TWO, name="two").checkpoint


@pytest.mark.ray
def test_two_workers_come_to_what_one_comes_to(two, options):
    alone = train(**options, name="one", threads=1)
    ours, theirs = load_history(two), load_history(alone.checkpoint)
    assert [epoch["loss"] for epoch in ours] == pytest.approx([epoch["loss"] for epoch in theirs], rel=1e-3)
    assert ours[2]["loss"] < 0.9 * ours[0]["loss"]
    assert [epoch["metrics"] is None for epoch in ours] == [True, False, False]
    assert ours[2]["metrics"]["accuracy"] == pytest.approx(theirs[2]["metrics"]["accuracy"], abs=0.1)
    assert load_training_state(two) is None
    beside = json.loads(Path(two).with_suffix(".json").read_text())
    assert beside["history"] == ours


@pytest.mark.ray
def test_workers_stream_their_shares_of_each_batch(options, cluster):
    options |= {"stream": True, "training": TrainingOptions(**ADAMW, epochs=2)}
    ours, theirs = (
        load_history(train(**options, workers=workers, name=f"{workers.number}").checkpoint)
        for workers in (TWO, WorkerOptions())
    )
    assert [epoch["loss"] for epoch in ours] == pytest.approx([epoch["loss"] for epoch in theirs], rel=1e-3)


@pytest.mark.ray
@pytest.mark.long
def test_a_worker_that_is_lost_costs_the_epoch_it_was_in(two, options, monkeypatch, capfd):
    save = module.save

    def save_and_kill(plan, model, state, history, path):
        save(plan, model, state, history, path)
        if len(history) == 1:
            os.kill(max(pids_below("RayTrainWorker")), signal.SIGKILL)

    monkeypatch.setattr(module, "save", save_and_kill)
    again = train(**options, workers=TWO, name="killed")
    assert "a worker was lost; going on after the last epoch" in capfd.readouterr().out
    assert load_base_classifier(again.checkpoint).components == load_base_classifier(two).components


@pytest.mark.ray
def test_a_mistake_on_a_worker_arrives_as_one_line(options, cluster, capsys):
    options["training"] = TrainingOptions(epochs=1, batch_size=32, lr=1e30)
    with pytest.raises(UserError, match=r"^the loss is nan at step \d+ .* lower training.lr"):
        train(**options, workers=TWO)


@pytest.mark.ray
@pytest.mark.long
def test_trials_of_a_sweep_have_workers_of_their_own(options, cluster):
    options["training"] = TrainingOptions(**ADAMW, epochs=2)
    found = sweep(
        **options,
        space={"seed": {"grid": [0]}},
        search=SearchOptions(cpus_per_trial=1, workers_per_trial=2, max_concurrent=1),
    )
    (trial,) = found.trials.to_dict("records")
    assert trial["state"] == "finished" and trial["epoch"] == 2
    (checkpoint,) = found.best.values()
    assert len(load_base_classifier(checkpoint).training_info["history"]) == 2


def test_a_batch_that_cannot_be_shared_is_refused():
    whole, in_parts = TrainingOptions(batch_size=128), TrainingOptions(batch_size=12, split_batches=4)
    with pytest.raises(UserError, match="training.batch_size is 128; give a multiple of the 3 workers"):
        check_workers(WorkerOptions(3), whole)
    with pytest.raises(UserError, match="0 workers of 1 CPUs and 0 GPUs cannot be had"):
        check_workers(WorkerOptions(0), whole)
    check_workers(WorkerOptions(2), whole)
    check_workers(WorkerOptions(3), in_parts)
    check_workers(WorkerOptions(1), in_parts)
    with pytest.raises(UserError, match="training.batch_size is 12; give a multiple of 8, 2 workers with 4 parts each"):
        check_workers(WorkerOptions(2), in_parts)


def test_the_command_line_says_so_in_one_line(options, capsys):
    command = "train --data.source digits --model.name cifar_resnet8 --sigma 0.5 --results r --workers.number 3"
    assert main(command.split()) == 2
    assert "give a multiple of the 3 workers" in capsys.readouterr().err
