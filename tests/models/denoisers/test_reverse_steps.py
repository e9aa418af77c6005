"""A diffusion model that is asked at several steps, with noise of its own in between, and several times."""

import math
import pickle

import numpy as np
import pytest
import torch
from published import numbered
from scipy.stats import binom, norm
from test_diffusion import SMALL, Perfect
from torch import nn

from raycsr import CostMatrix, certify_counts, count_votes
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.denoisers import Denoiser, create_denoiser
from raycsr.models.denoisers.own_noise import own_noise
from raycsr.models.denoisers.schedules import alpha_bars
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions, Preprocessing

PIXELS = torch.randint(-60, 320, (3, 3, 16, 16), generator=torch.Generator().manual_seed(0)).float() / np.float32(255)


def composition(reverse_steps=3, denoisings=2, **options):
    """A small classifier behind a small diffusion model."""
    args = {**SMALL, "reverse_steps": reverse_steps, "denoisings": denoisings}
    asked = DenoiserOptions("improved_diffusion", args=args, **{"sigma": 0.25, **options})
    made = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=asked), num_classes=5)
    numbered(made.denoisers[0].network, 0.1)
    return made


def test_each_step_is_a_draw_of_the_published_posterior():
    """Ho, Jain & Abbeel (NeurIPS 2020), equations 6 and 7, of the steps that are left, with x0 clipped."""
    flags = {**SMALL, "noise_schedule": "linear", "diffusion_steps": 1000, "reverse_steps": 3}
    denoiser, left = create_denoiser("improved_diffusion", flags, sigma=0.5), alpha_bars("linear", 1000)
    denoiser.network = Perfect("linear", 1000, mean=0.1, deviation=0.4)
    assert [step.t for step in denoiser.ways[0]] == [258, 172, 86]
    x = math.sqrt(left[258]) * (2 * PIXELS.double() - 1)
    for draw, (t, s) in enumerate([(258, 172), (172, 86), (86, None)]):
        noise = denoiser.network(x, t)[:, :3]
        image = ((x - math.sqrt(1 - left[t]) * noise) / math.sqrt(left[t])).clamp(-1, 1)
        if s is not None:
            alpha = left[t] / left[s]
            mean = math.sqrt(left[s]) * (1 - alpha) / (1 - left[t]) * image
            mean = mean + math.sqrt(alpha) * (1 - left[s]) / (1 - left[t]) * x
            x = mean + math.sqrt((1 - left[s]) / (1 - left[t]) * (1 - alpha)) * own_noise(PIXELS, draw)
    torch.testing.assert_close(denoiser(PIXELS), ((image + 1) / 2).float(), rtol=0, atol=1e-5)


@torch.no_grad()
def test_logits_are_the_mean_of_those_behind_denoisings_with_noise_of_their_own():
    model = composition(levels=[0.2, 0.25])
    (denoiser,) = model.in_front
    answers = [denoiser(PIXELS, level, denoising) for level in (0, 1) for denoising in (0, 1)]
    assert len({float(answer.sum()) for answer in answers}) == 4 == model.num_passes
    expected = torch.stack([model(answer, part="classifier") for answer in answers]).mean(dim=0)
    torch.testing.assert_close(model(PIXELS), expected)
    assert torch.equal(model(PIXELS), model(PIXELS))  # a function of the noisy image, however often it is asked
    assert "told 0.2, 0.25, in 3 steps (4 passes of it and of what is behind, mean of logits)" in model.parts[0]


def test_one_step_is_what_it_was_and_its_run_too():
    plain = DenoiserOptions("improved_diffusion", args=SMALL, sigma=0.25)
    before = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=plain), num_classes=5)
    numbered(before.denoisers[0].network, 0.1)
    assert before.num_passes == 1 and not before.in_front[0].draws and "steps" not in before.parts[0]
    assert "reverse_steps" not in str(before.components)
    assert torch.equal(composition(1, 1)(PIXELS), before(PIXELS))
    assert composition().components[0]["args"]["reverse_steps"] == 3


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_is_made_fast_and_treats_each_image_alone(precision):
    model = composition()
    prepared = prepare_for_inference(model, precision=precision, device="cpu")
    atol = (1e-4 if precision == "fp32" else 0.1) * float(model(PIXELS).abs().max())
    torch.testing.assert_close(prepared(PIXELS).float(), model(PIXELS), rtol=0, atol=atol)
    assert torch.equal(pickle.loads(pickle.dumps(prepared))(PIXELS), prepared(PIXELS))


