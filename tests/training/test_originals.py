"""Each objective beside its original, derived once more from the paper's formulas in the plainest way.

On the same batch and noise: the loss, the gradient of all weights, and the batch statistics after it. The originals
work with probabilities, ours with their logarithms. Left out of them is what published code adds to a probability
before its logarithm, 1e-10, which no longer tells costly mistakes apart that are certain.
"""

import math

import pytest
import torch
from scipy.stats import beta as beta_distribution
from scipy.stats import norm
from torch import nn
from torch.distributions import Normal
from torch.nn import functional

from raycsr.costs import CostMatrix
from raycsr.training.objectives import Shares, resolve_objective

SIGMA, M = 0.25, 4
IMAGES = torch.rand(12, 3, 6, 6, generator=torch.Generator().manual_seed(3))
LABELS = torch.arange(12) % M
SEED_1 = CostMatrix.seedwise(M, [1])
PAIR = CostMatrix.pairwise(M, {1: [0, 3]})


def network(scale=1.0):
    """With batch statistics; `scale` makes its answers as certain as one likes."""
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, M),
    )
    layers[-1].weight.data.mul_(scale)
    return layers.train()


def noises(k):
    """What the objective draws: k noises of the batch, copy by copy."""
    drawn = SIGMA * torch.randn(12, k, 3, 6, 6, generator=torch.Generator().manual_seed(7))
    return list(drawn.unbind(dim=1))


def mixing_weights(k):
    """What smoothmix draws after its noise."""
    generator = torch.Generator().manual_seed(7)
    torch.randn(12, k, 3, 6, 6, generator=generator)
    return torch.rand(12, generator=generator) / 2


def logits_of(model, images, noise):
    """Logits of each noise's batch, of one pass: k times (N, m); in float64, so that rounding is ours alone."""
    return model(torch.cat([images + one for one in noise])).double().chunk(len(noise))


def mean_softmax(logits):
    return sum(one.softmax(dim=1) for one in logits) / len(logits)


def cross_entropy(logits):
    return sum(functional.cross_entropy(one, LABELS, reduction="none") for one in logits) / len(logits)


def ascended(model, images, noise, steps, length, radius=None):
    """Gradient ascent in L2 on -log of the mean softmax, in eval mode: each step's images."""
    model.eval()
    moved, path = images, [images]
    for _ in range(steps):
        moved = moved.detach().requires_grad_(True)
        loss = -mean_softmax([model(moved + one) for one in noise])[range(12), LABELS].log().sum()
        (gradient,) = torch.autograd.grad(loss, moved)
        direction = gradient / gradient.flatten(1).norm(dim=1)[:, None, None, None]
        moved = (moved + length * direction).clamp(0, 1).detach()
        if radius is not None:
            moved = images + (moved - images).renorm(p=2, dim=0, maxnorm=radius)
        path.append(moved)
    model.train()
    return path


def original_gaussian(model):
    return functional.cross_entropy(model(IMAGES + noises(1)[0]), LABELS, reduction="none"), 0


def icdf(p):
    """Phi^-1, infinite where it is in float32, in which published code works."""
    normal = Normal(0.0, 1.0)
    told = normal.icdf(p.float()).isfinite()
    return torch.where(told, normal.icdf(torch.where(told, p, 0.5)), math.inf)


def lacking(margin, least, gamma):
    """gamma - margin of the margins that count: neither infinite nor out of range."""
    counts = margin.isfinite() & (margin > least) & (margin < gamma)
    return torch.where(counts, gamma - torch.where(counts, margin, 0), 0)


def original_macer(model, k=4, beta=16.0, lam=12.0, gamma=8.0):
    logits = logits_of(model, IMAGES, noises(k))
    h = mean_softmax([beta * one for one in logits])
    top = h.topk(2)
    margin = torch.where(top.indices[:, 0] == LABELS, icdf(top.values[:, 0]) - icdf(top.values[:, 1]), -1)
    return -mean_softmax(logits)[range(12), LABELS].log(), lam * SIGMA / 2 * lacking(margin, 0, gamma)


