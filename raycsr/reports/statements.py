"""How many statements a report makes about an image, and how often they fail together."""

from collections.abc import Sequence

import numpy as np

from raycsr.reports.certified import Certified


def statements_in_words(sets: Sequence[Certified], radii: Sequence[float]) -> str:
    """How many statements are made about an image of one run, and how often they fail together.

    Each of them fails with probability alpha at most, and all stand on the same votes. Of each rule there are the
    standard radius and the multiclass one. Of each rule and cost matrix there are the group's radius, whatever it is
    compared with, and the radii of all pairs jointly. Where a class's mistakes cost differently, the worst cost is one
    more at each radius; where they cost the same, it says no more than the group's radius.

    Args:
        sets: Certificate sets that are reported on.
        radii: Radii at which it is told.
    """
    about: dict[str, dict[tuple, float]] = {}
    for one in sets:
        if not np.isnan(one.alpha):  # as that of a published table is which does not say it
            about.setdefault(one.run, {}).update(dict.fromkeys(_statements(one, radii), one.alpha))
    most = max(about.values(), key=lambda of_run: sum(of_run.values()), default={})
    if not most:
        return "Each statement about an image fails with probability at most alpha."
    alphas = ", ".join(f"{alpha:g}" for alpha in sorted(set(most.values())))
    return (
        f"Each statement about an image fails with probability at most {alphas}. Up to {len(most)} are made about one "
        f"here, which together fail with probability at most {min(1.0, sum(most.values())):.3g}: of each rule the "
        "standard radius and the multiclass one; of each rule and cost matrix that no costly class is answered "
        "(rob_cs), all pairs of classes jointly (rob_cost), and the worst cost at each radius where costs differ."
    )


def _statements(one: Certified, radii: Sequence[float]) -> list[tuple]:
    """What is said of an image under one rule and cost matrix; what knows no costs has one name under all of them."""
    of_rule, of_costs = (one.rule_id, one.alpha), (one.rule_id, one.alpha, one.costs)
    statements: list[tuple] = [(*of_rule, "standard")]
    if "multiclass_radius" in one.certificates and one.certificates["multiclass_radius"].notna().any():
        statements.append((*of_rule, "multiclass"))
    if one.origin is None:  # a published table has no other
        return statements
    if one.matrix.sensitive.any():
        statements += [(*of_costs, "group"), (*of_costs, "pairs")]
    if any(len(np.unique(row[row > 0])) > 1 for block in one.matrix.distinct.blocks() for row in block):
        statements += [(*of_costs, radius) for radius in radii if radius > 0]
    return statements
