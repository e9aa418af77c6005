"""smoothmix and smoothmix_cs: hand-worked values, the warm-up, published settings."""

import inspect
from math import exp, log, log1p

import pytest
import torch
from training.linear import Linear

from raycsr.errors import UserError
from raycsr.training.objectives import OBJECTIVES, smoothmix
from raycsr.training.objectives.copies import draw_noise

# Logits (3 x_1 + 4 x_2, 0): an image of class 0 is attacked along (0, -.6, -.8).
WEIGHT = torch.tensor([[0.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
IMAGES = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.4, 0.4]]).view(2, 3, 1, 1)  # logits 3.5 and 2.8
LABELS = torch.tensor([0, 1])  # the first is right, the second wrong
smoothmix_cs = OBJECTIVES["smoothmix_cs"]
COSTS = torch.tensor([[0.0, 1.0], [0.0, 0.0]])  # class 0 is the seed class
NO_NOISE = {"sigma": 1e-20, "step": 0.25e20 / 2, "steps": 2}  # two steps of .125 take 1.25 off the logit


def mixing_weight(k):
    """What the first image draws, after the noise."""
    generator = torch.Generator().manual_seed(0)
    draw_noise(IMAGES, k, 1.0, generator)
    return torch.rand(2, generator=generator)[0].item() / 2


def by_hand(k=2, eta=5.0, ramp=1.0):
    """Loss of each image; that of the first, the right one, has a part that no costs reweigh."""
    w = mixing_weight(k)
    p, mixed = 1 / (1 + exp(-3.5)), 1 / (1 + exp(-(3.5 - w * 1.25)))
    target = (1 - w) * p + w / 2
    divergence = target * log(target / mixed) + (1 - target) * log((1 - target) / (1 - mixed))
    return [-log(p) + eta * ramp * divergence, log1p(exp(2.8))]


def loss(objective=smoothmix, model=None, *, progress=1.0, costs=COSTS, **hyperparameters):
    generator = torch.Generator().manual_seed(0)
    settings = NO_NOISE | hyperparameters
    return objective(
        model or Linear(WEIGHT), IMAGES, LABELS, costs=costs, progress=progress, generator=generator, **settings
    )


@pytest.mark.parametrize("eta", [0.0, 5.0, 100.0])
@pytest.mark.parametrize("k", [1, 3])
def test_value_by_hand(k, eta):
    assert loss(k=k, eta=eta).item() == pytest.approx(sum(by_hand(k, eta)) / 2, rel=1e-5)


def test_mixed_images_weigh_in_over_the_warmup():
    for progress, ramp in ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.9, 1.0)):
        expected = sum(by_hand(eta=100.0, ramp=ramp)) / 2
        assert loss(progress=progress, eta=100.0).item() == pytest.approx(expected, rel=1e-5)


def test_a_step_is_in_units_of_sigma():
    seen = []
    model = Linear(WEIGHT)
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    loss(model=model, sigma=0.25, step=2.0, steps=1, k=1)
    attacked_pass, clean, mixed = seen
    torch.testing.assert_close(clean, attacked_pass)
    generator = torch.Generator().manual_seed(0)
    draw_noise(IMAGES, 1, 0.25, generator)
    weights = torch.rand(2, generator=generator) / 2
    torch.testing.assert_close((mixed - clean).flatten(1).norm(dim=1), weights * 0.5)


def test_costs_reweigh_cross_entropy_alone():
    each, cross_entropy = by_hand(), by_hand(eta=0.0)
    assert loss(smoothmix_cs, weight=3.0).item() == pytest.approx(sum(each) / 2 + 3 * cross_entropy[0], rel=1e-5)
    with pytest.raises(UserError, match="smoothmix_cs got no cost matrix; give costs, or use smoothmix"):
        loss(smoothmix_cs, costs=None)


def test_gradient_is_the_finite_difference_where_the_attack_does_not_turn():
    # scaling a linear model of two classes turns no attack, so the difference along it sees the loss alone
    model, step = Linear(WEIGHT), 1e-2
    loss(model=model, eta=50.0).backward()
    along = (model.weight.grad * WEIGHT).sum().item()
    difference = loss(model=Linear(WEIGHT * (1 + step)), eta=50.0) - loss(model=Linear(WEIGHT * (1 - step)), eta=50.0)
    assert along == pytest.approx(difference.item() / (2 * step), rel=1e-3)


def test_nothing_is_infinite_where_a_softmax_is_zero():
    model = Linear(WEIGHT * 1000)
    value = loss(model=model)
    value.backward()
    assert torch.isfinite(value) and torch.isfinite(model.weight.grad).all()


def test_published_settings():
    defaults = {n: p.default for n, p in inspect.signature(smoothmix_cs).parameters.items() if p.default is not p.empty}
    assert defaults == {"weight": 0.1, "k": 2, "steps": 4, "step": 2.0, "eta": 5.0, "warmup": 0.1, "mix_step": 0}
    del defaults["weight"]
    assert defaults == {n: inspect.signature(smoothmix).parameters[n].default for n in defaults}
