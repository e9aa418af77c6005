"""Evaluating: sample, certify and report in one go."""

from dataclasses import dataclass, field

from raycsr.costs import CostSpec
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.errors import UserError
from raycsr.options import takes
from raycsr.results.outcome import Reported
from raycsr.verbs.report import report


@dataclass(frozen=True, kw_only=True)
class EvaluateArguments(SampleArguments):
    """The options of `raycsr evaluate`: those of `raycsr sample`, and those below.

    Attributes:
        costs: Cost matrices to certify under.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four, up to the largest certified one.
        out: Folder for the table and the pictures of all runs together.
    """

    costs: list[CostSpec] = field()  # which has no default here
    radii: list[float] | None = None
    out: str | None = None


@takes(EvaluateArguments)
def evaluate(asked: EvaluateArguments) -> Reported:
    """Samples, certifies and reports, as three commands would.

    Args:
        asked: Options of the verb; a caller gives its fields as keyword arguments.

    Returns:
        The outcome of each run, and the report on all.

    Raises:
        UserError: Something is wrong that can be known before samples are paid for.
    """
    from raycsr.distributed.cluster import check_location
    from raycsr.distributed.sampling.run import sample_all

    if not asked.costs:
        raise UserError("evaluate needs costs to certify under; give --costs uniform, or use `raycsr sample`")
    if asked.out is not None:
        check_location(asked.out, "out")
    outcomes = sample_all(asked)
    table = report(
        run=[outcome.run.location for outcome in outcomes],
        costs=asked.costs,
        answers=asked.answers,
        radii=asked.radii,
        out=asked.out,
        allow_missing=True,
    )
    return Reported(outcomes, table)
