"""How trials go on after their driver died: Ray Tune's part is played by a loop of one trial after the other."""

import functools
import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from ray.tune.experiment import Experiment

from raycsr.data.options import DataOptions
from raycsr.distributed.options import SearchOptions
from raycsr.distributed.search import trials as module
from raycsr.distributed.search.job import check_sweep, inputs_of_backbones, pixels_of_each_backbone
from raycsr.distributed.search.trials import run_trials
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.results import Ownership
from raycsr.store import Store
from raycsr.training.options import TrainingOptions, ValidationOptions

PREFIX = "abcde"
SPACE = {"training.lr": {"grid": [0.1, 0.05]}}


class Stopped(BaseException):
    """A scheduler's word."""


class Killed(BaseException):
    """A driver's end."""


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """`sweep(kill_after=5)` runs the trials until there were so many reports in all; they are in `sweep.told`."""
    config = TrainConfig(
        data=DataOptions("digits", split="train"),
        model=ModelOptions("cifar_resnet8", input_size=8),
        sigma=0.25,
        costs="seed:4",
        training=TrainingOptions(epochs=3, batch_size=64),
        validation=ValidationOptions(images=20, sensitive=10, n0=8, n=64),
    )
    store = Store(tmp_path)
    store.write("sweep.json", b"{}")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()

    class Tuner:
        def __init__(self, trainable, *, param_space, tune_config, run_config):
            self.trainable, self.search, self.scheduler = trainable, tune_config.search_alg, tune_config.scheduler
            self.callbacks = [one for one in run_config.callbacks]
            spec = Experiment(
                "sweep", lambda config: None, config=param_space, num_samples=1, storage_path=run_config.storage_path
            )
            self.search.add_configurations([spec])

        def call(self, hook, trial, **more):
            for callback in self.callbacks:
                getattr(callback, hook)(iteration=0, trials=[], trial=trial, **more)

        def report(self, trial, metrics):
            result = {**metrics, "time_this_iter_s": 1.0}
            word = self.scheduler.on_trial_result(None, trial, result) if self.scheduler else "CONTINUE"
            run.told.append((trial.trial_id, metrics.get("epoch", metrics.get("error"))))
            if len(run.told) == run.kill_before_noted:
                raise Killed
            self.call("on_trial_result", trial, result=result)
            if len(run.told) == run.kill_after:
                raise Killed
            if word == "STOP":
                raise Stopped

        def fit(self):
            ended = []
            while (one := self.search.next_trial()) is not None:
                trial = SimpleNamespace(trial_id=one.trial_id, config=one.config, local_path=None)
                if self.scheduler:
                    self.scheduler.on_trial_add(None, trial)
                self.call("on_trial_start", trial)
                monkeypatch.chdir(elsewhere)  # Tune has each trial in a folder of its own
                monkeypatch.setattr(module.tune, "report", functools.partial(self.report, trial))
                context = SimpleNamespace(get_trial_id=lambda trial=trial: trial.trial_id)
                monkeypatch.setattr(module.tune, "get_context", lambda context=context: context)
                error, end = None, "on_trial_complete"
                try:
                    self.trainable(one.config)
                except Stopped:
                    pass
                except OSError as failed:  # where Tune's own attempts fail, too
                    error, end = failed, "on_trial_error"
                self.call(end, trial)
                self.search.on_trial_complete(trial.trial_id)
                ended.append(SimpleNamespace(path=f"/somewhere/{trial.trial_id}", error=error))
            return ended

    monkeypatch.setattr(module, "Tuner", Tuner)
    monkeypatch.setattr(module.tune, "with_parameters", functools.partial)
    monkeypatch.setattr(module.tune, "with_resources", lambda trainable, resources: trainable)

    def run(search=SearchOptions(), *, space=SPACE, kill_after=None, kill_before_noted=None):
        run.told, run.kill_after, run.kill_before_noted = [], kill_after, kill_before_noted
        checked = check_sweep(config, space, search)
        pixels = pixels_of_each_backbone(checked, inputs_of_backbones(checked))
        with Ownership(store) as owner:
            return run_trials(checked, store, PREFIX, concurrent=1, trackers=[], pixels=pixels, owner=owner)

    run.folder = tmp_path
    return run


