"""Evaluating: sample, certify and report in one go."""

from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.errors import UserError
from raycsr.models.rules import RuleSpec
from raycsr.models.spec import ModelOptions
from raycsr.results.outcome import Outcome
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample


def evaluate(
    *,
    data: DataOptions,
    model: ModelOptions,
    sampling: SamplingOptions,
    pool: PoolOptions,
    costs: list[CostSpec],
    results: str,
    experiment: str = "default",
    rules: list[RuleSpec] | None = None,
    alpha: float = 0.001,
    further_models: list[str] | None = None,
    retry_errors: bool = False,
    begin_anew: bool = False,
    radii: list[float] | None = None,
    out: str | None = None,
) -> list[Outcome]:
    """Samples, certifies and reports.

    Args:
        data: The images.
        model: The base classifier.
        sampling: The noise and the number of samples; several sigmas give a run each.
        pool: The actors.
        costs: Cost matrices to certify under.
        results: Folder of results, local or s3://bucket/prefix.
        experiment: Folder of this experiment within the results.
        rules: Decision rules beside argmax, which is always among them.
        alpha: Failure probability of one image's certificate.
        further_models: Names of further models, with the other options of `model`: a run each.
        retry_errors: Sample errored images again.
        begin_anew: Sample into a run of its own for this kind of device and batch size, as in `raycsr sample`.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four up to the largest certified one.
        out: Folder for the table and the picture over all runs.

    Returns:
        One outcome a run.

    Raises:
        UserError: where anything is wrong that can be known before paying for samples.
    """
    from raycsr.distributed.cluster import check_location

    if not costs:
        raise UserError("evaluate needs costs to certify under; give --costs uniform, or use `raycsr sample`")
    if out is not None:
        check_location(out, "out")
    outcomes = sample(
        data=data,
        model=model,
        sampling=sampling,
        pool=pool,
        results=results,
        experiment=experiment,
        rules=rules,
        costs=costs,
        alpha=alpha,
        further_models=further_models,
        retry_errors=retry_errors,
        begin_anew=begin_anew,
    )
    report(
        run=[outcome.run.location for outcome in outcomes],
        costs=costs,
        radii=radii,
        out=out,
        allow_missing=True,
    )
    return outcomes