def original_smoothadv(model, k=3, steps=4, radius=0.5, in_loss=3):
    noise = noises(k)
    adversarial = ascended(model, IMAGES, noise, steps, 2 * radius / steps, radius)[-1]
    return cross_entropy(logits_of(model, adversarial, noise[:in_loss])), 0


def original_consistency(model, k=2, lam=20.0, eta=0.5, radius=0.0):
    noise, images = noises(k), IMAGES
    if radius:
        images = ascended(model, images, noise, 10, 2 * radius / 10, radius)[-1]
    logits = logits_of(model, images, noise)
    p = mean_softmax(logits)
    kl = sum((p * (p / one.softmax(dim=1)).log()).sum(dim=1) for one in logits) / k
    return cross_entropy(logits), lam * kl + eta * -(p * p.log()).sum(dim=1)


def original_smoothmix(model, k=2, steps=4, step=2.0, eta=5.0, mix_step=0, grown=1.0):
    noise, length = noises(k), step * SIGMA
    path = ascended(model, IMAGES, noise, steps, length)
    clean = IMAGES
    if mix_step:
        clean = IMAGES + (path[mix_step] - IMAGES).renorm(p=2, dim=0, maxnorm=grown * mix_step * length)
    logits = logits_of(model, clean, noise)
    p, w = mean_softmax(logits), mixing_weights(k)
    mixed = (1 - w)[:, None, None, None] * clean + w[:, None, None, None] * path[-1]
    target = (1 - w)[:, None] * p + w[:, None] / M
    kl = sum((target * (target / q.softmax(dim=1)).log()).sum(dim=1) for q in logits_of(model, mixed, noise)) / k
    return cross_entropy(logits), eta * grown * (p.argmax(dim=1) == LABELS) * kl


def original_margin(model, targets, k=4, beta=16.0, lam=3.0, gamma_n=4.0, gamma_s=16.0, keep=False):
    """The published code, for the seed class 1; but with the true class where, for pairs, it has the top one."""
    logits = logits_of(model, IMAGES, noises(k))
    h = mean_softmax([beta * one for one in logits])
    true, others = h[range(12), LABELS], h.scatter(1, LABELS[:, None], 0)
    standard = lacking(icdf(true) - icdf(others.amax(dim=1)), 0, gamma_n)
    sensitive = lacking(icdf(true) - icdf(h[:, targets].amax(dim=1)), -gamma_s, gamma_s)
    seed = LABELS == 1
    terms = torch.where(seed, sensitive, 0) + torch.where(seed & ~torch.tensor(keep), 0, standard)
    return -mean_softmax(logits)[range(12), LABELS].log(), lam * SIGMA / 2 * terms


def original_paper_margin(model, costs, k=4, beta=16.0, lam=3.0, gamma_n=4.0, gamma_s=16.0):
    """The paper's formula, image by image, with C as it is given."""
    logits = logits_of(model, IMAGES, noises(k))
    q = icdf(mean_softmax([beta * one for one in logits]))
    terms = []
    for i, y in enumerate(LABELS.tolist()):
        xi = [q[i, y] - q[i, j] for j in range(M)]
        if costs[y].any():
            terms.append(sum(costs[y, j] * lacking(xi[j], -gamma_s, gamma_s) for j in range(M) if costs[y, j] > 0))
        else:
            terms.append(lacking(min(xi[j] for j in range(M) if j != y), 0, gamma_n))
    return -mean_softmax(logits)[range(12), LABELS].log(), lam * SIGMA / 2 * torch.stack(terms)


NAMES = [f"{i}.png" for i in range(12)]
SOFT = torch.softmax(
    3 * torch.rand(12, M, generator=torch.Generator().manual_seed(5)) + 2 * torch.eye(M)[LABELS], dim=1
)
VOTES = Shares("run", NAMES, SOFT.numpy())


