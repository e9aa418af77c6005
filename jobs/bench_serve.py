"""A load test of the service (`jobs.serve`) on this machine: requests a second, how long they wait, and CPU time.

python -m jobs.bench_serve --folder DEPLOYED --clients 4
"""

import io
import json
import os
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import ray
from PIL import Image
from ray import serve

from jobs.serve import CLIENTS, app
from raycsr.cli import run_job
from raycsr.data.packaged import digits_arrays
from raycsr.errors import UserError

_WARM_UP = 8  # requests that nobody counts


def bench_serve(*, folder: str, requests: int = 200, clients: int = 4, port: int = 8123) -> None:
    """Starts the service on a Ray of its own, and asks it about digits from several threads at once.

    Args:
        folder: Folder that SmoothedClassifier.save wrote.
        requests: Number of requests.
        clients: Number of threads, each of which waits for its answer before it asks again.
        port: Port of the service on this machine.

    Raises:
        UserError: the service does not answer as it should.
    """
    os.environ[CLIENTS] = "bench:secret"
    ray.init("local", num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(app({"folder": folder, "calls_per_hour": 10**9, "threads": 1}), name="raycsr", route_prefix="/")
    url = f"http://127.0.0.1:{port}/"
    images = [_png(pixels) for pixels in digits_arrays("test")[0][:100]]
    if _ask(url + "healthz")[:2] != (200, b"ok") or _ask(url, images[0], "another")[0] != 401:
        raise UserError("the service is not healthy, or lets in whoever comes; see its log in /tmp/ray/session_latest")
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(lambda i: _ask(url, images[i], "secret"), range(_WARM_UP)))
        before, start = _cpu_seconds(), time.perf_counter()
        replies = list(pool.map(lambda i: _ask(url, images[i % len(images)], "secret"), range(requests)))
        wall, cpu = time.perf_counter() - start, _cpu_seconds() - before
    serve.shutdown()
    ray.shutdown()  # before the figures are printed: Ray has last words of its own
    said = [json.loads(text) for status, text, _ in replies if status == 200]
    print(
        json.dumps(
            {
                "clients": clients,
                "requests": requests,
                "answered": len(said),
                "abstained": sum(one["answer"] is None for one in said),
                "samples": sum(one["n0"] + one["n"] for one in said) / max(len(said), 1),
                "requests_per_second": requests / wall,
                "seconds": dict(zip(("p50", "p95", "p99"), _percentiles([one[2] for one in replies]), strict=True)),
                "cpu_seconds_per_request": cpu / requests,
                "load_average": os.getloadavg()[0],
            }
        )
    )


def _percentiles(seconds: list[float]) -> list[float]:
    return np.percentile(seconds, [50, 95, 99]).tolist()


def _png(pixels: np.ndarray) -> bytes:
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def _ask(url: str, image: bytes | None = None, secret: str = "") -> tuple[int, bytes, float]:
    """Status, text and seconds of a request."""
    request = urllib.request.Request(url, image, {"Authorization": f"Bearer {secret}"})
    start = time.perf_counter()
    try:
        with urllib.request.urlopen(request) as reply:
            return reply.status, reply.read(), time.perf_counter() - start
    except urllib.error.HTTPError as refused:
        return refused.code, refused.read(), time.perf_counter() - start


def _cpu_seconds() -> float:
    """CPU time of this process and of all that it started: Ray's own, the proxy and the replicas."""
    me = psutil.Process()
    times = [one.cpu_times() for one in (me, *me.children(recursive=True))]
    return sum(one.user + one.system for one in times)


if __name__ == "__main__":
    sys.exit(run_job(bench_serve))
