"""Who runs a run: owner files that are created if absent, so that two drivers never share one."""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from raycsr.errors import UserError
from raycsr.signals import stops_held_back
from raycsr.store import Store

HEARTBEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 60.0
_LOOK_SECONDS = 2.0  # between two looks at a heartbeat


class Ownership:
    """Holds a run while a driver works on it, as a context manager.

    A driver creates `owners/<k+1>.json` only when owner k has released, its process on this host is gone, or
    its heartbeat is over a minute old by the store's clock, which the driver waits for. An owner that sees a
    higher number has been replaced and stops.

    Attributes:
        number: k of this owner, from 1.
    """

    def __init__(self, store: Store) -> None:
        """Claims the run in this store.

        Raises:
            UserError: where a living driver owns it; the message says which.
        """
        self._store = store
        self._me = {
            **_this_process(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid.uuid4().hex,  # tells two claims of one process apart
        }
        last = _last_owner(store)
        if last:
            _wait_for_death(store, last)
        self.number = last + 1
        with stops_held_back() as arrived:
            created = store.create(_name(self.number), self._state(released=False))
            if created and arrived:
                self._release()
        if not created:
            owner = json.loads(store.read(_name(self.number)))
            raise UserError(f"run {_run(store)} was just taken by {who(owner)}; wait for it to end")
        self._impatient = Store(store.location)  # a beat that waited for S3 would keep a driver from stopping
        self._stop = threading.Event()
        self._lost: str | None = None
        self._thread = threading.Thread(target=self._beat, daemon=True, name="heartbeat")

    def __enter__(self) -> "Ownership":
        """Starts the heartbeat."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops the heartbeat and releases the run."""
        with stops_held_back():  # a second Ctrl-C while the first unwinds
            self._stop.set()
            self._thread.join()
            if self._lost is None:
                self._release()

    def check(self) -> None:
        """Stops a driver that has been replaced.

        Raises:
            UserError: where another driver owns the run by now.
        """
        if self._lost is not None:
            raise UserError(self._lost)

    def _release(self) -> None:
        with contextlib.suppress(UserError):  # a full disk has been told already; a dead owner is replaced anyway
            self._store.write(_name(self.number), self._state(released=True))

    def _state(self, released: bool) -> bytes:
        return json.dumps({**self._me, "released": released}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                last = _last_owner(self._impatient)
                if last > self.number:
                    self._lost = f"run {_run(self._store)} was taken over by owner {last}; this driver stops"
                    return
                self._impatient.write(_name(self.number), self._state(released=False))
            except UserError:
                continue  # a store that is away for a moment: the next beat tries again


def _wait_for_death(store: Store, number: int) -> None:
    """Returns when an owner can be replaced: at once, or when a minute has passed without a heartbeat.

    Raises:
        UserError: where it lives.
    """
    before = None
    while True:
        owner = json.loads(store.read(_name(number)))
        if owner["released"] or is_gone(owner):
            return
        age = store.age(_name(number))
        on_this_host = is_here(owner)
        if not on_this_host and age > DEAD_AFTER_SECONDS:
            return
        if on_this_host or (before is not None and age < before):  # a heartbeat while we looked
            raise UserError(
                f"run {_run(store)} is being sampled by {who(owner)}, last heard of {max(age, 0):.0f} s ago; wait for "
                "it, or stop it first"
            )
        if before is None:
            print(f"waiting for {who(owner)} to show whether it still samples run {_run(store)}", flush=True)
        before = age
        time.sleep(_LOOK_SECONDS)


def is_here(owner: dict) -> bool:
    """Whether an owner ran on this host since it was started."""
    me = _this_process()
    return (owner["host"], owner["boot"]) == (me["host"], me["boot"])


def is_gone(owner: dict) -> bool:
    """Whether an owner was a process of this host and is no more."""
    return is_here(owner) and _started(owner["pid"]) != owner["started"]


def _last_owner(store: Store) -> int:
    return max((int(name.removesuffix(".json")) for name in store.names("owners")), default=0)


def _name(number: int) -> str:
    return f"owners/{number:04d}.json"


def _run(store: Store) -> str:
    return store.location.rsplit("/", 1)[-1]


def who(owner: dict) -> str:
    """An owner in words."""
    return f"process {owner['pid']} on {owner['host']}"


def _this_process() -> dict:
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "started": _started(pid)}


def _boot() -> str:
    """Tells hosts of one name apart, a host from itself before a restart, and containers that number processes anew."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """When a process started, in the kernel's ticks, or None where there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        try:  # systems without /proc: existence is all there is to know
            os.kill(pid, 0)
        except OSError:
            return None
        return "unknown"
    state, *rest = stat.rsplit(") ", 1)[1].split()
    return None if state == "Z" else rest[18]
