"""`raycsr sweep`: trials, a leaderboard, the best checkpoints; failures named; restored by the same command."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, is_dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ray import cloudpickle

from raycsr.certification import METRICS
from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.distributed import cluster as cluster_module
from raycsr.distributed.options import ObjectiveOptions, PoolOptions, SearchOptions
from raycsr.distributed.sampling import run
from raycsr.distributed.sampling.stream import stream
from raycsr.distributed.search.job import (
    check_sweep,
    claim,
    concurrent_trials,
    inputs_of_backbones,
    keep_best,
    pixels_of_each_backbone,
    plan_of,
)
from raycsr.distributed.search.trials import TrialProgress, run_trials
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.errors import UserError
from raycsr.models.calibration import calibrated
from raycsr.models.checkpoints import load_training_state, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import Offset
from raycsr.models.spec import ModelOptions
from raycsr.reports import as_markdown
from raycsr.reports.leaderboard import leaderboard
from raycsr.results import Ownership
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.sweep import sweep


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
        sweep = check_sweep(TrainConfig(**facts), space, search)
        assert sweep.metrics == metrics
        judged = str(plan_of(sweep, Store(tmp_path))).splitlines()[-1]
        by = "acr" if named else f"rob_cs (seed:4), rob_cost ({dear})"
        assert judged == f"judged by {by} on held-out images"


@pytest.mark.ray
@pytest.mark.parametrize("where", ["local", pytest.param("s3", marks=pytest.mark.long)])
def test_a_trial_that_fails_is_named_and_the_rest_is_kept(cluster, s3, tmp_path, where, capsys, monkeypatch):
    pools = []
    monkeypatch.setattr(run, "stream", lambda works: pools.append(len(works)) or stream(works))
    results = tmp_path if where == "local" else f"s3://{s3.new_bucket()}/sweeps"
    dear = dear_costs(tmp_path)
    more = {"costs": {"grid": ["seed:4", dear]}} if where == "local" else {}
    one = options(results, space={"training.lr": {"grid": [0.05, 1e30]}, **more})
    if where == "local":  # the winners are evaluated on the test split, too
        one |= {
            "test": DataOptions("digits", limit=8),
            "sampling": SamplingOptions(n0=8, n=64, precision="fp32"),
            "pool": PoolOptions(actors=0, threads_per_actor=1),
            "radii": [0.1],
            "search": SearchOptions(scheduler="asha", cpus_per_trial=0.5, max_concurrent=2),
        }
    else:  # as a command, whose status says so; what follows has nothing left to train
        config = {name: asdict(value) if is_dataclass(value) else value for name, value in one.items()}
        (tmp_path / "sweep.json").write_text(json.dumps(config))
        assert main(["sweep", "--config", str(tmp_path / "sweep.json")]) == 1
        assert "1 of 2 trials failed" in capsys.readouterr().err
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
    assert capsys.readouterr().out.count("Best: ") == groups  # printed, too
    if where == "local":
        assert len(found.outcomes) == 2 and not any(outcome.errors for outcome in found.outcomes)
        assert found.report.attrs["lacks"] == []  # which the command's status goes by
        assert len(pools) == 1 and Path(found.location, "report", "report.html").exists()  # one pool for all
        assert list(Path(found.location).glob("*/events.out.tfevents.*")), "TensorBoard has nothing to show"
    again = sweep(**{key: value for key, value in one.items() if key != "test"})
    pd.testing.assert_frame_equal(again.trials, found.trials)  # nothing is trained a second time


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
        ({"test": DataOptions("digits"), "pool": PoolOptions(actors=-1)}, "pool of -1 actors"),
        ({"test": DataOptions("digits"), "sampling": SamplingOptions(n=4)}, "n=4 samples cannot certify"),
        (
            {"test": DataOptions("digits", class_names=["1", "0", *"23456789"])},
            "class '1' is 0 of the data and 1 of each model of the sweep",
        ),
    ],
)
def test_mistakes_are_named_before_a_trial_is_paid_for(cluster, tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        sweep(**(options(tmp_path) | change))


def test_images_are_decoded_once_for_trials_that_have_them_in_memory_whichever_comes_first(tmp_path, capsys):
    config = {name: options(tmp_path)[name] for name in ("data", "model", "sigma", "costs", "training", "validation")}
    space = {
        "stream": {"grid": [True, None]},
        "augmentation.random_resized_crop": {"grid": [0.5, None]},
        "model.name": {"grid": ["cifar_resnet8", "cifar_resnet20"]},
    }
    checked = check_sweep(TrainConfig(**config), space, SearchOptions())
    pixels = pixels_of_each_backbone(checked, inputs_of_backbones(checked))
    assert [len(one) for one in pixels.values()] == [1078]
    lines = [line.split(":")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("read ")]
    assert lines == ["read      cifar_resnet8", "read      cifar_resnet20"] * 3  # each way to read, once


class Trap:
    """What writes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.write_text, (self.file, "code ran")


