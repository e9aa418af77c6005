"""The Ray cluster that a command works on: which one, and one line where it is not there, goes away or is full."""

import logging
import math
import os
import re
import signal
import socket
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util import client

from raycsr.errors import ClusterLostError, UserError
from raycsr.progress import LINE_SECONDS, duration
from raycsr.signals import stops_held_back, take_sigterm_back
from raycsr.store import Store

_CORE_WAITS = "RAY_gcs_rpc_server_reconnect_timeout_s"  # for a head, until Ray's core aborts the process
HEAD_SECONDS = max(float(os.environ.get(_CORE_WAITS, "60")) - 30, 10.0)  # that a head may not answer
_UNWIND_SECONDS = 8.0  # that work may take to end when the head is gone
_OF_RAY = 300  # characters that are shown of what Ray says
NODE_SECONDS = 600.0  # that a pool which may not wait for nodes does without a node it had
_WAKE = signal.SIGUSR2  # of its own: a shell lets a script's background commands ignore SIGINT
_LOOK_SECONDS = 5.0  # between two looks at the cluster
_LISTENS_SECONDS = 10.0  # that a cluster's head may take to accept a connection
_GRPC_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # and empty settings
_GO_ON = "what is committed is kept, run the same command to go on"
_FULL = (
    "the object store of a node is full; give its nodes more (`ray start --object-store-memory`, and in a container a "
    "larger /dev/shm by --shm-size) or room on the disk it spills to, or lower pool.actors"
)
_IN_WORDS = {  # Ray's errors that a user can mend
    "ObjectStoreFullError": _FULL,
    "OutOfDiskError": _FULL,
    "WorkerCrashedError": "a process dies each time it is begun; check the model, and the memory of the nodes",
    "LocalRayletDiedError": "the Ray of this machine died; start it again",
}


def connect() -> None:
    """Attaches to the Ray cluster that is named, or that runs on this machine, or starts one; and says which.

    One that is named (RAY_ADDRESS, or that of a submitted job) has to answer. An address that was only found, where a
    Ray that is gone has left it, is passed over.

    Raises:
        UserError: where the cluster does not answer, or is of another version of Ray or Python.
    """
    if not ray.is_initialized():
        print(f"cluster   {_join()}", flush=True)
    take_sigterm_back()  # also where the caller has started Ray
    context = ray.data.DataContext.get_current()
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # after ray.data's own configuration; errors are raised
    context.enable_progress_bars = False
    # an image at n = 100,000 on a slow CPU is an hour without a finished block, and waiting for spot
    # capacity can take longer: neither is a stall
    context.execution_no_progress_timeout_s = -1


def _join() -> str:
    """Joins a cluster or starts one; says which."""
    named = os.environ.get("RAY_ADDRESS", "")
    address, gone = None, ""
    try:
        if "://" not in named:  # a Ray Client server is asked in another way
            address = ray._private.services.canonicalize_bootstrap_address(None)
        if address is not None:
            try:
                _check_that_it_answers(address, _LISTENS_SECONDS)
            except ConnectionError:
                if named or _is_job():
                    raise
                gone, address = f" (the one whose address was left on this machine, {address}, is gone)", None
        _init("local" if gone else None)
    except Exception as error:  # whatever keeps Ray from starting or answering is the environment's
        raise UserError(_why_not(error, address if named in ("", "local") else named)) from error
    started = address is None and "://" not in named
    where = f"started here{gone}" if started else address or named
    nodes, have = sum(node["Alive"] for node in ray.nodes()), ray.cluster_resources()
    words = f"{where}, {nodes} node{'s' * (nodes != 1)}, {have.get('CPU', 0):g} CPUs, {have.get('GPU', 0):g} GPUs"
    return words + (_slow_store(have.get("object_store_memory", 0)) if started else "")


def _is_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _why_not(error: Exception, address: str | None) -> str:
    """In one line, why no cluster can be had."""
    said = " ".join(f"{error} {error.__cause__ or ''}".split())
    versions = re.search(r"Ray: (\S+) Python: (\S+) This process .*Ray: (\S+) Python: (\S+)", said)
    if versions:
        theirs, its_python, ours, python = versions.groups()
        return (
            f"the Ray cluster at {address} is of Ray {theirs} and Python {its_python}, and this is Ray {ours} and "
            f"Python {python}; use its versions, or set RAY_ADDRESS=local for a cluster that ends with this command"
        )
    if "AF_UNIX path length" in said:
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR") or "the temporary folder"
        return f"{folder} is too long a path for Ray's sockets; set RAY_TMPDIR to a short one, such as /tmp"
    said = textwrap.shorten(said, _OF_RAY, placeholder=" ...")  # tracebacks of its own processes may follow
    if address is None:
        return f"no Ray starts on this machine: {said}"
    return (
        f"no Ray cluster answers at {address}: {said}; start it again, "
        "or set RAY_ADDRESS=local for one that ends with this command"
    )


