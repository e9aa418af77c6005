import json
import os

import pytest

from raycsr.results import Ownership, Run, owners
from raycsr.results.state import RunState, run_state
from raycsr.store import Store


@pytest.fixture
def run(store):
    return Run(store)


def leave_owner(run, monkeypatch, *, boot=None, **facts):
    """An owner that stopped beating without releasing the run."""
    if boot:
        monkeypatch.setattr(owners, "_boot", lambda: boot)
    number = Ownership(run.store).number
    monkeypatch.undo()
    name = f"owners/{number:04d}.json"
    run.store.write(name, json.dumps(json.loads(run.store.read(name)) | facts).encode())


def test_a_run_is_running_while_a_driver_holds_it_then_stopped_or_finished(run):
    assert run_state(run, finished=False) == RunState("stopped")
    with Ownership(run.store):
        for finished in (False, True):  # a finished run may be sampled again, for its errored images
            state = run_state(run, finished)
            assert state.word == "running" and state.owner.startswith(f"process {os.getpid()} on ")
            assert str(state) == f"running since {state.since} by {state.owner}"
    assert str(run_state(run, finished=False)) == "stopped"
    assert str(run_state(run, finished=True)) == "finished"


def test_a_driver_on_this_host_that_is_gone_died(run, monkeypatch):
    leave_owner(run, monkeypatch, started="another process of that number")
    state = run_state(run, finished=False)
    assert state.word == "died" and str(state) == f"died: {state.owner}"
    assert str(run_state(run, finished=True)) == "finished"  # it died after its last word


@pytest.mark.parametrize(("store", "silent"), [("s3", 60.0), ("local", 660.0)], indirect=["store"])
def test_a_driver_elsewhere_died_where_it_is_silent_for_a_minute_and_what_clocks_may_differ(run, monkeypatch, silent):
    """S3 tells the age by its own clock, a shared folder by those of two machines."""
    leave_owner(run, monkeypatch, boot="another machine")
    for age, word in ((-300.0, "running"), (silent - 1, "running"), (silent + 1, "died")):
        monkeypatch.setattr(Store, "age", lambda *_, age=age: age)
        assert run_state(run, finished=False).word == word


def test_an_owner_that_does_not_say_since_when(run, monkeypatch):
    leave_owner(run, monkeypatch, since="", pid=os.getpid())
    assert str(run_state(run, finished=False)).startswith(f"running by process {os.getpid()} on ")


def test_the_last_owner_counts(run, monkeypatch):
    leave_owner(run, monkeypatch, started="another process of that number")
    with Ownership(run.store):
        pass
    assert run_state(run, finished=False).word == "stopped"