def original_cat_rs(model, k=4, lam=2.0, steps=4, radius=1.0):
    """One image and copy after the other, but for the passes that batch statistics see."""
    noise = noises(k)
    logits = logits_of(model, IMAGES, noise)
    generator = torch.Generator().manual_seed(7)
    torch.randn(12, k, 3, 6, 6, generator=generator)
    coins = torch.rand(12, k, generator=generator)
    model.eval()
    harder = []
    for first in noise:
        moved = first
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            log_q = model(IMAGES + moved).log_softmax(dim=1)
            (gradient,) = torch.autograd.grad((SOFT * (SOFT.log() - log_q)).sum() / k, moved)
            for i in range(12):
                new = moved[i].detach() + 2 * radius / steps * gradient[i] / (gradient[i].norm() + 1e-8)
                shift = new - first[i]
                new = first[i] + shift * min(1, radius / shift.norm().item())
                new = (new - new.mean()) / (new**2).mean().sqrt() * (first[i] ** 2).mean().sqrt() + first[i].mean()
                moved = moved.detach().clone()
                moved[i] = new
        harder.append(moved.detach())
    model.train()
    low, high = [], []
    of_harder = logits_of(model, IMAGES, harder)
    for i in range(12):
        right = sum(int(one[i].argmax() == LABELS[i]) for one in logits) / k
        number = max(1, int((coins[i] < right).sum()))
        ce = sorted((-one[i].log_softmax(dim=0)[LABELS[i]] for one in logits), key=float)
        low.append(sum(ce[:number]) / k)
        kl = [(SOFT[i] * (SOFT[i].log() - one[i].log_softmax(dim=0))).sum() for one in of_harder]
        high.append(max(kl, key=float) * (number == k))
    return torch.stack(low), lam * torch.stack(high)


def original_easy(model, k=2, steps=3, step=0.25, threshold=0.5):
    """As if images were drawn by their weights: each counts by its own over the mean of all."""
    model.eval()
    harder = []
    for first in noises(k):
        moved, done = first, torch.zeros(12, dtype=torch.bool)
        for _ in range(steps):
            moved = moved.detach().requires_grad_(True)
            logits = model(IMAGES + moved)
            (gradient,) = torch.autograd.grad(functional.cross_entropy(logits, LABELS, reduction="sum"), moved)
            done |= logits.argmax(dim=1) != LABELS
            new = moved.detach().clone()
            for i in range(12):
                if not done[i]:
                    new[i] += step * gradient[i] / (gradient[i].norm() + 1e-8)
                    new[i] *= first[i].norm() / new[i].norm()
            moved = new
        harder.append(moved)
    model.train()
    share = SOFT[range(12), LABELS].numpy()
    hits = (share.clip(0.75, 1) * 16).astype(int)
    lower = beta_distribution.ppf(0.1, hits, 17 - hits)  # Clopper and Pearson's
    weights = torch.tensor(norm.ppf(lower) * (share >= threshold))
    return weights / weights.mean() * cross_entropy(logits_of(model, IMAGES, harder)), 0


def seen(model, loss):
    loss.backward()
    gradients = [one.grad for one in model.parameters()]
    return [loss.detach(), *gradients, model[1].running_mean, model[1].running_var, model[1].num_batches_tracked]


def side_by_side(name, args, original, *, costs=SEED_1, scale=1.0, progress=0.5, tolerance=2e-4, **options):
    """Compares; `original` gives each image's cross-entropy and the rest."""
    ours, theirs = network(scale), network(scale)
    objective = resolve_objective(name, args, costs=costs)
    values = torch.tensor(costs.values, dtype=torch.float32)
    drawn = torch.Generator().manual_seed(7)
    told = {"image_ids": NAMES} if "votes" in args else {}
    loss = objective(ours, IMAGES, LABELS, sigma=SIGMA, costs=values, progress=progress, generator=drawn, **told)
    ce, rest = original(theirs, **options)
    expected = (ce + rest).mean()
    if "weight" in objective.keywords:  # CE of the batch + weight * CE of its seed images
        expected = expected + args["weight"] * ce[LABELS == 1].mean()
    for found, original_one in zip(seen(ours, loss), seen(theirs, expected), strict=True):
        off = (found - original_one).abs().max() / original_one.abs().max()
        assert off < tolerance


