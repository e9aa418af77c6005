"""Certificates of several runs side by side, labelled for people: what reports and notebooks begin with. No Ray."""

import warnings
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
import pandas as pd

from raycsr.certification import (
    METHODS,
    NEWEST,
    collapse_in_words,
    collapsed_classes,
    metric_of,
    pairwise_robustness,
    summarize,
)
from raycsr.certification.answers import ARGMAX, Answer
from raycsr.costs import CostMatrix
from raycsr.costs.files import is_cost_file
from raycsr.errors import UserError, nearest
from raycsr.reports.labels import Named, denoisers_named, distinct_labels
from raycsr.reports.tables import MARK
from raycsr.results.locations import resolve_run, runs_at
from raycsr.results.locuslab import is_table, read_locuslab_tsv
from raycsr.results.prefix import Prefix, prefix_of
from raycsr.results.runs import Run
from raycsr.store import READERS, Store

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


def load_certified(
    runs: Iterable[str],
    *,
    costs: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    answers: Sequence[str] | None = None,
    allow_missing: bool = False,
    table_alpha: float | None = None,
) -> tuple[list[Certified], list[str]]:
    """Reads the stored certificates of some runs: one entry a run, cost matrix, decision rule and answer.

    Args:
        runs: Folders, `s3://bucket/prefix`, or unique prefixes; folders of runs, for all in them; or files with tables
            of locuslab/smoothing.
        costs: Only these certificate sets, by their specs; by default all that are stored.
        rules: Only these decision rules, as they were written or by their ids; by default all that the runs have.
        answers: Only these answers; by default all that are stored.
        allow_missing: Whether to take what is there where listed images have no certificate yet.
        table_alpha: Alpha of the tables, which do not say it; NaN by default.

    Returns:
        The entries, and the labels of the runs that have none of these costs and rules.

    Raises:
        UserError: where a run has no certificates, or lacks images and may not; no run has a rule; there are none at
            all; or a run is of another schema.
    """
    with ThreadPoolExecutor(READERS) as pool:
        sources = list({source.named.location: source for source in pool.map(_open, runs_at(runs))}.values())
        ids = _rule_ids(rules, sources)
        labels = distinct_labels([source.named for source in sources])
        loaded = pool.map(
            lambda source, label: _load(source, label, costs, ids, answers, allow_missing, table_alpha), sources, labels
        )
        sets = _distinct_costs([one for several in loaded for one in several])
    if not sets:
        under = "" if costs is None else f" under {', '.join(costs)}"
        raise UserError(
            f"there are 0 certificates to report on{under}; make some with `raycsr sample` and `raycsr certify`"
        )
    return sets, [label for label in labels if label not in {one.run for one in sets}]


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


@dataclass(frozen=True)
class _Source:
    """What the user named: a run, or a published table."""

    named: Named
    rules: dict[str, str]  # id -> as a person writes it
    run: Run | None = None


def _open(location: str) -> _Source:
    if location.endswith(".tsv") or is_table(location):
        return _Source(Named(location, "", location), {"argmax": "argmax"})
    run = resolve_run(location)
    manifest = run.manifest()
    rules = run.rules().values()
    specs = [rule.spec for rule in rules]
    shown = {rule.id: rule.spec if specs.count(rule.spec) == 1 else f"{rule.spec} ({rule.id[-4:]})" for rule in rules}
    named = Named(manifest["model"], f" σ={manifest['sigma']:g}", run.location, denoisers_named(manifest))
    return _Source(named, shown, run)


def _rule_ids(asked: Sequence[str] | None, sources: Sequence[_Source]) -> set[str]:
    """Ids of the rules to show, all without a wish; a rule is one and the same however a run wrote it."""
    specs = [(spec, rule_id) for source in sources for rule_id, spec in source.rules.items()]
    for name in asked or []:
        if not any(name in pair for pair in specs):
            raise UserError(f"no run has a rule {name!r}; {nearest(name, dict.fromkeys(spec for spec, _ in specs))}")
    return {rule_id for spec, rule_id in specs if asked is None or spec in asked or rule_id in asked}


