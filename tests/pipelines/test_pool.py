import os
import signal
import socket
import sys

import pytest
import ray
import torch

from raycsr import UserError, signals
from raycsr.pipelines.pool import (
    PoolOptions,
    check_location,
    check_pool,
    connect,
    device_kind,
    device_name,
    fastest_batch_size,
    user_errors_of_workers,
)


def test_actors_on_gpus_reserve_no_cpu():
    assert PoolOptions(gpus_per_actor=0.5).resources == {"num_cpus": 0, "num_gpus": 0.5}
    on_cpus = PoolOptions(cpus_per_actor=1.5)
    assert on_cpus.resources == {"num_cpus": 1.5} and on_cpus.threads == 2


def test_processors_of_one_name_and_other_instructions_are_of_two_kinds_and_threads_make_none(monkeypatch):
    monkeypatch.setattr("raycsr.pipelines.pool._cpu_model", lambda: "Intel Core Processor (Haswell, no TSX)")
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    here = device_name(torch.device("cpu"))
    assert here == "cpu Intel Core Processor (Haswell, no TSX) AVX2, 2 threads"
    assert device_kind(here) == here.removesuffix(", 2 threads") and device_kind("Some GPU, 80GB") == "Some GPU, 80GB"
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert device_kind(device_name(torch.device("cpu"))) != device_kind(here)


def test_a_pool_that_may_grow_need_not_fit_yet(cluster):
    with pytest.raises(UserError, match=r"wants 8 GPUs and the cluster has 0; .*set pool.elastic to wait for nodes"):
        check_pool(PoolOptions(actors=8, gpus_per_actor=1))
    check_pool(PoolOptions(actors=8, elastic=True, gpus_per_actor=1))


def test_a_cluster_that_is_gone_is_one_line_at_once(monkeypatch):
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", lambda **options: pytest.fail("Ray was asked, and tries for minutes"))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(UserError, match=rf"no Ray cluster answers at {address}: .*refused; .* set RAY_ADDRESS=local"):
        connect()


def test_what_listens_and_is_no_cluster_is_one_line(monkeypatch):
    def init(**options):
        raise ConnectionError("Failed to connect to Ray cluster")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    with socket.create_server(("", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UserError, match=rf"no Ray cluster answers at {address}: Failed to connect"):
            connect()


@pytest.fixture
def stops():
    """SIGTERM and Ctrl-C as a command handles them, put back afterwards."""
    before, hook = {number: signal.getsignal(number) for number in signals.STOPS}, sys.unraisablehook
    signals.handle_stops()
    yield
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.ray
def test_ray_aborts_nothing_that_unwinds(cluster, stops):
    connect()
    with pytest.raises(SystemExit):
        os.kill(os.getpid(), signal.SIGTERM)
    left = signal.getitimer(signal.ITIMER_REAL)[0]  # pytest-timeout's own is minutes
    signal.alarm(0)
    assert not 0 < left <= 3, "an alarm of Ray's core aborts this process"


@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)])
def test_a_stop_while_ray_starts_acts_when_it_has_started(stops, monkeypatch, number, raised):
    started = []

    def init(**options):
        ray._private.utils.set_sigterm_handler(lambda number, _: sys.exit(number))  # as Ray does
        os.kill(os.getpid(), number)
        started.append("Ray")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setenv("RAY_ADDRESS", "local")
    with pytest.raises(raised):
        connect()
    assert started == ["Ray"] and signals.was_terminated() == (number == signal.SIGTERM)


def test_relative_results_are_refused_in_a_submitted_job_alone(monkeypatch, s3, tmp_path):
    monkeypatch.chdir(tmp_path)
    check_location("results")
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    with pytest.raises(UserError, match="results 'results' is a relative path.*give s3://bucket/prefix, or an"):
        check_location("results")
    for place in (f"s3://{s3.new_bucket()}/results", str(tmp_path / "shared" / "results")):
        check_location(place)
    assert not list(tmp_path.iterdir())  # nothing is left behind


def test_what_a_worker_raised_for_the_user_arrives_as_one_line(cluster):
    @ray.remote
    def fails(error):
        raise error

    with pytest.raises(UserError) as caught, user_errors_of_workers():
        ray.get(fails.remote(UserError("the disk is full; free some")))
    assert str(caught.value) == "the disk is full; free some; what is committed is kept, run the same command to go on"
    with pytest.raises(ray.exceptions.RayTaskError, match="a bug"), user_errors_of_workers():
        ray.get(fails.remote(ValueError("a bug")))


def test_the_batch_is_doubled_while_that_is_faster():
    rates = {8: 100.0, 16: 180.0, 32: 250.0, 64: 252.0, 128: 900.0}  # twice 32 is no faster, and looked no further
    assert fastest_batch_size(rates.__getitem__, most=10_000) == (32, 250.0)


def test_the_batch_holds_no_more_than_there_are_samples():
    assert fastest_batch_size(float, most=100) == (64, 64.0)


def test_a_batch_that_does_not_fit_in_memory_is_not_taken():
    def rate(batch_size):
        if batch_size > 256:
            raise torch.OutOfMemoryError
        return float(batch_size)

    assert fastest_batch_size(rate, most=10_000) == (256, 256.0)
