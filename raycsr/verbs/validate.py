"""`raycsr validate`: all that can be checked before paying, and the plan, with its hours and its price."""

import json
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from raycsr.distributed.advice import ExpectedShares, best_sigma, in_tables
from raycsr.distributed.advice import in_words as advice
from raycsr.distributed.attack.arguments import AttackArguments
from raycsr.distributed.options import PlanOptions
from raycsr.distributed.plans import (
    AttackPlan,
    Price,
    SamplingPlan,
    SamplingPrice,
    SweepPlan,
    TrainingPlan,
    as_json,
    designs,
)
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.search.arguments import SweepArguments
from raycsr.distributed.training.arguments import TrainArguments
from raycsr.errors import Mistakes
from raycsr.store import Store

if TYPE_CHECKING:
    from raycsr.distributed.training.plan import Plan

Plans = SamplingPlan | TrainingPlan | SweepPlan | AttackPlan
Planned = tuple[Plans, Iterable[Price]]


def validate(verb: str, asked: Any, planning: PlanOptions) -> None:
    """Checks what a verb would do, without a cluster, and prints the plan.

    Args:
        verb: The verb: sample, train, sweep or attack.
        asked: The options of that verb: SampleArguments, TrainArguments, SweepArguments or
            AttackArguments.
        planning: How the plan is priced and printed.

    Raises:
        UserError: naming all that is wrong.
    """
    mistakes = Mistakes()
    if planning.pilot_images < 1:
        mistakes.note(f"a pilot of {planning.pilot_images} images says nothing; give pilot_images of 1 or more")
    if planning.devices < 1 or not 0 <= planning.hourly_price < math.inf:
        mistakes.note(
            f"a price for {planning.devices} devices at {planning.hourly_price:g} an hour cannot be told; give devices "
            "of 1 or more, and an hourly_price of 0 or more"
        )
    mistakes.refuse()
    plan_of_verb: dict[str, Callable[[Any, PlanOptions], Iterator[Planned]]]
    plan_of_verb = {"sample": _sample, "train": _train, "sweep": _sweep, "attack": _attack}
    plans = plan_of_verb[verb](asked, planning)
    if planning.json:
        with redirect_stdout(sys.stderr):  # whatever a library prints: the document stands alone on stdout
            content = {"verb": verb, "plans": [_document(plan, list(prices)) for plan, prices in plans]}
        print(json.dumps(content, indent=1))
        return
    offers: list[ExpectedShares] = []  # of all noise levels
    for number, (plan, prices) in enumerate(plans):
        print(f"\n{plan}" if number else plan, flush=True)  # a log shows it before the pilot
        of_plan = list(_told(prices))
        print(*in_tables(of_plan), *advice(of_plan), sep="\n", end="\n" * bool(of_plan), flush=True)
        offers += of_plan
    for line in best_sigma(offers):
        print(line)


def _told(prices: Iterable[Price]) -> Iterator[ExpectedShares]:
    """Prints prices, each as soon as it is known, but those of designs side by side; hands on what else there is."""
    of_designs: list[SamplingPrice] = []
    for price in prices:
        if isinstance(price, ExpectedShares):
            yield price
        elif not isinstance(price, SamplingPrice):
            print(price, flush=True)
        else:
            if not of_designs:
                print(price.speed, flush=True)
            of_designs.append(price)
    if of_designs:
        print(f"\n{designs(of_designs)}\n")


def _document(plan: Plans, prices: Sequence[Price]) -> dict[str, Any]:
    """A plan and its prices, and apart from them what other runs would certify at theirs."""
    offers = [price for price in prices if isinstance(price, ExpectedShares)]
    of_plan = as_json(plan, [price for price in prices if not isinstance(price, ExpectedShares)])
    return {**of_plan, "expected": [asdict(one) for one in offers]} if offers else of_plan


# Certification --------------------------------------------------------------------------------------------


def _sample(asked: SampleArguments, planning: PlanOptions) -> Iterator[Planned]:
    from raycsr.distributed.pool import device_name, worker_device
    from raycsr.distributed.prices import prices_of_sampling
    from raycsr.distributed.sampling.job import check, plan_of
    from raycsr.models.prepare import resolve_precision

    jobs = check(asked)
    for job in jobs:
        device = worker_device(job.asked.pool.gpus, int8=job.base_classifier.calibration is not None)
        precision = resolve_precision(asked.sampling.precision, device, job.base_classifier)
        images = job.listing.images["image_id"]
        plan = plan_of(job, precision=precision, device=device_name(device), to_sample=images)
        yield plan, prices_of_sampling(job, planning) if planning.time_one_batch else ()


def _attack(asked: AttackArguments, planning: PlanOptions) -> Iterator[Planned]:
    from raycsr.distributed.attack.job import check
    from raycsr.distributed.prices import price_of_attack

    job = check(asked)
    plan = job.plan(job.attacks.lacking(job.wanted))
    prices = (price_of_attack(job, one, planning) for one in [plan.num_attacks] if planning.time_one_batch and one)
    yield plan, prices


# Training -------------------------------------------------------------------------------------------------


def _train(asked: TrainArguments, planning: PlanOptions) -> Iterator[Planned]:
    from raycsr.distributed.training.job import check, default_name, plan_of

    plan = check(asked)
    folder = Store(asked.results).at(f"{asked.experiment}/checkpoints").location
    shown = plan_of(plan, f"{folder}/{asked.name or default_name(asked.config)}.pt", asked.workers)
    yield shown, _timed(planning, [plan], 1, None if asked.workers.number == 1 else asked.workers.gpus)


def _sweep(asked: SweepArguments, planning: PlanOptions) -> Iterator[Planned]:
    from raycsr.distributed.search.job import check_asked, plan_of
    from raycsr.distributed.training.plan import prepare

    sweep = check_asked(asked)
    plan = plan_of(sweep, Store(asked.results).at(f"{asked.experiment}/sweeps/{asked.name}"))
    plans = [prepare(corner, sweep.listing) for corner in sweep.corners]
    yield plan, _timed(planning, plans, plan.num_trials, asked.search.gpus_per_trial)


def _timed(planning: PlanOptions, plans: list["Plan"], trials: int | None, gpus: float | None) -> Iterator[Price]:
    """The price of so many trainings, after the plan is printed; none of a number that nobody knows.

    Args:
        planning: How the plan is priced and printed.
        plans: Trainings, of which each is timed.
        trials: Number of trainings that are like them.
        gpus: Number of GPUs that a worker of a training reserves; None where this process trains.
    """
    from raycsr.distributed.prices import price_of_training

    if planning.time_one_batch and trials is not None:
        yield price_of_training(plans, planning, trials, gpus)