def _load(
    source: _Source,
    label: str,
    costs: Sequence[str] | None,
    ids: set[str],
    answers: Sequence[str] | None,
    allow_missing: bool,
    table_alpha: float | None,
) -> list[Certified]:
    shown = {rule_id: spec for rule_id, spec in source.rules.items() if rule_id in ids}
    if source.run is None:
        certificates = read_locuslab_tsv(source.named.location, table_alpha)
        m = max(certificates["label"].max(), certificates["prediction"].fillna(0).max(), 1) + 1
        matrix, collapsed = CostMatrix.uniform(m), collapsed_classes(certificates, m)
        of_table = (source.named.location, matrix, certificates, collapsed)
        return [Certified(label, "(standard)", spec, rule_id, *of_table) for rule_id, spec in shown.items()]
    run = source.run
    stored = run.certificate_sets()
    wanted = costs if costs is not None else list(dict.fromkeys(facts["spec"] for facts in stored.values()))
    said = None if answers is None else [one.id for one in run.answers(answers)]
    names = [
        name
        for spec in wanted
        for name, facts in stored.items()
        if facts["spec"] == spec and (said is None or facts["answer"].id in said)
    ]
    if not names and not allow_missing:
        have = ", ".join(
            facts["spec"] + ("" if facts["answer"].is_argmax else f" by {facts['answer'].spec}")
            for facts in stored.values()
        )
        asked = ("" if costs is None else f" for {', '.join(costs)}") + (
            "" if answers is None else f" by {', '.join(answers)}"
        )
        options = "--costs ..." + ("" if answers is None else " --answers ...")
        raise UserError(
            f"run {run.run_id} has no certificates{asked} (stored: {have or 'none'}); "
            f"make them with `raycsr certify --run {run.location} {options}`"
        )
    if not names or not shown:
        return []
    listing = run.images()
    counted = prefix_of(run, listing)
    if counted is not None:
        if not counted.image_ids:
            raise UserError(
                f"run {run.run_id} ended by its budget of {counted.budget} before the first image of its random order "
                "was done; `raycsr sample` with another budget goes on"
            )
        listing = listing[listing["image_id"].isin(counted.image_ids)]  # positions stay those of the run
    of_run = _OfRun(run, label, shown, run.manifest(), listing, counted)
    return [one for name in names for one in _load_set(of_run, name, stored[name], allow_missing)]


class _OfRun(NamedTuple):
    """What all certificate sets of a run have in common."""

    run: Run
    label: str
    rules: dict[str, str]  # those to show: id -> as a person writes it
    manifest: dict
    listing: pd.DataFrame  # those images that count
    counted: Prefix | None


