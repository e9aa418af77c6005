"""Normal quantiles of probabilities near 0 and 1, from their logarithms, with gradients that do not vanish."""

import math
from typing import Any

import torch
from torch.autograd.function import once_differentiable

_LOG_2 = math.log(2)
_LOG_SQRT_2_PI = math.log(2 * math.pi) / 2
_NEWTON_STEPS = 5  # the fourth reaches the rounding error of float64


def normal_quantile(log_p: torch.Tensor) -> torch.Tensor:
    """Returns Phi^-1(p) of the lower half, p <= 1/2; for p > 1/2 use -normal_quantile(log(1 - p)).

    Args:
        log_p: Logarithms of probabilities, any shape, finite and at most log(1/2) but for rounding.

    Returns:
        Phi^-1(p) <= 0, computed in float64, of the shape and type of log_p. Its gradient is
        Phi(x) / phi(x), about 1 / |x| in the tail.
    """
    return _NormalQuantile.apply(log_p)


def log_mean_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Returns the logarithm of the mean over k copies of softmax(logits): (N, k, m) -> (N, m)."""
    return logits.log_softmax(dim=2).logsumexp(dim=1) - math.log(logits.shape[1])


def mean_class_quantiles(logits: torch.Tensor, beta: float) -> torch.Tensor:
    """Returns Phi^-1(h) of every class, where h is the mean over copies of softmax(beta * logits).

    No quantile is infinite and no gradient lost where h is 0 or 1 in floating point: the smaller of h and
    1 - h is taken by its logarithm. (Zhai et al., ICLR 2020, MACER, clamp h there and so lose the gradient.)

    Args:
        logits: Logits of k noisy copies, m >= 2; (N, k, m).
        beta: Inverse temperature of the softmax.

    Returns:
        (N, m).
    """
    log_h = log_mean_softmax(beta * logits)  # (N, m)
    top = log_h.argmax(dim=1, keepdim=True)  # (N, 1): the one class whose h may exceed 1/2
    log_rest = log_h.scatter(1, top, -math.inf).logsumexp(dim=1, keepdim=True)  # (N, 1), log(1 - h) of the top
    upper = torch.zeros_like(log_h, dtype=torch.bool).scatter(1, top, log_h.gather(1, top) > log_rest)
    lower_tail = normal_quantile(torch.where(upper, log_rest, log_h))
    return torch.where(upper, -lower_tail, lower_tail)


class _NormalQuantile(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log_p: torch.Tensor) -> torch.Tensor:
        target = log_p.double()
        # Phi(-t) <= exp(-t^2 / 2) / 2 makes this a lower bound, from which Newton climbs to the root without
        # overshooting, since log Phi is increasing and concave.
        x = -(-2 * (target + _LOG_2)).clamp(min=0).sqrt()
        for _ in range(_NEWTON_STEPS):
            log_cdf = torch.special.log_ndtr(x)
            x = x + (target - log_cdf) * _cdf_over_density(log_cdf, x)
        ctx.save_for_backward(target, x)
        return x.to(log_p.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        target, x = ctx.saved_tensors
        return grad * _cdf_over_density(target, x)


def _cdf_over_density(log_cdf: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Returns Phi(x) / phi(x), the derivative of the quantile by the log-probability."""
    return torch.exp(log_cdf + x.square() / 2 + _LOG_SQRT_2_PI)
