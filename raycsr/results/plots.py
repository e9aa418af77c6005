"""Pictures of certified curves."""

import io

import matplotlib
import pandas as pd
from matplotlib.figure import Figure

_PANELS = {
    "certified_accuracy": "certified accuracy\n(right answer, and it cannot change)",
    "rob_cs": "rob_cs\n(no costly mistake can be made)",
    "rob_cost": "rob_cost\n(mean cost still possible)",
}


def plot_curves(curves: dict[str, pd.DataFrame]) -> bytes:
    """Draws certified curves of several runs or cost matrices over the radius.

    Args:
        curves: legend -> a summary over many radii (`summarize`); shares come with their 95 % bands.

    Returns:
        A PNG: one panel each for certified accuracy, rob_cs and rob_cost.
    """
    with matplotlib.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12, 4), dpi=120, layout="constrained")
        axes = figure.subplots(1, len(_PANELS))
        for axis, (name, title) in zip(axes, _PANELS.items(), strict=True):
            for i, (legend, curve) in enumerate(curves.items()):
                if curve[name].notna().any():
                    colour = f"C{i % 10}"
                    axis.plot(curve["radius"], curve[name], color=colour, label=legend, linewidth=1.6)
                    if name != "rob_cost":
                        low, high = curve[f"{name}_low"], curve[f"{name}_high"]
                        axis.fill_between(curve["radius"], low, high, color=colour, alpha=0.12, linewidth=0)
            axis.set(title=title, xlabel="L2 radius, [0, 1] pixel units", xlim=(0, None), ylim=(0, None))
            if name != "rob_cost":
                axis.set_ylim(0, 1.02)
            axis.grid(alpha=0.25)
        handles = {label: line for axis in axes for line, label in zip(*axis.get_legend_handles_labels(), strict=True)}
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        return buffer.getvalue()
