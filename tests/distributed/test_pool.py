import os
from types import SimpleNamespace

import pytest
import ray
import torch

from raycsr import UserError
from raycsr.distributed import pool
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import (
    check_pool,
    device_kind,
    device_name,
    ending_with_its_gpu,
    fastest_batch_size,
    probe_here,
    refuse_gpus,
    worker_device,
)
from raycsr.models.spec import Preprocessing
from raycsr.smoothing.options import SamplingOptions

FLOAT32 = SimpleNamespace(calibration=None)  # of a base classifier what a pool asks about


def test_actors_on_gpus_reserve_no_cpu():
    assert PoolOptions(gpus_per_actor=0.5).resources == {"num_cpus": 0, "num_gpus": 0.5}
    on_cpus = PoolOptions(cpus_per_actor=1.5)
    assert on_cpus.resources == {"num_cpus": 1.5} and on_cpus.threads == 2


def test_processors_of_one_name_and_other_instructions_are_of_two_kinds_and_threads_make_none(monkeypatch):
    monkeypatch.setattr("raycsr.distributed.pool._cpu_model", lambda: "Intel Core Processor (Haswell, no TSX)")
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


def test_a_worker_computes_on_a_gpu_that_it_reserves_and_this_process_on_what_it_sees(monkeypatch):
    assert worker_device(1).type == "cpu", "a logical GPU is none"
    shares = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", shares.append)
    assert [worker_device(gpus).type for gpus in (None, 0, 0.5)] == ["cuda", "cpu", "cuda"]
    assert [worker_device(gpus, int8=True).type for gpus in (None, 1)] == ["cpu", "cpu"]
    worker = SimpleNamespace(mode=ray.WORKER_MODE)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    for reserved, device in (({"CPU": 1.0}, "cpu"), ({"GPU": 1.0}, "cuda"), ({"GPU": 0.25}, "cuda")):
        context = SimpleNamespace(worker=worker, get_assigned_resources=lambda reserved=reserved: reserved)
        monkeypatch.setattr(ray, "get_runtime_context", lambda context=context: context)
        assert worker_device().type == device
    assert shares == [0.5, 0.25], "of the memory"


def lose_gpu():
    """What CUDA does after an illegal access: each call ends so."""
    torch.cuda.is_initialized = lambda: True
    torch.cuda.synchronize = illegal_access


def illegal_access():
    raise RuntimeError("CUDA error: an illegal memory access was encountered")


@pytest.mark.parametrize(
    ("restarted", "lost", "ends"), [(True, True, True), (True, False, False), (False, True, False)]
)
def test_a_process_ends_where_its_gpu_is_lost_to_it_and_ray_starts_another(monkeypatch, capfd, restarted, lost, ends):
    for name in ("is_initialized", "synchronize"):
        monkeypatch.setattr(torch.cuda, name, getattr(torch.cuda, name))  # to put back
    monkeypatch.setattr(pool.os, "_exit", lambda status: pytest.exit(f"ended by {status}"))
    if lost:
        lose_gpu()
    with (
        pytest.raises(pytest.exit.Exception if ends else RuntimeError) as said,
        ending_with_its_gpu(restarted=restarted),
    ):
        illegal_access()
    assert ("ended by 1" in str(said.value)) == ("illegal memory access" in capfd.readouterr().err) == ends


def test_an_actor_that_reserves_no_gpu_takes_none_though_ray_does_not_hide_them(cluster):
    def device():
        torch.cuda.is_available = lambda: True
        return str(worker_device())

    assert ray.get(ray.remote(num_cpus=0.1, max_calls=1)(device).remote()) == "cpu"


@pytest.mark.parametrize(
    ("actors", "gpus", "nodes", "where"),
    [(1, 0, 1, "here"), (0, 0, 2, "here"), (1, 0, 2, "on a worker"), (1, 1, 1, "on a worker")],
)
def test_a_worker_is_probed_where_it_will_be(actors, gpus, nodes, where, monkeypatch):
    asked = []
    worker = SimpleNamespace(remote=lambda *how: asked.append(how) or "on a worker")
    monkeypatch.setattr(pool, "probe_here", lambda *how: asked.append(how) or "here")
    monkeypatch.setattr(ray, "nodes", lambda: nodes * ["one"])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray, "remote", lambda **_: lambda _: worker)
    monkeypatch.setattr(ray, "wait", lambda *_, **__: (["done"], []))
    monkeypatch.setattr(ray, "get", lambda found: found)
    assert pool.probe(FLOAT32, None, PoolOptions(actors=actors, gpus_per_actor=gpus)) == where
    assert asked[0][2:] == ({0: os.cpu_count(), 1: 1}[actors], gpus if actors else None)


