"""Ground truth behind denoisers: at another size and told several levels, f is still of known shares and radii."""

import behind
import numpy as np
import pytest
import slabs
import torch
from auditing import Audit
from pipeline import Ask
from test_ground_truth import OFFSET, RADII, SCENARIOS, SEED, SIZES, N

from raycsr import CostMatrix, certify_counts, count_votes
from raycsr.models.denoisers import Denoiser, resized

FEW_AND_MANY = [pytest.param(24, 0.05, id="24 images"), *SIZES[1:]]


@pytest.fixture(autouse=True)
def _behind(monkeypatch):
    behind.put_behind(monkeypatch)


def test_nothing_is_rounded_on_the_way():
    whole = torch.randint(-400, 700, (5, 3, 2, 2), generator=torch.Generator().manual_seed(0))
    expected = behind.UP @ (whole.double().numpy() / 256) @ behind.UP.T
    assert np.array_equal(resized(whole.float() / 256, (4, 4)).double().numpy(), expected)
    model = slabs.base_classifier()
    for level, scale in enumerate(behind.SCALES):
        answer = model.in_front[0](whole.float() / np.float32(255), level)
        assert torch.equal(answer.double(), 0.5 + scale * (whole.double() / 256 - 0.5))


@pytest.mark.parametrize("rule", slabs.rules(slabs.RULES), ids=lambda rule: rule.kind)
def test_logits_are_those_of_the_slab_that_was_worked_out(rule):
    model = slabs.base_classifier()
    assert model.num_passes == 3 and model.preprocessing.input_size == (2, 2)
    whole = torch.randint(-300, 600, (4000, 3, 2, 2), generator=torch.Generator().manual_seed(1))
    at = (whole.double() / 255).flatten(1).numpy() @ slabs.DIRECTION
    slab = np.searchsorted(slabs.EDGES, at, side="right")
    logits = model(whole.float() / np.float32(255))
    assert np.allclose(logits.numpy(), slabs.LOGITS[slab], rtol=0, atol=1e-6)
    assert np.array_equal(rule(logits).numpy(), slabs.answers(rule)[slab])
    assert len(np.unique(slab)) > 20


@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("number", "alpha"), FEW_AND_MANY)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_votes_are_those_of_asking_at_once_and_certificates_are_true(scenario, number, alpha, tmp_path):
    audit = Audit(slabs.pictures_near_radii(number, RADII, n=N), alpha, str(tmp_path))
    for ask in SCENARIOS[scenario]:
        outcome = audit.ask(ask)
        assert outcome.run.finished() and not outcome.errors
    assert audit.ask(ask).sampled == 0
    assert audit.violations() == {}


def test_the_radii_of_the_true_shares_are_never_beyond_the_true_distance_and_meet_it():
    at, gaps = slabs.pictures_near_radii(300, RADII).projections, []
    for rule in slabs.rules(slabs.RULES):
        p, distance = slabs.shares(rule, at), slabs.distances(rule, at)
        answer = p.argmax(axis=1)
        others = np.where(np.arange(slabs.NUM_CLASSES) == answer[:, None], np.inf, distance).min(axis=1)
        radius = slabs.standard_radius(p, answer)
        gaps += (others - radius)[radius > 0.05].tolist()
    assert -1e-9 < min(gaps) < 0.001


def test_it_sees_a_level_that_is_left_out_and_levels_that_are_told_as_one(tmp_path, monkeypatch):
    def wrong(answers):
        with monkeypatch.context() as patched:
            patched.setattr(Denoiser, "answers", answers)
            audit = Audit(slabs.pictures_near_radii(12, RADII, n=N), 0.05, str(tmp_path / answers.__name__))
            audit.ask(Ask(None, N, SEED, OFFSET))
        return audit.violations()

    def two_of_three(self, pixels):
        return [self(pixels, level) for level in (0, 1)]

    def middle_thrice(self, pixels):
        return [self(pixels, 1)] * 3

    assert "votes" in wrong(two_of_three) and "votes" in wrong(middle_thrice)


def test_with_many_votes_radii_come_near_to_the_truth_and_not_beyond(tmp_path):
    pictures, rules = slabs.pictures_near_radii(6, RADII), slabs.rules(slabs.RULES)
    images = torch.from_numpy(pictures.pixels).permute(0, 3, 1, 2)
    votes = count_votes(
        slabs.base_classifier(),
        images,
        sigma=slabs.SIGMA,
        n0=1000,
        n=200_000,
        seed=3,
        image_ids=[f"{i}" for i in range(len(pictures))],
        rules=rules,
        batch_size=4096,
    )
    costs = CostMatrix.uniform(slabs.NUM_CLASSES)
    for i, rule in enumerate(rules):
        counts0, counts = votes.counts0[:, i], votes.counts[:, i]
        rows = certify_counts(
            counts0, counts, pictures.labels, costs=costs, sigma=slabs.SIGMA, sampling="fixed", alpha=0.001
        )
        p = slabs.shares(rule, pictures.projections)
        pairs = slabs.pairwise_radius(p)
        true = {
            "standard_radius": slabs.standard_radius(p, rows["prediction"].to_numpy(int)),
            "cost_sensitive_radius": np.array([np.delete(pairs[k], y).min() for k, y in enumerate(pictures.labels)]),
        }
        for name, radius in true.items():
            short = radius - rows[name].to_numpy()
            assert (short >= 0).all() and (short < 0.01).all() and (radius > 0.05).sum() >= 3
