"""The noise schedules of diffusion models, and which of their steps fits noise of a given sigma.

A diffusion model takes x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) N(0, I) of images x_0 in [-1, 1], for steps t = 0, 1,
and so on. Divided by sqrt(abar_t) that is the image with noise of standard deviation r_t = sqrt((1 - abar_t) / abar_t),
which is r_t / 2 in pixels of [0, 1]: so randomized smoothing's noise finds its step (Carlini et al., ICLR 2023).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raycsr.errors import UserError

SCHEDULES = ("linear", "cosine")
_STEPS = 1000  # that the linear schedule's numbers are for
_LARGEST_BETA = 0.999  # of the cosine schedule, whose last one would be 1


@dataclass(frozen=True)
class Step:
    """A step of a schedule.

    Attributes:
        t: Number of the step, from 0.
        alpha_bar: Share abar_t of the image in the variance of what the model takes, in (0, 1).
    """

    t: int
    alpha_bar: float

    @property
    def noise(self) -> float:
        """Standard deviation r_t of its noise where images are in [-1, 1]."""
        return math.sqrt((1 - self.alpha_bar) / self.alpha_bar)

    @property
    def sigma(self) -> float:
        """The same where images are in [0, 1]."""
        return self.noise / 2


def alpha_bars(schedule: str, steps: int) -> NDArray[np.float64]:
    """The products abar_t of 1 - beta over the steps up to each t.

    Args:
        schedule: "linear" (Ho et al., NeurIPS 2020: beta from 1e-4 to .02 in 1000 steps, and as much noise in any other
            number of them) or "cosine" (Nichol & Dhariwal, ICML 2021: abar falls as a squared cosine).
        steps: Number of steps.

    Returns:
        float64 (steps,), falling.

    Raises:
        UserError: The schedule is another, or there are too few steps for it.

    Example:
        >>> alpha_bars("linear", 1000)[0].round(6)
        np.float64(0.9999)
    """
    if schedule not in SCHEDULES:
        raise UserError(f"noise_schedule is {schedule!r}: choose from {', '.join(SCHEDULES)}.")
    if steps < 100:  # with fewer, the linear schedule's last beta is 1 or more
        raise UserError(f"diffusion_steps is {steps}: give those that the model was trained with, 100 or more.")
    if schedule == "linear":
        betas = np.linspace(1e-4, 0.02, steps) * _STEPS / steps
    else:
        levels = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - levels[1:] / levels[:-1], _LARGEST_BETA)
    return np.cumprod(1 - betas, dtype=np.float64)


def steps_for(levels: Sequence[float], alpha_bars: NDArray[np.float64]) -> list[Step]:
    """The step of each noise level, as `step_for` finds it.

    Args:
        levels: Standard deviations, in [0, 1] pixel units.
        alpha_bars: Values abar_t of the schedule; (steps,).

    Raises:
        UserError: The schedule has no such noise, or two levels are one step, which would be asked twice.
    """
    steps = [step_for(level, alpha_bars) for level in levels]
    for i, step in enumerate(steps):
        if step in steps[:i]:
            both = f"levels {levels[steps.index(step)]:g} and {levels[i]:g}"
            raise UserError(f"{both} are the same step t = {step.t} of this diffusion model: give one of the two.")
    return steps


def earlier_steps(step: Step, number: int, alpha_bars: NDArray[np.float64]) -> list[Step]:
    """A step and so many less one before it, at equal distances down to the image.

    Args:
        step: The first.
        number: Number of steps in all.
        alpha_bars: Values abar_t of the schedule; (steps,).

    Raises:
        UserError: The step has not so many before it.

    Example:
        >>> [one.t for one in earlier_steps(Step(144, 0.8), 3, alpha_bars("linear", 1000))]
        [144, 96, 48]
    """
    if number > step.t + 1:
        raise UserError(f"reverse_steps is {number}, and step t = {step.t} has {step.t} before it: give fewer.")
    places = [step.t * (number - i) // number for i in range(1, number)]
    return [step, *(Step(t, float(alpha_bars[t])) for t in places)]


def step_for(sigma: float, alpha_bars: NDArray[np.float64]) -> Step:
    """The step whose noise is nearest to that of an image with noise of standard deviation sigma.

    Args:
        sigma: Standard deviation, in [0, 1] pixel units.
        alpha_bars: Values abar_t of the schedule; (steps,).

    Raises:
        UserError: The schedule has no such noise: it has less in its last step, or more in its first.

    Example:
        >>> step_for(0.25, alpha_bars("linear", 1000))
        Step(t=144, alpha_bar=0.8003666437474901)
    """
    sigmas = np.sqrt((1 - alpha_bars) / alpha_bars) / 2
    if not sigmas[0] <= sigma <= sigmas[-1]:
        raise UserError(
            f"no step of the {len(sigmas)} of this diffusion model has noise of sigma {sigma:g}: they go from "
            f"{sigmas[0]:.2g} to {sigmas[-1]:.4g}: give a sigma between, or another denoiser."
        )
    t = int(np.abs(sigmas - sigma).argmin())
    return Step(t, float(alpha_bars[t]))
