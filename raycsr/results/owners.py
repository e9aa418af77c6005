"""Who works on a run, a sweep or a checkpoint: owner files that are created if absent, so that two never share one."""

import contextlib
import json
import os
import re
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from raycsr.errors import UserError
from raycsr.results.notes import read_owner
from raycsr.signals import stops_held_back
from raycsr.store import Store

HEARTBEAT_SECONDS = 15.0
DEAD_AFTER_SECONDS = 60.0
_LOOK_SECONDS = 2.0  # between two looks at a heartbeat
_held: set[str] = set()  # tokens of what this process holds: where a disk is full, no file says that it was released


class Ownership:
    """Holds a run, or what else one driver alone may work on, as a context manager.

    A driver creates `owners/<k+1>.json` only when owner k has released, its process on this host is gone, or
    its file has not changed for a minute that the driver watched it: clocks of two machines are never compared. An
    owner that sees a higher number has been replaced and stops.

    Attributes:
        number: Number k of this owner, from 1.
    """

    def __init__(self, store: Store, what: str | None = None, *, heeds_stop: bool = False) -> None:
        """Claims what is in this store.

        Args:
            store: Folder of what is owned, in which the owner files lie, too.
            what: Name of what is owned, in messages; by default a run.
            heeds_stop: Whether this driver looks for what `ask_to_stop` leaves.

        Raises:
            UserError: where a living driver owns it; the message says which.
        """
        self._store, self._beats = store, 0
        self._what = what or f"run {store.location.rsplit('/', 1)[-1]}"
        self._me = {
            **_this_process(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "token": uuid.uuid4().hex,  # tells two claims of one process apart
            "heeds_stop": heeds_stop,
        }
        last = _last_owner(store)
        if last:
            _wait_for_death(store, last, self._what)
        self.number = last + 1
        with stops_held_back() as arrived:
            created = self._claim()
            if created and arrived:
                self._release()
        if not created:
            owner = read_owner(store, _name(self.number))
            raise UserError(f"{self._what} was just taken by {who(owner)}; wait for it to end")
        self._impatient = Store(store.location, 0.0)  # a beat that waited for S3 would keep a driver from stopping
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
        """Stops the heartbeat and releases what is held."""
        with stops_held_back():  # a second Ctrl-C while the first unwinds
            self._stop.set()
            self._thread.join()
            _held.discard(self._me["token"])  # also where it was lost
            if self._lost is None:
                self._release()

    def check(self) -> None:
        """Stops a driver that has been replaced.

        Raises:
            UserError: where another driver is the owner by now.
        """
        if self._lost is not None:
            raise UserError(self._lost)

    def _claim(self) -> bool:
        created = False
        _held.add(self._me["token"])  # before another thread can see the file
        try:
            created = self._store.create(_name(self.number), self._state(released=False))
        finally:
            if not created:
                _held.discard(self._me["token"])
        return created

    def _release(self) -> None:
        _held.discard(self._me["token"])
        with contextlib.suppress(UserError):  # a full disk has been told already; a dead owner is replaced anyway
            self._store.write(_name(self.number), self._state(released=True))

    def _state(self, released: bool) -> bytes:
        return json.dumps({**self._me, "beats": self._beats, "released": released}).encode()

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                last = _last_owner(self._impatient)
                if last > self.number:
                    self._lost = f"{self._what} was taken over by owner {last}; this driver stops"
                    return
                self._beats += 1
                self._impatient.write(_name(self.number), self._state(released=False))
            except UserError:
                continue  # a store that is away for a moment: the next beat tries again


def own_checkpoint(path: str) -> Ownership:
    """Claims a checkpoint, for one command that writes it at a time; the owner files are in a folder beside it.

    Raises:
        UserError: where a living one owns it, and the message says which; or the path is a folder.
    """
    if "://" not in path and os.path.isdir(path or "."):  # said before the work that would be lost, not at its end
        raise UserError(f"checkpoint {path!r} is a folder; give a file, such as {os.path.join(path, 'model.pt')}")
    folder, _, name = path.rpartition("/")
    return Ownership(Store(folder or ".").at(f"owners-of/{name.removesuffix('.pt')}"), f"checkpoint {path}")


def _wait_for_death(store: Store, number: int, what: str) -> None:
    """Returns when an owner can be replaced: at once, or after a minute in which its heartbeat did not change its file.

    Raises:
        UserError: where it lives.
    """
    seen, since = None, time.monotonic()
    while True:
        owner = state = read_owner(store, _name(number))
        if owner["released"] or is_gone(owner):
            return
        if is_here(owner) or (seen is not None and state != seen):  # a heartbeat while we looked
            raise UserError(f"{what} is held by {who(owner)}; wait for it, or stop it first")
        if seen is None:
            print(f"{what} is held by {who(owner)}: watching it for {DEAD_AFTER_SECONDS:g} s at most", flush=True)
            seen, since = state, time.monotonic()
        elif time.monotonic() - since > DEAD_AFTER_SECONDS:
            return
        time.sleep(_LOOK_SECONDS)


def is_here(owner: dict) -> bool:
    """Whether an owner ran on this host since it was started."""
    me = _this_process()
    return (owner["host"], owner["boot"]) == (me["host"], me["boot"])


def is_gone(owner: dict) -> bool:
    """Whether an owner was a process of this host and is no more, or this one, which holds it no more."""
    if not is_here(owner):
        return False
    let_go = owner["pid"] == os.getpid() and owner.get("token") not in _held
    return let_go or _started(owner["pid"]) != owner["started"]


def _last_owner(store: Store) -> int:
    return max((int(name[:-5]) for name in store.names("owners") if re.fullmatch(r"[0-9]{4,9}\.json", name)), default=0)


def last_owner(store: Store) -> tuple[str, dict] | None:
    """The file of the last owner, and what it says; None where there was none.

    Raises:
        DamagedFile: the file is not what was written.
    """
    number = _last_owner(store)
    return (_name(number), read_owner(store, _name(number))) if number else None


def ask_to_stop(store: Store, number: int, why: str) -> None:
    """Leaves a note for an owner: it is to end when what is begun is done. One that comes after it does not heed it."""
    store.create(f"owners/{number:04d}.stop", why.encode())


def reason_to_stop(store: Store, number: int) -> str | None:
    """Who asked an owner to stop; None where nobody did."""
    name = f"owners/{number:04d}.stop"
    return store.read(name).decode(errors="replace") if store.exists(name) else None


def _name(number: int) -> str:
    return f"owners/{number:04d}.json"


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
