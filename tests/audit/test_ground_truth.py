"""Ground truth through the real pipeline: every vote is of its own noise, and certificates are true as often as said.

An image's certificate is false where its radius is above that of the true vote shares. Images are made for that: their
true radii lie just below those that are asked about.
"""

from functools import cache
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import ray
import slabs
import torch
from auditing import Audit
from pipeline import BATCH_SIZE, Ask, Died, Here, job
from scipy.special import ndtri
from scipy.stats import binom

from raycsr.certification import BOUNDS, Method, binomial_lower, binomial_upper, certificates, statements
from raycsr.distributed.cluster import connect
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.sampling import voter
from raycsr.distributed.sampling.run import sample_runs
from raycsr.results import certificate_sets
from raycsr.smoothing import engine
from raycsr.smoothing.engine import Request
from raycsr.smoothing.noise import noise_key

RADII = (0.1, 0.2, 0.3)
N = 1280
OFFSET = slabs.RULES[:1]
SEED = slabs.COSTS[1:2]

SIZES = [
    pytest.param(200, 0.05, id="200 images"),
    pytest.param(2_000, 0.05, id="2,000 images", marks=pytest.mark.long),
    pytest.param(2_000, 0.001, id="2,000 images, alpha .001", marks=pytest.mark.long),
]

SCENARIOS = {
    "fixed n, then all images, then two rules": [
        Ask(None, N, rules=(), images=100),
        Ask(None, N, rules=()),
        Ask(None, N),
    ],
    "sequential": [Ask(RADII, N)],
    "sequential, then other radii and a rule, other matrices, a larger n": [
        Ask(RADII[:1], 192, SEED, ()),
        Ask(RADII[:2], 256, SEED, OFFSET),
        Ask(RADII[:2], 512),
        Ask(RADII, N),
    ],
}


@cache
def near_radii(number: int) -> slabs.Pictures:
    return slabs.pictures_near_radii(number, RADII, n=N)


@pytest.mark.parametrize("rule", slabs.rules(slabs.RULES), ids=lambda rule: rule.kind)
def test_the_radii_of_the_true_shares_are_never_beyond_the_true_distance_and_meet_it(rule):
    at = near_radii(500).projections
    p, distance = slabs.shares(rule, at), slabs.distances(rule, at)
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-12)
    answer = p.argmax(axis=1)
    others = np.where(np.arange(slabs.NUM_CLASSES) == answer[:, None], np.inf, distance).min(axis=1)
    gaps = {
        "standard": (others - slabs.standard_radius(p, answer))[slabs.standard_radius(p, answer) > 0.05],
        "pairwise": distance[np.isfinite(distance)] - slabs.pairwise_radius(p)[np.isfinite(distance)],
    }
    for gap in gaps.values():
        assert -1e-9 < gap.min() < 0.01


def test_images_lie_where_they_were_asked_to():
    near, rules = near_radii(500), slabs.rules(slabs.RULES)
    p = np.stack([slabs.shares(rule, near.projections) for rule in rules])
    radii = np.stack([slabs.standard_radius(shares, near.labels) for shares in p])
    below = np.subtract.outer(np.array(RADII), radii)  # radii, rules, N
    assert ((below > 0) & (below < 0.003)).any(axis=(0, 1)).mean() > 0.4


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("number", "alpha"), SIZES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_votes_are_those_of_asking_at_once_and_certificates_are_true(scenario, number, alpha, tmp_path):
    audit = Audit(near_radii(number), alpha, str(tmp_path))
    for ask in SCENARIOS[scenario]:
        outcome = audit.ask(ask)
        assert outcome.run.finished() and not outcome.errors
    assert audit.ask(ask).sampled == 0  # whatever its route, nothing is left undecided
    assert audit.violations() == {}


