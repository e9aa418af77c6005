"""Blocks that an actor samples at once: runs are those of blocks that are sampled one after the other."""

import os
import signal
import sys
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
import ray
import torch

from raycsr import load_certificates, load_votes
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import Probe
from raycsr.distributed.sampling import run as run_module
from raycsr.distributed.sampling import stream as stream_module
from raycsr.distributed.sampling.decoding import SurvivingDecode
from raycsr.distributed.sampling.stream import Work, stream
from raycsr.distributed.sampling.voter import Voter, Voters
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

AT_ONCE = 4
SAMPLED = ["image_id", "rule", "label", "selection", "estimation", "n0", "n", "decided", "batch_size", "error"]


def in_threads(blocks, decodes, make):
    """As `in_this_process`, by so many threads as an actor has."""
    decode, work = SurvivingDecode(decodes), make(at_once=AT_ONCE)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        columns = ({name: block[name].to_numpy() for name in block.column_names} for block in blocks)
        yield from pool.map(lambda block: pd.DataFrame(work(decode(block))), columns)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier that is right about many digits, and sure of few, so that there is something to decide."""
    trained = train(
        data=DataOptions("digits", split="train", limit=600),
        model=ModelOptions("cifar_resnet8", input_size=8),
        sigma=0.25,
        results=str(tmp_path_factory.mktemp("trained")),
        training=TrainingOptions(epochs=3, batch_size=64, lr=0.05),
        validation=ValidationOptions(every=3, images=10, sensitive=1, n0=8, n=64),
        threads=1,
    )
    return ModelOptions(trained.checkpoint)


@pytest.fixture
def both(job, model, monkeypatch):
    """`both(experiment, ...)` samples in company and then block after block: what is stored of each."""

    def stored(outcomes):
        found = []
        for one in outcomes:
            votes = load_votes(one.run.location).sort_values(["image_id", "rule"], ignore_index=True)
            certificates = load_certificates(one.run.location, costs="uniform").drop(columns=["run"], errors="ignore")
            by = [name for name in ("image_id", "rule") if name in certificates]
            found.append((votes[SAMPLED], certificates.sort_values(by, ignore_index=True)))
        return found

    def make(**options):
        with monkeypatch.context() as patched:
            patched.setattr(stream_module, "in_this_process", in_threads)
            together = sample(**job(experiment="together", model=model, costs=["uniform"], **options))
        alone = sample(**job(experiment="alone", model=model, costs=["uniform"], **options))
        for (votes, certificates), (votes_alone, certificates_alone) in zip(
            stored(together), stored(alone), strict=True
        ):
            pd.testing.assert_frame_equal(votes, votes_alone)
            pd.testing.assert_frame_equal(certificates, certificates_alone)
        return together

    return make


def sampling(**more):
    options = {"sigma": 0.25, "n0": 64, "n": 640, "radii": [0.1], "precision": "fp32", "batch_size": 256}
    return SamplingOptions(**{**options, **more})


def test_a_sequential_run_its_top_up_and_a_rule_that_comes_later(both):
    (first,) = both(limit=40, sampling=sampling())
    assert first.sampled == 40
    more = sampling(radii=[0.1, 0.3], n=1280)
    (second,) = both(limit=60, sampling=more, rules=["argmax", "offset:3=0.5"])
    assert second.run.location == first.run.location and second.sampled == 60
    votes = load_votes(second.run.location)
    assert len(votes) == 120 and votes["n"].nunique() > 3


def test_runs_of_several_noise_levels_and_a_fixed_n(both):
    outcomes = both(limit=30, sampling=sampling(radii=None, n=100, sigma=[0.25, 0.5, 1.0]))
    assert [one.sampled for one in outcomes] == [30, 30, 30]


def test_memory_that_runs_out_in_company(both, monkeypatch):
    """All blocks begin again in smaller passes, and what comes after them is no larger."""

    def small(*arguments, **options):
        network = prepare_for_inference(*arguments, **options)
        whole = network.forward

        def forward(pixels):
            if len(pixels) > 64:
                raise torch.OutOfMemoryError
            return whole(pixels)

        network.forward = forward
        return network

    monkeypatch.setattr("raycsr.distributed.sampling.voter.prepare_for_inference", small)
    with pytest.warns(UserWarning, match="halved from 256 to 64"):
        (outcome,) = both(limit=40, sampling=sampling())
    assert set(load_votes(outcome.run.location)["batch_size"]) == {64}


def hand(*, images=50_000, actors=1, side=224, batch_size=1024, rate=8_000.0, **options):
    """Blocks that an actor has at once, and images of each."""
    options = {"n0": 64, "n": 10_048, "radii": [0.5], **options}
    asked = SimpleNamespace(sampling=SamplingOptions(**options), pool=PoolOptions(actors=actors))
    statements = None if options["radii"] is None else "some"
    network = SimpleNamespace(preprocessing=SimpleNamespace(input_size=(side, side)))
    job = SimpleNamespace(asked=asked, statements=statements, base_classifier=network)
    found = Probe("bf16", "none", batch_size, rate)
    return stream_module._hand_of(Work(job, None, found, None, range(images)))


@pytest.mark.parametrize(
    ("facts", "at_once", "images"),
    [
        ({}, 4, 234),  # a minute of the device: 8,000 * 60 samples, of 64 + 448 an image
        ({"rate": 27_000.0, "batch_size": 4096}, 4, 445),  # 64 MiB of pixels in each
        ({"rate": 600_000.0, "side": 32}, 4, 512),
        ({"n": 100_032}, 4, 89),  # 64 + 1,280 an image
        ({"radii": None}, 2, 23),  # 64 + 10,048
        ({"radii": None, "rate": 27_000.0, "n": 100_000}, 2, 8),
        ({"batch_size": 64, "rate": 40.0}, 1, 4),  # a CPU, whose passes one image fills
        ({"batch_size": 8, "rate": 40.0, "radii": None}, 1, 1),
        ({"images": 1000, "actors": 8}, 4, 8),  # of four hands for each actor
        ({"images": 20, "actors": 8}, 1, 1),
        ({"images": 1000, "actors": 0}, 1, 250),  # this process has one thread
        ({"n": 64, "n0": 64, "rate": 1e6, "side": 32}, 4, 512),
    ],
)
def test_an_actor_has_a_minutes_work_at_once_in_blocks_of_a_bounded_size(facts, at_once, images):
    assert hand(**facts) == (at_once, images)


@pytest.fixture
def sent(cluster):
    """Workers get the classes of this module with their code: they cannot import it."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


