"""What sampling and training will take, by a few timed batches and a small pilot."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from raycsr.certification import Statements, largest_radius, looks
from raycsr.data.decode import Decode
from raycsr.data.memory import read_pixels
from raycsr.distributed.advice import ALPHAS, NS, ExpectedShares, expected_shares, radii_of
from raycsr.distributed.attack.attacker import Attacker, AttackerSpec
from raycsr.distributed.attack.job import AttackJob
from raycsr.distributed.options import PlanOptions
from raycsr.distributed.plans import AttackPrice, SamplingPrice, TrainingPrice
from raycsr.distributed.pool import probe_here, worker_device
from raycsr.distributed.sampling.job import Job
from raycsr.distributed.training.fit import trainer_of
from raycsr.distributed.training.plan import Plan
from raycsr.models.prepare import prepare_for_inference
from raycsr.progress import Progress
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.options import CHUNK
from raycsr.training.batches import InMemoryBatches

_PILOT_SECONDS = 30.0  # of sampling them: on a slow device they get fewer samples
_PILOT_SAMPLES = (128, 2048)  # an image, at least and at most
_TIMES_ON_PAPER = 50  # that each of them is then sampled
_BATCHES = 4  # timed, after one that is not


def prices_of_sampling(job: Job, options: PlanOptions) -> Iterator[SamplingPrice | ExpectedShares]:
    """What a fixed and a sequential design would take, by the engine's speed here, and what others would certify."""
    gpus, int8 = job.asked.pool.gpus, job.base_classifier.calibration is not None
    found = probe_here(job.base_classifier, job.asked.sampling, torch.get_num_threads(), gpus)
    device = worker_device(gpus, int8=int8)
    sampler = functools.partial(
        Sampler,
        prepare_for_inference(job.base_classifier, precision=found.precision, device=device, compile=found.compile),
        rules=job.rules,
        device=device,
        purpose="pilot",  # an n that is chosen by what it prints is chosen without the certificates' votes
    )
    rows = job.listing.images.iloc[np.linspace(0, len(job.listing.images) - 1, options.pilot_images).astype(int)]
    pixels = read_pixels(job.source, rows.drop_duplicates("image_id"), job.base_classifier.preprocessing)
    images = [torch.from_numpy(image).permute(2, 0, 1) for image in pixels.images]
    draws = job.asked.sampling.draws(job.sigma, found.batch_size)
    timed = sampler(replace(draws, n=_BATCHES * max(found.batch_size, CHUNK)))
    timed.count(images[0], "warm-up")
    start = time.perf_counter()
    timed.count(images[0], "timed")
    speed = (timed.n0 + timed.n) / (time.perf_counter() - start)
    total, fixed = len(job.listing.images), job.asked.sampling.n0 + job.asked.sampling.n

    def price_of(design: str, samples: float, radii: tuple[float, ...] = (), pilot_images: int = 0) -> SamplingPrice:
        seconds = total * samples / speed
        return SamplingPrice(*_bill(seconds, options), design, samples, radii, pilot_images, speed, found.batch_size)

    yield price_of("fixed", fixed)
    n = int(np.clip(_PILOT_SECONDS * speed / len(images), *_PILOT_SAMPLES)) // CHUNK * CHUNK
    requests = (Request(image, image_id) for image, image_id in zip(images, pixels.image_ids, strict=True))
    counted = []
    with Progress(len(images), "pilot", "images") as progress:
        for one in sampler(replace(draws, n=n)).sample(requests):
            counted.append(one)
            progress.update()
    radii = job.asked.sampling.radii or [job.sigma]
    statements = job.statements or Statements(
        job.costs.values(),
        radii,
        sigma=job.sigma,
        alpha=job.asked.alpha,
        n=job.asked.sampling.max_samples,
        answers=job.answers,
    )
    votes = np.stack([one.counts + one.counts0 for one in sorted(counted, key=lambda one: one.position)])
    sequential = job.asked.sampling.n0 + expected_samples(votes, pixels.labels, statements, n0=job.asked.sampling.n0)
    yield price_of("sequential", sequential, statements.radii, len(images))
    yield from _offers(job, votes[:, 0], pixels.labels, lambda samples: _bill(total * samples / speed, options))


