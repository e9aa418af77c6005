"""Certifying: stored votes -> certificates, for any cost matrix, without sampling anew."""

from raycsr.certification import Answer, check_alpha
from raycsr.certification.answers import AnswerSpec
from raycsr.costs import CostMatrix, CostSpec
from raycsr.distributed.certify_run import certify_run
from raycsr.errors import Mistakes
from raycsr.options import listed
from raycsr.results import Run, resolve_run, runs_at


def certify(
    *, run: list[str], costs: list[CostSpec], alpha: float = 0.001, answers: list[AnswerSpec] | None = None
) -> dict[str, list[str]]:
    """Certifies the votes of runs under cost matrices, and stores the certificates beside the votes.

    Args:
        run: Runs to use: their folders, s3://bucket/prefix, or unique prefixes of them; a folder of runs stands for all
            in it.
        costs: Cost matrices to certify under; each gives a separate statement at alpha.
        alpha: Failure probability of one image's certificate.
        answers: What the smoothed classifier says, given the shares of its votes: `argmax` alone by default. One that
            may abstain, such as `majority`, gives other certificates from the same votes, a set for each.

    Returns:
        Location of each run -> the names of its certificate sets, in the order of `costs`, for each of the `answers`.

    Raises:
        UserError: naming all runs, cost matrices and answers that cannot be used.
    """
    mistakes, runs = Mistakes(), list[Run]()
    wanted: list[tuple[Run, list[tuple[str, CostMatrix]], list[Answer]]] = []  # all, before any work
    with mistakes.noted():
        check_alpha(alpha)
    with mistakes.noted():
        runs = [resolve_run(location) for location in runs_at(run)]
    for found in runs:
        pairs = []
        for spec in listed(costs):
            with mistakes.noted():
                pairs.append((spec, found.costs(spec)))
        with mistakes.noted():
            wanted.append((found, pairs, found.answers(listed(answers or ["argmax"]))))
    mistakes.refuse()
    return {
        found.location: [_certify(found, spec, matrix, alpha, one) for spec, matrix in pairs for one in of_run]
        for found, pairs, of_run in wanted
    }


def _certify(run: Run, spec: str, matrix: CostMatrix, alpha: float, answer: Answer) -> str:
    name = certify_run(run, spec, matrix, alpha, answer=answer)
    print(f"certified {run.location}/certificates/{name}")
    return name
