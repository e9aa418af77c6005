"""Tidy tables of everything under a location: the certificates of many runs, the trials of many sweeps. No Ray."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pyarrow as pa

from raycsr.costs import CostMatrix
from raycsr.costs.files import is_cost_file
from raycsr.errors import UserError, nearest
from raycsr.results.called import sets_of, told_apart, written
from raycsr.results.locations import find_experiments, find_runs, or_warn
from raycsr.results.notes import model_of, read_note
from raycsr.results.prefix import only_counted
from raycsr.results.runs import Run
from raycsr.results.schema import CERTIFICATES, refuse_other_schema, refuse_other_schemas
from raycsr.store import READERS, Store

_OF_RUN = ["run_id", "experiment", "model", "sigma", "costs"]


def collect_certificates(
    results: str | os.PathLike[str], costs: CostMatrix | str | None = None, rule: str | None = None
) -> pd.DataFrame:
    """Reads the stored certificates of all runs under a location into one table.

    Args:
        results: A results folder, an experiment's folder, a run, or `s3://bucket/prefix`.
        costs: Cost matrix, or a spec, whose certificates are read: a file by what it holds now, or by its name where it
            is on another machine. By default all.
        rule: Decision rule whose certificates are read, by its id or as a person writes it; by default all.

    Returns:
        One row a run, costs, alpha, answer, image and rule: run_id, experiment, model (its name, and int8 where it is
        in that), sigma, costs (the spec; of a file that held other costs at another time its name, as a report tells it
        apart), then the columns of `raycsr.results.schema.CERTIFICATES`, and `group` where
        the data of any has groups. Select one of each of the first before `raycsr.summarize`.

    Raises:
        UserError: where there is no run, or none with such certificates; runs of another schema; or a file that holds
            other costs than when a run was certified under it.

    Example:
        >>> everything = collect_certificates(results)
        >>> everything.groupby(["model", "sigma", "costs", "rule"]).size()
        model    sigma  costs     rule
        digits0  0.5    pair:a/b  argmax    6
        dtype: int64
    """
    runs = find_runs(results)
    if not runs:
        raise UserError(f"no runs at {os.fspath(results)!r}; give the --results of `raycsr sample`, or a folder in it")
    with ThreadPoolExecutor(READERS) as pool:
        found = list(pool.map(lambda run: or_warn(lambda: (run, run.manifest(any_schema=True), run.rules())), runs))
        runs, manifests = [one[0] for one in found if one], [one[1] for one in found if one]
        if not runs:
            raise UserError(f"no run at {os.fspath(results)!r} can be read; the warnings say why")
        refuse_other_schemas({run.run_id: facts for run, facts in zip(runs, manifests, strict=True)})
        rule_ids = list(pool.map(lambda run: _rule_ids(run, rule), runs))
        sets = list(pool.map(lambda run: run.certificate_sets(), runs))
        meant = list(pool.map(lambda run, stored: _meant(run, costs, stored), runs, sets))
        if rule is not None and not any(rule_ids):
            specs = pool.map(lambda run: [one.spec for one in run.rules().values()], runs)
            known = dict.fromkeys(spec for of_run in specs for spec in of_run)
            raise UserError(f"no run at {os.fspath(results)!r} has a rule {rule!r}; {nearest(rule, known)}")
        wanted = [
            (run, name, _called(facts, sets), ids)
            for run, ids, stored, of_costs in zip(runs, rule_ids, sets, meant, strict=True)
            for name, facts in stored.items()
            if name in of_costs and (ids or rule is None)
        ]
        if not wanted:
            have = ", ".join(dict.fromkeys(facts["spec"] for stored in sets for facts in stored.values())) or "none"
            asked = "" if costs is None else f" for costs {costs!r}"
            raise UserError(
                f"no run at {os.fspath(results)!r} has certificates{asked} (stored: {have}); "
                "make them with `raycsr certify --run ... --costs ...`"
            )
        frames = list(pool.map(lambda one: or_warn(lambda: _certificates(*one)), wanted))
        if all(frame is None for frame in frames):
            raise UserError(f"no run at {os.fspath(results)!r} can be read; the warnings say why")
        return pd.concat([frame for frame in frames if frame is not None], ignore_index=True)


def collect_trials(results: str | os.PathLike[str]) -> pd.DataFrame:
    """Reads the trials of all sweeps under a location that have ended at least once.

    Args:
        results: A results folder, an experiment's folder, or `s3://bucket/prefix`.

    Returns:
        One row a trial: experiment, sweep, then the columns of `trials.parquet`: trial, state, error, sigma, costs,
        objective, model, point (JSON), epoch, seconds, metric (what the sweep judged it by), the certified metrics,
        collapsed, checkpoint. Of sweeps that did not store them yet, metric is rob_cs and collapsed empty.

    Raises:
        UserError: where there is none, or one of another schema.

    Example:
        >>> collect_trials(results)[["trial", "state", "costs", "rob_cs"]]
          trial     state   costs  rob_cs
        0    t0  finished  seed:a    0.75
    """
    sweeps = [
        (experiment, name)
        for experiment in find_experiments(results)
        for name in experiment.names("sweeps")
        if experiment.exists(f"sweeps/{name}/trials.parquet")
    ]
    if not sweeps:
        raise UserError(f"no sweeps with trials at {os.fspath(results)!r}; give the --results of `raycsr sweep`")
    with ThreadPoolExecutor(READERS) as pool:
        tables = list(pool.map(lambda sweep: _trials(sweep[0].at(f"sweeps/{sweep[1]}")), sweeps))
    names = [(experiment.location.rsplit("/", 1)[-1], name) for experiment, name in sweeps]
    trials = pa.concat_tables(tables, promote_options="permissive").to_pandas()  # a column may be null in one sweep
    for column, earlier in (("metric", "rob_cs"), ("collapsed", "")):
        trials[column] = trials[column].fillna(earlier) if column in trials else earlier
    for position, column in enumerate(("experiment", "sweep")):
        values = [of_sweep[position] for of_sweep, table in zip(names, tables, strict=True) for _ in range(len(table))]
        trials.insert(position, column, values)
    return trials


def check_sweep(sweep: Store) -> None:
    """Refuses a sweep whose sweep.json is of another schema, or damaged.

    Raises:
        UserError: naming the file.
    """
    if sweep.exists("sweep.json"):
        facts = read_note(sweep, "sweep.json", {}, "move it away, and the trials are read without it")
        refuse_other_schema(facts, f"{sweep.location}/sweep.json")


def _trials(sweep: Store) -> pa.Table:
    check_sweep(sweep)
    return sweep.read_table("trials.parquet")


def _rule_ids(run: Run, rule: str | None) -> list[str]:
    """The ids that a rule has in a run; none without a wish."""
    return [] if rule is None else [one.id for one in run.rules().values() if rule in (one.id, one.spec)]


def _meant(run: Run, costs: CostMatrix | str | None, stored: dict[str, dict]) -> list[str]:
    """Names of a run's sets under some costs, all without a wish; a text is taken as reports take it."""
    if isinstance(costs, str):
        return sets_of(run, costs, stored)
    return [name for name, facts in stored.items() if costs is None or facts["costs"] == costs]


def _called(facts: dict, sets: Sequence[dict[str, dict]]) -> str:
    """The costs of a set; what a file held at different times is told apart."""
    spec = facts["spec"]
    held = {one["costs"].digest for stored in sets for one in stored.values() if one["spec"] == spec}
    return told_apart(written(facts), facts) if len(held) > 1 and is_cost_file(spec) else spec


def _certificates(run: Run, name: str, spec: str, rules: Sequence[str]) -> pd.DataFrame:
    """One certificate set with the facts of its run in front."""
    manifest = run.manifest()
    facts = {"run_id": run.run_id, "costs": spec, "model": model_of(manifest)}
    facts |= {key: manifest[key] for key in ("experiment", "sigma")}
    certificates = only_counted(run, run.with_groups(run.certificates(name, *rules).assign(**facts)))
    return certificates[[*_OF_RUN, *CERTIFICATES.names, *certificates.columns.intersection(["group"])]]
