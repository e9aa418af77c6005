"""Certificates of several runs side by side, labelled for people: what reports and notebooks begin with. No Ray."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raycsr.certification import METHODS, collapse_in_words, metric_of, pairwise_robustness, summarize
from raycsr.certification.answers import ARGMAX, Answer
from raycsr.costs import CostMatrix
from raycsr.reports.tables import MARK
from raycsr.results.prefix import Prefix
from raycsr.results.runs import Run
from raycsr.store import Store

_CURVE_POINTS = 101
_EXPLAINED = 4  # sets in the title of a heat map
_RADII = 4  # where the user names none


@dataclass(frozen=True)
class Certified:
    """The certificates of one run, cost matrix, decision rule and answer.

    Attributes:
        run: Label of the run, unlike those of the others.
        costs: Cost matrix as a person writes it.
        rule: Decision rule as a person writes it, and the answer where that is another than argmax.
        rule_id: Id of the rule, as the certificates have it; with a plus and the id of such an answer.
        location: Location of the run, or of the published table.
        matrix: The cost matrix, with the class names of the data.
        certificates: The rows of this rule, as `raycsr.load_certificates` returns them.
        collapsed: The classes that collapsed, as `raycsr.certification.collapsed_classes` returns them.
        missing: Number of listed images that have no certificate.
        input_size: Height and width in px at which radii are measured; None for a published table.
        origin: The run; None for a published table.
        folder: Folder of the certificate set.
        positions: Position of each certificate's image in the run's listing.
        answer: What the smoothed classifier says, given shares.
        counted: The images that count, of a run that its budget ended; None where all do.
    """

    run: str
    costs: str
    rule: str
    rule_id: str
    location: str
    matrix: CostMatrix
    certificates: pd.DataFrame
    collapsed: pd.DataFrame
    missing: int = 0
    input_size: tuple[int, int] | None = None
    origin: Run | None = None
    folder: Store | None = None
    positions: pd.Series | None = None
    answer: Answer = ARGMAX
    counted: Prefix | None = None

    @property
    def decision(self) -> str:
        """Id of the decision rule alone, as the certificates have it."""
        return self.rule_id.partition("+")[0]

    @property
    def decision_spec(self) -> str:
        """The decision rule alone, as a person writes it."""
        if self.answer.is_argmax:
            return self.rule
        return "argmax" if self.decision == "argmax" else self.rule.removesuffix(f", {self.answer.spec}")

    @property
    def alpha(self) -> float:
        """Failure probability of one image's certificate; NaN where nobody said it of a published table."""
        return float(self.certificates["alpha"].iloc[0])

    @property
    def method(self) -> str | None:
        """How the votes were certified, one of `raycsr.certification.METHODS`; None for a published table."""
        return self.certificates["method"].iloc[0] if "method" in self.certificates else None

    @property
    def ended_early(self) -> bool:
        """Whether an image was sampled only until it was known whether some radii are reached."""
        return self.method is not None and METHODS[self.method].design == "sequential"

    @property
    def key(self) -> tuple[str, str, str]:
        """Run, costs and rule, as people read them."""
        return self.run, self.costs, self.rule

    @property
    def label(self) -> str:
        """Run and rule in one; argmax goes without saying."""
        return self.run if self.rule_id == "argmax" else f"{self.run} · {self.rule}"

    @property
    def collapse(self) -> str:
        """The classes that collapsed, in words; nothing where none did."""
        return collapse_in_words(self.collapsed, self.matrix.class_names)


def default_radii(sets: Sequence[Certified]) -> list[float]:
    """Four radii from 0, up to three quarters of the largest certified one."""
    reach = max(_reach(one.certificates) for one in sets)
    return [round(reach * i / _RADII, 2) for i in range(_RADII)]


def summaries(sets: Sequence[Certified], radii: Sequence[float] | np.ndarray) -> pd.DataFrame:
    """One table of `raycsr.summarize` over several sets: run, costs, rule, rule_id, metric, its columns, collapsed.

    `metric` is what runs and rules compete in under the costs (`raycsr.certification.metric_of`), `collapsed` says in
    words which classes are hardly answered rightly any more, nothing where there are none.
    """
    return pd.concat([_summary(one, radii) for one in sets], ignore_index=True)


def certified_curves(sets: Sequence[Certified]) -> dict[tuple[str, str, str], pd.DataFrame]:
    """What `plot_curves` draws: (run, costs, rule) -> a summary over radii up to the largest certified one."""
    reach = max(_reach(one.certificates) for one in sets)
    grid = np.linspace(0, reach * 1.05 or 1.0, _CURVE_POINTS)
    return {one.key: _summary(one, grid) for one in sets}


def pairwise_tables(sets: Sequence[Certified], radius: float) -> dict[str, pd.DataFrame]:
    """What `plot_pairwise` draws of some sets of one costs: title -> robustness at a radius.

    Where one class alone is a seed class, it is one table with a row a set; else a table a set. A class that
    collapsed is marked in the table of its set, or the set in the table of all; the title says why.
    """
    tables = {one.label: pairwise_robustness(one.certificates, costs=one.matrix, radius=radius) for one in sets}
    (seeds,) = np.nonzero(sets[0].matrix.sensitive)
    if len(seeds) != 1:
        return dict(_marked(table, one) for table, one in zip(tables.values(), sets, strict=True))
    marked = [f"{one.label} {MARK}" if one.collapse else one.label for one in sets]
    rows = pd.concat([table.iloc[seeds] for table in tables.values()]).set_axis(marked)
    title = f"images of class {next(iter(tables.values())).index[seeds[0]]}"
    why = [f"{one.label}: {one.collapse}" for one in sets if one.collapse]
    more = f"; and {len(why) - _EXPLAINED} more" if len(why) > _EXPLAINED else ""
    return {_explained(title, "; ".join(why[:_EXPLAINED]) + more): rows.rename_axis(columns="target")}


def _marked(table: pd.DataFrame, one: Certified) -> tuple[str, pd.DataFrame]:
    """Title and robustness of one set, the classes that collapsed marked."""
    marked = {name: f"{name} {MARK}" for name in table.index[one.collapsed.index]}
    return _explained(one.label, one.collapse), table.rename(index=marked, columns=marked)


def _explained(title: str, collapse: str) -> str:
    return f"{title}\n{MARK} hardly ever answered rightly, which makes others safe: {collapse}" if collapse else title


def id_of(rule_id: str, answer: Answer) -> str:
    """The id of a rule and an answer together: `Certified.rule_id`."""
    return rule_id if answer.is_argmax else f"{rule_id}+{answer.id}"


def _reach(certificates: pd.DataFrame) -> float:
    radii = ["standard_radius", "multiclass_radius", "cost_sensitive_radius"]
    return float(np.nanmax(certificates[certificates.columns.intersection(radii)].fillna(0).to_numpy()))


def _summary(one: Certified, radii: Sequence[float] | np.ndarray) -> pd.DataFrame:
    summary = summarize(one.certificates, costs=one.matrix, radii=radii)
    summary.insert(0, "metric", metric_of(one.matrix))
    for name in ("rule_id", "rule", "costs", "run"):
        summary.insert(0, name, getattr(one, name))
    return summary.assign(collapsed=one.collapse)
