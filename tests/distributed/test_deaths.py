"""Blocks that kill their process: what is counted, what is tried alone, what is given up, and when all stops."""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch

from raycsr import UserError, load_certificates, load_votes
from raycsr.data.sources import Source, open_source
from raycsr.distributed.sampling import deaths as module
from raycsr.distributed.sampling import job as job_module
from raycsr.distributed.sampling import run
from raycsr.distributed.sampling.deaths import Deaths, SharedDeaths, survive
from raycsr.distributed.sampling.stream import stream
from raycsr.distributed.sampling.voter import Voter
from raycsr.verbs.sample import sample


class Died(BaseException):
    """What happens to a process."""


@dataclass
class Here(SharedDeaths):
    """A cluster in this process: blocks are begun again until they come back."""

    deadly: Sequence[str] = ()
    node: str = "a"
    deaths: Deaths = field(default_factory=Deaths)
    died: Counter = field(default_factory=Counter)
    done: Counter = field(default_factory=Counter)

    def begin(self, work: str, alone: bool = True) -> int:
        return self.deaths.begin(work, self.node, alone)

    def end(self, work: str, how: str) -> None:
        self.deaths.end(work, how, self.node)

    def give_up(self, image_id: str, how: str) -> None:
        if len(given_up := self.deaths.give_up(image_id, how, self.node)) >= 3:
            raise UserError(f"none of {given_up}")

    def call(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        for image_id in block["image_id"]:
            if image_id in self.deadly:
                self.died[image_id] += 1
                raise Died
        self.done.update(block["image_id"])
        return {"image_id": block["image_id"], "error": np.full(len(block["image_id"]), None, object)}

    def give(self, block: dict[str, np.ndarray], why: str) -> dict[str, np.ndarray]:
        return {**block, "error": np.array([why])}

    def stream(self, *ids: str) -> dict[str, Any]:
        """Image -> why it was given up, of a block that is begun until it comes back."""
        columns = {name: np.full(len(ids), "", object) for name in ("rules", "continues")}
        block = {"image_id": np.array(ids, object), **columns}
        while True:
            try:
                result = survive(self, "sampled", block, self.call, self.give)
            except Died:
                continue
            assert result["image_id"].tolist() == list(ids)
            return dict(zip(ids, result["error"].tolist(), strict=True))


@pytest.fixture
def alive(monkeypatch):
    """The nodes that are there."""
    nodes = {"a", "b"}
    monkeypatch.setattr(module, "nodes_alive", lambda: nodes)
    return nodes


def test_without_a_death_a_block_is_whole(alive):
    here = Here()
    assert here.stream("0", "1") == {"0": None, "1": None} and here.done == {"0": 1, "1": 1}


def test_after_three_deaths_each_image_is_alone_and_the_one_that_kills_is_given_up(alive):
    here = Here(deadly=["2"])
    assert here.stream(*"01234") == {**dict.fromkeys("0134"), "2": "its process died 3 times while it was sampled"}
    assert here.died == {"2": 6} and here.done.keys() == set("0134")


def test_several_of_a_block(alive):
    here = Here(deadly="36")
    assert [one for one, why in here.stream(*"01234567").items() if why] == ["3", "6"]
    assert here.died == {"3": 6, "6": 3}


def test_a_block_of_one_image_is_alone_from_the_start(alive):
    here = Here(deadly=["0"])
    assert here.stream("0")["0"] and here.died == {"0": 3}
    assert here.stream("1") == {"1": None}


def test_a_process_whose_node_went_away_is_no_death(alive):
    here, left = Here(), iter(range(20))

    def call(block):
        if next(left, None) is None:
            return {"image_id": block["image_id"], "error": np.array([None])}
        alive.discard(here.node)  # and another comes in its place
        here.node += "'"
        alive.add(here.node)
        raise Died

    here.call = call
    assert here.stream("0") == {"0": None}


def test_a_node_on_which_every_image_kills_its_process_stops_all(alive):
    here = Here(deadly="0123456789")
    with pytest.raises(UserError, match=r"none of \['0', '1', '2'\]"):
        here.stream(*"0123456789")
    assert here.died.total() == 3 + 3 * 3


def test_a_node_on_which_something_was_done_may_give_up_many(alive):
    here = Here(deadly="123456")
    here.stream("0")
    assert sum(why is not None for why in here.stream(*"123456").values()) == 6


@pytest.fixture
def sent(cluster):
    """Workers get the classes of this module with their code: they cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_what_dies_all_the_same_ends_by_name(alive, monkeypatch):
    def give(*_):
        here.died["given up"] += 1
        raise Died

    monkeypatch.setattr(module, "_node", lambda: "a")
    here = Here(deadly=["0"])
    here.give = give
    with pytest.raises(UserError, match=r"image '0' was given up and its process died 3 times.*memory of node a"):
        here.stream("0")
    assert here.died == {"0": 3, "given up": 3}


def test_what_counts_loads_no_torch():
    code = "import sys, raycsr.distributed.sampling.deaths; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


class DeadlySource(Source):
    """A decoder that one file kills, whatever else it reads with it."""

    def read_in_turns(self, image_ids: Sequence[str]) -> Iterator[list]:
        if "dog/0.png" in image_ids:
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().read_in_turns(image_ids)


def given_up(block: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([isinstance(error, str) for error in block["error"]])


class DeadlyVoter(Voter):
    """A network that one image kills."""

    def _count(self, block, missing, continues):
        if "cat/0.png" in block["image_id"][~given_up(block)]:  # the first, whose block is its own
            os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does where memory ends
        return super()._count(block, missing, continues)


@pytest.mark.ray
@pytest.mark.long
def test_images_that_kill_their_process_are_errored_rows_and_all_others_are_sampled(
    job, photographs, sent, monkeypatch
):
    options = job(actors=1, **photographs, costs=["uniform"])
    with monkeypatch.context() as patched:
        patched.setattr(job_module, "open_source", lambda data: DeadlySource(**vars(open_source(data))))
        patched.setattr(run, "stream", lambda works: stream(works, DeadlyVoter))
        (outcome,) = sample(**options)
    assert outcome.errors.keys() == {"cat/0.png", "dog/0.png", "dog/1.png"}
    assert outcome.errors["dog/0.png"] == "ChildProcessError: its process died 3 times while it was decoded"
    assert outcome.errors["cat/0.png"] == "its process died 3 times while it was sampled"
    votes = load_votes(outcome.run.location)
    assert len(votes) == 6 and votes["error"].isna().sum() == 3 and outcome.run.finished()
    assert len(load_certificates(outcome.run.location, costs="uniform")) == 6
    (again,) = sample(**options, retry_errors=True)
    assert again.sampled == 3 and again.errors.keys() == {"dog/1.png"}  # which is no image


class DeadVoter(Voter):
    """A network that every image kills."""

    def _count(self, block, missing, continues):
        if not given_up(block).all():
            with Path(self._run.location, "deaths").open("a") as file:
                file.write("x")
            os.kill(os.getpid(), signal.SIGSEGV)
        return super()._count(block, missing, continues)


@pytest.mark.ray
@pytest.mark.long
def test_a_network_that_every_image_kills_ends_by_name_after_few_deaths(job, sent, monkeypatch):
    monkeypatch.setattr(run, "stream", lambda works: stream(works, DeadVoter))
    options = job(limit=40, actors=1)
    with pytest.raises(UserError, match=r"has sampled no image: its process died 3 times for each of 3, test#"):
        sample(**options)
    (deaths,) = Path(options["results"]).glob("default/runs/*/deaths")
    assert len(deaths.read_text()) < 60  # 24; three for each would be 120


class LostVoter(Voter):
    """A network whose GPU is lost to the first process that samples."""

    def _count(self, block, missing, continues):
        try:
            Path(self._run.location, "lost").touch(exist_ok=False)
        except FileExistsError:
            return super()._count(block, missing, continues)
        torch.cuda.is_initialized, torch.cuda.synchronize = lambda: True, self._synchronize
        return self._synchronize()

    def _synchronize(self):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.ray
def test_what_a_lost_gpu_takes_with_it_is_sampled_again_by_another_process(job, sent, monkeypatch):
    monkeypatch.setattr(run, "stream", lambda works: stream(works, LostVoter))
    (outcome,) = sample(**job(limit=4, actors=1))
    assert outcome.errors == {} and outcome.run.finished() and outcome.run.store.exists("lost")


class DeadAtTheStart(Voter):
    """A network that cannot even be loaded."""

    def _open_sampler(self, *arguments):
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.ray
def test_a_network_that_kills_its_process_when_it_is_loaded_ends_by_name(job, sent, monkeypatch):
    monkeypatch.setattr(run, "stream", lambda works: stream(works, DeadAtTheStart))
    with pytest.raises(
        UserError, match="the process that loads the model died 3 times; check the model, and the memory of node"
    ):
        sample(**job(limit=4, actors=1))