def set_traps(folder, file):
    """Replaces all that Ray Tune would restore a sweep from, or read while one runs."""
    trap = cloudpickle.dumps(Trap(file))
    for name in ("tuner.pkl", "searcher-state-2999-01-01_00-00-00.pkl", "callback-states-2999-01-01_00-00-00.pkl"):
        (folder / name).write_bytes(trap)
    (folder / "basic-variant-state-2999-01-01_00-00-00.json").write_bytes(trap)
    state = {"trial_data": [], "runner_data": {"_type": "CLOUDPICKLE_FALLBACK", "value": trap.hex()}, "stats": {}}
    (folder / "experiment_state-2999-01-01_00-00-00.json").write_text(json.dumps(state))
    for trial in folder.glob("?????_?????"):
        for name in ("error.pkl", "params.pkl", ".metadata.pkl"):
            (trial / name).write_bytes(trap)


def test_a_backbone_that_cannot_be_trained_is_named_before_a_cluster_is_started(tmp_path, monkeypatch):
    """A quantised one, and one without a denoiser for an objective of denoisers: all of them at once."""
    network, path = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8)), tmp_path / "q.pt"
    images = np.zeros((4, 8, 8, 3), np.uint8)
    save_checkpoint(path, calibrated(network, images, sigma=0.25))
    monkeypatch.setattr(cluster_module, "connect", lambda: pytest.fail("a cluster was started"))
    space = {"model.name": {"grid": ["cifar_resnet8", str(path)]}, "objective.name": {"grid": ["gaussian", "denoise"]}}
    with pytest.raises(UserError, match="quantised to int8") as said:
        sweep(**options(tmp_path / "results", space=space))
    assert "has random weights" in str(said.value) and not (tmp_path / "results").exists()


