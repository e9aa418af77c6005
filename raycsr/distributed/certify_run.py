"""Certifying one run: few parts in this process, many in tasks on Ray Data."""

from collections.abc import Sequence

import numpy as np
import ray

from raycsr.certification.answers import ARGMAX, Answer
from raycsr.costs import CostMatrix
from raycsr.distributed.cluster import connect, user_errors_of_workers
from raycsr.progress import Progress
from raycsr.results import Run

FEW_PARTS = 256  # are certified by this process before Ray has started
_PARTS_PER_TASK = 64  # about a second of work


def certify_run(
    run: Run,
    spec: str,
    matrix: CostMatrix,
    alpha: float,
    among: Sequence[str] | None = None,
    answer: Answer = ARGMAX,
) -> str:
    """Certifies each votes part that has no valid certificates yet: few in this process, many on Ray Data.

    Args:
        run: Run to certify.
        spec: Cost matrix as a person writes it.
        matrix: Values of the cost matrix.
        alpha: Failure probability of one image's certificate.
        among: Names of the votes parts to look at; by default all.
        answer: What the smoothed classifier says, given shares.

    Returns:
        The name of the certificate set.

    Raises:
        UserError: naming a part whose votes cannot be certified; what is certified by then stays.
    """
    name = run.open_certificates(spec, matrix, alpha, answer)
    parts = run.uncertified(name, among)
    if len(parts) <= FEW_PARTS:
        unreadable = run.certify_parts(name, parts, matrix, alpha, answer)
    else:
        connect()
        unreadable = _certify_on_ray(run, name, parts, matrix, alpha, answer)
    run.warn_unreadable(unreadable)
    return name


def _certify_on_ray(
    run: Run, name: str, parts: Sequence[str], matrix: CostMatrix, alpha: float, answer: Answer
) -> list[str]:
    """Certifies in tasks, which write what they certify; returns the names of parts that cannot be read."""

    def task(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = block["item"].tolist()
        unreadable = set(run.certify_parts(name, names, ray.get(kept), alpha, answer))
        return {"part": block["item"], "unreadable": np.array([part in unreadable for part in names])}

    tasks = -(-len(parts) // _PARTS_PER_TASK)
    unreadable: list[str] = []
    with user_errors_of_workers([{"CPU": 1}]), Progress(len(parts), "certify", "parts") as progress:
        kept = ray.put(matrix)  # once a node, not once a task: a thousand classes are 8 MB
        certified = ray.data.from_items(list(parts), override_num_blocks=tasks).map_batches(task, batch_size=None)
        for block in certified.iter_batches(batch_size=None):
            unreadable += block["part"][block["unreadable"]].tolist()
            progress.update(len(block["part"]))
    return sorted(unreadable)