class ShortOfMemory(slabs.Slabs):
    """Runs out of memory in the middle, in passes of more than a quarter of the usual rows."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        if self.passes > 20 and len(pixels) > BATCH_SIZE // 4:
            raise torch.OutOfMemoryError
        return super().forward(pixels)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("number", "alpha"), SIZES)
def test_neither_dead_actors_nor_dead_drivers_nor_a_lack_of_memory_change_that(number, alpha, tmp_path):
    pictures, here = near_radii(number), Here(actor_dies_at=(0, 2))
    audit = Audit(pictures, alpha, str(tmp_path), here)
    begun, more, most = (Ask(RADII[:k], n, SEED, OFFSET) for k, n in ((1, 192), (2, 448), (3, N)))

    def dies(ask: Ask) -> None:
        here.driver_dies_at = 1
        with pytest.raises(Died):
            here.sample(job(ask, pictures, alpha, audit.results))
        here.driver_dies_at = None

    dies(begun)
    audit.ask(begun, ShortOfMemory())
    here.commit_late()
    audit.look(audit.ask(begun).run, begun)
    dies(more)
    outcome = audit.ask(more)
    assert set(outcome.run.votes()["batch_size"].to_pylist()) == {BATCH_SIZE, BATCH_SIZE // 4}
    short = audit.ask(most, ShortOfMemory())  # what was begun in passes of a size goes on in such alone, or not at all
    assert short.errors and all("batches are" in why for why in short.errors.values())
    here.commit_late()
    audit.look(short.run, most)
    assert not audit.ask(most, retry_errors=True).errors
    assert audit.ask(most).sampled == 0
    assert audit.violations() == {}


def test_neither_does_a_driver_of_other_radii_that_gets_through_late_nor_a_part_that_is_lost(tmp_path):
    pictures, here = slabs.pictures_near_radii(40, RADII, n=N), Here(driver_dies_at=2)
    audit, most = Audit(pictures, 0.05, str(tmp_path), here), Ask(RADII, N)
    with pytest.raises(Died):
        here.sample(job(Ask(RADII[:1], 192), pictures, audit.alpha, audit.results))
    here.driver_dies_at = None
    audit.ask(most)
    here.commit_late()
    run = audit.ask(most).run
    lost = pc.unique(run.committed()["continues"].drop_null())[0]
    Path(run.location, f"votes/{lost}").unlink()
    assert audit.ask(most).sampled
    assert audit.ask(most).sampled == 0
    assert audit.violations() == {}


@pytest.fixture
def slabs_on_workers(cluster):
    """Ray's workers cannot import a module of the tests: it travels with what is made of it."""
    ray.cloudpickle.register_pickle_by_value(slabs)
    yield
    ray.cloudpickle.unregister_pickle_by_value(slabs)


@pytest.mark.ray
def test_the_same_on_ray(slabs_on_workers, tmp_path):
    pictures = near_radii(100)
    audit = Audit(pictures, 0.05, str(tmp_path))
    connect()
    for ask in (Ask(RADII[:1], 192, SEED, OFFSET), Ask(RADII, N, SEED, OFFSET)):
        pool = PoolOptions(actors=2, cpus_per_actor=0.5)
        (outcome,) = sample_runs([job(ask, pictures, audit.alpha, audit.results, pool=pool)])
        assert outcome.sampled and outcome.run.finished()
        audit.look(outcome.run, ask)
    assert audit.violations() == {}


# Faults that the audit must see ------------------------------------------------------------------------------------


def test_it_sees_votes_that_are_counted_twice(tmp_path, monkeypatch):
    def by_the_first_rule(request: Request) -> int:
        return 0 if request.counts is None else int(request.counts[0].sum())

    monkeypatch.setattr(Request, "samples_before", by_the_first_rule)
    (_, rule) = slabs.rules(OFFSET)
    pictures = slabs.pictures_that_argmax_has_wrong(1600, RADII[0], rule, n=960)
    audit = Audit(pictures, 0.001, str(tmp_path))
    for n in (64, 128, 256, 512):
        audit.ask(Ask(RADII[:1], n, SEED, OFFSET))
    found = audit.violations()
    assert any("offset" in finding for finding in found["votes"])
    assert any("offset:1=-1.5, standard" in finding for finding in found["certificates"])


