"""The margin_cs objective: hand-worked values, its gradient where margins saturate, and what it refuses."""

import math

import pytest
import torch
from scipy.stats import norm
from training.linear import IMAGES, LABELS, Linear

from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.training.objectives import margin_cs, resolve_objective
from raycsr.training.objectives.margin_cs import margin_terms
from raycsr.training.objectives.normal_quantile import mean_class_quantiles

# With beta 1 and equal copies h is the row itself. Normal quantiles from the table:
# Phi^-1(.5) = 0, Phi^-1(.7) = .524401, Phi^-1(.8) = .841621, Phi^-1(.9) = 1.281552
PROBABILITIES = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2]])
COSTS = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])  # class 0 is the seed class
CE = -math.log(0.5 * 0.7 * 0.2) / 3

# sigma so small that the noise is lost in rounding, lam so large that lam * sigma / 2 is 1
NO_NOISE = {"sigma": 1e-20, "lam": 2e20, "beta": 1.0}


def loss(model, images=IMAGES, labels=LABELS, *, costs=COSTS, seed=0, **hyperparameters):
    generator = torch.Generator().manual_seed(seed)
    return margin_cs(model, images, labels, costs=costs, progress=0.0, generator=generator, **hyperparameters)


def random_logits(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def terms(logits, labels, costs, **hyperparameters):
    options = {"gamma_n": 4.0, "gamma_s": 16.0, "form": "sum"} | hyperparameters
    quantiles = mean_class_quantiles(logits, options.pop("beta", 16.0))
    return margin_terms(quantiles, labels, costs=costs, **options)


def one_term(logits, y, costs, *, beta, gamma_n, gamma_s, form):
    """The same of one image, logits (k, m), by scipy and in the order of the paper's formulas."""
    q = norm.ppf(torch.softmax(beta * logits, dim=1).mean(dim=0).numpy())
    xi = [q[y] - q[j] for j in range(len(q))]
    omega = [j for j in range(len(q)) if costs[y, j] > 0]
    if not omega:
        smallest = min(xi[j] for j in range(len(q)) if j != y)
        return gamma_n - smallest if 0 < smallest < gamma_n else 0.0
    if form == "max":
        smallest = min(xi[j] for j in omega)
        return gamma_s - smallest if abs(smallest) < gamma_s else 0.0
    return sum(float(costs[y, j]) * (gamma_s - xi[j]) for j in omega if abs(xi[j]) < gamma_s)


@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize(
    ("form", "gamma_s", "seed_image"),
    [
        ("sum", 2.0, 0.25 * (2 - 0.524401) + 0.75 * (2 - 0.841621)),  # xi_1 = .524401, xi_2 = .841621
        ("max", 2.0, 2 - 0.524401),  # class 1 is the hardest target; its cost is not looked at
        ("sum", 0.6, 0.25 * (0.6 - 0.524401)),  # xi_2 > gamma_s
        ("sum", 0.5, 0.0),
    ],
)
def test_value_by_hand(form, gamma_s, seed_image, k):
    # image 1: xi = .524401 + .841621, below gamma_n = 4; image 2 is wrong and no seed: CE alone
    expected = CE + (seed_image + (4 - 1.366022) + 0) / 3
    value = loss(Linear(PROBABILITIES.log()), form=form, gamma_s=gamma_s, k=k, **NO_NOISE)
    assert value.item() == pytest.approx(expected, rel=1e-5)


def test_a_margin_beyond_gamma_n_is_left_to_cross_entropy():
    value = loss(Linear(PROBABILITIES.log()), gamma_s=0.5, gamma_n=1.3, **NO_NOISE)
    assert value.item() == pytest.approx(CE, rel=1e-5)


def test_a_costly_mistake_counts_up_to_gamma_s():
    # image 2 becomes a seed image: xi_0 = -.841621 + .524401 = -.317220, xi_1 = -.841621
    costs = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [2.0, 1.0, 0.0]])
    logits = PROBABILITIES.log()[2:, None]
    label = LABELS[2:]
    assert terms(logits, label, costs, beta=1.0, gamma_s=1.0).item() == pytest.approx(2 * 1.317220 + 1.841621)
    assert terms(logits, label, costs, beta=1.0, gamma_s=1.0, form="max").item() == pytest.approx(1.841621)
    assert terms(logits, label, costs, beta=1.0, gamma_s=0.5).item() == pytest.approx(2 * 0.817220)