@pytest.mark.ray
def test_a_sweep_is_run_once_at_a_time_and_a_killed_one_goes_on_by_the_same_command_unpickling_nothing(
    cluster, tmp_path, capsys
):
    config = {
        "data": {"source": "digits", "split": "train"},
        "model": {"name": "cifar_resnet8", "input_size": 8},
        "training": {"epochs": 8, "batch_size": 64},
        "validation": {"images": 20, "sensitive": 0, "n0": 8, "n": 64},
        "space": {"training.lr": {"grid": [0.05, 0.1]}},
        "search": {"cpus_per_trial": 0.5, "max_concurrent": 1},
    }
    (tmp_path / "sweep.json").write_text(json.dumps(config))
    command = ["sweep", "--config", str(tmp_path / "sweep.json"), "--results", str(tmp_path)]
    with (tmp_path / "log").open("w") as log:  # in a Ray of its own, which dies with it
        driver = subprocess.Popen([sys.executable, "-m", "raycsr.cli", *command], stdout=log, stderr=log)
    folder = tmp_path / "default" / "sweeps" / "sweep"
    _wait_for(lambda: list(folder.glob("*_*/checkpoint.pt")), driver, tmp_path / "log")
    start = time.monotonic()
    assert main(command) == 2
    assert f"{folder} is held by process {driver.pid} on " in capsys.readouterr().err.splitlines()[-1]
    assert time.monotonic() - start < 30 and driver.poll() is None
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    (begun,) = folder.glob("*_*/checkpoint.pt")
    epochs = len(load_base_classifier(str(begun)).training_info["history"])
    set_traps(folder, tmp_path / "trapped")
    cloudpickle.loads((folder / "tuner.pkl").read_bytes())
    (tmp_path / "trapped").unlink()  # they do run code

    config["space"]["training.lr"]["grid"] = [0.2]
    (tmp_path / "other.json").write_text(json.dumps(config))
    assert main(["sweep", "--config", str(tmp_path / "other.json"), "--results", str(tmp_path)]) == 2
    assert "started with space.training.lr.grid = [0.05, 0.1], now it is [0.2]" in capsys.readouterr().err

    assert main(command) == 0
    out = capsys.readouterr().out
    assert "going on with the sweep that is there" in out and out.count("epoch 1,") == 1  # of the other trial alone
    assert not (tmp_path / "trapped").exists()
    trials = Store(folder).read_table("trials.parquet").to_pandas()
    assert trials["state"].tolist() == ["finished"] * 2 and (trials["epoch"] == 8).all()
    assert trials["trial"].tolist() == [begun.parent.name, begun.parent.name[:-1] + "1"] and epochs < 8
    first = load_base_classifier(trials["checkpoint"].iloc[0]).training_info["history"]
    assert [epoch["number"] for epoch in first] == [*range(1, 9)]  # it went on, rather than anew
    recorded = json.loads((begun.parent / "trial.json").read_text())
    assert [one["epoch"] for one in recorded["results"]] == [*range(1, 9)] and recorded["ended"]
    owners = [json.loads(path.read_text()) for path in sorted((folder / "owners").iterdir())]
    assert [owner["released"] for owner in owners] == [False, True, True]


@pytest.mark.ray
@pytest.mark.long  # the time must be enough for a trial on a busy machine
def test_a_sweep_without_end_stops_when_its_time_is_up_and_goes_on_with_more(cluster, tmp_path):
    one = options(tmp_path, space={"training.lr": {"uniform": [0.01, 0.1]}}, costs="uniform")
    one |= {"training": TrainingOptions(epochs=1, batch_size=64)}

    def within(hours):
        return sweep(**one, search=SearchOptions(samples=-1, max_hours=hours, cpus_per_trial=0.5, max_concurrent=1))

    del one["search"]
    first = within(40 / 3600)
    assert len(first.trials) > 0 and set(first.trials["state"]) <= {"finished", "stopped", "not started"}
    again = within(40 / 3600)
    ended = first.trials[first.trials["epoch"].notna()].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.trials, ended, check_dtype=False)  # epochs of trials that began are whole
    spent = json.loads(Path(first.location, "clock.json").read_text())["seconds"]
    more = within((spent + 40) / 3600)
    assert len(more.trials) > len(again.trials)
    assert more.trials["trial"].tolist()[: len(again.trials)] == again.trials["trial"].tolist()


