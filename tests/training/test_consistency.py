"""The consistency objective: a hand-worked value, its gradient, its published settings."""

import inspect
from math import log

import pytest
import torch
from training.linear import IMAGES, LABELS, Linear

from raycsr.training.objectives import consistency

COPIES = torch.tensor([[0.9, 0.1], [0.5, 0.5]]).log()  # of one image of class 0; their mean is .7, .3
CE = -(log(0.9) + log(0.5)) / 2
DIVERGENCE = (0.7 * log(0.7 / 0.9) + 0.3 * log(0.3 / 0.1) + 0.7 * log(0.7 / 0.5) + 0.3 * log(0.3 / 0.5)) / 2
ENTROPY = -0.7 * log(0.7) - 0.3 * log(0.3)


def loss(model, images=IMAGES, labels=LABELS, sigma=0.5, **hyperparameters):
    generator = torch.Generator().manual_seed(0)
    return consistency(
        model, images, labels, sigma=sigma, costs=None, progress=0.0, generator=generator, **hyperparameters
    )


@pytest.mark.parametrize(("lam", "eta"), [(10.0, 0.5), (0.0, 0.5), (10.0, 0.0)])
def test_value_by_hand(lam, eta):
    value = loss(lambda copies: COPIES, IMAGES[:1], LABELS[:1], lam=lam, eta=eta)
    assert value.item() == pytest.approx(CE + lam * DIVERGENCE + eta * ENTROPY, rel=1e-5)


def test_a_batch_is_the_mean_of_its_images():
    value = loss(lambda copies: COPIES.repeat(3, 1), labels=torch.tensor([0, 0, 0]))
    assert value.item() == pytest.approx(CE + 10 * DIVERGENCE + 0.5 * ENTROPY, rel=1e-5)


def test_copies_that_agree_pay_cross_entropy_and_entropy_alone():
    weight = torch.tensor([[0.7, 0.3]] * 3).log()
    value = loss(Linear(weight), IMAGES[:1], LABELS[:1], sigma=1e-20)
    assert value.item() == pytest.approx(-log(0.7) + 0.5 * ENTROPY, rel=1e-5)


def test_gradient_is_the_finite_difference():
    weight, step = torch.tensor([[0.5, 0.2, 0.1], [0.0, 1.0, 0.3], [0.2, 0.4, 0.9]]), 1e-2
    model = Linear(weight)
    loss(model).backward()
    for j in range(3):
        change = torch.zeros(3, 3)
        change[1, j] = step
        difference = loss(Linear(weight + change)) - loss(Linear(weight - change))
        assert model.weight.grad[1, j].item() == pytest.approx(difference.item() / (2 * step), abs=2e-3)


def test_nothing_is_infinite_where_a_softmax_is_zero():
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    value = loss(lambda copies: logits, IMAGES[:1], LABELS[:1])
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(logits.grad).all()


def test_published_settings():
    defaults = {n: p.default for n, p in inspect.signature(consistency).parameters.items() if p.default is not p.empty}
    attack = {"radius": 0.0, "steps": 10, "warmup": 0.1}  # none
    assert defaults == {"k": 2, "lam": 10.0, "eta": 0.5, "reduction": "mean"} | attack
