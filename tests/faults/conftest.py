"""Runs that are disturbed, and what must come out of them all the same."""

import contextlib
import os
import signal
import subprocess
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nodes import Nodes
from verbs.test_sample import comparable

from raycsr import load_votes
from raycsr.cli import main
from raycsr.results import Run, find_runs

IMAGES, ACTORS, BLOCK = 80, 2, 10  # a block is a quarter of an actor's fair share

CONFIG = f"""
data: {{source: digits, limit: {IMAGES}}}
model: {{name: cifar_resnet8, num_classes: 10, input_size: 8}}
sampling: {{sigma: 0.5, n0: 64, n: 3072, precision: fp32, batch_size: 64}}
pool: {{actors: {ACTORS}, elastic: true, gpus_per_actor: 1}}
costs: [uniform]
"""


@dataclass
class Sampling:
    """One `raycsr sample` on the cluster, as a process of its own."""

    nodes: Nodes
    config: Path
    results: str

    def start(self) -> "Sampling":
        """Starts the driver; the same call again is the same command typed again."""
        self.process = self.nodes.driver(*self.command)
        return self

    @property
    def command(self) -> list[str]:
        """What is typed."""
        return ["sample", "--config", str(self.config), "--results", self.results]

    def here(self) -> None:
        """The same command in this process: the votes are the same, and it needs no cluster."""
        alone = ["--pool.actors", "0", "--pool.elastic", "false", "--pool.gpus_per_actor", "0"]
        assert main([*self.command, *alone]) == 0

    @property
    def run(self) -> Run:
        """The one run."""
        (run,) = find_runs(self.results)
        return run

    def parts(self) -> list[str]:
        """Committed votes parts so far."""
        runs = find_runs(self.results)
        return runs[0].vote_parts() if runs else []

    def until(self, ready: Callable[[], object], limit: float = 600) -> "Sampling":
        """Waits for something to happen while the driver lives."""
        give_up = time.monotonic() + limit
        while not ready():
            assert self.process.poll() is None, self.process.stdout.read()
            assert time.monotonic() < give_up, "nothing happened"
            time.sleep(0.05)
        return self

    def kill(self, parts: int, moment: float) -> None:
        """Kills the driver when it has committed some parts, and a moment has gone by.

        Moments from a driver's start would all go by before its first part where the machine is busy.
        """
        enough = len(self.parts()) + parts
        self.until(lambda: len(self.parts()) >= enough)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(moment)
        assert self.process.poll() is None, "it was over before it was killed"
        os.killpg(self.process.pid, signal.SIGKILL)
        self.finish()

    def finish(self, limit: float = 900) -> tuple[int, str]:
        """Waits for the end; returns the exit status and what was printed."""
        try:
            out, _ = self.process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, 9)
            out, _ = self.process.communicate()
            pytest.fail(f"not finished after {limit} s:\n{out[-3000:]}")
        return self.process.returncode, out

    def rows(self) -> Counter:
        """How often each image was sampled and committed."""
        return Counter(self.run.committed()["image_id"].to_pylist())


@pytest.fixture
def sampling(nodes, tmp_path) -> Iterator[Sampling]:
    """A run into the test's own folder; `sampling.results` may be changed before its start."""
    config = tmp_path / "job.yaml"
    config.write_text(CONFIG)
    one = Sampling(nodes, config, str(tmp_path / "results"))
    yield one
    if one.process.poll() is None:
        os.killpg(one.process.pid, 9)
    while len(nodes.nodes) < 2:  # those that the test took away
        nodes.add()


@pytest.fixture(scope="session")
def undisturbed(nodes, tmp_path_factory) -> list[dict]:
    """The votes of the same run when nothing happens."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "job.yaml").write_text(CONFIG)
    sampling = Sampling(nodes, folder / "job.yaml", str(folder / "results")).start()
    status, out = sampling.finish()
    assert status == 0, out
    assert set(sampling.rows().values()) == {1}
    return comparable(load_votes(sampling.run.location))


@pytest.fixture
def assert_whole(undisturbed, capfd) -> Callable[[Sampling], None]:
    """Every image once, the votes of an undisturbed run, and no work done twice but a block an actor.

    The same command finds nothing left to do.
    """

    def check(sampling: Sampling) -> None:
        rows = sampling.rows()
        assert len(rows) == IMAGES
        assert rows.total() - IMAGES <= ACTORS * BLOCK
        assert comparable(load_votes(sampling.run.location)) == undisturbed
        (certificates,) = sampling.run.certificate_sets()
        assert sampling.run.missing(sampling.run.certificates(certificates)) == []
        assert sampling.run.finished()
        capfd.readouterr()
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always", UserWarning)
            sampling.here()
        assert "all sampled" in capfd.readouterr().out
        said = [str(one.message) for one in warned if one.category is UserWarning]
        assert len(said) == 1 and "random weights" in said[0]  # of the network, not of a part

    return check