def test_gpus_of_the_cluster_that_the_pool_does_not_take_are_said(monkeypatch, recwarn):
    monkeypatch.setattr(pool, "probe_here", lambda *_: "here")
    monkeypatch.setattr(ray, "nodes", lambda: ["one"])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": 8.0})
    pool.probe(SimpleNamespace(calibration="in int8"), None, PoolOptions())
    assert not recwarn.list
    with pytest.warns(UserWarning, match="has 8 GPUs.*--pool.gpus_per_actor 1"):
        pool.probe(FLOAT32, None, PoolOptions())


def test_gpus_for_a_model_that_takes_none_are_refused():
    refuse_gpus(PoolOptions(gpus_per_actor=1), FLOAT32)
    refuse_gpus(PoolOptions(), SimpleNamespace(calibration="in int8"))
    with pytest.raises(UserError, match="pool.gpus_per_actor is 0.5.*int8"):
        refuse_gpus(PoolOptions(gpus_per_actor=0.5), SimpleNamespace(calibration="in int8"))


def test_the_batch_is_doubled_while_that_is_faster():
    rates = {8: 100.0, 16: 180.0, 32: 250.0, 64: 252.0, 128: 900.0}  # twice 32 is no faster, and looked no further
    assert fastest_batch_size(rates.__getitem__, max_samples=10_000) == (32, 250.0)


def test_the_batch_holds_no_more_than_there_are_samples():
    assert fastest_batch_size(float, max_samples=100) == (64, 64.0)


def test_a_machine_that_is_busy_with_other_things_now_and_then_chooses_the_same_batch(monkeypatch):
    clock, passes = [0.0], []

    class Network(torch.nn.Module):
        preprocessing, precision, calibration = Preprocessing((8, 8), "bilinear", 1.0, "center"), "fp32", None

        def forward(self, pixels):
            passes.append(len(pixels))
            clock[0] += 0.001 * len(pixels) ** 0.5 + (0.2 if len(passes) % 3 == 0 and len(pixels) > 8 else 0)
            return pixels.mean(dim=(2, 3))

    monkeypatch.setattr(pool.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(pool, "prepare_for_inference", lambda *_, **__: Network())
    found = probe_here(Network(), SamplingOptions(sigma=0.5, n0=64, n=192, precision="fp32"), threads=1)
    assert found.batch_size == 256 and found.samples_per_second == pytest.approx(256**0.5 / 0.001)


def test_a_batch_that_does_not_fit_in_memory_is_not_taken():
    def rate(batch_size):
        if batch_size > 256:
            raise torch.OutOfMemoryError
        return float(batch_size)

    assert fastest_batch_size(rate, max_samples=10_000) == (256, 256.0)


@pytest.mark.parametrize(
    ("asked", "device", "breaks", "compiled"),
    [
        (None, "cpu", False, False),
        (True, "cpu", False, True),
        (None, "cuda", False, True),
        (False, "cuda", False, False),
        (None, "cuda", True, False),  # and says so
    ],
)
def test_gpus_compile_networks_that_can_be_unless_told(asked, device, breaks, compiled, monkeypatch, recwarn):
    class Network:
        def __init__(self, compile=False):
            if compile and breaks:
                raise RuntimeError("no such operator\nat line 7")
            self.compiled = compile

    monkeypatch.setattr(pool, "worker_device", lambda *_, **__: torch.device(device))
    monkeypatch.setattr(pool, "device_name", str)
    monkeypatch.setattr(pool, "prepare_for_inference", lambda model, compile=False, **_: Network(compile))
    monkeypatch.setattr(pool, "_rate", lambda network, batch_size, device: 200.0 if network.compiled else 100.0)
    found = probe_here(FLOAT32, SamplingOptions(batch_size=64, precision="fp32", compile=asked), threads=1)
    assert found.compile == compiled
    assert found.samples_per_second == (200.0 if compiled and asked is None else 100.0)
    assert [str(one.message).count("RuntimeError: no such operator") for one in recwarn] == [1] * breaks