def _slow_store(size: float) -> str:
    """Says where Ray keeps objects on a disk, as containers have a /dev/shm of 64 MB by default."""
    try:
        shared = os.statvfs("/dev/shm")
    except OSError:
        return ""
    if shared.f_blocks * shared.f_frsize >= size:
        return ""
    return (
        f"; its object store is on a disk, as /dev/shm has {shared.f_blocks * shared.f_frsize / 2**20:,.0f} MB: "
        "slower; give a container more by --shm-size"
    )


def _init(address: str | None) -> None:
    """Starts or joins Ray, and keeps SIGTERM a request to stop.

    Ray's core takes SIGTERM for a crash: its handler prints a stack and sets an alarm that aborts the process three
    seconds later, while it unwinds or while Ray stops. Python's handler is therefore set again after Ray's. Meanwhile
    signals wait: raised between the forks that start Ray's processes, they would be dropped, and locks stay locked.
    """
    utils = ray._private.utils
    set_handler = utils.set_sigterm_handler
    utils.set_sigterm_handler = lambda handler: None  # Ray's `sys.exit(15)`, in the place of one that waits
    try:
        with stops_held_back() as arrived:
            ray.init(address, logging_level=logging.ERROR, include_dashboard=False)
            if arrived:
                signal.alarm(0)  # that of Ray's core
    finally:
        utils.set_sigterm_handler = set_handler


def _check_that_it_answers(address: str, seconds: float) -> None:
    """Ray itself tries an address for minutes before it says that nobody is there, or something else.

    Raises:
        ConnectionError: where nothing accepts a connection, or what does is no gRPC server.
    """
    try:
        with _connection(address, seconds) as connection:
            if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
                return
            connection.sendall(_GRPC_HELLO)
            if connection.recv(4)[3:] != b"\4":  # its own settings
                raise ConnectionError(f"{address}: what listens there is no Ray")
    except OSError as error:
        raise ConnectionError((error.strerror and f"{address}: {error.strerror}") or str(error)) from error


def _connection(address: str, seconds: float) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=seconds)


def check_location(results: str, option: str = "results") -> None:
    """Refuses results that would be lost, before anything is paid for.

    Args:
        results: Location of the results to be.
        option: Option that names the location, for messages.

    Raises:
        UserError: as `refuse_lost`; or where it is a place that cannot be written to; nothing is left behind there.
    """
    refuse_lost(results, option)
    Store(results).check_writable()


def refuse_lost(path: str, option: str) -> None:
    """Refuses a file or a folder that would be lost with the copy of its files that a submitted job runs in.

    Args:
        path: Location of what is to be written.
        option: Option that names it, for messages.

    Raises:
        UserError: where it is a relative path within such a job.
    """
    if _is_job() and "://" not in path and not os.path.isabs(path):
        raise UserError(
            f"{option} {path!r} is a relative path, and a submitted job runs in a copy that is deleted; give "
            "s3://bucket/prefix, or an absolute path that all nodes share"
        )


# While work is done on it ---------------------------------------------------------------------------------


@contextmanager
def user_errors_of_workers(
    needs: Sequence[Mapping[str, float]] = (), *, seconds: float = NODE_SECONDS
) -> Iterator[None]:
    """While this process waits for Ray: what a user can mend becomes a UserError, and nothing is waited for in silence.

    What a worker raised for the user to mend (a full disk, a source that went away) becomes that UserError again. The
    cluster is watched meanwhile (`_Watch`).

    Args:
        needs: Ray's resources of tasks and actors, for each of which a node must be there.
        seconds: Seconds for which the work waits for such a node when there is none any more.

    Raises:
        UserError: with the worker's own words, of which Ray keeps the text alone; or what is wrong with the cluster.
        ClusterLostError: The head does not answer any more, or the last node is gone.
    """
    watch = _Watch(needs, seconds)
    try:
        with watch:
            yield
    except (Exception, KeyboardInterrupt) as error:  # of a task or an actor a RayError, of workers in a group another
        if watch.lost:
            raise ClusterLostError(watch.lost) from error
        found = in_words(error)
        if found is None:
            raise
        raise UserError(f"{found}; {_GO_ON}") from error


