"""Sampling: images -> votes, on Ray Data; the same command again samples only what is missing."""

from dataclasses import replace

from raycsr.costs import CostSpec
from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.models.rules import RuleSpec
from raycsr.models.spec import ModelOptions
from raycsr.options import listed
from raycsr.results.outcome import Outcome
from raycsr.smoothing.options import SamplingOptions


def sample(
    *,
    data: DataOptions,
    model: ModelOptions,
    sampling: SamplingOptions,
    pool: PoolOptions,
    results: str,
    experiment: str = "default",
    rules: list[RuleSpec] | None = None,
    costs: list[CostSpec] | None = None,
    alpha: float = 0.001,
    further_models: list[str] | None = None,
    retry_errors: bool = False,
    begin_anew: bool = False,
) -> list[Outcome]:
    """Draws the votes of a base classifier on noisy copies of images, on a pool of Ray actors.

    A run that was interrupted, or whose data was a smaller subset, or that lacks a rule, is continued: each image
    counts once under each rule.

    Args:
        data: The images.
        model: The base classifier.
        sampling: The noise and the number of samples; several sigmas give a run each.
        pool: The actors.
        results: Folder of results, local or s3://bucket/prefix.
        experiment: Folder of this experiment within the results.
        rules: Decision rules beside argmax, which is always among them. All share the forward passes.
        costs: Cost matrices to certify under while sampling goes on. More can be added later with `raycsr certify`.
            With sampling.radii they are what is decided, and the same command with other costs, radii or a larger n
            goes on where each image stopped.
        alpha: Failure probability of one image's certificate.
        further_models: Names of further models, with the other options of `model`: a run each.
        retry_errors: Sample errored images again.
        begin_anew: Sample into a run of its own for this kind of device and batch size, where the run that there is
            was begun on others and its images cannot go on here. Votes of the two are never mixed; to quote the better
            of two certificates of an image doubles the chance that it is false.

    Returns:
        One outcome a run.

    Raises:
        UserError: where anything is wrong that can be known before paying for samples; or a network's logits
            are not finite from the start.
    """
    from raycsr.distributed.cluster import connect
    from raycsr.distributed.pool import check_pool
    from raycsr.distributed.sampling.job import check
    from raycsr.distributed.sampling.run import sample_run

    models = [replace(model, name=name) for name in (model.name, *listed(further_models or []))]
    jobs = check(data, models, sampling, listed(costs or []), alpha, experiment, results, listed(rules or []))
    if pool.actors:
        connect()
    check_pool(pool)
    return [sample_run(job, pool, retry_errors, begin_anew) for job in jobs]
