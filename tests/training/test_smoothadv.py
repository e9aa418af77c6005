"""smoothadv and smoothadv_cs: hand-worked values, the attack, its warm-up, published settings."""

import inspect
import math

import pytest
import torch
from torch.nn import functional
from training.linear import Linear

from raycsr.errors import UserError
from raycsr.training.objectives import OBJECTIVES, smoothadv
from raycsr.training.objectives.attack import attack
from raycsr.training.objectives.copies import draw_noise

# Logits (3 x_1 + 4 x_2, 0): an image of class 0 is attacked along (0, -.6, -.8), one of class 1 the other way.
WEIGHT = torch.tensor([[0.0, 0.0], [3.0, 0.0], [4.0, 0.0]])
IMAGES = torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.4, 0.4]]).view(2, 3, 1, 1)
LABELS = torch.tensor([0, 1])
smoothadv_cs = OBJECTIVES["smoothadv_cs"]
COSTS = torch.tensor([[0.0, 0.0], [2.0, 0.0]])  # class 1 is the seed class
# logits 3.5 - 5 * .25 and 2.8 + 5 * .25
CE = [math.log1p(math.exp(-2.25)), math.log1p(math.exp(4.05))]


def loss(objective=smoothadv, model=None, *, progress=1.0, costs=COSTS, **hyperparameters):
    settings = {"sigma": 1e-20, "radius": 0.25} | hyperparameters
    generator = torch.Generator().manual_seed(0)
    return objective(
        model or Linear(WEIGHT), IMAGES, LABELS, costs=costs, progress=progress, generator=generator, **settings
    )


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("steps", [2, 10])
def test_value_by_hand(steps, k):
    assert loss(steps=steps, k=k).item() == pytest.approx(sum(CE) / 2, rel=1e-5)


def test_one_step_is_projected_to_the_radius():
    assert loss(steps=1).item() == pytest.approx(sum(CE) / 2, rel=1e-5)  # a step is twice the radius


def test_the_radius_grows_over_the_warmup():
    half = [math.log1p(math.exp(-(3.5 - 5 * 0.125))), math.log1p(math.exp(2.8 + 5 * 0.125))]
    none = [math.log1p(math.exp(-3.5)), math.log1p(math.exp(2.8))]
    for progress, expected in ((0.0, none), (0.05, half), (0.1, CE), (0.7, CE)):
        assert loss(progress=progress, warmup=0.1).item() == pytest.approx(sum(expected) / 2, rel=1e-5)
    assert loss(progress=0.0, warmup=0.0).item() == pytest.approx(sum(CE) / 2, rel=1e-5)


def test_steps_shrink_with_the_radius():
    seen, model = [], Linear(WEIGHT)
    model.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].detach()))
    loss(model=model, progress=0.05, warmup=0.1, steps=4, k=1)
    length = (seen[1] - seen[0]).flatten(1).norm(dim=1)
    torch.testing.assert_close(length, torch.full((2,), 2 * 0.125 / 4))


def test_costs_reweigh_the_attacked_images():
    assert loss(smoothadv_cs, weight=3.0).item() == pytest.approx(sum(CE) / 2 + 3 * CE[1], rel=1e-5)
    with pytest.raises(UserError, match="smoothadv_cs got no cost matrix; give costs, or use smoothadv"):
        loss(smoothadv_cs, costs=None)


def test_gradient_is_that_of_cross_entropy_on_the_attacked_images_under_the_same_noise():
    torch.manual_seed(0)
    weight = torch.randn(3, 4)
    model, reference = Linear(weight), Linear(weight)
    loss(model=model, sigma=0.5, k=3, steps=4).backward()
    noise = draw_noise(IMAGES, 3, 0.5, torch.Generator().manual_seed(0))
    moved = attack(reference, IMAGES, LABELS, noise, steps=4, step=0.125, radius=0.25)
    logits = reference((moved[:, None] + noise).flatten(0, 1))
    functional.cross_entropy(logits, LABELS.repeat_interleave(3)).backward()
    torch.testing.assert_close(model.weight.grad, reference.weight.grad)


class TestAttack:
    def test_it_raises_the_loss_of_the_mean_softmax_and_stays_in_the_ball_and_the_box(self):
        torch.manual_seed(1)
        model, images, labels = Linear(5 * torch.randn(3, 4)), torch.rand(50, 3, 1, 1), torch.arange(50) % 4
        noise = draw_noise(images, 4, 0.25, torch.Generator().manual_seed(2))

        def losses(x):
            p = model((x[:, None] + noise).flatten(0, 1)).softmax(1).unflatten(0, (50, 4)).mean(1)
            return -p.gather(1, labels[:, None]).log().squeeze(1)

        moved = attack(model, images, labels, noise, steps=10, step=0.1, radius=0.5)
        assert (losses(moved) > losses(images)).float().mean() > 0.9  # some are held by the box
        assert moved.min() >= 0 and moved.max() <= 1 and not moved.requires_grad
        assert (moved - images).flatten(1).norm(dim=1).max() <= 0.5 + 1e-6
        free = attack(model, images, labels, noise, steps=10, step=0.1)
        assert (free - images).flatten(1).norm(dim=1).max() > 0.5
        assert free.min() >= 0 and free.max() <= 1

    def test_an_image_without_a_gradient_stays(self):
        noise = torch.zeros(2, 1, 3, 1, 1)
        moved = attack(Linear(torch.zeros(3, 2)), IMAGES, LABELS, noise, steps=2, step=0.1, radius=0.5)
        assert torch.equal(moved, IMAGES)

    @pytest.mark.parametrize("gap", [25.0, 50.0, 200.0])
    @pytest.mark.parametrize("radius", [None, 0.5])
    def test_a_gradient_that_is_rounding_moves_nothing(self, gap, radius):
        """At a gap of 50 it is 1e-22 long: divided by its length it would move the image by a whole step."""
        model, image = Linear(torch.tensor([[gap, -gap]]).repeat(192, 1) / 192), torch.full((1, 3, 8, 8), 0.5)
        noise = torch.zeros(1, 2, 3, 8, 8)
        for label, moves in ((0, False), (1, True)):  # the one it is sure of, and the one it is sure not to be
            moved = attack(model, image, torch.tensor([label]), noise, steps=4, step=0.1, radius=radius)
            assert torch.equal(moved, image) != moves

    def test_no_gradient_reaches_the_weights(self):
        model = Linear(WEIGHT)
        attack(model, IMAGES, LABELS, torch.zeros(2, 1, 3, 1, 1), steps=2, step=0.1)
        assert model.weight.grad is None


def test_published_settings():
    defaults = {n: p.default for n, p in inspect.signature(smoothadv_cs).parameters.items() if p.default is not p.empty}
    assert defaults == {"weight": 0.1, "k": 2, "steps": 10, "radius": 0.5, "warmup": 0.1, "multi_noise": True}
    del defaults["weight"]
    assert defaults == {n: inspect.signature(smoothadv).parameters[n].default for n in defaults}
