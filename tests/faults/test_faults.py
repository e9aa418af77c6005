"""What clusters do to a run, and that it loses nothing by it."""

import itertools
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from raycsr.store import Store

WORKER = "MapWorker(MapBatches(HeedingVoters))"

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]  # a minute each, but for what else the machine has to do


def seconds_between_parts(sampling):
    """The longest pause between two commits of a local run."""
    written = sorted(path.stat().st_mtime for path in Path(sampling.run.location, "votes").glob("*.parquet"))
    return max(b - a for a, b in itertools.pairwise(written))


def test_an_actor_is_killed(sampling, nodes, assert_whole):
    sampling.start().until(lambda: len(sampling.parts()) >= 2)
    actors = [pid for node in nodes.nodes for pid in node.pids(WORKER)]
    os.kill(actors[0], signal.SIGKILL)
    status, out = sampling.finish()
    assert status == 0, out
    print(f"longest pause {seconds_between_parts(sampling):.1f} s")
    assert_whole(sampling)


def test_a_node_is_lost_under_an_autoscaling_pool(sampling, nodes, assert_whole):
    sampling.start().until(lambda: len(sampling.parts()) >= 2 and all(node.pids(WORKER) for node in nodes.nodes))
    nodes.nodes.pop().kill()
    status, out = sampling.finish()
    assert status == 0, out
    pause = seconds_between_parts(sampling)
    print(f"longest pause {pause:.1f} s")
    assert pause < 60
    assert_whole(sampling)


def test_a_pool_waits_for_its_first_node_and_grows_with_the_next(sampling, nodes, assert_whole):
    while nodes.nodes:
        nodes.nodes.pop().kill()
    sampling.start()
    nodes.add()
    sampling.until(lambda: len(sampling.parts()) >= 1)
    second = nodes.add()
    start = time.monotonic()
    sampling.until(lambda: second.pids(WORKER))
    print(f"the pool grew {time.monotonic() - start:.1f} s after the node came")
    status, out = sampling.finish()
    assert status == 0, out
    assert_whole(sampling)


def test_a_node_goes_away_with_a_grace_period(sampling, nodes, assert_whole):
    sampling.start().until(lambda: len(sampling.parts()) >= 2)
    leaving = nodes.nodes.pop()
    leaving.terminate()
    status, out = sampling.finish()
    assert status == 0, out
    leaving.kill()
    print(f"longest pause {seconds_between_parts(sampling):.1f} s")
    assert_whole(sampling)


def test_a_driver_that_is_terminated_releases_its_run_and_is_continued(sampling, assert_whole):
    sampling.start().until(lambda: len(sampling.parts()) >= 2)
    start = time.monotonic()
    sampling.process.send_signal(signal.SIGTERM)
    sampling.until(lambda: json.loads(sampling.run.store.read("owners/0001.json"))["released"])
    print(f"released after {time.monotonic() - start:.1f} s")
    assert time.monotonic() - start < 3  # when `ray job stop` kills
    status, out = sampling.finish()
    assert status == 143 and "stopped by SIGTERM; what is committed is kept, run the same command to go on" in out
    status, out = sampling.start().finish()
    assert status == 0, out
    assert_whole(sampling)


def test_a_part_that_was_cut_off_is_sampled_again(sampling, assert_whole):
    sampling.start().until(lambda: len(sampling.parts()) >= 3)
    os.killpg(sampling.process.pid, signal.SIGKILL)
    sampling.finish()
    damaged, empty, *_ = [Path(sampling.run.location, "votes", name) for name in sampling.parts()]
    damaged.write_bytes(damaged.read_bytes()[:-100])
    empty.write_bytes(b"")
    status, out = sampling.start().finish()
    assert status == 0 and f"{damaged.name} cannot be read and counts for nothing; delete it" in out
    damaged.unlink()
    empty.unlink()
    assert_whole(sampling)


def test_a_full_disk_stops_the_run_in_one_line_and_more_space_continues_it(sampling, small_disk, assert_whole):
    sampling.results = str(small_disk / "results")
    status, out = sampling.start().finish()
    assert status == 2, out
    assert "no space left on the device" in out.splitlines()[-1] and "run the same command to go on" in out
    assert len(sampling.parts()) > 0
    subprocess.run(["mount", "-o", "remount,size=10m", str(small_disk)], check=True)
    status, out = sampling.start().finish()
    assert status == 0, out
    assert_whole(sampling)


@pytest.fixture
def on_s3(sampling, on_ceph):
    """The same run with its results on a durable S3 server."""
    sampling.results = f"{on_ceph}/results"
    return sampling


def test_s3_is_gone_for_half_a_minute(on_s3, ceph, assert_whole):
    on_s3.start().until(lambda: len(on_s3.parts()) >= 2)
    ceph.kill_gateway()
    time.sleep(30)
    ceph.start_gateway()
    status, out = on_s3.finish()
    assert status == 0, out
    assert_whole(on_s3)


def test_of_two_drivers_one_wins_and_the_other_says_who_owns_the_run(on_s3, assert_whole):
    first = on_s3.start().process
    second = on_s3.start().process
    outs = [process.communicate(timeout=300)[0] for process in (first, second)]
    statuses = [first.returncode, second.returncode]
    assert sorted(statuses) == [0, 2], outs
    refused = outs[statuses.index(2)]
    winner = (first, second)[statuses.index(0)]
    assert f"process {winner.pid} on " in refused.splitlines()[-1]
    assert_whole(on_s3)


def test_a_dead_owner_on_another_machine_is_replaced_after_a_minute(on_s3, assert_whole):
    on_s3.start().until(lambda: len(on_s3.parts()) >= 2)
    os.killpg(on_s3.process.pid, signal.SIGKILL)
    on_s3.finish()
    store = Store(on_s3.run.location)
    owner = json.loads(store.read("owners/0001.json"))
    store.write("owners/0001.json", json.dumps({**owner, "boot": "another machine"}).encode())
    start = time.monotonic()
    on_s3.start().until(lambda: store.exists("owners/0002.json"))
    print(f"taken over after {time.monotonic() - start:.0f} s")
    status, out = on_s3.finish()
    assert status == 0 and f"is held by process {owner['pid']}" in out
    assert_whole(on_s3)


def test_a_driver_is_killed_again_and_again(sampling, assert_whole):
    moments, before = random.Random(0), 0
    # two actors commit at about the same time, so that a part awaited is two of the eight
    for parts, moment in ((0, moments.uniform(0, 10)), *((1, moments.uniform(0, 0.5)) for _ in range(3))):
        sampling.start().kill(parts, moment)
        rows = sampling.rows() if sampling.parts() else {}
        print(f"killed {moment:.1f} s after {parts} parts: {len(rows)} images committed")
        assert len(rows) >= before
        before = len(rows)
    status, out = sampling.start().finish()
    assert status == 0, out
    assert_whole(sampling)
