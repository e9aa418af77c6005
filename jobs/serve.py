"""The smoothed classifier as a service on Ray Serve: POST an image, get what is said of it, as JSON.

    RAYCSR_CLIENTS=alice:SECRET serve run jobs.serve:app folder=s3://BUCKET/deployed
    curl --header 'Authorization: Bearer SECRET' --data-binary @cat.jpg http://127.0.0.1:8000/

`folder` is what `SmoothedClassifier.save` wrote; the service needs nothing else. A replica computes on a GPU that it
reserves, by `gpus=1` (or `gpus=0.5`, where two share one), and else on the CPU. Images of requests that come together
share forward passes. GET /healthz says ok, without a secret. `pip install 'raycsr[serve]'` has what it takes.

Each client has a secret of its own, in RAYCSR_CLIENTS, and a number of calls an hour: within a certified radius K calls
say a costly class with probability alpha + K alpha_p at most. The secrets are not the cluster's token, by which one
runs code.
"""

import asyncio
import hmac
import json
import os
import time
import warnings
from collections import defaultdict, deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from raycsr import SmoothedClassifier, UserError
from raycsr.data.images import MAX_BYTES
from raycsr.deployment.folder import load_folder
from raycsr.deployment.images import to_pixels
from raycsr.deployment.rows import answered_rows, as_json
from raycsr.distributed.pool import worker_device

CLIENTS = "RAYCSR_CLIENTS"
_HOUR = 3600.0


class Reply(NamedTuple):
    """An answer to a request: its HTTP status, and JSON."""

    status: int
    text: str


def _refusal(status: int, why: str) -> Reply:
    return Reply(status, json.dumps({"error": why}, ensure_ascii=False))


class Answers:
    """Answers images that came together, each by fresh votes of its own."""

    def __init__(self, folder: str, costs: str | None) -> None:
        """Loads the folder, onto a GPU that this replica reserves; costs are those under which `radius_if` is told.

        Raises:
            UserError: there is no such folder, or the costs are none of its classes.
        """
        network, deployed = load_folder(folder)
        int8 = network.calibration is not None
        device = worker_device(int8=int8)
        if device.type == "cpu" and torch.cuda.is_available() and not int8:
            warnings.warn(
                "the replica sees a GPU and reserves none, so it computes on the CPU: give gpus=1, or num_gpus in the "
                "ray_actor_options of a config",
                stacklevel=2,
            )
        self.classifier = SmoothedClassifier.deploy(network, deployed, device=device)
        self._costs = self.classifier.costs(costs)

    def __call__(self, images: list[bytes]) -> list[Reply]:
        """A reply for each image; one that is none is refused in its own."""
        replies: dict[int, Reply] = {}
        pixels: dict[int, torch.Tensor] = {}
        for i, image in enumerate(images):
            try:
                (pixels[i],) = to_pixels(image, self.classifier.preprocessing)
            except UserError as error:
                replies[i] = _refusal(400, str(error))
        if pixels:
            votes = self.classifier.draw(torch.stack(list(pixels.values())))
            for i, row in zip(pixels, answered_rows(self.classifier, votes, self._costs), strict=True):
                replies[i] = Reply(200 if row["error"] is None else 422, as_json(row, self.classifier))
        return [replies[i] for i in range(len(images))]


def clients() -> dict[str, str]:
    """Name of each client -> its secret, from the environment.

    Raises:
        UserError: there is none, or one without a secret: whoever reaches the service could call it without end.
    """
    words = [word.strip() for word in os.environ.get(CLIENTS, "").split(",") if word.strip()]
    found = {name: secret for name, _, secret in (word.partition(":") for word in words)}
    if not found or not all(name and secret for name, secret in found.items()):
        raise UserError(f"{CLIENTS} names no client, or one without a secret; set it to NAME:SECRET,NAME:SECRET")
    return found


def client_of(header: str, known: Mapping[str, str]) -> str | None:
    """The client whose secret a header `Authorization: Bearer SECRET` has; None where it is nobody's."""
    kind, _, given = header.partition(" ")
    same = [name for name, secret in known.items() if hmac.compare_digest(given.strip().encode(), secret.encode())]
    return same[0] if same and kind.lower() == "bearer" else None


class Ledger:
    """How often each client has called in the last hour."""

    def __init__(self, calls_per_hour: int) -> None:
        """Nobody has called yet."""
        self._most = calls_per_hour
        self._calls: dict[str, deque[float]] = defaultdict(deque)

    def take(self, client: str) -> bool:
        """Whether a client may call now; it counts where it may."""
        calls, now = self._calls[client], time.monotonic()
        while calls and calls[0] < now - _HOUR:
            calls.popleft()
        if len(calls) >= self._most:
            return False
        calls.append(now)
        return True


async def body_of(request: Request) -> bytes | None:
    """The body of a request; None where it is larger than an image should be, which is not read to its end."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 0})
class Calls(Ledger):
    """The one ledger of all replicas."""


@serve.deployment(
    max_ongoing_requests=64,
    autoscaling_config={"min_replicas": 1, "max_replicas": 4, "target_ongoing_requests": 16},
)
class Service:
    """A replica: it loads the folder, and answers what comes together in one batch."""

    def __init__(self, folder: str, costs: str | None, threads: int | None, calls: DeploymentHandle) -> None:
        """Loads all that it needs; with `threads` torch has so many."""
        if threads is not None:
            torch.set_num_threads(threads)
        self._clients, self._calls, self._answers = clients(), calls, Answers(folder, costs)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.01)
    async def _answer(self, images: list[bytes]) -> list[Reply]:
        return await asyncio.to_thread(self._answers, images)

    async def __call__(self, request: Request) -> Response:
        """Answers one request."""
        if request.url.path == "/healthz":
            return PlainTextResponse("ok")
        reply = await self._reply(request)
        return Response(reply.text, reply.status, media_type="application/json")

    async def _reply(self, request: Request) -> Reply:
        client = client_of(request.headers.get("authorization", ""), self._clients)
        if client is None:
            return _refusal(401, "give the header 'Authorization: Bearer SECRET', with a client's secret")
        if request.method != "POST":
            return _refusal(405, "POST the bytes of one image file")
        if not await self._calls.take.remote(client):
            return _refusal(429, "this client has had its calls of the hour: a costly answer is the likelier the more")
        image = await body_of(request)
        if image is None:
            return _refusal(413, f"an image has {MAX_BYTES:,} bytes at most")
        return await self._answer(image)


def app(args: Mapping[str, Any]) -> Any:
    """The application, as `serve run` and a config of Serve build it.

    Args:
        args: folder; and where they are wanted costs, calls_per_hour (1,000 by default), threads, and gpus, the number
            that each replica reserves (none by default).

    Raises:
        UserError: an unknown argument, or no folder.
    """
    unknown = set(args) - {"folder", "costs", "calls_per_hour", "threads", "gpus"}
    if unknown or "folder" not in args:
        what = f"unknown argument {sorted(unknown)[0]!r}" if unknown else "folder is missing"
        raise UserError(f"{what}; give folder=FOLDER, and costs, calls_per_hour, threads or gpus")
    threads = args.get("threads")
    service = Service  # whose ray_actor_options a config may say
    if "gpus" in args:
        service = Service.options(ray_actor_options={"num_gpus": float(args["gpus"])})  # type: ignore[attr-defined]
    return service.bind(  # type: ignore[attr-defined]
        str(args["folder"]),
        args.get("costs"),
        None if threads is None else int(threads),
        Calls.bind(int(args.get("calls_per_hour", 1000))),  # type: ignore[attr-defined]
    )