def test_costs_have_no_unit_and_keep_their_ratios():
    """Rows that sum up to 4 and 1: 2.5 on average."""
    costs = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0], [0.5, 0.5, 0.0]])
    first = 1 / 2.5 * (2 - 0.524401) + 3 / 2.5 * (2 - 0.841621)
    last = 0.5 / 2.5 * (2 + 0.317220) + 0.5 / 2.5 * (2 + 0.841621)
    for unit in (1.0, 100.0, 1e-3):
        value = loss(Linear(PROBABILITIES.log()), costs=unit * costs, gamma_s=2.0, **NO_NOISE)
        assert value.item() == pytest.approx(CE + (first + (4 - 1.366022) + last) / 3, rel=1e-5)


@pytest.mark.parametrize("form", ["sum", "max"])
def test_one_lam_is_for_both_forms_and_any_number_of_targets(form):
    """Undecided between ten classes every margin is 0: each costly target lacks gamma_s."""
    model = Linear(torch.zeros(3, 10))
    for targets in (1, 9):
        costs = torch.zeros(10, 10)
        costs[0, 1 : 1 + targets] = 1.0
        value = loss(model, IMAGES[:1], LABELS[:1], costs=costs, sigma=0.5, form=form)
        assert value.item() == pytest.approx(math.log(10) + 3 * 0.5 / 2 * 16, rel=1e-5)


def test_seed_images_may_have_the_margin_of_the_others_too():
    # image 0: xi = .524401 against all classes; image 2 is wrong, so has none
    costs = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    alone = loss(Linear(PROBABILITIES.log()), costs=costs, gamma_s=2.0, **NO_NOISE)
    both = loss(Linear(PROBABILITIES.log()), costs=costs, gamma_s=2.0, standard_too=True, **NO_NOISE)
    assert both.item() - alone.item() == pytest.approx((4 - 0.524401) / 3, rel=1e-5)


@pytest.mark.parametrize("form", ["sum", "max"])
@pytest.mark.parametrize(("gap", "kept"), [(16.0, True), (18.0, False), (-16.0, True), (-18.0, False)])
def test_what_float32_takes_for_certain_may_be_dropped(form, gap, kept):
    """Two classes whose logits differ by 17.3 have 1 - h = 2^-25."""
    logits = torch.tensor([[[gap, 0.0]]])
    costs = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    for drop in (False, True):
        term = terms(logits, LABELS[:1], costs, beta=1.0, form=form, drop_saturated=drop)
        assert (term.item() > 0) == (kept or not drop)


def test_beta_is_that_of_the_margins_alone():
    # h is proportional to p^2: of a class with odds 7 : 3 it has odds 49 : 9
    logits = torch.tensor([[0.7, 0.3]]).log()
    costs = torch.zeros(2, 2)
    value = loss(Linear(logits.repeat(3, 1)), IMAGES[:1], LABELS[:1], costs=costs, **(NO_NOISE | {"beta": 2.0}))
    assert value.item() == pytest.approx(-math.log(0.7) + 4 - 2 * norm.ppf(49 / 58), rel=1e-5)


def test_weight_of_the_margins_is_lam_sigma_over_two():
    model = Linear(torch.zeros(3, 3))  # constant, so that noise is out of the way
    assert loss(model, sigma=0.5).item() == pytest.approx(math.log(3) + 3 * 0.5 / 2 * 16 / 3, rel=1e-5)


def test_noise_is_sigma_times_the_generators_normals_for_k_copies_of_each_image():
    model = Linear(PROBABILITIES.log())
    noise = torch.randn(3 * 2, 3, generator=torch.Generator().manual_seed(5))
    copies = IMAGES.flatten(1)[[0, 0, 1, 1, 2, 2]] + 0.5 * noise
    logits = (copies @ PROBABILITIES.log()).view(3, 2, 3)
    mean_softmax = logits.softmax(2).mean(1)
    settings = {"beta": 2.0, "gamma_n": 4.0, "gamma_s": 16.0, "form": "sum"}
    expected = -mean_softmax[torch.arange(3), LABELS].log().mean().item()
    expected += 3 * 0.5 / 2 * sum(one_term(logits[i], i, COSTS / 4, **settings) for i in range(3)) / 3
    value = loss(model, sigma=0.5, k=2, seed=5, **settings)
    assert value.item() == pytest.approx(expected, rel=1e-5)
    assert loss(model, sigma=0.5, k=2, seed=6, **settings).item() != pytest.approx(expected, rel=1e-3)


def test_one_forward_pass_of_all_copies():
    model, rows = Linear(PROBABILITIES.log()), []
    model.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    loss(model, sigma=0.5)
    assert rows == [3 * 16]