def _offers(
    job: Job,
    votes: np.ndarray,
    labels: np.ndarray,
    bill: Callable[[int], tuple[float, int, float | None, float | None]],
) -> Iterator[ExpectedShares]:
    """What runs of each n and alpha would certify by the first rule, with their prices, the least first.

    Args:
        job: The run that is planned.
        votes: Votes of the pilot; int (N, m).
        labels: Classes of its images; int (N,).
        bill: Samples of an image -> the fields of a `Price`.
    """
    radii = radii_of(job.asked.sampling.radii or (), job.asked.sigmas)
    for alpha, n in itertools.product(ALPHAS, NS):
        draws = (job.asked.sampling.n0, n)
        shares = expected_shares(votes, labels, job.costs, sigma=job.sigma, draws=draws, alpha=alpha, radii=radii)
        reach = largest_radius(n, alpha, job.sigma)
        yield ExpectedShares(
            *bill(sum(draws)), job.name, job.sigma, job.rules[0].spec, n, alpha, reach, radii, shares, len(votes)
        )


def expected_samples(votes: np.ndarray, labels: np.ndarray, statements: Statements, *, n0: int) -> float:
    """Estimation samples that an image of a sequential run takes on average, by sampling a pilot's again on paper.

    Args:
        votes: Votes of the pilot; int (N, rules, m).
        labels: Classes of the images; int (N,).
        statements: Statements to decide.
        n0: Number of selection samples of an image.
    """
    generator = np.random.default_rng(0)
    steps = looks(statements.n, CHUNK)
    taken = []
    for of_image, label in zip(votes, labels.tolist(), strict=True):
        for _ in range(_TIMES_ON_PAPER):
            # the shares that may have given these votes, a few of each class that got none
            shares = np.stack([generator.dirichlet(of_rule + 1 / len(of_rule)) for of_rule in of_image])
            counts0 = np.stack([generator.multinomial(n0, p) for p in shares])
            counts, drawn = np.zeros_like(counts0), 0
            for step in steps:
                counts, drawn = counts + np.stack([generator.multinomial(step - drawn, p) for p in shares]), step
                if statements.decided(counts0, counts, label):
                    break
            taken.append(drawn)
    return float(np.mean(taken))


def price_of_training(
    plans: Sequence[Plan], options: PlanOptions, trials: int = 1, gpus: float | None = None
) -> TrainingPrice:
    """What so many trainings take that are like the plans, on average; `gpus` as `worker_device` has it."""
    seconds = float(np.mean([_seconds_of_training(plan, worker_device(gpus)) for plan in plans]))
    return TrainingPrice(*_bill(seconds * trials, options), len(plans))


def _seconds_of_training(plan: Plan, device: torch.device) -> float:
    """What a training takes on a device of this machine, by a few of its steps; validation is not counted."""
    config = plan.config
    rows = plan.listing.images.iloc[plan.held_out.left[: config.training.batch_size]]
    pixels = read_pixels(plan.source, rows, plan.model.preprocessing)
    batches = InMemoryBatches(
        pixels.images, pixels.labels, batch_size=config.training.batch_size, generator=torch.Generator().manual_seed(0)
    )
    trainer = trainer_of(plan, plan.model.to(device).train(), batches)
    (batch,) = batches
    trainer.step(batch).item()
    start = time.perf_counter()
    for _ in range(_BATCHES):
        trainer.step(batch).item()
    steps = config.training.epochs * (len(plan.held_out.left) // config.training.batch_size)
    return steps * (time.perf_counter() - start) / _BATCHES


def price_of_attack(job: AttackJob, number: int, options: PlanOptions) -> AttackPrice:
    """What so many attacks take, each of one image at one radius with its verdict, by one of them."""
    spec = AttackerSpec.of(job, owner=0, threads=torch.get_num_threads())
    device = worker_device(job.asked.pool.gpus, int8=job.base_classifier.calibration is not None)
    attacker = Attacker(model=lambda: job.base_classifier, spec=spec, device=device)
    row = job.wanted.iloc[:1].assign(radii=lambda rows: rows["radius"].map(str))
    decode = Decode(job.source, job.base_classifier.preprocessing)
    decoded = decode({name: row[name].to_numpy() for name in row.columns.tolist()})
    image = {name: column[0] for name, column in decoded.items()}
    attacker.rows([image])  # warms up
    start = time.perf_counter()
    attacker.rows([image])
    return AttackPrice(*_bill(number * (time.perf_counter() - start), options))


def _bill(seconds: float, options: PlanOptions) -> tuple[float, int, float | None, float | None]:
    """The fields of a `Price` for work that takes so many seconds on one device."""
    price = seconds / 3600 * options.hourly_price
    return seconds / options.devices, options.devices, options.hourly_price or None, price or None
