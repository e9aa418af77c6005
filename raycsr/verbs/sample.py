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
    """Counts the votes of a base classifier on noisy copies of images, on a pool of Ray actors.

    The same command continues a run that was interrupted. A run is also continued where more images or more decision
    rules are asked for: each image counts once under each rule.

    Args:
        data: The images to sample.
        model: The base classifier.
        sampling: The noise and the number of samples; a list of sigmas gives a run for each.
        pool: The actors that sample.
        results: Folder for the results, local or s3://bucket/prefix.
        experiment: Name of the experiment, which is a folder within the results.
        rules: Decision rules to count votes under, beside argmax, which is always counted. All share the forward
            passes.
        costs: Cost matrices to certify under while sampling goes on; `raycsr certify` adds others later. With
            sampling.radii they also say what is decided about an image: the same command with other costs, other radii
            or a larger n continues each image where it stopped.
        alpha: Failure probability of one image's certificate.
        further_models: Names of further models, each of which gives a run under the other options of `model`.
        retry_errors: Whether to sample images again that could not be sampled before.
        begin_anew: Whether to begin a separate run for this kind of device and batch size, where images of the existing
            run were begun on others and cannot be continued here. Votes of the two are never mixed. Quoting the better
            of two certificates of an image doubles the chance that it is false.

    Returns:
        The outcome of each run.

    Raises:
        UserError: Something is wrong that can be known before samples are paid for; or a network's logits
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