def test_the_best_is_one_whose_checkpoint_can_be_read(tmp_path):
    model = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))
    save_checkpoint(tmp_path / "second.pt", model, training_info={"sigma": 0.25})
    (tmp_path / "third.pt").write_bytes(b"no checkpoint")
    trials = pd.DataFrame(
        {
            "trial": ["1", "2", "3"],
            "state": "finished",
            "sigma": [0.25, 0.25, 0.5],
            "costs": "seed:4",
            "metric": "rob_cs",
            **dict.fromkeys(METRICS, 0.5),
            "rob_cs": [0.9, 0.8, 0.7],
            "checkpoint": [str(tmp_path / f"{name}.pt") for name in ("lost", "second", "third")],
            **{"point": "{}", "epoch": 1, "error": None, "collapsed": ""},
        }
    )
    with (
        pytest.warns(UserWarning, match="trial 1 cannot be the best of its kind: .*lost.pt"),
        pytest.warns(UserWarning, match="trial 3 cannot be the best of its kind: .*third.pt"),
    ):
        best = keep_best(trials, Store(tmp_path), SearchOptions())
    assert best == {(0.25, "seed:4"): f"{tmp_path}/best/sigma0.25-seed-4.pt"}
    kept = best[0.25, "seed:4"]
    assert load_base_classifier(kept).components == model.components
    model.rules = (Offset((1.0, *[0.0] * 9), spec="offset:0=1"),)
    save_checkpoint(kept, model, training_info={"sigma": 0.25})  # as `raycsr tune-rule` does
    keep_best(trials.iloc[[1]], Store(tmp_path), SearchOptions())
    assert load_base_classifier(kept).rules == model.rules  # the same weights again: it keeps what was tuned
    assert as_markdown(leaderboard(trials, [], best, 0.05)).count("Best: none of these checkpoints can be read") == 1


def test_a_sweep_of_an_earlier_version_is_refused_by_name(tmp_path):
    """Tune's pickles are all that it could go on from."""
    facts = {name: value for name, value in options(tmp_path).items() if name not in ("space", "search", "results")}
    sweep = check_sweep(TrainConfig(**facts), {"training.lr": {"grid": [0.1]}}, SearchOptions())
    folder = Store(tmp_path)
    prefix = claim(folder, sweep)
    assert claim(folder, sweep) == prefix
    begun = json.loads(folder.read("sweep.json"))
    del begun["trials"]
    folder.write("sweep.json", json.dumps(begun).encode())
    with pytest.raises(UserError, match="was begun by an earlier raycsr.*give another --name"):
        claim(folder, sweep)
    folder.write("sweep.json", json.dumps({**begun, "schema_version": 99}).encode())
    with pytest.raises(UserError, match="sweep.json has schema_version 99"):
        claim(folder, sweep)
    of_no_form = json.dumps({**begun, "definitions": 1}).encode()
    for damaged in (b"", b"[1]", b"{}", b'{"config": 1}', b"[" * 100_000, of_no_form):
        folder.write("sweep.json", damaged)
        with pytest.raises(UserError, match="sweep.json is damaged"):
            claim(folder, sweep)


def test_a_sweep_with_trials_left_whose_loss_is_another_by_now_does_not_go_on(tmp_path):
    facts = {name: value for name, value in options(tmp_path).items() if name not in ("space", "search", "results")}
    facts["costs"] = "seed:4"
    sweep = check_sweep(
        TrainConfig(**facts), {"objective.name": {"grid": ["gaussian", "gaussian_cs"]}}, SearchOptions()
    )
    folder = Store(tmp_path)
    prefix = claim(folder, sweep)
    begun = json.loads(folder.read("sweep.json"))
    assert begun.pop("definitions") == {"gaussian": 1, "gaussian_cs": 2}
    folder.write("sweep.json", json.dumps(begun).encode())  # as it was written before
    assert claim(folder, sweep) == prefix
    with Ownership(folder) as owner, pytest.raises(UserError, match="gaussian_cs was another loss .*another --name"):
        run_trials(sweep, folder, prefix, concurrent=1, trackers=[], pixels={}, owner=owner)


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
    monkeypatch.setattr(TrialProgress, "on_trial_result", lambda *_, **info: os.kill(os.getpid(), signal.SIGINT))
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
        concurrent_trials(SearchOptions(gpus_per_trial=1), trials=8)
    assert concurrent_trials(SearchOptions(gpus_per_trial=1, max_concurrent=8), trials=8) == 8
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
