"""Blocks whose process dies each time: they are split, and an image that is alone then is given up.

Ray starts a process that died again, without end, which is right where its node went away, and wrong where the block
itself kills it: by a fault in a decoder's or a network's own code, or for its memory. So each process says what it
begins and what it has ended to a small actor beside the driver. It dies with the driver: the next command counts anew.
This module is all that the actor loads: no torch, no decoder.

Where several blocks are under way in a process, its death may be any one's. It is held against none; each is then begun
again alone, and alone it dies of itself.
"""

import contextlib
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from raycsr.distributed.sampling.company import Company
from raycsr.errors import UserError, first_of

MOST = 3  # deaths of one block, and then of one image
_SAME_END = 3  # images that are given up on a node on which none was done: it is not the images

Block = dict[str, np.ndarray]
Kind = tuple[str, str]  # of work: what is done to an image, and for which of a stream's runs


class Deaths:
    """What the processes of a stream have begun and not ended: theirs are the deaths."""

    def __init__(self) -> None:
        """Nothing has been begun."""
        self._begun: dict[str, list[tuple[str, bool]]] = {}  # work -> node of each process that began it; was it alone
        self._given_up: dict[tuple[Kind, str], list[str]] = defaultdict(list)  # kind, node -> images
        self._lived: set[tuple[Kind, str]] = set()  # kind, node: where something was ended

    def of(self, work: str) -> int:
        """How many processes died of some work, or while it was under way beside others.

        They began it, and ended nothing, although their nodes are still there.
        """
        before = self._begun.get(work, [])
        alive = nodes_alive() if before else set()
        return sum(node in alive for node, _ in before)

    def begin(self, work: str, node: str, alone: bool = True) -> int:
        """Notes that a process begins some work.

        Returns:
            How many died of it before, alone as they were with it.
        """
        before = self._begun.setdefault(work, [])
        alive = nodes_alive() if before else set()
        before.append((node, alone))
        return sum(was_alone and one in alive for one, was_alone in before[:-1])

    def end(self, work: str, kind: Kind, node: str) -> None:
        """Notes that the work is done, as none is that was split or given up."""
        self._begun.pop(work, None)
        self._lived.add((kind, node))

    def give_up(self, image_id: str, kind: Kind, node: str) -> list[str]:
        """Notes that an image is given up.

        Returns:
            All images that were given up on that node so far, where none was ever done there.
        """
        if image_id not in (given_up := self._given_up[kind, node]):
            given_up.append(image_id)
        return [] if (kind, node) in self._lived else given_up


def nodes_alive() -> set[str]:
    """Ids of the cluster's nodes that are there."""
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


class SharedDeaths:
    """The one `Deaths` of a stream, as its processes use it; each speaks of its own node."""

    def __init__(self) -> None:
        """Starts its actor, on the driver's node, which lives as long as the driver does."""
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
        self._actor = ray.remote(Deaths).options(**options).remote()

    def of(self, work: str) -> int:
        """As `Deaths.of`."""
        return ray.get(self._actor.of.remote(work))

    def begin(self, work: str, alone: bool = True) -> int:
        """As `Deaths.begin`; it is noted when this returns."""
        return ray.get(self._actor.begin.remote(work, _node(), alone))

    def end(self, work: str, kind: Kind) -> None:
        """As `Deaths.end`."""
        self._actor.end.remote(work, kind, _node())  # nobody waits for it

    def give_up(self, image_id: str, kind: Kind) -> None:
        """As `Deaths.give_up`.

        Raises:
            UserError: where several images died on this node, and none lived.
        """
        given_up, (how, _) = ray.get(self._actor.give_up.remote(image_id, kind, _node())), kind
        if len(given_up) >= _SAME_END:
            raise UserError(
                f"node {_node()[:12]} has {how} no image: its process died {MOST} times for each of {len(given_up)}, "
                f"{first_of(given_up, _SAME_END)}; check the model and the node's memory, or take that node away"
            )


def _node() -> str:
    return ray.get_runtime_context().get_node_id()


def survive(
    deaths: SharedDeaths | None,
    how: str,
    block: Block,
    call: Callable[[Block], Block],
    give_up: Callable[[Block, str], Block],
    company: Company | None = None,
) -> Block:
    """Calls a function on a block; where that has killed three processes, on each image alone.

    Args:
        deaths: Deaths of the stream's processes; None where there is no Ray to start a process again.
        how: Participle of what is done to an image: decoded, sampled.
        block: Columns by name, among them image_id; also run, rules, continues and batch_size where images are in
            several blocks.
        call: Function: block -> a row for each of its images.
        give_up: Function: a block of one image, and why it is given up -> its row; called where that image alone has
            killed three processes.
        company: Where several blocks are under way in this process: those of one run and one batch size, of which
            nothing has died yet.

    Returns:
        What the calls gave, in the order of the block.

    Raises:
        UserError: where the images are not what kills the process.
    """
    kind = (how, str(block["run"][0]) if "run" in block else "")
    what = [*kind, *block["image_id"], *(block[name][0] for name in ("rules", "continues") if name in block)]
    work = hashlib.sha256("\0".join(map(str, what)).encode()).hexdigest()
    alone = company is None or (deaths is not None and deaths.of(work) > 0)
    key = None if alone else tuple(block[name][0] for name in ("run", "batch_size"))
    with contextlib.nullcontext() if company is None else company.of(key):
        if deaths is None:
            return call(block)
        if deaths.begin(work, alone) < MOST:
            result = call(block)
            deaths.end(work, kind)
            return result
        images = len(block["image_id"])
        if images == 1:
            deaths.give_up(str(block["image_id"][0]), kind)
            with thrice(
                deaths, f"{work} given up", f"image {block['image_id'][0]!r} was given up and its process died"
            ):
                return give_up(block, f"its process died {MOST} times while it was {how}")
        each = [{name: column[i : i + 1] for name, column in block.items()} for i in range(images)]
        rows = [survive(deaths, how, one, call, give_up) for one in each]
        return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


@contextmanager
def thrice(deaths: SharedDeaths, work: str, what: str) -> Iterator[None]:
    """Work without an image that it could be split by, which Ray would begin again without end.

    Raises:
        UserError: that says `what` died, where three processes did.
    """
    if deaths.begin(work) >= MOST:
        raise UserError(f"{what} {MOST} times; check the model, and the memory of node {_node()[:12]}")
    yield
    deaths.end(work, ("begun", ""))


@contextmanager
def starting(deaths: SharedDeaths | None, run: str) -> Iterator[None]:
    """The start of an actor's work for a run.

    Raises:
        UserError: where it killed three processes of this actor.
    """
    if deaths is None:
        yield
        return
    actor = ray.get_runtime_context().get_actor_id()
    with thrice(deaths, f"start {actor} {run}", "the process that loads the model died"):
        yield
