"""`raycsr sweep`: trials, a leaderboard, the best checkpoints; failures named; restored by the same command."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from raycsr.cli import main
from raycsr.data import DataOptions, open_source
from raycsr.errors import UserError
from raycsr.models import ModelOptions, load_base_classifier, load_training_state
from raycsr.pipelines.plan import ObjectiveOptions, TrainConfig
from raycsr.pipelines.pool import PoolOptions
from raycsr.pipelines.sweep import SearchOptions, _concurrent, check_sweep, describe, metrics_of, sweep
from raycsr.pipelines.trials import TrialProgress
from raycsr.smoothing import SamplingOptions
from raycsr.store import Store
from raycsr.training import TrainingOptions, ValidationOptions


def options(results, **change):
    return {
        "data": DataOptions("digits", split="train"),
        "model": ModelOptions("cifar_resnet8", input_size=8),
        "sigma": 0.25,
        "costs": "seed:4",
        "space": {"training.lr": {"grid": [0.05, 1e30]}},
        "training": TrainingOptions(epochs=2, batch_size=64),
        "validation": ValidationOptions(images=20, sensitive=10, n0=8, n=64),
        "search": SearchOptions(cpus_per_trial=0.5, max_concurrent=2),
        "results": str(results),
        **change,
    }


def dear_costs(folder):
    """A cost matrix where to take a 4 for a 9 costs ten times as much as for a 7."""
    values = np.zeros((10, 10))
    values[4, 9], values[4, 7] = 10, 1
    np.savetxt(folder / "dear.csv", values, delimiter=",")
    return str(folder / "dear.csv")


def test_trials_compete_in_the_metric_of_their_costs_unless_one_is_named(tmp_path):
    dear = dear_costs(tmp_path)
    facts = {name: value for name, value in options(tmp_path).items() if name not in ("space", "search", "results")}
    space = {"costs": {"grid": ["seed:4", dear]}}
    for named, metrics in ((None, {"seed:4": "rob_cs", dear: "rob_cost"}), ("acr", {"seed:4": "acr", dear: "acr"})):
        search = SearchOptions(metric=named)
        corners, listing = check_sweep(TrainConfig(**facts), space, search)
        assert metrics_of(corners, listing, search) == metrics
        judged = describe(open_source(DataOptions("digits")), space, search, Store(tmp_path), metrics).splitlines()[-1]
        by = "acr" if named else f"rob_cs (seed:4), rob_cost ({dear})"
        assert judged == f"judged by {by} on held-out images"


@pytest.mark.ray
@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_trial_that_fails_is_named_and_the_rest_is_kept(cluster, s3, tmp_path, where, capsys):
    results = tmp_path if where == "local" else f"s3://{s3.new_bucket()}/sweeps"
    dear = dear_costs(tmp_path)
    more = {"costs": {"grid": ["seed:4", dear]}} if where == "local" else {}
    one = options(results, space={"training.lr": {"grid": [0.05, 1e30]}, **more})
    if where == "local":  # the winners are evaluated on the test split, too
        one |= {
            "test": DataOptions("digits", limit=8),
            "sampling": SamplingOptions(n0=8, n=64, precision="fp32"),
            "pool": PoolOptions(actors=1, cpus_per_actor=0.5),
            "radii": [0.1],
            "search": SearchOptions(scheduler="asha", cpus_per_trial=0.5, max_concurrent=2),
        }
    found = sweep(**one)
    folder = Store(found.location)
    trials = folder.read_table("trials.parquet").to_pandas()
    groups = len(found.best)
    assert groups == (2 if where == "local" else 1) and len(trials) == 2 * groups
    assert sorted(trials["state"]) == ["failed"] * groups + ["finished"] * groups
    assert all(why.startswith("the loss is nan at step") for why in found.failures.values())
    assert (trials.loc[trials["state"] == "finished", "accuracy"] > 0).all()
    assert set(trials.loc[trials["state"] == "finished", "precision"]) <= {"bf16", "fp32"}
    assert trials["metric"].tolist() == trials["costs"].map({"seed:4": "rob_cs", dear: "rob_cost"}).tolist()
    for (sigma, costs), checkpoint in found.best.items():
        model = load_base_classifier(checkpoint)
        assert (sigma, model.training_info["costs"]) == (0.25, costs) and load_training_state(checkpoint) is None
        assert [images["num_images"] for images in model.training_info["trained_on"]] == [1078]
    board = folder.read("leaderboard.md").decode()
    assert board.count("Best: ") == groups and board.count("the loss is nan") == groups
    assert board in capsys.readouterr().out
    if where == "local":
        assert len(found.outcomes) == 2 and not any(outcome.errors for outcome in found.outcomes)
        assert list(Path(found.location).glob("*/events.out.tfevents.*")), "TensorBoard has nothing to show"
    again = sweep(**{key: value for key, value in one.items() if key != "test"})
    pd.testing.assert_frame_equal(again.trials, found.trials)  # nothing is trained a second time


@pytest.mark.ray
def test_the_command_ends_with_status_1_where_a_trial_failed(cluster, tmp_path, capsys):
    config = {
        "data": {"source": "digits", "split": "train"},
        "model": {"name": "cifar_resnet8", "input_size": 8},
        "training": {"epochs": 1, "batch_size": 64},
        "validation": {"images": 20, "sensitive": 0, "n0": 8, "n": 64},
        "space": {"training.lr": {"grid": [1e30]}},
        "search": {"cpus_per_trial": 0.5},
    }
    (tmp_path / "sweep.json").write_text(json.dumps(config))
    assert main(["sweep", "--config", str(tmp_path / "sweep.json"), "--results", str(tmp_path)]) == 1
    assert "1 of 1 trials failed" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"search": SearchOptions(cpus_per_trial=2, max_concurrent=2)}, "2 trials of 2 CPUs do not fit.*4 CPUs"),
        ({"search": SearchOptions(gpus_per_trial=1)}, "a trial wants 1 GPUs and the cluster has 0"),
        ({"search": SearchOptions(metric="rob_sc")}, "unknown metric 'rob_sc': did you mean"),
        ({"search": SearchOptions(samples=-1)}, "search.samples is -1"),
        ({"space": {"model.name": {"grid": ["cifar_resnet8", "cifar_resnet9"]}}}, "cifar_resnet9"),
        ({"space": {"objective.name": {"grid": ["gausian"]}}}, "unknown objective 'gausian'"),
        ({"space": {"training.schedule": {"choice": ["cosin"]}}}, "unknown schedule 'cosin'"),
        ({"objective": ObjectiveOptions("margin_cs"), "costs": "seed:12"}, "class 12"),
        ({"results": "/proc/nothing"}, "cannot use /proc/nothing"),
    ],
)
def test_mistakes_are_named_before_a_trial_is_paid_for(cluster, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        sweep(**(options(tmp_path) | change))


@pytest.mark.ray
def test_a_killed_sweep_is_restored_by_the_same_command_and_refuses_another_space(cluster, tmp_path, capsys):
    config = {
        "data": {"source": "digits", "split": "train"},
        "model": {"name": "cifar_resnet8", "input_size": 8},
        "training": {"epochs": 6, "batch_size": 64},
        "validation": {"images": 20, "sensitive": 0, "n0": 8, "n": 64},
        "space": {"training.lr": {"grid": [0.05, 0.1]}},
        "search": {"cpus_per_trial": 0.5, "max_concurrent": 1},
    }
    (tmp_path / "sweep.json").write_text(json.dumps(config))
    command = ["sweep", "--config", str(tmp_path / "sweep.json"), "--results", str(tmp_path)]
    with (tmp_path / "log").open("w") as log:  # in a Ray of its own, which dies with it
        driver = subprocess.Popen([sys.executable, "-m", "raycsr.cli", *command], stdout=log, stderr=log)
    folder = tmp_path / "default" / "sweeps" / "sweep"
    _wait_for(lambda: list(folder.glob("*/checkpoint_*/checkpoint.pt")), driver, tmp_path / "log")
    driver.send_signal(signal.SIGKILL)
    driver.wait()

    config["space"]["training.lr"]["grid"] = [0.2]
    (tmp_path / "other.json").write_text(json.dumps(config))
    assert main(["sweep", "--config", str(tmp_path / "other.json"), "--results", str(tmp_path)]) == 2
    assert "started with space.training.lr.grid = [0.05, 0.1], now it is [0.2]" in capsys.readouterr().err

    assert main(command) == 0
    assert "going on with the sweep that is there" in capsys.readouterr().out
    trials = Store(folder).read_table("trials.parquet").to_pandas()
    assert trials["state"].tolist() == ["finished"] * 2 and (trials["epoch"] == 6).all()
    first = load_base_classifier(trials["checkpoint"].iloc[0]).training_info["history"]
    assert [epoch["number"] for epoch in first] == [1, 2, 3, 4, 5, 6]  # it went on, rather than anew


@pytest.mark.ray
def test_a_sweep_that_is_interrupted_says_so_and_names_no_winner(cluster, tmp_path, capsys, monkeypatch):
    config = {
        "data": {"source": "digits", "split": "train"},
        "model": {"name": "cifar_resnet8", "input_size": 8},
        "training": {"epochs": 2, "batch_size": 64},
        "validation": {"images": 20, "sensitive": 0, "n0": 8, "n": 64},
        "space": {"training.lr": {"grid": [0.05, 0.1]}},
        "search": {"cpus_per_trial": 0.5, "max_concurrent": 1},
    }
    (tmp_path / "sweep.json").write_text(json.dumps(config))
    monkeypatch.setattr("on_trial_result", lambda *_, **info: os.kill(os.getpid(), signal.SIGINT))
    assert main(["sweep", "--config", str(tmp_path / "sweep.json"), "--results", str(tmp_path)]) == 130
    assert "raycsr sweep: stopped by SIGINT" in capsys.readouterr().err
    assert not (tmp_path / "default/sweeps/sweep/leaderboard.md").exists()


def _wait_for(event, driver, log):
    deadline = time.monotonic() + 300
    while not event():
        assert driver.poll() is None and time.monotonic() < deadline, log.read_text()
        with contextlib.suppress(subprocess.TimeoutExpired):
            driver.wait(0.2)


@pytest.mark.ray
def test_trials_on_gpus_wait_for_nodes_only_where_their_number_is_given(cluster, capsys):
    with pytest.raises(UserError, match="a trial wants 1 GPUs and the cluster has 0; .*give search.max_concurrent to"):
        _concurrent(SearchOptions(gpus_per_trial=1), trials=8)
    assert _concurrent(SearchOptions(gpus_per_trial=1, max_concurrent=8), trials=8) == 8
    assert "the cluster has 0 GPUs; of 8 trials at a time some wait" in capsys.readouterr().out


def test_the_time_left_of_a_sweep_counts_from_its_first_trial(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = TrialProgress(trials=4, costs="uniform", metrics={"uniform": "rob_cs"})
    now[0] += 600  # the cluster starts, and the images are decoded
    progress.on_trial_start(0, [], None)
    now[0] += 120
    progress.on_trial_start(1, [], None)
    progress.on_trial_complete(1, [], None)
    assert capsys.readouterr().out == "1 of 4 trials done in 2.0 min, about 6.0 min left\n"