def _load_set(of_run: _OfRun, name: str, facts: dict, allow_missing: bool) -> list[Certified]:
    """One certificate set, rule by rule; a rule without any certificate is left out, and others are not read."""
    run, label, rules, manifest, listing, counted = of_run
    read = run.certificates(name, *dict.fromkeys(["argmax", *rules]))  # argmax, which others are compared with
    # one order whatever parts they are in: intervals that resample rows are then the same however a run was sampled
    read = run.with_groups(read, listing)
    if counted is not None:
        read = read[read["image_id"].isin(counted.image_ids)]
    certificates = _of_listed(run, read, listing["image_id"])
    num_images, position = len(listing), pd.Series(listing.index, index=listing["image_id"])
    spec = PurePath(facts["spec"]).name if is_cost_file(facts["spec"]) else facts["spec"]
    matrix = CostMatrix(facts["costs"].distinct, manifest["class_names"])
    size = tuple(manifest.get("preprocessing", {}).get("input_size", ())) or None
    folder = run.store.at(f"certificates/{name}")
    of_argmax, answer = certificates[certificates["rule"] == "argmax"], facts["answer"]
    if not answer.is_argmax:  # others are compared with the plain classifier, which never abstains
        of_argmax = of_argmax.assign(abstain=of_argmax["p_a_lower_standard"] <= 0.5)
    sets = []
    for rule_id, rule in rules.items():
        rows = certificates[certificates["rule"] == rule_id].reset_index(drop=True)
        if len(rows) < num_images and not allow_missing:
            by = "" if rule_id == "argmax" else f" by rule {rule!r}"
            raise UserError(
                f"run {run.run_id} lacks {num_images - len(rows)} of {num_images} images under {facts['spec']!r}{by} "
                f"(the first {run.missing(rows)[0]!r}); finish it with `raycsr sample` and `raycsr certify`, or "
                "report on what is there with --allow_missing true"
            )
        if len(rows):
            positions = rows["image_id"].map(position)
            is_plain = rule_id == "argmax" and answer.is_argmax
            collapsed = collapsed_classes(rows, matrix.num_classes, None if is_plain or of_argmax.empty else of_argmax)
            names = _spoken(rule, rule_id, answer)
            found = Certified(label, spec, *names, run.location, matrix, rows, collapsed, num_images - len(rows))
            found = replace(found, origin=run, folder=folder, positions=positions, answer=answer, counted=counted)
            sets.append(replace(found, input_size=size))
    return sets


def _spoken(rule: str, rule_id: str, answer: Answer) -> tuple[str, str]:
    """What a rule and an answer are called together, and their id: an answer other than argmax stands behind."""
    if answer.is_argmax:
        return rule, rule_id
    return answer.spec if rule_id == "argmax" else f"{rule}, {answer.spec}", id_of(rule_id, answer)


def id_of(rule_id: str, answer: Answer) -> str:
    """The id of a rule and an answer together: `Certified.rule_id`."""
    return rule_id if answer.is_argmax else f"{rule_id}+{answer.id}"


def _of_listed(run: Run, certificates: pd.DataFrame, listed: pd.Series) -> pd.DataFrame:
    """The certificates of listed images, in the order of their ids."""
    known = certificates["image_id"].isin(listed)
    if not known.all():
        warnings.warn(
            f"run {run.run_id} has votes of {certificates['image_id'][~known].nunique()} images that its listing has "
            "not, and they are left out; `raycsr sample` of all its images lists them again",
            stacklevel=4,
        )
    return certificates[known].sort_values(["image_id", "rule"], kind="stable", ignore_index=True)


def _distinct_costs(sets: list[Certified]) -> list[Certified]:
    """Says alpha and values where one spec stands for several, and an older method: what looks alike must be alike."""
    older = {method for method in METHODS if METHODS[method] not in NEWEST.values()}
    sets = [replace(one, costs=f"{one.costs} ({one.method})") if one.method in older else one for one in sets]
    meanings = {(one.costs, one.alpha, one.matrix.digest) for one in sets if one.folder is not None}
    specs = [spec for spec, _, _ in meanings]
    return [
        replace(one, costs=f"{one.costs} (alpha {one.alpha:g}, {one.matrix.digest[:4]})")
        if specs.count(one.costs) > 1
        else one
        for one in sets
    ]


def _reach(certificates: pd.DataFrame) -> float:
    radii = ["standard_radius", "multiclass_radius", "cost_sensitive_radius"]
    return float(np.nanmax(certificates[certificates.columns.intersection(radii)].fillna(0).to_numpy()))


def _summary(one: Certified, radii: Sequence[float] | np.ndarray) -> pd.DataFrame:
    summary = summarize(one.certificates, costs=one.matrix, radii=radii)
    summary.insert(0, "metric", metric_of(one.matrix))
    for name in ("rule_id", "rule", "costs", "run"):
        summary.insert(0, name, getattr(one, name))
    return summary.assign(collapsed=one.collapse)
