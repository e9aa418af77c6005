import json
import multiprocessing
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from raycsr import UserError
from raycsr.results import Ownership, owners
from raycsr.store import Store


def owner_file(store, number):
    return json.loads(store.read(f"owners/{number:04d}.json"))


def test_a_run_that_is_released_passes_on(store):
    with Ownership(store) as first:
        assert first.number == 1 and not owner_file(store, 1)["released"]
    assert owner_file(store, 1)["released"]
    with Ownership(store) as second:
        assert second.number == 2


@pytest.mark.parametrize("moment", ["create", "write"])  # the claim and the release
def test_ctrl_c_never_leaves_a_run_claimed(store, monkeypatch, moment):
    def interrupted(*words):
        os.kill(os.getpid(), signal.SIGINT)
        return at_that_moment(*words)

    at_that_moment = getattr(Store, moment)
    monkeypatch.setattr(Store, moment, interrupted)
    with pytest.raises(KeyboardInterrupt), Ownership(store):
        pass
    assert owner_file(store, 1)["released"]


def test_a_living_owner_is_named(store):
    with (
        Ownership(store),
        pytest.raises(UserError, match=rf"is held by process {os.getpid()} on .*wait for it"),
    ):
        Ownership(store)


def test_a_release_that_a_full_disk_did_not_take_holds_nothing_in_this_process(store, monkeypatch):
    with monkeypatch.context() as full:
        full.setattr(Store, "write", _refused)
        with Ownership(store):
            pass
    assert not owner_file(store, 1)["released"]
    assert Ownership(store).number == 2
    with pytest.raises(UserError, match=rf"is held by process {os.getpid()}"):
        Ownership(store)


def _refused(*_):
    raise UserError("no space left on the device")


def test_what_is_held_has_a_name(store):
    with Ownership(store, "sweep lr"), pytest.raises(UserError, match="^sweep lr is held by process"):
        Ownership(store, "sweep lr")


def test_of_many_drivers_one_gets_the_run(store):
    def claim(_):
        try:
            return Ownership(store).number
        except UserError:
            return None

    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(claim, range(8)))
    assert [number for number in claims if number] == [1]


def _claim_and_die(location):
    Ownership(Store(location))
    os.kill(os.getpid(), 9)


def test_a_killed_owner_on_this_host_is_replaced_at_once(store):
    driver = multiprocessing.get_context("spawn").Process(target=_claim_and_die, args=(store.location,))
    driver.start()
    driver.join()
    assert not owner_file(store, 1)["released"]
    assert Ownership(store).number == 2


@pytest.fixture
def elsewhere(store, monkeypatch):
    """An owner on another machine, who is watched for a few looks."""
    monkeypatch.setattr(owners, "_boot", lambda: "another machine")
    owner = Ownership(store)
    monkeypatch.undo()
    monkeypatch.setattr(owners, "_LOOK_SECONDS", 0.1)
    monkeypatch.setattr(owners, "DEAD_AFTER_SECONDS", 0.5)
    return owner


def at_the_second_look(monkeypatch, act):
    looks = []

    def sleep(seconds):
        looks.append(seconds)
        if len(looks) == 2:
            act()

    monkeypatch.setattr(owners.time, "sleep", sleep)


def test_an_owner_elsewhere_is_dead_after_a_minute_without_heartbeat(store, elsewhere, capsys):
    start = time.monotonic()
    assert Ownership(store).number == 2
    assert 0.5 < time.monotonic() - start < 30
    assert capsys.readouterr().out.count("watching it for 0.5 s at most") == 1


@pytest.mark.parametrize("skew", [-600.0, 600.0])
def test_an_owner_elsewhere_lives_whose_heart_beats_while_one_looks_whatever_the_clocks(
    store, elsewhere, monkeypatch, skew
):
    monkeypatch.setattr(owners, "HEARTBEAT_SECONDS", 0.2)
    monkeypatch.setattr(owners, "DEAD_AFTER_SECONDS", 20)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + skew)
    with elsewhere, pytest.raises(UserError, match=r"is held by process \d+ on .*; wait for it, or stop it first"):
        Ownership(store)
    assert store.names("owners") == ["0001.json"]


def test_a_single_heartbeat_is_seen(store, elsewhere, monkeypatch):
    state = {**owner_file(store, 1), "beats": 1}
    at_the_second_look(monkeypatch, lambda: store.write("owners/0001.json", json.dumps(state).encode()))
    with pytest.raises(UserError, match="is held by"):
        Ownership(store)


def test_an_owner_that_releases_while_one_watches_is_followed_at_once(store, elsewhere, monkeypatch):
    monkeypatch.setattr(owners, "DEAD_AFTER_SECONDS", 3600)
    at_the_second_look(monkeypatch, elsewhere._release)
    assert Ownership(store).number == 2


def test_an_owner_that_was_replaced_stops_and_releases_nothing(store, monkeypatch):
    monkeypatch.setattr(owners, "HEARTBEAT_SECONDS", 0.01)
    with Ownership(store) as owner:
        store.create("owners/0002.json", store.read("owners/0001.json"))
        owner._thread.join(timeout=30)
        with pytest.raises(UserError, match="taken over by owner 2; this driver stops"):
            owner.check()
    assert not owner_file(store, 1)["released"]