def epochs_of(path):
    return [epoch["number"] for epoch in load_base_classifier(str(path)).training_info["history"]]


def test_each_trial_goes_on_from_its_last_epoch_and_none_is_trained_twice(sweep):
    with pytest.raises(Killed):
        sweep(kill_after=2)  # in the middle of the first trial
    with pytest.raises(Killed):
        sweep(kill_before_noted=3)  # of the second trial an epoch is in the checkpoint, and nowhere else
    assert sweep.told == [("abcde_00000", 3), ("abcde_00001", 1), ("abcde_00001", 2)]
    trials = sweep()
    assert sweep.told == [("abcde_00001", 2), ("abcde_00001", 3)]
    assert trials["trial"].tolist() == ["abcde_00000", "abcde_00001"]
    assert trials["state"].tolist() == ["finished"] * 2 and trials["seconds"].tolist() == [3.0] * 2
    assert all(epochs_of(checkpoint) == [1, 2, 3] for checkpoint in trials["checkpoint"])
    again = sweep()
    assert sweep.told == [] and again.equals(trials)


def test_names_of_files_are_those_of_the_folder_that_the_command_was_given_in(sweep, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    np.savetxt("costs.csv", 1 - np.eye(10), delimiter=",")
    save_checkpoint("start.pt", load_base_classifier(ModelOptions("cifar_resnet8", input_size=8, num_classes=10)))
    trials = sweep(space={"costs": {"grid": ["costs.csv"]}, "model": {"grid": [{"name": "start.pt"}]}})
    assert trials["state"].tolist() == ["finished"], trials["error"][0]


def test_a_driver_that_dies_after_the_last_epoch_leaves_a_finished_trial(sweep):
    with pytest.raises(Killed):
        sweep(kill_after=3)
    record = json.loads(Path(sweep.folder, "abcde_00000/trial.json").read_text())
    assert not record["ended"]
    sweep(kill_after=None)
    assert {trial for trial, _ in sweep.told} == {"abcde_00001"}


def test_a_trial_whose_checkpoint_is_damaged_is_named_and_tried_again_by_the_same_command(sweep):
    space = {"training.lr": {"grid": [0.05]}}
    found = sweep(space=space)
    folder = Path(sweep.folder, found["trial"][0])
    whole = (folder / "checkpoint.pt").read_bytes()
    record = json.loads((folder / "trial.json").read_text())
    (folder / "trial.json").write_text(json.dumps({**record, "results": [], "ended": False}))  # as if it were killed
    (folder / "checkpoint.pt").write_bytes(whole[:1000])
    damaged = sweep(space=space)
    assert damaged["state"].tolist() == ["failed"] and "checkpoint.pt" in damaged["error"][0]
    (folder / "checkpoint.pt").write_bytes(whole)
    again = sweep(space=space)  # all epochs are there: they are told, not trained
    pd.testing.assert_frame_equal(again.drop(columns="seconds"), found.drop(columns="seconds"))
    assert json.loads((folder / "trial.json").read_text())["results"][0]["loss"] == record["results"][0]["loss"]


def test_asha_compares_with_what_was_reported_before_and_what_it_stopped_stays_stopped(sweep):
    search, space = SearchOptions(scheduler="asha", reduction=2), {"training.lr": {"grid": [0.1, 1e-6]}}
    with pytest.raises(Killed):
        sweep(search, space=space, kill_after=3)
    trials = sweep(search, space=space)
    assert sweep.told == [("abcde_00001", 1)]  # it learns nothing
    assert trials["state"].tolist() == ["finished", "stopped"]
    assert sweep(search, space=space).equals(trials) and sweep.told == []


def test_no_trial_begins_when_the_time_is_up(sweep):
    with pytest.raises(Killed):
        sweep(kill_after=4)
    Path(sweep.folder, "clock.json").write_text('{"seconds": 3600}')
    trials = sweep(SearchOptions(max_hours=1.0))
    assert sweep.told == [] and trials["state"].tolist() == ["finished", "stopped"]
    assert sweep(SearchOptions(max_hours=2.0))["state"].tolist() == ["finished"] * 2
