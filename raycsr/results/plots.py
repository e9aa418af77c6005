"""Pictures of certified curves."""

import io

import matplotlib
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_TITLES = (
    ("certified accuracy", "right, and no perturbation within r changes it"),
    ("rob_cs", "no perturbation within r makes a costly mistake"),
    ("rob_cost", "mean cost that is not ruled out within r"),
)
_DASHES = ("-", "--", ":", "-.")


def plot_curves(curves: dict[tuple[str, str], pd.DataFrame]) -> bytes:
    """Draws certified curves of several runs and cost matrices over the radius.

    Args:
        curves: (run, costs) -> a summary over many radii (`summarize`); shares come with their 95 % bands.

    Returns:
        A PNG: one panel each for certified accuracy (one curve a run: it knows no costs), rob_cs and rob_cost.
    """
    runs = {run: curve for (run, _), curve in curves.items()}
    several = len(runs) > 1
    sets = {f"{run} · {costs}" if several else costs: curve for (run, costs), curve in curves.items()}
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 4), dpi=120, layout="constrained")
        standard, robust, cost = figure.subplots(1, 3)
        for i, (label, curve) in enumerate(runs.items()):
            _draw(
                standard,
                curve,
                "certified_accuracy",
                label,
                color="0.15",
                linestyle=_DASHES[i % len(_DASHES)],
            )
        for i, (label, curve) in enumerate(sets.items()):
            _draw(robust, curve, "rob_cs", label, color=f"C{i % 10}")
            _draw(cost, curve, "rob_cost", label, color=f"C{i % 10}")
        for axis, (title, meaning) in zip((standard, robust, cost), _TITLES, strict=True):
            axis.set(xlabel="L2 radius, [0, 1] pixel units", xlim=(0, None), ylim=(0, None))
            axis.set_title(f"{title}\n{meaning}", fontsize=9)
            axis.grid(alpha=0.25)
        for axis in (standard, robust):
            axis.set_ylim(0, 1.02)
        standard.legend(frameon=False, loc="lower left")
        figure.legend(*robust.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()


def _draw(axis: Axes, curve: pd.DataFrame, name: str, label: str, color: str, linestyle: str = "-") -> None:
    if curve[name].isna().all():
        return
    axis.plot(curve["radius"], curve[name], label=label, linewidth=1.6, color=color, linestyle=linestyle)
    low, high = curve[f"{name}_low"], curve[f"{name}_high"]
    axis.fill_between(curve["radius"], low, high, color=color, alpha=0.12, linewidth=0)
