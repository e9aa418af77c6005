"""Who runs a run: owner files that are created if absent, so that two drivers never share one."""

import json
import os
import socket
import threading
from pathlib import Path
from types import TracebackType

from raycsr.errors import UserError
from raycsr.results.store import Store

HEARTBEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 60.0


class Ownership:
    """Holds a run while a driver works on it, as a context manager.

    A driver creates `owners/<k+1>.json` only when owner k has released, its process on this host is gone, or
    its heartbeat is over a minute old by the store's clock. An owner that sees a higher number has been
    replaced and stops.

    Attributes:
        number: k of this owner, from 1.
    """

    def __init__(self, store: Store) -> None:
        """Claims the run in this store.

        Raises:
            UserError: where a living driver owns it; the message says which.
        """
        self._store = store
        self._me = _this_process()
        last = _last_owner(store)
        if last:
            _refuse_if_alive(store, last)
        self.number = last + 1
        if not store.create(_name(self.number), self._state(released=False)):
            owner = json.loads(store.read(_name(self.number)))
            raise UserError(f"run {_run(store)} was just taken by {_who(owner)}; wait for it to end")
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
        self._stop.set()
        self._thread.join()
        if self._lost is None:
            self._store.write(_name(self.number), self._state(released=True))

    def check(self) -> None:
        """Stops a driver that has been replaced.

        Raises:
            UserError: where another driver owns the run by now.
        """
        if self._lost is not None:
            raise UserError(self._lost)

    def _state(self, released: bool) -> bytes:
        return json.dumps({**self._me, "released": released}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                last = _last_owner(self._store)
                if last > self.number:
                    self._lost = f"run {_run(self._store)} was taken over by owner {last}; this driver stops"
                    return
                self._store.write(_name(self.number), self._state(released=False))
            except UserError:
                continue  # a store that is away for a moment: the next beat tries again


def _refuse_if_alive(store: Store, number: int) -> None:
    owner = json.loads(store.read(_name(number)))
    if owner["released"]:
        return
    me = _this_process()
    same_host = (owner["host"], owner["boot"]) == (me["host"], me["boot"])
    if same_host and _started(owner["pid"]) != owner["started"]:
        return
    age = store.age(_name(number))
    if same_host or age <= DEAD_AFTER_SECONDS:
        raise UserError(
            f"run {_run(store)} is being sampled by {_who(owner)}, last heard of {age:.0f} s ago; wait for it, or "
            f"stop it first"
        )


def _last_owner(store: Store) -> int:
    return max((int(name.removesuffix(".json")) for name in store.names("owners")), default=0)


def _name(number: int) -> str:
    return f"owners/{number:04d}.json"


def _run(store: Store) -> str:
    return store.location.rsplit("/", 1)[-1]


def _who(owner: dict) -> str:
    return f"process {owner['pid']} on {owner['host']}"


def _this_process() -> dict:
    pid = os.getpid()
    return {"host": socket.gethostname(), "boot": _boot(), "pid": pid, "started": _started(pid)}


def _boot() -> str:
    """Tells hosts of one name apart, and a host from itself before a restart."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
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
