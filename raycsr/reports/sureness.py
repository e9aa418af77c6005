"""How sure the answers are: the distribution of the bound on the answer's share, which an average radius hides."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.special import ndtr

from raycsr.reports.certified import Certified
from raycsr.reports.direct import label_lines
from raycsr.reports.drawing import NARROW, Form, fitted, legend_below, rendered, styled
from raycsr.reports.looks import Looks, as_label

_SIGMAS = (0.0, 0.5, 1.0, 2.0)  # on the upper axis: radii in units of sigma

EXPLAINED = (
    "For each share of votes, how many images are answered rightly with a share proven to be as large. The average "
    "certified radius (ACR) is the mean of sigma times the normal quantile of that share, which grows without bound as "
    "it nears 1: a model that is surer of easy images gains ACR, though it answers no image more. Compare the curves "
    "where they matter to you, not their mean (Average Certified Radius is a Poor Metric for Randomized "
    "Smoothing, 2024)."
)


def sure_shares(certificates: pd.DataFrame) -> np.ndarray:
    """The lower bound on the share of each right answer, ascending; 0 of a wrong answer, or where there is none; (N,).

    Args:
        certificates: Rows of `certify_counts`.
    """
    right = (certificates["prediction"] == certificates["label"]).fillna(False).to_numpy(bool)
    bound = certificates["p_a_lower_standard"].to_numpy(np.float64, na_value=0.0)
    return np.sort(np.where(right & certificates["error"].isna().to_numpy(), bound, 0.0))


def plot_sureness(sets: Sequence[Certified], form: Form = Form.PNG, looks: Looks | None = None) -> bytes | None:
    """Draws, over each share of votes, how many images are answered rightly by a share as large.

    Args:
        sets: Sets of any runs, costs, rules and answers; each run and rule is drawn once, for the share knows neither
            costs nor what is said given shares.
        form: What becomes of it.
        looks: Looks of the page that it is for; by default of these sets alone.

    Returns:
        A picture; None where no set says the share, as published tables do not.
    """
    distinct = {(one.run, one.decision, one.alpha): one for one in reversed(sets) if one.origin is not None}
    distinct = dict(reversed(distinct.items()))  # the first of those that share votes
    if not distinct:
        return None
    looks = looks or Looks(one.key for one in distinct.values())
    labels = [_label(one) for one in distinct.values()]
    with styled(*labels):
        figure = Figure(figsize=(NARROW if form is Form.NARROW else 8, 4.4), dpi=120, layout="constrained")
        axis = figure.subplots()
        for label, ((_, _, alpha), one) in zip(labels, distinct.items(), strict=True):
            shares = sure_shares(one.certificates)
            left = 1 - np.arange(len(shares)) / len(shares)  # share of images with one no smaller
            name = as_label(label if labels.count(label) == 1 else f"{label} (alpha {alpha:g})")
            look = looks.of(run=one.run, rule=one.rule)  # the share knows no costs
            axis.step([0, *shares, 1], [1, *left, 0], where="pre", label=name, linewidth=1.6, **look.curve)
        axis.axvline(0.5, color="0.6", linewidth=0.8, linestyle=":")  # where the standard radius begins
        axis.set(
            xlabel=fitted("lower bound on the share of votes of the right answer (p_A)", form), ylabel="share of images"
        )
        axis.set(xlim=(0, 1), ylim=(0, 1.02))
        axis.grid(alpha=0.25)
        above = axis.secondary_xaxis("top", functions=(lambda share: share, lambda share: share))
        above.set_xticks(ndtr(_SIGMAS), [f"{sigma:g}σ" for sigma in _SIGMAS])
        above.set_xlabel("standard radius")
        if not label_lines(figure, [[axis]]):
            legend_below(figure, *axis.get_legend_handles_labels(), form)
        return rendered(figure, form)


def _label(one: Certified) -> str:
    """Run and rule, without the answer."""
    return one.run if one.decision == "argmax" else f"{one.run} · {one.decision_spec}"
