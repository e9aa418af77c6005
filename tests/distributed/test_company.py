"""Blocks in company in a process: who may be inside, and whose fault a death is."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from raycsr.distributed.sampling import deaths as module
from raycsr.distributed.sampling.company import Company
from raycsr.distributed.sampling.deaths import Deaths, survive

PATIENCE = 60


def test_those_of_one_key_are_inside_together_and_another_waits_for_all_to_leave():
    company, leave, left = Company(), threading.Event(), []

    def work(key):
        with company.of(key):
            entered.release()
            leave.wait(PATIENCE)
            left.append(key)

    entered = threading.Semaphore(0)
    with ThreadPoolExecutor(3) as pool:
        first = [pool.submit(work, ("run", 512)) for _ in range(2)]
        assert all(entered.acquire(timeout=PATIENCE) for _ in range(2))
        other = pool.submit(work, ("run", 256))
        assert not entered.acquire(timeout=0.05)
        leave.set()
        for one in [*first, other]:
            one.result(PATIENCE)
    assert left == [("run", 512), ("run", 512), ("run", 256)]


def test_what_keeps_no_company_is_alone_and_those_behind_it_wait_for_it():
    company, order, there = Company(), [], threading.Event()

    def work(key, name):
        with company.of(key):
            order.append(name)

    with ThreadPoolExecutor(3) as pool:
        with company.of("a"):
            futures = []
            for i, (key, name) in enumerate([(None, "alone"), ("a", "late"), ("a", "later")]):
                futures.append(pool.submit(work, key, name))
                while len(company._coming) <= i:
                    there.wait(0.001)
            assert not order
        for one in futures:
            one.result(PATIENCE)
    assert order[0] == "alone" and sorted(order[1:]) == ["late", "later"]


class Died(BaseException):
    """What happens to a process."""


class Here:
    """A process with two threads, which dies whole and is begun again with the blocks that had not come back."""

    def __init__(self, deadly):
        self.counted, self.deadly, self.done = Deaths(), deadly, Counter()
        self.lock = threading.Lock()

    def of(self, work):
        with self.lock:
            return self.counted.of(work)

    def begin(self, work, alone=True):
        with self.lock:
            if self.dead.is_set():
                raise Died
            return self.counted.begin(work, "a", alone)

    def end(self, work, kind):
        with self.lock:
            self.counted.end(work, kind, "a")

    def give_up(self, image_id, kind):
        pass

    def process(self, blocks):
        """A process from its start to its end: what came back of the blocks."""
        company, self.dead = Company(), threading.Event()

        def call(block):
            deadly = set(block["image_id"]) & set(self.deadly)
            if deadly and not self.dead.wait(0.02):
                self.dead.set()
            if self.dead.wait(0.05):  # an innocent one takes longer than the other to die
                raise Died
            with self.lock:
                self.done.update(block["image_id"].tolist())
            return {"image_id": block["image_id"], "error": np.full(len(block["image_id"]), None, object)}

        def give_up(block, why):
            return {"image_id": block["image_id"], "error": np.array([why], object)}

        def work(block):
            return survive(self, "sampled", block, call, give_up, company)

        with ThreadPoolExecutor(2) as pool:
            futures = {name: pool.submit(work, block) for name, block in blocks.items()}
            return {name: one.result() for name, one in futures.items() if not isinstance(one.exception(), Died)}

    def run(self, *names):
        blocks, found = {name: block_of(name) for name in names}, {}
        for _ in range(60):
            left = {name: block for name, block in blocks.items() if name not in found}
            if not left:
                break
            found |= self.process(dict(list(left.items())[:2]))  # as many as an actor is given
        assert found.keys() == blocks.keys()
        return {i: why for one in found.values() for i, why in zip(one["image_id"], one["error"], strict=True) if why}


def block_of(ids):
    columns = {"run": 0, "rules": "argmax", "continues": "", "batch_size": 0}
    columns = {name: np.full(len(ids), value) for name, value in columns.items()}
    return {"image_id": np.array(list(ids), object), **columns}


@pytest.fixture(autouse=True)
def alive(monkeypatch):
    monkeypatch.setattr(module, "nodes_alive", lambda: {"a"})
    monkeypatch.setattr(module, "_node", lambda: "a")


def test_a_death_in_company_is_held_against_none_and_no_innocent_image_is_given_up():
    here = Here(deadly="2")
    assert here.run("0123", "45", "67", "8") == {"2": "its process died 3 times while it was sampled"}
    assert here.done.keys() == set("01345678")
    assert here.done["4"] == here.done["6"] == here.done["8"] == 1  # whole blocks, never split


def test_two_that_kill_beside_each_other_are_both_found():
    assert Here("26").run("0123", "4567", "89").keys() == {"2", "6"}


def test_images_alone_in_their_blocks():
    assert Here("1").run("0", "1", "2", "3").keys() == {"1"}
