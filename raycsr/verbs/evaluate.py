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
    """Samples, certifies and reports, as three commands would.

    Args:
        data: The images to sample.
        model: The base classifier.
        sampling: The noise and the number of samples; a list of sigmas gives a run for each.
        pool: The actors that sample.
        costs: Cost matrices to certify under.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, which is a folder within the results.
        rules: Decision rules to count votes under, beside argmax, which is always counted.
        alpha: Failure probability of one image's certificate.
        further_models: Names of further models, each of which gives a run under the other options of `model`.
        retry_errors: Whether to sample images again that could not be sampled before.
        begin_anew: Whether to begin a separate run for this kind of device and batch size, as in `raycsr sample`.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four, up to the largest certified one.
        out: Folder for the table and the pictures of all runs together.

    Returns:
        The outcome of each run.

    Raises:
        UserError: Something is wrong that can be known before samples are paid for.
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