def test_a_checkpoint_holds_how_often_it_is_asked(tmp_path):
    model = composition()
    save_checkpoint(tmp_path / "both.pt", model)
    again = load_base_classifier(str(tmp_path / "both.pt"))
    assert again.components == model.components and torch.equal(again(PIXELS), model(PIXELS))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"reverse_steps": 0}, "reverse_steps is 0: give a whole number, 1 or more"),
        ({"denoisings": "2"}, "denoisings is '2': give a whole number"),
        ({"reverse_steps": True}, "reverse_steps is True: give a whole number"),
        ({"reverse_steps": 1}, "denoisings of one step are all the same: give reverse_steps of 2 or more"),
        ({"reverse_steps": 5000}, r"reverse_steps is 5000, and step t = \d+ has \d+ before it: give fewer"),
    ],
)
def test_mistakes_are_one_line(options, words):
    with pytest.raises(UserError, match=words) as raised:
        composition(**options)
    assert "\n" not in str(raised.value)


def test_it_stands_first_where_pixels_are_whole_grey_levels():
    drawing = DenoiserOptions("improved_diffusion", args={**SMALL, "reverse_steps": 2}, sigma=0.25)
    plain = DenoiserOptions("dncnn", args={"depth": 3, "channels": 4})
    asked = ModelOptions("cifar_resnet8", 5, input_size=16, denoiser=[drawing, plain])
    assert load_base_classifier(asked).num_passes == 1
    with pytest.raises(UserError, match="several reverse_steps makes its noise of whole grey levels: put it first"):
        load_base_classifier(ModelOptions("cifar_resnet8", 5, input_size=16, denoiser=[plain, drawing]))


class Dithers(Denoiser):
    """Adds noise of its own to each pixel."""

    def __init__(self, deviation):
        super().__init__("dithers")
        self.deviation = deviation

    archs = {"dithers": {}}  # noqa: RUF012

    @classmethod
    def build(cls):
        return nn.Linear(1, 1)

    def forward(self, pixels):
        return pixels + self.deviation * own_noise(pixels, 0)


def test_shares_are_those_of_independent_noise_and_radii_are_not_beyond_the_border():
    """Behind noise of tau, f(z) = [w.(z + tau e) > b] says 1 with Phi(d / sqrt(sigma^2 + tau^2)), d from the border."""
    sigma, tau, n = 0.25, 0.3, 20_000
    weights = torch.randn(48, generator=torch.Generator().manual_seed(1))
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).requires_grad_(False)
    image = torch.full((1, 3, 4, 4), 128, dtype=torch.uint8)
    distance = 0.3
    network[1].weight.copy_(torch.stack([torch.zeros(48), weights / weights.norm()]))
    border = float((network[1].weight[1].double() * image.double().flatten() / 255).sum()) - distance
    network[1].bias.copy_(torch.tensor([0.0, -border]))
    looks = {"preprocessing": Preprocessing((4, 4), "bilinear", 1.0, "squash"), "mean": (0, 0, 0), "std": (1, 1, 1)}
    model = BaseClassifier(network, arch="linear", args={}, num_classes=2, denoisers=[Dithers(tau)], **looks).eval()
    votes = count_votes(model, image, sigma=sigma, n0=64, n=n, seed=3, image_ids=["a"])
    share = norm.cdf(distance / math.hypot(sigma, tau))
    low, high = binom.interval(1 - 1e-6, n, share)
    assert low <= int(votes.counts[0, 0, 1]) <= high and not low <= n * norm.cdf(distance / sigma) <= high
    both, costs = (votes.counts0[:, 0], votes.counts[:, 0]), CostMatrix.uniform(2)
    rows = certify_counts(*both, [1], costs=costs, sigma=sigma, sampling="fixed")
    best = sigma * norm.ppf(share)  # that any method can say by shares alone
    assert 0.95 * best < float(rows["standard_radius"].iloc[0]) < best < distance
