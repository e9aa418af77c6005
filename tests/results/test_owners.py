import json
import multiprocessing
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from raycsr import UserError
from raycsr.results import Ownership, Store, owners


def owner_file(store, number):
    return json.loads(store.read(f"owners/{number:04d}.json"))


def test_a_run_that_is_released_passes_on(store):
    with Ownership(store) as first:
        assert first.number == 1 and not owner_file(store, 1)["released"]
    assert owner_file(store, 1)["released"]
    with Ownership(store) as second:
        assert second.number == 2


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


@pytest.mark.parametrize(("age", "alive"), [(30.0, True), (61.0, False)])
def test_an_owner_elsewhere_is_dead_after_a_minute_without_heartbeat(store, monkeypatch, age, alive):
    monkeypatch.setattr(owners, "_boot", lambda: "another machine")
    Ownership(store)
    monkeypatch.undo()
    monkeypatch.setattr(Store, "age", lambda *_: age)
    if alive:
        with pytest.raises(UserError, match="last heard of 30 s ago"):
            Ownership(store)
    else:
        assert Ownership(store).number == 2


def test_an_owner_that_was_replaced_stops_and_releases_nothing(store, monkeypatch):
    monkeypatch.setattr(owners, "HEARTBEAT_SECONDS", 0.01)
    with Ownership(store) as owner:
        store.create("owners/0002.json", store.read("owners/0001.json"))
        owner._thread.join(timeout=30)
        with pytest.raises(UserError, match="taken over by owner 2; this driver stops"):
            owner.check()
    assert not owner_file(store, 1)["released"]
