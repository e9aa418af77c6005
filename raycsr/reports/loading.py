"""From runs and published tables to their certificates side by side, labelled for people. No Ray."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple, TypeVar

import pandas as pd

from raycsr.certification import METHODS, NEWEST, collapsed_classes
from raycsr.certification.answers import Answer
from raycsr.costs import CostMatrix
from raycsr.errors import UserError, UserErrors, WaitedInVain, nearest
from raycsr.reports.certified import Certified, id_of
from raycsr.reports.labels import Named, denoisers_named, distinct_labels, facts_named
from raycsr.results.called import NotAsAsked, sets_of, told_apart, written
from raycsr.results.locations import resolve_run, runs_at
from raycsr.results.locuslab import is_table, read_locuslab_tsv
from raycsr.results.notes import model_of
from raycsr.results.prefix import Prefix, prefix_of
from raycsr.results.runs import Run
from raycsr.store import READERS

T = TypeVar("T")

Unreadable = dict[str, UserError]  # location of a run -> why nothing can be read of it


def load_certified(
    runs: Iterable[str],
    *,
    costs: Sequence[str] | None = None,
    rules: Sequence[str] | None = None,
    answers: Sequence[str] | None = None,
    allow_missing: bool = False,
    table_alpha: float | None = None,
    unreadable: Unreadable | None = None,
) -> tuple[list[Certified], list[str]]:
    """Reads the stored certificates of some runs: one entry a run, cost matrix, decision rule and answer.

    Args:
        runs: Folders, `s3://bucket/prefix`, or unique prefixes; folders of runs, for all in them; or files with tables
            of locuslab/smoothing.
        costs: Only the certificate sets of these cost matrices, by specs, or as a report tells apart what is called
            alike; by default all that are stored.
        rules: Only these decision rules, as they were written or by their ids; by default all that the runs have.
        answers: Only these answers; by default all that are stored.
        allow_missing: Whether to take what is there where listed images have no certificate yet.
        table_alpha: Alpha of the tables, which do not say it; NaN by default.
        unreadable: Is given the runs and tables that are damaged, or of another schema, and left out where others can
            be read; None to raise what is wrong with the first.

    Returns:
        The entries, and the labels of the runs that have none of these costs and rules.

    Raises:
        UserError: where a run has no certificates, or lacks images and may not; no run has a rule; there are none at
            all; or no run can be read.
    """

    def load(source: _Source, label: str) -> list[Certified]:
        reading = partial(_load, source, label, costs, ids, answers, allow_missing, table_alpha)
        return _readable(reading, source.named.location, unreadable) or []

    with ThreadPoolExecutor(READERS) as pool:
        opened = [source for source in pool.map(lambda one: _open(one, unreadable), runs_at(runs)) if source]
        sources = list({source.named.location: source for source in opened}.values())
        ids = _rule_ids(rules, sources) if sources else set()
        labels = distinct_labels([source.named for source in sources])
        sets = _distinct_costs([one for several in pool.map(load, sources, labels) for one in several])
    if not sets and unreadable:
        errors = list({str(unreadable[one]): unreadable[one] for one in sorted(unreadable)}.values())
        raise UserErrors(errors) if len(errors) > 1 else errors[0]
    if not sets:
        under = "" if costs is None else f" under {', '.join(costs)}"
        raise UserError(
            f"there are 0 certificates to report on{under}; make some with `raycsr sample` and `raycsr certify`"
        )
    known = {one.run for one in sets}
    without = [
        label for source, label in zip(sources, labels, strict=True) if source.named.location not in (unreadable or {})
    ]
    return sets, [label for label in without if label not in known]


def _readable(read: Callable[[], T], location: str, unreadable: Unreadable | None) -> T | None:
    """What is read of a run or a table; None where it is damaged, which is noted where others go on without it."""
    try:
        return read()
    except (NotAsAsked, WaitedInVain):
        raise
    except UserError as error:
        if unreadable is None:
            raise
        unreadable[location] = error
        return None


@dataclass(frozen=True)
class _Source:
    """What the user named: a run, or a published table."""

    named: Named
    rules: dict[str, str]  # id -> as a person writes it
    run: Run | None = None


def _open(location: str, unreadable: Unreadable | None) -> _Source | None:
    if location.endswith(".tsv") or is_table(location):
        return _Source(Named(location, "", location), {"argmax": "argmax"})
    run = resolve_run(location)
    return _readable(partial(_of_run, run), run.location, unreadable)


def _of_run(run: Run) -> _Source:
    manifest = run.manifest()
    rules = run.rules().values()
    specs = [rule.spec for rule in rules]
    shown = {rule.id: rule.spec if specs.count(rule.spec) == 1 else f"{rule.spec} ({rule.id[-4:]})" for rule in rules}
    sigma = f" σ={manifest['sigma']:g}"
    named = Named(model_of(manifest), sigma, run.location, denoisers_named(manifest), facts_named(manifest))
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
    specs = list(dict.fromkeys(facts["spec"] for facts in stored.values()))
    of_costs = (
        [name for spec in specs for name, facts in stored.items() if facts["spec"] == spec]
        if costs is None
        else list(dict.fromkeys(name for spec in costs for name in sets_of(run, spec, stored)))
    )
    said = None if answers is None else [one.id for one in run.answers(answers)]
    names = [name for name in of_costs if said is None or stored[name]["answer"].id in said]
    if not names and not allow_missing:
        have = ", ".join(
            facts["spec"] + ("" if facts["answer"].is_argmax else f" by {facts['answer'].spec}")
            for facts in stored.values()
        )
        asked = ("" if costs is None else f" for {', '.join(costs)}") + (
            "" if answers is None else f" by {', '.join(answers)}"
        )
        options = "--costs ..." + ("" if answers is None else " --answers ...")
        raise NotAsAsked(
            f"run {run.run_id} has no certificates{asked} (stored: {have or 'none'}); "
            f"make them with `raycsr certify --run {run.location} {options}`"
        )
    if not names or not shown:
        return []
    listing = run.images()
    counted = prefix_of(run, listing)
    if counted is not None:
        if not counted.image_ids:
            raise NotAsAsked(
                f"run {run.run_id} ended by its budget of {counted.budget} before the first image of its random order "
                "was done; `raycsr sample` with another budget goes on"
            )
        listing = listing[listing["image_id"].isin(counted.image_ids)]  # positions stay those of the run
    whole = _OfRun(run, label, shown, run.manifest(), listing, counted)
    return [one for name in names for one in _load_set(whole, name, stored[name], allow_missing)]


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
    spec = written(facts)
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
            raise NotAsAsked(
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
        replace(one, costs=told_apart(one.costs, {"alpha": one.alpha, "costs": one.matrix}))
        if specs.count(one.costs) > 1
        else one
        for one in sets
    ]
