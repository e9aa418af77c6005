"""What a report is about: certificates of several runs, their summaries, and what of them is compared and drawn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from raycsr.reports.attacked import attacked_summaries, attacks_of
from raycsr.reports.certified import Certified, certified_curves, default_radii, summaries
from raycsr.reports.comparison import legible, reference_and_best
from raycsr.reports.curves import Curves
from raycsr.reports.loading import Unreadable, load_certified
from raycsr.reports.looks import Looks


@dataclass(frozen=True)
class Findings:
    """What was found in some runs and published tables.

    Attributes:
        sets: Sets, one for each run, cost matrix and decision rule.
        left_out: Labels of the runs that have no such certificates.
        table: The summaries of the sets at all radii.
        radius: Radius at which runs and rules are compared.
        unreadable: Location of each run that is left out because it cannot be read -> why.
    """

    sets: list[Certified]
    left_out: list[str]
    table: pd.DataFrame
    radius: float
    unreadable: Unreadable = field(default_factory=dict)

    @cached_property
    def points(self) -> pd.DataFrame:
        """The summaries at the radius of comparison."""
        return self.table[self.table["radius"] == self.radius]

    @cached_property
    def compared(self) -> pd.DataFrame:
        """The points of those costs under which several runs or rules can be compared; no rows where there are none."""
        points = self.points[self.points["rob_cs"].notna()]
        return points[points.groupby("costs")["costs"].transform("size") > 1]

    @cached_property
    def drawn(self) -> list[Certified]:
        """The sets whose curves are drawn."""
        return legible(self.sets, self.points)

    @cached_property
    def looked_at(self) -> dict[str, list[Certified]]:
        """Costs -> the sets that are looked at closely: the most accurate argmax, and the best."""
        return reference_and_best(self.sets, self.points)

    @property
    def names(self) -> list[str]:
        """All names that may stand in charts: of runs, costs, rules and classes."""
        classes = (name for one in self.sets for name in one.matrix.class_names or ())
        return list(dict.fromkeys([*(name for one in self.sets for name in one.key), *classes]))

    @cached_property
    def looks(self) -> Looks:
        """How the runs, rules and matrices that charts show look in all of them."""
        closely = [one for sets in self.looked_at.values() for one in sets]
        attacked = [one for one in self.sets if len(self.attacks[one.key])]
        return Looks(one.key for one in [*self.drawn, *closely, *attacked])

    @cached_property
    def attacks(self) -> dict[tuple[str, str, str], pd.DataFrame]:
        """Run, costs and rule of each set -> what attacks found on its images; no rows where there were none."""
        return attacks_of(self.sets)

    @cached_property
    def attacked(self) -> pd.DataFrame:
        """Bounds from both sides on robust shares, at the radii that attacks named."""
        return attacked_summaries(self.sets, self.attacks)

    @cached_property
    def curves(self) -> Curves:
        """Their summaries over many radii."""
        return certified_curves(self.drawn)


def find(
    runs: Sequence[str],
    *,
    costs: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    answers: Sequence[str] | None = None,
    radii: Sequence[float] | None = None,
    allow_missing: bool = False,
    table_alpha: float | None = None,
) -> Findings:
    """Reads certificates and sums them up.

    Args:
        runs: As `load_certified` takes them, and so costs, rules, answers, allow_missing and table_alpha.
        radii: Of the table, L2 in [0, 1] pixel units; by default four up to the largest certified one. Runs and rules
            are compared at the smallest that is not 0.

    Raises:
        UserError: as `load_certified`; a run that cannot be read is left out where others can.
    """
    unreadable: Unreadable = {}
    sets, left_out = load_certified(
        runs,
        costs=costs,
        rules=rules,
        answers=answers,
        allow_missing=allow_missing,
        table_alpha=table_alpha,
        unreadable=unreadable,
    )
    asked = list(dict.fromkeys(radii if radii is not None else default_radii(sets)))
    radius = min((one for one in asked if one > 0), default=0.0)
    return Findings(sets, left_out, summaries(sets, asked), radius, unreadable)
