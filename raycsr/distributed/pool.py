"""The pool of actors that sample: its size, and what its workers can do."""

import functools
import os
import platform
import re
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
import torch

from raycsr.distributed.cluster import missing_nodes, user_errors_of_workers
from raycsr.distributed.options import PoolOptions
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import Precision, arithmetic, default_device, prepare_for_inference, resolve_precision
from raycsr.progress import LINE_SECONDS, duration
from raycsr.smoothing.forward_pass import is_out_of_memory
from raycsr.smoothing.options import SamplingOptions

_PROBE_SECONDS = 0.3  # of each batch size that is tried
_BATCH_SIZES = (8, 4096)  # the least and the most that are tried
_WORTH = 1.02  # a batch twice as large must be this much faster


@dataclass(frozen=True)
class Probe:
    """What a worker of the pool's kind can do.

    Attributes:
        precision: Precision that `auto` means there.
        device: Name of the device.
        batch_size: Batch size of the options, or the fastest.
        samples_per_second: Speed of one actor.
        compile: Whether networks are compiled there.
    """

    precision: Precision
    device: str
    batch_size: int
    samples_per_second: float
    compile: bool = False


def alive_actors() -> int:
    """This driver's pool actors that are alive; the public list of actors needs a dashboard, which not all have."""
    job = ray.get_runtime_context().get_job_id()
    alive = ray._private.state.actors(actor_state_name="ALIVE")
    return sum(one["JobID"] == job and "MapWorker" in one["ActorClassName"] for one in alive.values())


def check_pool_options(pool: PoolOptions) -> None:
    """Checks what can be checked of a pool without a cluster.

    Raises:
        UserError: where no cluster could hold it.
    """
    if pool.actors < 0 or pool.cpus_per_actor <= 0 or pool.gpus_per_actor < 0:
        raise UserError(
            f"pool of {pool.actors} actors with {pool.cpus_per_actor} CPUs and {pool.gpus_per_actor} GPUs each: "
            "cpus_per_actor must be positive, actors and gpus_per_actor must not be negative"
        )
    if not pool.actors and (pool.elastic or pool.gpus_per_actor > 0):
        raise UserError(
            "pool.actors is 0, so this process samples, on its own device: leave out pool.elastic and "
            "pool.gpus_per_actor, or give pool.actors"
        )


def refuse_gpus(pool: PoolOptions, base_classifier: BaseClassifier) -> None:
    """Refuses GPUs that actors would reserve for a base classifier that CPUs alone compute.

    Raises:
        UserError: where it is quantised and the pool has GPUs.
    """
    if base_classifier.calibration is not None and pool.gpus_per_actor > 0:
        raise UserError(
            f"pool.gpus_per_actor is {pool.gpus_per_actor:g}, and the model is quantised to int8, which x86 CPUs alone "
            "compute in: leave it out, or give the model that it was made of"
        )


def check_pool(pool: PoolOptions) -> None:
    """Checks that the cluster can hold the pool and still decode.

    Raises:
        UserError: where it cannot.
    """
    check_pool_options(pool)
    if pool.elastic or not pool.actors:
        return  # nodes may come, or none is needed
    have = ray.cluster_resources()
    if have.get("CPU", 0.0) < 1:
        raise UserError("the cluster has no CPU to decode with; give its nodes CPUs, or set pool.elastic to wait")
    if pool.gpus_per_actor > 0:
        gpus = have.get("GPU", 0.0)
        if pool.actors * pool.gpus_per_actor > gpus:
            raise UserError(
                f"the pool wants {pool.actors * pool.gpus_per_actor:g} GPUs and the cluster has {gpus:g}; "
                "lower pool.actors, set pool.elastic to wait for nodes, or pool.gpus_per_actor to 0 for CPUs"
            )
        return
    cpus, wanted = have.get("CPU", 0.0), pool.actors * pool.cpus_per_actor
    if wanted > cpus - 1:
        raise UserError(
            f"the pool would take {wanted:g} of the cluster's {cpus:g} CPUs and one must stay free for decoding; "
            f"lower pool.actors to {max(int((cpus - 1) / pool.cpus_per_actor), 1)} or pool.cpus_per_actor"
        )


def probe(base_classifier: BaseClassifier, sampling: SamplingOptions, pool: PoolOptions) -> Probe:
    """Resolves precision and batch size on a worker of the pool's kind, and times its forward pass."""
    how = base_classifier, sampling, pool.threads, pool.gpus
    if pool.gpus == 0 and base_classifier.calibration is None and (there := ray.cluster_resources().get("GPU", 0)):
        warnings.warn(
            f"the cluster has {there:g} GPUs and pool.gpus_per_actor is 0, so actors compute on CPUs: "
            "--pool.gpus_per_actor 1 gives them GPUs",
            stacklevel=2,
        )
    if not pool.actors or (pool.gpus == 0 and len(ray.nodes()) == 1):
        return probe_here(*how)  # this process is such a worker, already warm
    found = ray.remote(**pool.resources)(probe_here).remote(*how)
    start = time.monotonic()
    with user_errors_of_workers(pool.needs, seconds=pool.patience):
        while not ray.wait([found], timeout=LINE_SECONDS)[0]:
            if not missing_nodes(pool.needs):  # else it is said where nodes are watched
                print(
                    f"waiting for a free place, {duration(time.monotonic() - start)} so far",
                    file=sys.stderr,
                    flush=True,
                )
        return ray.get(found)


