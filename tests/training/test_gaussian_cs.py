"""The gaussian_cs objective (reweighting) on a linear model, and its resolution by name."""

import math
import pickle

import numpy as np
import pytest
import torch
from torch.nn import functional
from training.linear import IMAGES, LABELS, Linear

from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.training.objectives import COST_SENSITIVE, OBJECTIVES, Shares, gaussian, resolve_objective

PROBABILITIES = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]]
CE = [-math.log(0.5), -math.log(0.8), -math.log(0.4)]
SEED_0 = CostMatrix.seedwise(3, [0])


def loss(costs, model=None, images=IMAGES, labels=LABELS, sigma=0.0, **hyperparameters):
    model = model or Linear(torch.tensor(PROBABILITIES).log())
    values = None if costs is None else torch.tensor(costs.values, dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    return OBJECTIVES["gaussian_cs"](
        model, images, labels, sigma=sigma, costs=values, progress=0.0, generator=generator, **hyperparameters
    )


@pytest.mark.parametrize("weight", [1.0, 5.0])
def test_one_seed_class_adds_the_published_mean_over_seed_images(weight):
    expected = sum(CE) / 3 + weight * CE[0]
    assert loss(SEED_0, weight=weight).item() == pytest.approx(expected, rel=1e-6)


def test_the_default_weight_is_the_published_one():
    assert loss(SEED_0).item() == pytest.approx(sum(CE) / 3 + 0.1 * CE[0], rel=1e-6)


def test_two_seed_classes_of_equal_cost_add_the_published_mean_whatever_the_cost():
    expected = sum(CE) / 3 + (CE[0] + CE[2]) / 2
    assert loss(CostMatrix.seedwise(3, [0, 2], cost=7.0), weight=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_real_valued_costs_weigh_by_the_sums_of_their_rows():
    costs = CostMatrix([[0, 1.5, 0.5], [0.25, 0, 0.75], [3, 2, 0]])  # row sums 2, 1, 5
    expected = sum(CE) / 3 + 3 * (2 * CE[0] + 1 * CE[1] + 5 * CE[2]) / 8
    assert loss(costs, weight=3.0).item() == pytest.approx(expected, rel=1e-6)


def test_a_batch_without_sensitive_images_is_gaussian():
    model = Linear(torch.tensor(PROBABILITIES).log())
    value = loss(SEED_0, model, IMAGES[1:], LABELS[1:], weight=5.0)
    assert value.item() == pytest.approx((CE[1] + CE[2]) / 2, rel=1e-6)
    value.backward()
    ours, model.weight.grad = model.weight.grad, None
    functional.cross_entropy(model(IMAGES[1:]), LABELS[1:]).backward()
    torch.testing.assert_close(ours, model.weight.grad)


def test_noise_is_that_of_gaussian():
    model = Linear(torch.tensor(PROBABILITIES).log())
    generator = torch.Generator().manual_seed(0)
    expected = gaussian(model, IMAGES, LABELS, sigma=0.5, costs=None, progress=0.0, generator=generator)
    assert loss(SEED_0, model, sigma=0.5, weight=0.0).item() == pytest.approx(expected.item(), rel=1e-6)
    assert loss(SEED_0, model, weight=0.0).item() != pytest.approx(expected.item(), rel=1e-3)


def test_gradient_is_the_finite_difference():
    weight, step = torch.tensor(PROBABILITIES).log(), 1e-2
    model = Linear(weight)
    loss(SEED_0, model, sigma=0.5).backward()
    for i in range(3):
        for j in range(3):
            change = torch.zeros(3, 3)
            change[i, j] = step
            difference = loss(SEED_0, Linear(weight + change), sigma=0.5) - loss(
                SEED_0, Linear(weight - change), sigma=0.5
            )
            assert model.weight.grad[i, j].item() == pytest.approx(difference.item() / (2 * step), abs=1e-4)


def test_no_costs_are_refused():
    with pytest.raises(UserError, match="gaussian_cs got no cost matrix"):
        loss(None)


def test_each_objective_resolves_by_name_to_itself_with_its_hyperparameters():
    votes = Shares("run", [], np.zeros((0, 3), np.float32))
    for name, objective in OBJECTIVES.items():
        leans = name.startswith(("cat_rs", "easy"))
        assert resolve_objective(name, {"votes": votes} if leans else {}, costs=SEED_0).func == objective
    assert resolve_objective("gaussian_cs", {"weight": 5}, costs=SEED_0).keywords == {"weight": 5}
    assert resolve_objective("gaussian", costs=None).keywords == {}


def test_a_resolved_objective_is_one_that_train_can_call_on_another_machine():
    objective = pickle.loads(pickle.dumps(resolve_objective("gaussian_cs", {"weight": 5.0}, costs=SEED_0)))
    model = Linear(torch.tensor(PROBABILITIES).log())
    costs = torch.tensor(SEED_0.values, dtype=torch.float32)
    value = objective(model, IMAGES, LABELS, sigma=0.0, costs=costs, progress=0.5, generator=torch.Generator())
    assert value.item() == pytest.approx(sum(CE) / 3 + 5 * CE[0], rel=1e-6)


def test_an_unknown_objective_names_the_nearest():
    with pytest.raises(UserError, match="unknown objective 'gausian_cs': did you mean gaussian_cs or "):
        resolve_objective("gausian_cs", costs=SEED_0)
    with pytest.raises(UserError, match="unknown objective 'zzz': choose from gaussian, macer, .*, macer_cs, "):
        resolve_objective("zzz", costs=SEED_0)


def test_an_unknown_hyperparameter_names_those_there_are():
    with pytest.raises(UserError, match="gaussian_cs has no hyper-parameter 'beta'; it has weight"):
        resolve_objective("gaussian_cs", {"beta": 1.0}, costs=SEED_0)
    with pytest.raises(
        UserError,
        match="margin_cs has no .* 'lambda'; it has k, beta, lam, gamma_n, gamma_s, form, standard_too, drop_saturated",
    ):
        resolve_objective("margin_cs", {"lambda": 1.0}, costs=SEED_0)
    with pytest.raises(UserError, match="gaussian has no hyper-parameter 'sigma'; it has none"):
        resolve_objective("gaussian", {"sigma": 1.0}, costs=None)


@pytest.mark.parametrize("weight", ["1e-3", None, True, -1.0, math.nan, math.inf])
def test_a_weight_that_is_no_weight_is_refused(weight):
    with pytest.raises(UserError, match=r"weight of gaussian_cs is .*; give a finite number of at least 0"):
        resolve_objective("gaussian_cs", {"weight": weight}, costs=SEED_0)


@pytest.mark.parametrize("name", sorted(COST_SENSITIVE))
def test_a_cost_sensitive_objective_needs_a_seed_class(name):
    with pytest.raises(UserError, match=f"{name} needs a cost matrix and got none"):
        resolve_objective(name, costs=None)
    with pytest.raises(UserError, match=rf"{name} needs a seed class, CostMatrix\(3 classes.* has none"):
        resolve_objective(name, costs=CostMatrix.seedwise(3, []))