@pytest.mark.parametrize("form", ["sum", "max"])
@pytest.mark.parametrize("gamma_s", [0.5, 16.0])
def test_a_full_real_valued_matrix_equals_one_image_at_a_time(form, gamma_s):
    logits, labels = random_logits(40, 3, 5), torch.arange(40) % 5
    costs = random_logits(5, 5).abs().fill_diagonal_(0)
    settings = {"beta": 2.0, "gamma_n": 4.0, "gamma_s": gamma_s, "form": form}
    expected = [one_term(logits[i], int(labels[i]), costs, **settings) for i in range(40)]
    assert terms(logits, labels, costs, **settings).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("form", ["sum", "max"])
def test_a_batch_is_the_mean_of_its_images(form):
    model, settings = Linear(PROBABILITIES.log()), {"form": form, "gamma_s": 2.0, **NO_NOISE}
    alone = [loss(model, IMAGES[i : i + 1], LABELS[i : i + 1], **settings) for i in range(3)]
    assert loss(model, **settings).item() == pytest.approx(sum(alone).item() / 3, rel=1e-5)


@pytest.mark.parametrize("form", ["sum", "max"])
def test_a_batch_without_sensitive_images_has_standard_margins_only(form):
    model = Linear(PROBABILITIES.log())
    value = loss(model, IMAGES[1:], LABELS[1:], form=form, **NO_NOISE)
    assert value.item() == pytest.approx(-math.log(0.7 * 0.2) / 2 + (4 - 1.366022) / 2, rel=1e-5)
    value.backward()
    assert torch.isfinite(model.weight.grad).all()


@pytest.mark.parametrize("form", ["sum", "max"])
def test_gradient_of_the_terms_is_the_finite_difference(form):
    logits, labels = random_logits(16, 2, 4).requires_grad_(True), torch.arange(16) % 4
    costs = torch.tensor([[0, 1.5, 0, 0.5], [0, 0, 0, 0], [2, 1, 0, 3], [0, 0, 0, 0]], dtype=torch.float64)
    settings = {"beta": 2.0, "gamma_n": 4.0, "gamma_s": 16.0, "form": form}
    active = terms(logits, labels, costs, **settings) > 0
    assert active[labels % 2 == 0].all() and active[labels % 2 == 1].any()  # both kinds of image take part
    assert torch.autograd.gradcheck(lambda z: terms(z, labels, costs, **settings), logits)


def test_gradient_of_the_loss_is_the_finite_difference():
    weight, step = PROBABILITIES.log(), 1e-2
    model, settings = Linear(weight), {"sigma": 0.5, "k": 2, "beta": 1.0}
    loss(model, **settings).backward()
    change = torch.zeros(3, 3)
    change[0, 1] = step
    difference = loss(Linear(weight + change), **settings) - loss(Linear(weight - change), **settings)
    assert model.weight.grad[0, 1].item() == pytest.approx(difference.item() / (2 * step), rel=1e-3)


def a_costly_mistake(gap, num_classes):
    """Logits (1, 4, m) of an image of class 0 that the network takes for class 1, the costly one."""
    logits = torch.zeros(1, 4, num_classes)
    logits[:, :, 1] = gap
    costs = torch.zeros(num_classes, num_classes)
    costs[0, 1] = 1.0
    return logits.requires_grad_(True), costs


# At beta 16 a gap of 3 is xi = -19 and a gap of 10 is xi = -35: with gamma_s 16 the paper's mask leaves both
# to cross-entropy, so only a wider one shows the gradient of the margin.
@pytest.mark.parametrize("form", ["sum", "max"])
@pytest.mark.parametrize("num_classes", [2, 1000])
@pytest.mark.parametrize("gap", [3.0, 10.0])
def test_the_margin_of_a_costly_mistake_pulls_the_right_way(gap, num_classes, form):
    logits, costs = a_costly_mistake(gap, num_classes)
    term = terms(logits, torch.tensor([0]), costs, gamma_s=100.0, form=form)
    (gradient,) = torch.autograd.grad(term.sum(), logits)
    true_class, costly_class = gradient[0, :, 0].sum().item(), gradient[0, :, 1].sum().item()
    # xi = q_0 - q_1, each of slope 16 / |q|: descent raises class 0 and lowers class 1, with no saturation
    slope = 16 / math.sqrt(2 * 16 * gap)
    assert true_class < -0.9 * slope and costly_class > 0.9 * slope


def test_the_mask_leaves_a_costly_mistake_beyond_gamma_s_to_cross_entropy():
    for gap in (3.0, 10.0):
        logits, costs = a_costly_mistake(gap, 2)
        assert terms(logits, torch.tensor([0]), costs, gamma_s=16.0).item() == 0


