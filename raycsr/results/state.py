"""What becomes of a run: finished, or what its last driver does, by the owner file that the driver keeps."""

import warnings
from dataclasses import dataclass

from raycsr.errors import DamagedFile
from raycsr.results.owners import DEAD_AFTER_SECONDS, is_gone, is_here, last_owner, who
from raycsr.results.runs import Run
from raycsr.store import Store

_SKEW_SECONDS = 600.0  # by which the clocks of machines that share a folder may differ


@dataclass(frozen=True)
class RunState:
    """What becomes of a run.

    Attributes:
        word: `running` where a driver holds the run; else `finished`; `died` where the driver that held it last never
            released it and is gone, or has been silent for a minute, on a shared folder for eleven; else `stopped`.
        owner: Driver that holds the run, or that died; else empty.
        since: Time at which that driver claimed it, ISO 8601 in UTC; empty where its file does not say.
    """

    word: str
    owner: str = ""
    since: str = ""

    def __str__(self) -> str:
        """In words: `running since 2026-05-01T10:00:00+00:00 by process 12 on node1`."""
        if not self.owner:
            return self.word
        since = f"since {self.since} " if self.since else ""
        return f"running {since}by {self.owner}" if self.word == "running" else f"{self.word}: {self.owner}"


def run_state(run: Run, finished: bool) -> RunState:
    """Tells what becomes of a run, without reading its parts.

    Args:
        run: The run.
        finished: Whether every listed image has been sampled under every rule (`Run.finished`).
    """
    try:
        last = last_owner(run.store)
    except DamagedFile as error:
        warnings.warn(str(error), stacklevel=2)
        last = None
    if last is not None:
        name, owner = last
        facts = who(owner), owner.get("since", "")
        if not owner["released"] and _lives(owner, run.store, name):
            return RunState("running", *facts)
        if not owner["released"] and not finished:
            return RunState("died", *facts)
    return RunState("finished" if finished else "stopped")


def _lives(owner: dict, store: Store, name: str) -> bool:
    """A driver on this host lives while its process does; one elsewhere while its heartbeat is fresh.

    S3 tells the age by its own clock, a shared folder by those of two machines.
    """
    if is_here(owner):
        return not is_gone(owner)
    return store.age(name) <= DEAD_AFTER_SECONDS + (0.0 if store.remote else _SKEW_SECONDS)