def test_gaussian():
    side_by_side("gaussian", {}, original_gaussian)


def test_macer():
    side_by_side("macer", {"k": 4}, original_macer)


@pytest.mark.parametrize("multi_noise", [True, False])
def test_smoothadv_with_all_noises_and_with_one_in_the_loss(multi_noise):
    args = {"k": 3, "steps": 4, "multi_noise": multi_noise}
    side_by_side("smoothadv", args, original_smoothadv, in_loss=3 if multi_noise else 1)


@pytest.mark.parametrize("radius", [0.0, 0.5])
def test_consistency_plain_and_of_attacked_images(radius):
    side_by_side("consistency", {"lam": 20.0, "radius": radius}, original_consistency, radius=radius)


@pytest.mark.parametrize(("progress", "grown"), [(0.5, 1.0), (0.05, 0.5)])
@pytest.mark.parametrize("mix_step", [0, 1])
def test_smoothmix_from_the_image_and_from_the_first_step(mix_step, progress, grown):
    args = {"mix_step": mix_step}
    side_by_side("smoothmix", args, original_smoothmix, progress=progress, mix_step=mix_step, grown=grown)


@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_cat_rs(scale):
    """At scale 10 some images are right in all copies, so that the divergence counts."""
    side_by_side("cat_rs", {"votes": VOTES, "lam": 2.0}, original_cat_rs, scale=scale)


def test_easy_before_and_after_the_hard_images_are_dropped():
    side_by_side("easy", {"votes": VOTES, "k": 2}, original_easy)
    plain = lambda model: (cross_entropy(logits_of(model, IMAGES, noises(2))), 0)  # noqa: E731
    side_by_side("easy", {"votes": VOTES, "k": 2}, plain, progress=0.3)


@pytest.mark.parametrize("scale", [1.0, 3.0, 30.0])
def test_margin_cs_of_a_seed_class_as_the_published_code(scale):
    """At scale 3 margins of seed images are lost to float32 there that gamma_s would keep."""
    args = {"k": 4, "form": "max", "drop_saturated": True}
    side_by_side("margin_cs", args, original_margin, targets=[0, 2, 3], scale=scale)


@pytest.mark.parametrize("scale", [1.0, 3.0, 30.0])
def test_margin_cs_of_pairs_as_the_published_code(scale):
    args = {"k": 4, "form": "max", "drop_saturated": True, "standard_too": True}
    side_by_side("margin_cs", args, original_margin, costs=PAIR, targets=[0, 3], keep=True, scale=scale)


def test_margin_cs_as_the_paper_with_its_costs_divided():
    costs = CostMatrix([[0, 0, 0, 0], [2, 0, 0.5, 0], [0, 0, 0, 0], [0, 1, 1, 0]])  # rows of 2.5 and 2
    divided = torch.tensor(costs.values, dtype=torch.float32) / 2.25
    side_by_side("margin_cs", {"k": 4}, lambda model: original_paper_margin(model, divided), costs=costs)


@pytest.mark.parametrize(
    ("name", "args", "original"),
    [
        ("gaussian", {}, original_gaussian),
        ("smoothadv", {"k": 3, "steps": 4}, original_smoothadv),
        ("smoothmix", {}, original_smoothmix),
        ("macer", {"k": 4}, original_macer),
        ("consistency", {"lam": 20.0}, original_consistency),
        ("cat_rs", {"votes": VOTES, "lam": 2.0}, original_cat_rs),
        ("easy", {"votes": VOTES, "k": 2}, original_easy),
    ],
)
def test_reweighting_is_of_the_cross_entropy_alone(name, args, original):
    side_by_side(f"{name}_cs", {"weight": 0.1, **args}, original)