@pytest.mark.parametrize("gamma_s", [16.0, 100.0])
@pytest.mark.parametrize("form", ["sum", "max"])
@pytest.mark.parametrize("gap", [3.0, 10.0])
def test_the_loss_of_a_costly_mistake_pulls_the_right_way(gap, form, gamma_s):
    model = Linear(torch.tensor([[0.0, gap, 0.0]] * 3))
    loss(model, IMAGES[:1], LABELS[:1], sigma=1e-20, lam=1.5e20, form=form, gamma_s=gamma_s).backward()
    least = 0.9 if gamma_s == 16 else 1.3  # cross-entropy pulls by 1 at most, the rest is the margin
    assert model.weight.grad[0, 0] < -least and model.weight.grad[0, 1] > least


@pytest.mark.parametrize("num_classes", [2, 1000])
@pytest.mark.parametrize("gap", [0.0, 3.0, 10.0, 100.0])
@pytest.mark.parametrize("form", ["sum", "max"])
def test_value_and_gradient_are_finite_at_any_gap(gap, num_classes, form):
    logits = torch.zeros(3, 16, num_classes)
    logits[:, :, 1] = gap
    logits.requires_grad_(True)
    costs = torch.zeros(num_classes, num_classes)
    costs[0, 1:] = 1.0
    term = terms(logits, torch.tensor([0, 1, 0]), costs, gamma_s=1000.0, gamma_n=1000.0, form=form)
    (gradient,) = torch.autograd.grad(term.sum(), logits)
    assert torch.isfinite(term).all() and torch.isfinite(gradient).all() and gradient.abs().max() > 0.01


def test_a_thousand_classes_keep_nothing_of_size_m_by_m():
    sizes = []
    logits, costs = random_logits(3, 2, 1000).requires_grad_(True), torch.ones(1000, 1000).fill_diagonal_(0)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: sizes.append(t.numel()) or t, lambda t: t):
        terms(logits, torch.tensor([0, 1, 2]), costs)
    assert 0 < max(sizes) <= logits.numel()


def test_logits_of_a_network_in_bf16_are_computed_with_in_float32():
    logits = random_logits(3 * 16, 3).bfloat16()
    expected = loss(lambda images: logits.float(), sigma=0.5)
    assert loss(lambda images: logits, sigma=0.5).item() == expected.item()
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(lambda images: logits, sigma=0.5)
    assert value.dtype == torch.float32 and value.item() == expected.item()


def test_nonsense_is_refused():
    model = Linear(PROBABILITIES.log())
    with pytest.raises(UserError, match="k of margin_cs is 0; give a whole number of at least 1"):
        loss(model, sigma=0.5, k=0)
    with pytest.raises(UserError, match="form of margin_cs is 'summ': did you mean sum"):
        loss(model, sigma=0.5, form="summ")
    with pytest.raises(UserError, match="margin_cs got no cost matrix"):
        loss(model, sigma=0.5, costs=None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"k": 16.0}, "k of margin_cs is 16.0; give a whole number of at least 1"),
        ({"k": True}, "k of margin_cs is True; give a whole number"),
        ({"k": 0}, "k of margin_cs is 0; give a whole number of at least 1"),
        ({"beta": "16"}, "beta of margin_cs is '16'; give a finite number"),
        ({"gamma_s": -1}, "gamma_s of margin_cs is -1; give a finite number of at least 0"),
        ({"form": "maximum"}, "form of margin_cs is 'maximum': did you mean max"),
        ({"form": 3}, "form of margin_cs is 3: choose from sum, max"),
    ],
)
def test_resolving_refuses_nonsense_before_training(args, message):
    with pytest.raises(UserError, match=message):
        resolve_objective("margin_cs", args, costs=CostMatrix.seedwise(3, [0]))


def test_a_resolved_objective_has_its_hyperparameters():
    args = {"form": "max", "gamma_s": 2, **{name: NO_NOISE[name] for name in ("lam", "beta")}}
    objective = resolve_objective("margin_cs", args, costs=CostMatrix.seedwise(3, [0]))
    generator = torch.Generator().manual_seed(0)
    model = Linear(PROBABILITIES.log())
    value = objective(model, IMAGES, LABELS, sigma=1e-20, costs=COSTS, progress=0.0, generator=generator)
    assert value.item() == pytest.approx(CE + ((2 - 0.524401) + (4 - 1.366022)) / 3, rel=1e-5)
