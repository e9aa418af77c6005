import json
import multiprocessing
import os
import signal
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
        pytest.raises(UserError, match=rf"is being sampled by process {os.getpid()} on .*wait for it"),
    ):
        Ownership(store)


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
    """An owner on another machine; `ages` are what its heartbeat's age is, one look after the other."""
    with monkeypatch.context() as other:
        other.setattr(owners, "_boot", lambda: "another machine")
        Ownership(store)
    monkeypatch.setattr(owners, "_LOOK_SECONDS", 0.0)

    def ages(*seconds):
        looks = iter(seconds)
        monkeypatch.setattr(Store, "age", lambda *_: next(looks))

    return ages


def test_an_owner_elsewhere_is_dead_after_a_minute_without_heartbeat(store, elsewhere, capsys):
    elsewhere(58.0, 60.0, 62.0)
    assert Ownership(store).number == 2
    assert capsys.readouterr().out.count("waiting for process") == 1


def test_an_owner_elsewhere_lives_whose_heart_beats_while_one_looks(store, elsewhere):
    elsewhere(13.0, 15.0, 1.0)
    with pytest.raises(UserError, match="being sampled by process .*, last heard of 1 s ago"):
        Ownership(store)


def test_an_owner_that_releases_while_one_waits_is_followed_at_once(store, elsewhere, monkeypatch):
    def age(self, name):
        store.write(name, json.dumps({**owner_file(store, 1), "released": True}).encode())
        return 5.0

    monkeypatch.setattr(Store, "age", age)
    assert Ownership(store).number == 2


def test_an_owner_that_was_replaced_stops_and_releases_nothing(store, monkeypatch):
    monkeypatch.setattr(owners, "HEARTBEAT_SECONDS", 0.01)
    with Ownership(store) as owner:
        store.create("owners/0002.json", store.read("owners/0001.json"))
        owner._thread.join(timeout=30)
        with pytest.raises(UserError, match="taken over by owner 2; this driver stops"):
            owner.check()
    assert not owner_file(store, 1)["released"]
