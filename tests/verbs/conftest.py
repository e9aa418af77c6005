import functools

import pytest

from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions


@pytest.fixture(scope="session")
def make_job(cluster):
    """A small job on the digits, as keyword arguments of `sample`, into a folder."""

    def make(folder, *, limit=12, n=128, actors=1, **more):
        return {
            "data": DataOptions(source="digits", limit=limit),
            "model": ModelOptions(name="cifar_resnet8", num_classes=10, input_size=8),
            "sampling": SamplingOptions(sigma=0.5, n0=32, n=n, precision="fp32", batch_size=64),
            "pool": PoolOptions(actors=actors, cpus_per_actor=0.5),
            "results": str(folder / "results"),
            **more,
        }

    return make


@pytest.fixture
def job(make_job, tmp_path):
    """`job(limit=..., n=...)` is such a job, in the test's own folder."""
    return functools.partial(make_job, tmp_path)
