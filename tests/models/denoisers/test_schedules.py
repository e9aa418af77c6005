"""Schedules of noise, and the step that fits a sigma."""

import numpy as np
import pytest

from raycsr.errors import UserError
from raycsr.models.denoisers.schedules import Step, alpha_bars, step_for


def test_the_linear_schedule_is_the_product_of_what_is_left():
    left = alpha_bars("linear", 1000)
    assert left[:2] == pytest.approx([1 - 1e-4, (1 - 1e-4) * (1 - 1e-4 - 0.0199 / 999)])
    assert left[-1] == pytest.approx(4.036e-5, rel=1e-3)  # as in Ho et al., NeurIPS 2020, where it is about 4e-5


def test_the_linear_schedule_in_more_steps_ends_with_as_much_noise():
    assert alpha_bars("linear", 4000)[-1] == pytest.approx(alpha_bars("linear", 1000)[-1], rel=0.1)


def test_the_cosine_schedule_falls_as_a_squared_cosine_until_it_is_capped():
    left = alpha_bars("cosine", 4000)
    angles = (np.array([1000, 2000, 3000]) / 4000 + 0.008) / 1.008 * np.pi / 2
    assert left[[999, 1999, 2999]] == pytest.approx(np.cos(angles) ** 2 / np.cos(0.008 / 1.008 * np.pi / 2) ** 2)
    assert left[-1] / left[-2] == pytest.approx(1 - 0.999)


@pytest.mark.parametrize(("schedule", "steps"), [("linear", 1000), ("linear", 4000), ("cosine", 4000)])
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_the_step_is_the_nearest_and_no_more_than_half_a_step_away(schedule, steps, sigma):
    left = alpha_bars(schedule, steps)
    step = step_for(sigma, left)
    assert step.alpha_bar == left[step.t]
    near = [Step(t, float(left[t])).sigma for t in (step.t - 1, step.t, step.t + 1)]
    assert near[0] + near[1] <= 2 * sigma <= near[1] + near[2]
    assert step.sigma == pytest.approx(sigma, rel=0.006)


def test_the_step_of_a_known_sigma():
    """abar = 1 / (1 + 4 sigma^2), which is .8 and .5 here."""
    assert step_for(0.25, alpha_bars("linear", 1000)) == Step(144, pytest.approx(0.8, abs=1e-3))
    assert step_for(0.5, alpha_bars("linear", 1000)) == Step(258, pytest.approx(0.5, abs=1e-3))
    assert step_for(0.5, alpha_bars("cosine", 4000)) == Step(1983, pytest.approx(0.5, abs=1e-3))


@pytest.mark.parametrize("sigma", [0.004, 79.0, float("nan")])
def test_a_sigma_that_no_step_has_is_one_line_that_says_which_there_are(sigma):
    with pytest.raises(UserError, match=rf"sigma {sigma:g}.* 0\.005 to 78\.7: give"):
        step_for(sigma, alpha_bars("linear", 1000))


@pytest.mark.parametrize(
    ("schedule", "steps", "words"),
    [("squaredcos", 1000, "'squaredcos': choose from linear, cosine"), ("linear", 20, "diffusion_steps is 20")],
)
def test_an_unknown_schedule_is_refused(schedule, steps, words):
    with pytest.raises(UserError, match=words):
        alpha_bars(schedule, steps)