def worker_device(gpus: float | None = None, *, int8: bool = False) -> torch.device:
    """The device of a worker: a GPU where it may take one. Logical GPUs (tests) are none, so CUDA itself is asked.

    Ray hides GPUs from workers that reserve none no more (2.60): they would all crowd on the first. Where several share
    one, this process takes no more than its share of the memory: the first would take all that is there, and the
    others would halve their batches.

    Args:
        gpus: Number of GPUs that the worker reserves; by default this process is asked, which is a worker of Ray or
            takes what it sees.
        int8: Whether it computes in int8, as CPUs alone do.
    """
    if gpus is None and ray.is_initialized() and (worker := ray.get_runtime_context()).worker.mode == ray.WORKER_MODE:
        gpus = worker.get_assigned_resources().get("GPU", 0)
    device = torch.device("cpu") if gpus == 0 else default_device(int8=int8)
    if device.type == "cuda" and gpus is not None and gpus < 1:
        torch.cuda.set_per_process_memory_fraction(gpus)
    return device


@contextmanager
def ending_with_its_gpu(*, restarted: bool) -> Iterator[None]:
    """Work of a process that ends where its GPU is lost to it, so that Ray begins the work again in another one.

    What an illegal access or an uncorrectable error of memory leaves behind cannot be mended within a process: CUDA
    answers each call by the same error from then on. Work that ends three processes so is split, and given up, as what
    kills its process by other means is (`raycsr.distributed.sampling.deaths`).

    Args:
        restarted: Whether there is a Ray that starts this process again; else the error is raised.
    """
    try:
        yield
    except RuntimeError as error:
        if restarted and _is_gpu_lost():
            print(f"the GPU is lost to this process, which ends: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        raise


def _is_gpu_lost() -> bool:
    if not torch.cuda.is_initialized():
        return False
    try:
        torch.cuda.synchronize()
    except RuntimeError:
        return True
    return False


def device_name(device: torch.device) -> str:
    """What counted the votes: votes are bit-equal on equal devices only."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    # the instructions, too: virtual machines and ARM call many generations by one name
    capability = torch.backends.cpu.get_cpu_capability()
    return f"cpu {_cpu_model()} {capability}, {torch.get_num_threads()} threads"


def device_kind(name: str) -> str:
    """The kind of a device that `device_name` names, whatever its threads: all of a kind round alike."""
    return re.sub(r", \d+ threads$", "", name)


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def probe_here(
    base_classifier: BaseClassifier, sampling: SamplingOptions, threads: int, gpus: float | None = None
) -> Probe:
    """What this process can do as a worker with so many torch threads, and GPUs as `worker_device` has them."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        device = worker_device(gpus, int8=base_classifier.calibration is not None)
        precision = resolve_precision(sampling.precision, device, base_classifier)
        prepared = functools.partial(prepare_for_inference, base_classifier, precision=precision, device=device)
        network = prepared()

        def rate(batch_size: int) -> float:
            return _rate(network, batch_size, device)

        if sampling.batch_size is None:
            batch_size, speed = fastest_batch_size(rate, max_samples=sampling.n0 + sampling.max_samples)
        else:
            rows = min(sampling.batch_size, 16)  # enough to tell an order of magnitude
            batch_size, speed = sampling.batch_size, rate(rows)
        compiled = bool(sampling.compile)
        if sampling.compile is None and device.type == "cuda":  # never by which is faster: the run's id depends on it
            try:
                speed, compiled = _rate(prepared(compile=True), batch_size, device), True
            except Exception as error:  # of torch.compile and of a network that it takes apart: there is no end of them
                why = f"{type(error).__name__}: {str(error).splitlines()[0]}"
                warnings.warn(
                    f"the network is not compiled ({why}); it is sampled as it is, more slowly",
                    stacklevel=2,
                )
        return Probe(precision, device_name(device), batch_size, speed, compiled)
    finally:
        torch.set_num_threads(before)


def fastest_batch_size(rate: Callable[[int], float], max_samples: int) -> tuple[int, float]:
    """Doubles the batch for as long as that is faster and fits in memory.

    Args:
        rate: Function: batch size -> samples per second.
        max_samples: Number of samples to draw; a larger batch would never be full.

    Returns:
        The batch size, a power of two, and its rate.
    """
    batch_size, best = _BATCH_SIZES[0], rate(_BATCH_SIZES[0])
    while 2 * batch_size <= min(max_samples, _BATCH_SIZES[1]):
        try:
            faster = rate(2 * batch_size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            break
        if faster < _WORTH * best:
            break
        batch_size, best = 2 * batch_size, faster
    return batch_size, best


@torch.inference_mode()
def _rate(network: BaseClassifier, batch_size: int, device: torch.device) -> float:
    """Samples a second by the shortest pass: what else a busy machine does would choose a batch of 8 by a whim."""
    pixels = torch.rand((batch_size, 3, *network.preprocessing.input_size), device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)  # as the engine has them
    passes: list[float] = []
    with arithmetic(network.precision, device):
        network(pixels)
        end = time.perf_counter() + _PROBE_SECONDS
        while not passes or time.perf_counter() < end:
            start = time.perf_counter()
            network(pixels).sum().item()
            passes.append(time.perf_counter() - start)
    return batch_size / min(passes)
