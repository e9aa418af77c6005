"""Fixtures for the whole suite: an S3 server, and the data beside the project."""

import atexit
import functools
import os
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from ceph import PACKAGES, Ceph, missing_programs
from nodes import Nodes

from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store

os.environ["RAY_ADDRESS"] = "local"  # or commands would join the cluster of several nodes that other tests start
os.environ.setdefault("RAYCSR_PATIENCE", "2")  # seconds; what is away in a test stays so
hypothesis.settings.register_profile("no deadline", deadline=None)  # how long an example takes is the machine's affair
hypothesis.settings.load_profile("no deadline")
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and tests send it
torch.set_num_threads(1)  # the networks of the tests are tiny: threads would wait longer than they work


def pytest_unconfigure() -> None:
    """A command that was stopped in this process ends it no more."""
    from raycsr.cli import leave

    atexit.unregister(leave)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Says which tests are one worker's under pytest-xdist."""
    if config.pluginmanager.has_plugin("xdist"):
        for item in items:
            if group := shared_by(item):
                item.add_marker(pytest.mark.xdist_group(group))


def shared_by(item: pytest.Item) -> str | None:
    """What a test shares with others: processes that hold gigabytes, of which there is one each, or else its file.

    A file stays whole for what it prepares once; a long test goes wherever there is time.
    """
    if not {"nodes", "ceph"}.isdisjoint(item.fixturenames):
        return "nodes"
    if "cluster" in item.fixturenames or item.get_closest_marker("ray") is not None:
        return "ray"
    return None if item.get_closest_marker("long") else item.path.stem


@dataclass(frozen=True)
class S3Server:
    """An S3 server on this machine; the AWS variables of the environment point at it."""

    endpoint: str

    @property
    def client(self) -> Any:
        import boto3

        return boto3.client("s3")

    def new_bucket(self) -> str:
        """Creates an empty bucket and returns its name."""
        name = f"bucket-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    with pytest.MonkeyPatch.context() as environment:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION"):
            environment.delenv(name, raising=False)
        environment.setenv("AWS_ENDPOINT_URL", endpoint)
        environment.setenv("AWS_ACCESS_KEY_ID", "testing")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "testing-secret")
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield S3Server(endpoint)
    server.stop()


@pytest.fixture(params=["local", "s3"])
def store(request, tmp_path) -> Store:
    """A fresh store of either kind: one code path serves both."""
    if request.param == "local":
        return Store(str(tmp_path / "a folder"))
    return Store(f"s3://{request.getfixturevalue('s3').new_bucket()}/prefix")


class Enforcement:
    """The server lets any key pass but within this context."""

    def __init__(self, endpoint: str) -> None:
        self._url = f"{endpoint}/moto-api/reset-auth"

    def _allow(self, requests: bytes) -> None:
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(self._url, requests, plain)).close()

    def __enter__(self) -> None:
        self._allow(b"0")

    def __exit__(self, *_: object) -> None:
        self._allow(b"inf")

    @contextmanager
    def lifted(self) -> Iterator[None]:
        """Lets any key pass for a moment."""
        self.__exit__()
        yield
        self.__enter__()


@pytest.fixture
def enforcement(s3: S3Server) -> Enforcement:
    """To let the server check keys."""
    return Enforcement(s3.endpoint)


@pytest.fixture
def enforced_keys(enforcement: Enforcement) -> Iterator[None]:
    """The server checks keys in the whole test."""
    with enforcement:
        yield


@pytest.fixture(scope="session")
def ceph(tmp_path_factory) -> Iterator[Ceph]:
    """A durable S3 server; nothing of the environment points at it."""
    if absent := missing_programs():
        pytest.skip(f"no {', '.join(absent)}: apt-get install --no-install-recommends {PACKAGES}")
    server = Ceph(tmp_path_factory.mktemp("ceph"))
    yield server
    server.stop()


@pytest.fixture
def on_ceph(ceph: Ceph, monkeypatch) -> str:
    """Points the AWS variables at Ceph, and returns s3:// and a new bucket of its owner."""
    for name, value in ceph.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RAYCSR_PATIENCE", "60")  # the machine may be busy, and tests take the gateway away
    return ceph.new_bucket()


@pytest.fixture(scope="session")
def nodes(tmp_path_factory, ceph: Ceph) -> Iterator[Nodes]:
    """A cluster with the jobs API: a head without CPUs and two nodes of a logical GPU each; its S3 is Ceph."""
    cluster = Nodes(tmp_path_factory.mktemp("nodes"), ceph.environment)
    try:
        for _ in range(2):
            cluster.add()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The data beside the project: $RAYCSR_SHARED_DATA, or ../shared/data from the checkout."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("RAYCSR_SHARED_DATA", beside))
    if not folder.is_dir():
        pytest.skip("no shared data: set RAYCSR_SHARED_DATA")
    return folder


@pytest.fixture(scope="session")
def cluster(s3: S3Server) -> Iterator[None]:
    """The one Ray of the session; its workers inherit the S3 server."""
    import ray

    ray.init("local", num_cpus=4, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    yield
    ray.shutdown()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few parts."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=100k", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("cannot mount a small file system: not root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.fixture
def photographs(tmp_path):
    """An ImageFolder of two classes with one file that is no image; with the options to certify it."""
    import numpy as np
    from PIL import Image

    from raycsr.data.options import DataOptions
    from raycsr.models.spec import ModelOptions

    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        folder = tmp_path / "photos" / label
        folder.mkdir(parents=True)
        for i in range(3):
            Image.fromarray(generator.integers(0, 256, (10, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (tmp_path / "photos" / "dog" / "1.png").write_bytes(b"not an image")
    return {
        "data": DataOptions(source="imagefolder", path=str(tmp_path / "photos")),
        "model": ModelOptions(name="cifar_resnet8", num_classes=2, input_size=8),
    }


@pytest.fixture(scope="session")
def make_job():
    """A small job on the digits in this process, as keyword arguments of `sample`, into a folder.

    With `actors` it runs on them; such a test asks for `cluster`, too.
    """

    def make(folder, *, limit=12, n=128, actors=0, **more):
        return {
            "data": DataOptions(source="digits", limit=limit),
            "model": ModelOptions(name="cifar_resnet8", num_classes=10, input_size=8),
            "sampling": SamplingOptions(sigma=0.5, n0=32, n=n, precision="fp32", batch_size=64),
            "pool": PoolOptions(actors=actors, cpus_per_actor=0.5, threads_per_actor=1),
            "results": str(folder / "results"),
            **more,
        }

    return make


@pytest.fixture
def job(make_job, tmp_path):
    """`job(limit=..., n=...)` is such a job, in the test's own folder."""
    return functools.partial(make_job, tmp_path)
