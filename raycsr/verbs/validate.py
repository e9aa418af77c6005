"""`raycsr validate`: all that can be checked before paying, and the plan, with its hours and its price."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from raycsr.distributed.options import TimingOptions
from raycsr.store import Store


def validate(verb: str, options: Mapping[str, Any], timing: TimingOptions) -> None:
    """Checks what a verb would do, without a cluster, and prints the plan.

    Args:
        verb: sample, train or sweep.
        options: of that verb.
        timing: how to price it.

    Raises:
        UserError: naming what is wrong.
    """
    {"sample": _sample, "train": _train, "sweep": _sweep}[verb](options, timing)


# Certification --------------------------------------------------------------------------------------------


def _sample(options: Mapping[str, Any], timing: TimingOptions) -> None:
    from raycsr.distributed.pool import check_pool_options, device_name, worker_device
    from raycsr.distributed.prices import price_of_sampling
    from raycsr.distributed.sampling.job import check, describe
    from raycsr.models.prepare import resolve_precision

    check_pool_options(options["pool"])
    names = [options["model"].name, *(options["further_models"] or [])]
    models = [replace(options["model"], name=name) for name in names]
    jobs = check(
        options["data"],
        models,
        options["sampling"],
        options["costs"] or [],
        options["alpha"],
        options["experiment"],
        options["results"],
        options["rules"] or [],
    )
    device = worker_device()
    for job in jobs:
        precision = resolve_precision(job.sampling.precision, device)
        print(describe(job, on=f"{precision} on {device_name(device)}", to_sample=job.listing.images["image_id"]))
        if timing.time_one_batch:
            for line in price_of_sampling(job, timing):
                print(line, flush=True)


# Training -------------------------------------------------------------------------------------------------


def _train(options: Mapping[str, Any], timing: TimingOptions) -> None:
    from raycsr.distributed.cluster import check_location
    from raycsr.distributed.prices import hours, seconds_of_training
    from raycsr.distributed.training import job as training
    from raycsr.distributed.training.plan import config_of, prepare
    from raycsr.distributed.training.ray_train import check_workers

    config = config_of(options)
    check_workers(options["workers"], config.training.batch_size)
    check_location(options["results"])
    plan = prepare(config)
    folder = Store(options["results"]).at(f"{options['experiment']}/checkpoints").location
    print(
        training.describe(plan, f"{folder}/{options['name'] or training.default_name(config)}.pt", options["workers"])
    )
    if timing.time_one_batch:
        print(f"takes     {hours(seconds_of_training(plan), timing)}")


def _sweep(options: Mapping[str, Any], timing: TimingOptions) -> None:
    from raycsr.data.sources import open_source
    from raycsr.distributed.cluster import check_location
    from raycsr.distributed.prices import hours, seconds_of_training
    from raycsr.distributed.search import job as sweeping
    from raycsr.distributed.search.trials import num_trials
    from raycsr.distributed.training.plan import config_of, prepare

    config, space, search = config_of(options), options["space"], options["search"]
    check_location(options["results"])
    folder = Store(options["results"]).at(f"{options['experiment']}/sweeps/{options['name']}")
    corners, listing = sweeping.check_sweep(config, space, search)
    sweeping.check_evaluation(options["test"], options["sampling"], options["pool"], corners)
    metrics = sweeping.metrics_of(corners, listing, search)
    plan = sweeping.describe(open_source(config.data), space, search, folder, metrics)
    print(plan, *listing.notes, sep="\n")
    trials = num_trials(space, search)
    plans = [prepare(corner, listing) for corner in corners]
    if timing.time_one_batch and trials is not None:
        mean = float(np.mean([seconds_of_training(plan) for plan in plans]))
        print(f"takes     {hours(trials * mean, timing)}, by the {len(plans)} corners of the space")
