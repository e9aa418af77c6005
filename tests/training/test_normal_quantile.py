"""Normal quantiles of log-probabilities, against scipy and where a clamp on the probability would give up."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtri_exp
from scipy.stats import norm

from raycsr.training.objectives.normal_quantile import log_mean_softmax, mean_class_quantiles, normal_quantile

LOG_HALF = math.log(0.5)


def test_values_are_scipys():
    log_p = torch.cat([torch.linspace(-1000, LOG_HALF, 20001), -torch.logspace(-12, 0, 2001) + LOG_HALF]).double()
    expected = ndtri_exp(log_p.numpy())
    np.testing.assert_allclose(normal_quantile(log_p).numpy(), expected, rtol=1e-9, atol=1e-15)


def test_known_values():
    # Phi(0) = 1/2, and the two-sided 5 % and 1 % points of every table
    log_p = torch.tensor([0.5, 0.025, 0.005], dtype=torch.float64).log()
    assert normal_quantile(log_p).tolist() == pytest.approx([0, -1.959963985, -2.575829304], abs=1e-9)


def test_rounding_above_one_half_gives_zero():
    assert normal_quantile(torch.tensor([LOG_HALF + 1e-7])).item() == pytest.approx(0, abs=1e-6)


def test_gradient_is_the_finite_difference():
    log_p = torch.tensor([LOG_HALF, -1.0, -48.0, -160.0, -1000.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(normal_quantile, log_p, rtol=1e-6, atol=1e-8)


def test_gradient_in_the_tail_is_one_over_the_quantile():
    log_p = torch.tensor(-1000.0, requires_grad=True)
    x = normal_quantile(log_p)
    x.backward()
    assert log_p.grad.item() == pytest.approx(-1 / x.item(), rel=1e-3)


def test_float32_stays_float32():
    log_p = torch.tensor([-1000.0, -2.0], requires_grad=True)
    x = normal_quantile(log_p)
    x.sum().backward()
    assert x.dtype == log_p.grad.dtype == torch.float32
    assert x.tolist() == pytest.approx(ndtri_exp([-1000.0, -2.0]), rel=1e-6)


def test_log_mean_softmax_of_two_copies():
    # softmax (3/4, 1/4) and (1/2, 1/2): mean (5/8, 3/8)
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]])
    assert log_mean_softmax(logits).exp().tolist() == [pytest.approx([5 / 8, 3 / 8])]


def test_class_quantiles_of_two_copies():
    # beta 2 squares the odds: softmax (9/10, 1/10) and (1/2, 1/2), mean (0.7, 0.3)
    logits = torch.tensor([[[math.log(3), 0.0], [0.0, 0.0]]])
    assert mean_class_quantiles(logits, beta=2.0).tolist() == [pytest.approx([0.524401, -0.524401], abs=1e-5)]


@pytest.mark.parametrize("scale", [0.01, 1.0, 3.0])  # the top class below 1/2, around it, and above
def test_class_quantiles_are_scipys(scale):
    logits = scale * torch.randn(20, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = torch.softmax(2 * logits, dim=2).mean(dim=1).numpy()
    np.testing.assert_allclose(mean_class_quantiles(logits, beta=2.0).numpy(), norm.ppf(h), rtol=1e-9)


def test_class_quantiles_have_the_gradient_of_finite_differences():
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: mean_class_quantiles(z, 2.0), logits)


@pytest.mark.parametrize("num_classes", [2, 1000])
@pytest.mark.parametrize("gap", [0.0, 3.0, 10.0, 100.0])
def test_class_quantiles_keep_value_and_gradient_at_any_gap(gap, num_classes):
    logits = torch.zeros(1, 16, num_classes)
    logits[:, :, 1] = gap
    logits.requires_grad_(True)
    quantiles = mean_class_quantiles(logits, beta=16.0)
    # class 0 has p = 1 / (m - 1 + e^(16 gap)); at gap 100 that is e^-1600, zero even in float64
    log_p = -np.logaddexp(math.log(num_classes - 1), 16 * gap)
    assert quantiles[0, 0].item() == pytest.approx(ndtri_exp(log_p), rel=1e-5, abs=1e-6)
    (gradient,) = torch.autograd.grad(quantiles[0, 1], logits)
    assert torch.isfinite(quantiles).all() and torch.isfinite(gradient).all()
    # more of the top class's logit raises its quantile: by 16 p (1 - p) / phi where nothing saturates
    slope = gradient[0, :, 1].sum().item()
    if gap == 0:
        p = 1 / num_classes
        assert slope == pytest.approx(16 * p * (1 - p) / norm.pdf(norm.ppf(p)), rel=1e-4)
    else:
        assert slope == pytest.approx(16 / quantiles[0, 1].item(), rel=0.02)
