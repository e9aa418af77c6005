"""Attacks beside certificates: the table of both bounds, the picture of both curves, and what audits found."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from raycsr.certification.attacks import attacked_shares
from raycsr.reports.certified import Certified, id_of
from raycsr.reports.curves import Curves
from raycsr.reports.direct import label_lines
from raycsr.reports.document import Column, Table
from raycsr.reports.drawing import NARROW, Form, legend_below, rendered, styled
from raycsr.reports.looks import Key, Looks, as_label
from raycsr.results.attacks import AttackSet, attack_sets

_OF_SET = ["run", "costs", "rule"]
_PANELS = {
    "rob_cs": ("rob_cs_attacked", "no perturbation within r makes a costly mistake"),
    "certified_accuracy": ("accuracy_attacked", "right, and no perturbation within r changes it"),
}

_COLUMNS = {
    "rob_cs": "rob_cs",
    "rob_cs_attacked": "not broken",
    "certified_accuracy": "certified accuracy",
    "accuracy_attacked": "not wrong",
}


def attacks_of(sets: Sequence[Certified]) -> dict[Key, pd.DataFrame]:
    """The attacks on the images of some sets, under the cost matrix, the rule and the answer of each, of all budgets.

    Returns:
        (run, costs, rule) -> rows of `raycsr.results.schema.ATTACKS`, of which an image may have several at a radius;
        no rows where there were no attacks.
    """
    runs = {one.origin.location: one.origin for one in sets if one.origin is not None}
    stored: dict[tuple[str, str, str], list[pd.DataFrame]] = {}  # of each run, matrix and rule; many sets share a run
    for location, run in runs.items():
        for name, facts in attack_sets(run).items():
            key = (location, facts["costs"].digest, id_of(facts["rule"], facts["answer"]))
            stored.setdefault(key, []).append(AttackSet(run.store, name).read())
    found = {one.key: stored.get((one.location, one.matrix.digest, one.rule_id), []) for one in sets}
    return {key: pd.concat(frames, ignore_index=True) if frames else pd.DataFrame() for key, frames in found.items()}


def attacked_summaries(sets: Sequence[Certified], attacks: Mapping[Key, pd.DataFrame]) -> pd.DataFrame:
    """Bounds from both sides at the radii that attacks named.

    Args:
        sets: Sets of certificates.
        attacks: (run, costs, rule) of each -> what `attacks_of` returns.

    Returns:
        One row a set and radius: run, costs and rule, then the columns of
        `raycsr.certification.attacks.attacked_shares`; no rows where nothing was attacked so.
    """
    frames = [pd.DataFrame(columns=_OF_SET)]
    for one in sets:
        if len(attacks[one.key]):
            shares = attacked_shares(attacks[one.key], one.certificates)
            of_set = pd.DataFrame(dict(zip(_OF_SET, one.key, strict=True)), shares.index)
            frames.append(pd.concat([of_set, shares], axis=1))
    return pd.concat([frame for frame in frames if len(frame)] or frames, ignore_index=True)


def audited(sets: Sequence[Certified], attacks: Mapping[Key, pd.DataFrame]) -> list[str]:
    """A sentence for each set whose certificates were attacked within their own radii."""
    lines = []
    for one in (one for one in sets if len(attacks[one.key])):
        rows = attacks[one.key]
        within = rows[rows["error"].isna() & (rows["radius"] < rows["certified"])]
        if len(within):
            broken = within.groupby("image_id")["broken"].any()
            lines.append(
                f"Of {len(broken):,} certificates of {one.label} under {one.costs} that were attacked within their "
                f"radii, {int(broken.sum()):,} broke."
            )
    return lines


def attacked_table(shares: pd.DataFrame) -> Table:
    """Rows of `attacked_summaries`, of one costs; what was not attacked is left empty."""
    columns = [Column("run"), Column("rule"), Column("radius", numeric=True), Column("images", numeric=True)]
    names = [name for lower in _attacked_so(shares) for name in (lower, _PANELS[lower][0])]
    columns += [Column(_COLUMNS[name], numeric=True) for name in names]
    rows = [
        [row["run"], row["rule"], f"{row['radius']:.3g}", f"{row['num_images']:,}"]
        + [_share(row, name) for name in names]
        for row in shares.to_dict("records")
    ]
    return Table(columns, rows)


def _attacked_so(shares: pd.DataFrame) -> list[str]:
    """What is certified of which attacks asked: an empty panel, or column, would read as if nothing were."""
    return [lower for lower, (upper, _) in _PANELS.items() if shares[upper].notna().any()]


def _share(row: dict, name: str) -> str:
    if np.isnan(row[name]):
        return ""
    interval = f" [{row[f'{name}_low']:.3f}, {row[f'{name}_high']:.3f}]" if f"{name}_low" in row else ""
    return f"{row[name]:.3f}{interval}"


def plot_attacked(shares: pd.DataFrame, curves: Curves, form: Form = Form.PNG, looks: Looks | None = None) -> bytes:
    """Draws what is certified and what attacks leave, over the radius: the truth lies between.

    Args:
        shares: Rows of `attacked_summaries`.
        curves: (run, costs, rule) -> a summary over many radii, as `plot_curves` takes them.
        form: What becomes of it.
        looks: Looks of the page that it is for; by default of these alone.

    Returns:
        Bytes: a panel each for rob_cs and certified accuracy, where attacks asked for it. A look a run, costs and rule:
        a line below, which is certified, and points with 95 % intervals above, which are not broken.
    """
    keys: list[Key] = list(shares[_OF_SET].drop_duplicates().itertuples(index=False, name=None))
    looks, legend = looks or Looks(keys), dict[str, Any]()
    with styled(*keys):
        narrow, panels = form is Form.NARROW, _attacked_so(shares)
        size = (NARROW, 3.5 * len(panels)) if narrow else (5.0 * len(panels), 4)
        figure = Figure(figsize=size, dpi=120, layout="constrained")
        shape = (len(panels), 1) if narrow else (1, len(panels))
        axes = figure.subplots(*shape, squeeze=False).ravel()
        for axis, lower in zip(axes, panels, strict=True):
            upper, meaning = _PANELS[lower]
            for key in keys:
                rows = shares[(shares[_OF_SET] == key).all(axis=1)]
                known = rows[rows[upper].notna()]
                if known.empty:
                    continue
                label, look = as_label(" · ".join(key)), looks.of_key(key)
                if key in curves:
                    drawn = {"linewidth": 1.6, **look.curve}
                    axis.plot(curves[key]["radius"], curves[key][lower], label=f"{label}: certified", **drawn)
                around = [known[upper] - known[f"{upper}_low"], known[f"{upper}_high"] - known[upper]]
                around = [one.clip(lower=0) for one in around]
                axis.errorbar(known["radius"], known[upper], around, fmt="none", ecolor=look.colour, linewidth=1)
                left = {"linewidth": 1, "linestyle": "--", "fillstyle": "none", **look.point}
                axis.plot(known["radius"], known[upper], label=f"{label}: not broken", **left)
            axis.set(xlabel="L2 radius, [0, 1] pixel units", xlim=(0, None), ylim=(0, 1.02))
            axis.set_title(f"{lower.replace('_acc', ' acc')}\n{meaning}")
            axis.grid(alpha=0.25)
            handles, labels = axis.get_legend_handles_labels()
            legend |= dict(zip(labels, handles, strict=True))
        if not label_lines(figure, [list(axes)]):
            legend_below(figure, list(legend.values()), list(legend), form, width=60 * len(panels))
        return rendered(figure, form)
