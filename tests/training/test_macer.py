"""The macer objective: hand-worked values, its gradient, its published settings."""

import inspect
import math

import pytest
import torch
from training.linear import IMAGES, LABELS, Linear

from raycsr.training.objectives import macer

# With beta 1 and equal copies h is the row itself: Phi^-1(.3) = -.524401, Phi^-1(.2) = -.841621
PROBABILITIES = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2]])
CE = -math.log(0.5 * 0.7 * 0.2) / 3
MARGINS = [0 + 0.524401, 0.524401 + 0.841621]  # of images 0 and 1; image 2 is wrong

# sigma so small that the noise is lost in rounding, lam so large that lam * sigma / 2 is 1
NO_NOISE = {"sigma": 1e-20, "lam": 2e20, "beta": 1.0}
LOGITS = PROBABILITIES.log()


def loss(weight=LOGITS, *, progress=0.0, seed=0, **hyperparameters):
    model = weight if isinstance(weight, Linear) else Linear(weight)
    generator = torch.Generator().manual_seed(seed)
    return macer(model, IMAGES, LABELS, costs=None, progress=progress, generator=generator, **hyperparameters)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(
    ("gamma", "terms"),
    [(8.0, 16 - sum(MARGINS)), (1.0, 1 - MARGINS[0]), (0.5, 0.0)],  # both below gamma, one, none
)
def test_value_by_hand(gamma, terms, k):
    assert loss(gamma=gamma, k=k, **NO_NOISE).item() == pytest.approx(CE + terms / 3, rel=1e-5)


def test_weight_of_the_margins_is_lam_sigma_over_two():
    # constant logits: no noise gets through; Phi^-1(.5) = 0 against Phi^-1(.25) at beta 1
    weight = torch.tensor([[0.5, 0.25, 0.25]] * 3).log()
    images = torch.tensor([0, 0, 0])
    generator = torch.Generator().manual_seed(0)
    value = macer(
        lambda copies: weight[:1].expand(len(copies), 3),
        IMAGES,
        images,
        sigma=0.5,
        costs=None,
        progress=0.0,
        generator=generator,
        beta=1.0,
    )
    assert value.item() == pytest.approx(math.log(2) + 12 * 0.5 / 2 * (8 - 0.674490), rel=1e-5)


def test_margins_count_from_start_on():
    settings = {"start": 0.45, "k": 2, **NO_NOISE}
    assert loss(progress=0.44, **settings).item() == pytest.approx(CE, rel=1e-5)
    assert loss(progress=0.45, **settings).item() > CE + 1


def test_gradient_is_the_finite_difference():
    model, step, settings = Linear(LOGITS), 1e-2, {"sigma": 0.5, "k": 2, "beta": 1.0}
    loss(model, **settings).backward()
    for i in range(3):
        change = torch.zeros(3, 3)
        change[i, 1] = step
        difference = loss(LOGITS + change, **settings) - loss(LOGITS - change, **settings)
        assert model.weight.grad[i, 1].item() == pytest.approx(difference.item() / (2 * step), rel=1e-2)


@pytest.mark.parametrize("gap", [3.0, 10.0])
def test_a_right_image_is_pushed_further_where_the_softmax_saturates(gap):
    # at beta 16 h is within 1e-20 of 0 and 1: xi is 19 and 35, so only a wider gamma shows it
    model = Linear(torch.tensor([[gap, 0.0], [0.0, gap], [0.0, gap]]))
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 1, 1])
    macer(
        model, IMAGES, labels, sigma=1e-20, costs=None, progress=0.0, generator=generator, lam=2e20, gamma=100.0
    ).backward()
    slope = 2 * 16 / math.sqrt(2 * 16 * gap) / 3  # of both quantiles, for one image of three
    assert model.weight.grad[0, 0] - model.weight.grad[0, 1] < -0.9 * slope


def test_published_settings():
    defaults = {name: p.default for name, p in inspect.signature(macer).parameters.items() if p.default is not p.empty}
    assert defaults == {"k": 16, "beta": 16.0, "lam": 12.0, "gamma": 8.0, "start": 0.0, "reduction": "mean"}
