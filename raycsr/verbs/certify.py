"""Certifying: stored votes -> certificates, for any cost matrix, without sampling anew."""

from raycsr.certification import check_alpha
from raycsr.costs import CostMatrix, CostSpec
from raycsr.distributed.certify_run import certify_run
from raycsr.options import listed
from raycsr.results import Run, resolve_run, runs_at


def certify(*, run: list[str], costs: list[CostSpec], alpha: float = 0.001) -> dict[str, list[str]]:
    """Certifies the votes of runs under cost matrices, and stores the certificates beside the votes.

    Args:
        run: Runs to use: their folders, s3://bucket/prefix, or unique prefixes of them; a folder of runs stands for all
            in it.
        costs: Cost matrices to certify under; each gives a separate statement at alpha.
        alpha: Failure probability of one image's certificate.

    Returns:
        Location of each run -> the names of its certificate sets, in the order of `costs`.

    Raises:
        UserError: where a run or a cost matrix cannot be used.
    """
    check_alpha(alpha)
    runs = [resolve_run(location) for location in runs_at(run)]
    matrices = [
        (found, [(spec, found.costs(spec)) for spec in listed(costs)]) for found in runs
    ]  # all, before any work
    return {
        found.location: [_certify(found, spec, matrix, alpha) for spec, matrix in pairs] for found, pairs in matrices
    }


def _certify(run: Run, spec: str, matrix: CostMatrix, alpha: float) -> str:
    name = certify_run(run, spec, matrix, alpha)
    print(f"certified {run.location}/certificates/{name}")
    return name