class Told(Voter):
    """Tells how many blocks it counts at once, and dies of the second, once."""

    inside = 0

    def _count(self, block, missing, continues):
        lock = self._feeder._changed  # of any kind: this class is sent by value
        with lock:
            self.inside += 1
            with Path(self._run.location, "inside").open("a") as file:
                file.write(f"{self.inside}\n")
        time.sleep(0.3)
        died = Path(self._run.location, "died")
        if self.inside > 1 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        done = super()._count(block, missing, continues)
        with lock:
            self.inside -= 1
        return done


@pytest.mark.ray
def test_an_actor_that_dies_with_blocks_in_company_counts_each_image_once(job, model, sent, monkeypatch):
    options = job(limit=60, actors=1, model=model, sampling=sampling(), costs=["uniform"])
    with monkeypatch.context() as patched:
        patched.setattr(run_module, "stream", lambda works: stream(works, Told))
        (outcome,) = sample(**options)
    assert outcome.sampled == 60 and not outcome.errors and outcome.run.finished()
    folder = Path(outcome.run.location)
    assert (folder / "died").exists() and 2 <= max(map(int, (folder / "inside").read_text().split())) <= AT_ONCE
    (here,) = sample(**{**options, "pool": replace(options["pool"], actors=0), "experiment": "here"})
    one, other = (
        load_votes(run.run.location)[SAMPLED].sort_values("image_id", ignore_index=True) for run in (outcome, here)
    )
    pd.testing.assert_frame_equal(one, other)


def test_a_process_that_goes_on_to_another_network_has_let_go_of_the_last():
    """A device may hold one, and a compiled network holds itself."""
    networks = []

    class Compiled:
        def __init__(self):
            self.itself = self

    class OfOneRun:
        def __init__(self, spec, deaths, network):
            alive = [one() for one in networks if one() is not None]
            assert alive == ([] if network is None else [network])
            self.spec, self.network = spec, network or Compiled()
            networks.append(weakref.ref(self.network))

        def __call__(self, block):
            return block

    voters = Voters([SimpleNamespace(network=one) for one in (0, 1, 1)], voter=OfOneRun)
    for run in range(3):
        voters({"image_id": ["a"], "run": [run]})
    assert networks[1]() is networks[2]()
