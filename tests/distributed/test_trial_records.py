"""What a sweep goes on from: JSON of ours, and the same trials in the same order. No Ray cluster."""

import json
import math
import random

import pytest
from fuzz.fuzzing import mutated
from ray.tune.experiment import Experiment

from raycsr.certification import METRICS
from raycsr.distributed.search.space import param_space
from raycsr.distributed.search.trial_records import (
    TrialRecord,
    TrialsLeft,
    read_record,
    read_records,
    report_of,
    seconds_spent,
    write_record,
)
from raycsr.errors import UserError
from raycsr.store import Store

SPACE = {"training.lr": {"grid": [0.1, 0.2]}, "sigma": {"uniform": [0.25, 1.0]}, "seed": {"choice": [1, 2, 3]}}


def reported(epoch, rob_cs=0.5):
    metrics = dict.fromkeys(METRICS, None) | {"rob_cs": rob_cs, "accuracy": 0.75, "collapsed": "4 as 9"}
    entry = {"number": epoch, "loss": 1.5, "lr": 0.1, "images_per_second": 9.0, "precision": "fp32", "metrics": metrics}
    return {**report_of(entry), "time_this_iter_s": 2.5, "trial_id": "abcde_00000"}


def record_of(*epochs):
    record = TrialRecord("abcde_00000", {"training.lr": 0.1, "objective": {"name": "gaussian"}})
    for epoch in epochs:
        record.add(reported(epoch))
    return record


def test_a_record_is_read_as_it_was_written(store):
    record = record_of(1, 2)
    write_record(store, record)
    again = read_record(store, record.trial)
    assert again.point == record.point and [one["epoch"] for one in again.results] == [1, 2]
    assert again.results[1]["seconds"] == 5.0 and again.results[1]["collapsed"] == "4 as 9"
    assert again.results[1]["rob_cs"] == 0.5 and math.isnan(again.results[1]["acr"])
    assert not again.ended and again.error is None
    assert read_records(store, "abcde") == {record.trial: again} or math.isnan(again.results[0]["acr"])
    assert read_record(store, "abcde_00001") is None and read_records(store, "12345") == {}


def test_a_record_of_before_a_metric_was_there_has_none_of_it(store):
    result = reported(1)
    del result["acr"]
    record = TrialRecord("abcde_00000", {"training.lr": 0.1})
    record.add(result)
    assert math.isnan(record.results[0]["acr"])
    write_record(store, record)
    stored = json.loads(store.read("abcde_00000/trial.json"))
    del stored["results"][0]["rob_cost"]
    store.write("abcde_00000/trial.json", json.dumps(stored).encode())
    (again,) = read_record(store, "abcde_00000").results
    assert math.isnan(again["rob_cost"]) and again["rob_cs"] == 0.5


def test_an_epoch_counts_once_and_a_trial_that_goes_on_has_no_error_any_more():
    record = record_of(1, 2, 2, 1)
    assert record.epochs == {1, 2} and record.results[-1]["seconds"] == 5.0
    record.add({"error": "the loss is nan"})
    assert record.error == "the loss is nan" and record.epochs == {1, 2}
    record.add(reported(3))
    assert record.error is None and record.epochs == {1, 2, 3}


def test_a_damaged_record_is_one_line_that_names_the_file_and_what_to_do(tmp_path):
    store, record = Store(tmp_path), record_of(1, 2)
    write_record(store, record)
    whole, rng, refused = store.read("abcde_00000/trial.json"), random.Random(0), 0
    for _ in range(1000):
        store.write("abcde_00000/trial.json", mutated(whole, rng))
        try:
            read_record(store, "abcde_00000")
        except UserError as error:
            refused += 1
            assert "abcde_00000/trial.json is damaged" in str(error) and "delete it" in str(error)
            assert "\n" not in str(error)
    assert refused > 500


def test_a_damaged_clock_is_one_line(store):
    assert seconds_spent(store) == 0
    store.write("clock.json", b'{"seconds": 12.5}')
    assert seconds_spent(store) == 12.5
    for damaged in (b"", b"[]", b"{}", b'{"seconds": null}', b"\xff"):
        store.write("clock.json", damaged)
        with pytest.raises(UserError, match="clock.json is damaged; delete it"):
            seconds_spent(store)


def trials_of(records, tmp_path, number=None, prefix="abcde"):
    """The trials that a sweep of three draws of each point of the grid starts, all at once."""
    search = TrialsLeft(prefix, records, max_concurrent=0, seed=7)
    spec = Experiment("sweep", lambda config: None, config=param_space(SPACE), num_samples=3, storage_path=tmp_path)
    search.add_configurations([spec])
    found = []
    while (trial := search.next_trial()) is not None and len(found) != number:
        found.append((trial.trial_id, trial.config))
    return found


@pytest.mark.filterwarnings("ignore")
def test_trials_are_the_same_whenever_one_asks_and_those_that_ended_are_left_out(tmp_path):
    first = trials_of({}, tmp_path)
    assert [trial for trial, _ in first] == [f"abcde_{i:05d}" for i in range(6)]
    assert len({point["sigma"] for _, point in first}) > 1
    records = {trial: TrialRecord(trial, json.loads(json.dumps(point))) for trial, point in first}
    records["abcde_00000"].ended = records["abcde_00002"].ended = True
    assert trials_of(records, tmp_path) == [first[i] for i in (1, 3, 4, 5)]


@pytest.mark.filterwarnings("ignore")
def test_a_trial_that_was_at_another_point_is_refused(tmp_path):
    (trial, point), *_ = trials_of({}, tmp_path)
    with pytest.raises(UserError, match=f"{trial} of this sweep was at .*give another --name"):
        trials_of({trial: TrialRecord(trial, {**point, "sigma": 0.3})}, tmp_path)