def in_words(error: BaseException) -> str | None:
    """What a user can mend of an error that Ray raised, in a line; None of any other."""
    if type(error) is UserError:  # what Ray raises of a task is a UserError, too, with its traceback
        return None
    kinds = "|".join(re.escape(f"{kind.__module__}.{kind.__qualname__}") for kind in _and_below(UserError))
    said = re.findall(rf"(?:{kinds}): (.+)", str(error))  # causes first
    if said:
        return said[-1]
    names = {cls.__name__ for cls in type(error).__mro__} | set(re.findall(r"ray\.exceptions\.(\w+)", str(error)))
    return next((words for name, words in _IN_WORDS.items() if name in names), None)


def _and_below(kind: type[Exception]) -> list[type[Exception]]:
    """A class and all that are derived from it."""
    derived: list[type[Exception]] = kind.__subclasses__()
    return [kind, *(one for below in derived for one in _and_below(below))]


class _Watch:
    """Looks after the cluster beside a thread that waits for it, and interrupts that where waiting is in vain.

    Attributes:
        lost: Reason why waiting is in vain; empty while it is not.
    """

    def __init__(self, needs: Sequence[Mapping[str, float]], seconds: float) -> None:
        self.lost = ""
        self._needs, self._seconds = needs, seconds
        self._stop, self._lock = threading.Event(), threading.Lock()
        self._before: Any = None
        self._thread = threading.Thread(target=self._watch, daemon=True, name="cluster")

    def __enter__(self) -> None:
        # only the main thread can be interrupted, and of a Ray Client the head is out of sight
        main = threading.current_thread() is threading.main_thread()
        if main and ray.is_initialized() and not client.ray.is_connected():
            self._address = ray.get_runtime_context().gcs_address
            self._before = signal.signal(_WAKE, signal.default_int_handler)
            self._thread.start()

    def __exit__(self, *error: object) -> None:
        with self._lock:  # none is interrupted who has left
            self._stop.set()
        if self._before is not None:
            signal.signal(_WAKE, self._before)

    def _watch(self) -> None:
        head = _Absence(f"an answer of the cluster's head at {self._address}", HEAD_SECONDS, seen=True)
        node = _Absence("", self._seconds)
        lost = ""
        while not lost and not self._stop.wait(_LOOK_SECONDS * (head.looks > 0)):
            try:
                _connection(self._address, _LOOK_SECONDS).close()  # one that is busy may keep silent
                lost = head.note(there=True)
                wanted = missing_nodes(self._needs)
            except OSError:
                lost = head.note(there=False)
            except ray.exceptions.RayError:  # the head went away in between: it is looked at again
                continue
            else:
                node.what = f"a node with {wanted}"
                lost = node.note(there=not wanted)
        if lost:
            self._interrupt(f"{lost}; {_GO_ON}", hurry=not head.there)

    def _interrupt(self, lost: str, hurry: bool) -> None:
        with self._lock:
            if self._stop.is_set():
                return
            self.lost = lost
            signal.pthread_kill(threading.main_thread().ident or 0, _WAKE)
        if hurry and not self._stop.wait(_UNWIND_SECONDS):
            # Ray waits for the head on the way out, too, until its core aborts this process
            print(f"raycsr: {lost}", file=sys.stderr, flush=True)
            os._exit(2)


class _Absence:
    """How long something is away that has been there, in lines that count up.

    Attributes:
        what: Name of what is waited for.
        there: Whether it was there when last looked at.
        looks: Number of looks.
    """

    def __init__(self, what: str, seconds: float, *, seen: bool = False) -> None:
        self.what, self._seconds, self._seen = what, seconds, seen
        self.there, self.looks = False, 0
        self._since = self._said = -math.inf

    def note(self, *, there: bool) -> str:
        """Notes whether it is there now; returns why there is no use in waiting, or nothing."""
        now, self.there, self.looks = time.monotonic(), there, self.looks + 1
        if there:
            self._seen, self._since = True, -math.inf
            return ""
        if self._since == -math.inf:
            self._since, self._said = now, -math.inf
        away = now - self._since
        if self._seen and away > self._seconds:
            return f"waited {duration(away)} for {self.what}, which was there and is gone"
        if now - self._said > LINE_SECONDS:
            self._said = now
            print(f"waiting for {self.what}, {duration(away)} so far", file=sys.stderr, flush=True)
        return ""


def missing_nodes(needs: Sequence[Mapping[str, float]]) -> str:
    """The first needs, in words, that no node of the cluster can serve; nothing where each is served by one."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    for one in needs:
        if not any(all(have.get(name, 0.0) >= value for name, value in one.items()) for have in nodes):
            return ", ".join(f"{value:g} {name}{'s' * (value != 1)}" for name, value in one.items() if value)
    return ""
