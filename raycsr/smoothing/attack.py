"""A gradient attack on the smoothed classifier: for each image a picture nearby that it may answer by a costly class.

What an attack finds is a candidate. Whether the smoothed classifier answers it so is for fresh votes to say
(`raycsr.certification.attacks`).
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike

from raycsr.smoothing.options import AttackOptions

LEAST_GRADIENT = 1e-8  # a shorter one is rounding, and points anywhere
_HALVINGS = 50  # of the interval in which the largest multiple is sought


def step_up(
    images: torch.Tensor,
    moved: torch.Tensor,
    gradient: torch.Tensor,
    *,
    length: torch.Tensor | float,
    radius: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """One step of projected gradient ascent in L2 (Madry et al., ICLR 2018), for attacks in training and of audits.

    Args:
        images: Pixels (N, C, H, W) in [0, 1], the centres of the balls.
        moved: Present point of the ascent, in [0, 1]; (N, C, H, W).
        gradient: Gradient at `moved` of what is to grow; one with a norm below 1e-8 or not finite moves nothing; (N, C,
            H, W).
        length: L2 length of the step, for all images or for each, (N, 1, 1, 1).
        radius: L2 distance from the image that is not left, for all or for each, (N, 1, 1, 1); None sets no bound.

    Returns:
        (N, C, H, W) in [0, 1].
    """
    norm = _norms(gradient)
    points = (norm >= LEAST_GRADIENT) & norm.isfinite()
    moved = (moved + torch.where(points, length * gradient / norm, 0.0)).clamp(0, 1)
    return moved if radius is None else within(moved, images, radius)


def within(moved: torch.Tensor, images: torch.Tensor, radius: torch.Tensor | float) -> torch.Tensor:
    """Returns the point of an L2 ball around each image that is nearest to where it was moved.

    Args:
        moved: Points of the box [0, 1]; (N, C, H, W).
        images: Centres of the balls, in the same box; (N, C, H, W).
        radius: Radius of all balls or of each, (N, 1, 1, 1).

    Returns:
        (N, C, H, W), in the box too: a ball around a point of the box is projected on without leaving it.
    """
    shift = moved - images
    norm = _norms(shift)
    return torch.where(norm > radius, images + shift * (radius / norm), moved)


def attack_images(
    network: Callable[[torch.Tensor], torch.Tensor],
    images: torch.Tensor,
    targets: torch.Tensor,
    radii: ArrayLike,
    *,
    sigma: float,
    options: AttackOptions,
    generators: Sequence[torch.Generator],
    taus: ArrayLike = 0.0,
) -> torch.Tensor:
    """Looks, within a ball around each image, for a picture that the smoothed classifier answers by a target class.

    Projected gradient ascent of log p_j - log p_k, where j is the likeliest target, k the likeliest of the other
    classes, and p the mean softmax over noisy copies, whose noise is drawn anew in each step (expectation over
    transformation: Athalye et al., ICML 2018; for smoothing Salman et al., NeurIPS 2019). Of a target with a threshold
    tau_j, above which alone it is answered, the lesser of that and of logit p_j - logit tau_j. `steps` steps of
    2 * radius / steps, then the nearest 8-bit picture (`on_lattice`).

    Args:
        network: float32 pixels (B, C, H, W), noise in them, so beyond [0, 1] too -> logits (B, m), with gradients.
        images: On the device of the network; uint8 (N, C, H, W).
        targets: The costly classes of each image; neither none nor all; bool (N, m).
        radii: (N,), above 0: the L2 distances that are not left, in [0, 1] pixel units.
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        options: Gradient steps, and noisy copies of an image in each: a step is a forward and a backward pass of all
            of them.
        generators: Source of the noise of each image, N of them on that device.
        taus: Thresholds of the answer, one for all classes or (m,); 0 where there is none.

    Returns:
        uint8 (N, C, H, W), each within its radius of its image.
    """
    pixels = images.float() / 255  # (N, C, H, W)
    reach = torch.as_tensor(np.asarray(radii), dtype=torch.float32, device=images.device).view(-1, 1, 1, 1)
    above = torch.as_tensor(np.asarray(taus), dtype=torch.float32, device=images.device)
    moved, shape = pixels, (options.noises, *images.shape[1:])
    for _ in range(options.steps):
        moved = moved.detach().requires_grad_(True)
        noise = torch.stack([torch.randn(shape, generator=one, device=images.device) for one in generators])
        logits = network((moved[:, None] + sigma * noise).flatten(0, 1)).float()  # (N * noises, m)
        log_p = logits.log_softmax(dim=1).unflatten(0, noise.shape[:2]).logsumexp(dim=1)  # (N, m), but for log(noises)
        (gradient,) = torch.autograd.grad(_lead(log_p, options.noises, targets, above).sum(), moved)
        moved = step_up(pixels, moved.detach(), gradient, length=2 * reach / options.steps, radius=reach)
    return on_lattice(images, moved - pixels, radii)


def _lead(log_p: torch.Tensor, noises: int, targets: torch.Tensor, taus: torch.Tensor) -> torch.Tensor:
    """By how much the target that is nearest to be answered leads, or lacks: what an attack raises, (N,).

    Args:
        log_p: Logarithms of the shares, and of the number of noises; (N, m).
        noises: That number.
        targets: bool (N, m).
        taus: Thresholds, (m,) or one.
    """
    rival = log_p.masked_fill(targets, -torch.inf).amax(dim=1)
    if not taus.any():
        return log_p.masked_fill(~targets, -torch.inf).amax(dim=1) - rival
    share = (log_p - np.log(noises)).exp().clamp(max=1 - 1e-6)  # beyond it a target has long been answered
    odds = torch.where(taus > 0, share.log() - (-share).log1p() - taus.logit(), torch.inf)
    return torch.minimum(log_p - rival[:, None], odds).masked_fill(~targets, -torch.inf).amax(dim=1)


def on_lattice(images: torch.Tensor, shift: torch.Tensor, radii: ArrayLike) -> torch.Tensor:
    """The 8-bit pictures within a ball around each image that lie furthest along a shift.

    To round the shifted pixels would lose small shifts (all below half a grey level, as those of a large image are) and
    leave the ball by others. So the shift is stretched as far as its rounded multiple stays in the ball: of all whole
    numbers of grey levels with that norm these have the largest inner product with the shift. The norm grows with the
    multiple, so halving an interval finds it. Sums of squared grey levels are exact.

    Args:
        images: uint8 (N, C, H, W).
        shift: (N, C, H, W), in [0, 1] pixel units; only its direction matters.
        radii: (N,), in [0, 1] pixel units.

    Returns:
        uint8 (N, C, H, W); the image itself where the shift is 0.
    """
    along = shift.double().flatten(1)  # (N, d)
    levels = images.double().flatten(1)
    reach = 255 * torch.as_tensor(np.asarray(radii), dtype=torch.float64, device=images.device)
    most = reach.square() * (1 - 1e-12)  # what is left of an error is on the safe side
    largest = along.abs().amax(dim=1)

    def moves(scale: torch.Tensor) -> torch.Tensor:
        return torch.clamp((scale[:, None] * along).round(), -levels, 255 - levels)

    low = torch.zeros_like(reach)
    high = torch.where(largest > 0, (reach + 1) / largest, 0.0)  # beyond it the largest shift alone leaves the ball
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        fits = moves(middle).square().sum(dim=1) <= most
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return (levels + moves(low)).to(torch.uint8).view_as(images)


def distances(images: torch.Tensor, pictures: torch.Tensor) -> np.ndarray:
    """L2 distances of 8-bit pictures, uint8 (N, C, H, W) both, in [0, 1] pixel units: float64 (N,)."""
    levels = pictures.to(torch.int64) - images.to(torch.int64)
    return np.sqrt(levels.square().flatten(1).sum(dim=1).cpu().numpy()) / 255


def _norms(values: torch.Tensor) -> torch.Tensor:
    return values.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