def test_it_sees_bounds_for_a_fixed_n_on_votes_that_said_when_to_stop(tmp_path, monkeypatch):
    def peeking(counts, n, share):
        """Evidence of 1 / level where one look at the votes would exclude the share."""
        return -np.log(np.maximum(binom.sf(np.subtract(counts, 1), n, share), 1e-300))

    def peeking_at_two(stakes, radius, sigma, level):
        low = ndtri(binomial_lower(stakes.of_top, stakes.n, 0.9 * level))
        high = ndtri(binomial_upper(stakes.of_target, stakes.n, 0.1 * level))
        return sigma / 2 * (low - np.minimum(high, -low)) >= radius

    monkeypatch.setitem(BOUNDS, "betting", BOUNDS["clopper-pearson"])
    monkeypatch.setattr(statements, "evidence_of_share", peeking)
    monkeypatch.setattr(statements, "reaches", peeking_at_two)
    monkeypatch.setattr(statements, "is_certified", peeking_at_two)
    audit = Audit(slabs.pictures_near_radii(500, RADII[:1], of=(), under=(), n=N), 0.05, str(tmp_path))
    audit.ask(Ask(RADII[:1], N, SEED, ()))
    found = audit.violations()
    assert found.keys() == {"bounds", "certificates"} and any(
        "argmax, standard" in finding for finding in found["certificates"]
    )


def _of_another_sigma(monkeypatch):
    def certify_table(votes, matrix, sigma, alpha, **more):
        return certificate_sets.certify_table(votes, matrix, 1.01 * sigma, alpha, **more)

    monkeypatch.setattr(voter, "certify_table", certify_table)


def _each_target_at_all_of_alpha(monkeypatch):
    monkeypatch.setattr(certificates, "level_of_target", lambda alpha, num_targets: 0 * num_targets + alpha)


def _answer_of_the_estimation_votes(monkeypatch):
    certify_votes = certificates.certify_votes
    monkeypatch.setattr(
        certificate_sets,
        "certify_votes",
        lambda _, votes, *labels, **options: certify_votes(votes, votes, *labels, **options),
    )


def _target_at_all_of_alpha(monkeypatch):
    monkeypatch.setattr(Method, "levels", lambda self, alpha: (self.share_of_p_a * alpha, alpha))


BOLD = [
    _of_another_sigma,
    _each_target_at_all_of_alpha,
    _answer_of_the_estimation_votes,
    _target_at_all_of_alpha,
]


@pytest.mark.parametrize("plant", BOLD, ids=lambda plant: plant.__name__.strip("_"))
def test_it_sees_certificates_that_are_bolder_than_their_votes_though_few_are_false(plant, tmp_path, monkeypatch):
    plant(monkeypatch)
    audit = Audit(slabs.pictures_near_radii(60, RADII, n=N), 0.05, str(tmp_path))
    audit.ask(Ask(None, N, rules=()))
    assert audit.violations().keys() == {"bounds"}


def test_it_sees_phases_that_share_their_noise(tmp_path, monkeypatch):
    pictures = slabs.pictures_of_ties(2000, n0=128, n=128)
    assert _of_ties(pictures, str(tmp_path / "as it is")) == {}

    def estimation_alone(seed, image_id, phase, chunk):
        return noise_key(seed, image_id, "estimation", chunk)

    monkeypatch.setattr(engine, "noise_key", estimation_alone)
    found = _of_ties(pictures, str(tmp_path / "shared"))
    assert any("argmax, standard" in finding for finding in found["certificates"])


def _of_ties(pictures: slabs.Pictures, results: str) -> dict[str, list[str]]:
    audit = Audit(pictures, 0.05, results)
    audit.ask(Ask(None, pictures.n, SEED, ()))
    return audit.violations()
