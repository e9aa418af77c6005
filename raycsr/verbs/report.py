"""Reporting: certificates -> one table, curves, the front of decision rules, a web page; numbers beside each set."""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.certification import check_alpha
from raycsr.costs import CostSpec
from raycsr.errors import UserError, printable
from raycsr.models.rules import RuleSpec
from raycsr.options import listed
from raycsr.reports import (
    Certified,
    certified_curves,
    default_radii,
    format_summary,
    in_markdown,
    legible,
    load_certified,
    markdown_table,
    summaries,
)
from raycsr.reports.curves import plot_curves, plot_front
from raycsr.reports.document import compared_lines, notes_below, report_page
from raycsr.reports.stand import stands_on
from raycsr.results.locuslab import write_locuslab_tsv
from raycsr.store import Store


def report(
    *,
    run: list[str],
    costs: list[CostSpec] | None = None,
    radii: list[float] | None = None,
    rules: list[RuleSpec] | None = None,
    out: str | None = None,
    allow_missing: bool = False,
    table_alpha: float | None = None,
) -> pd.DataFrame:
    """Prints one table over all certificate sets of some runs, and draws their certified curves and their front.

    The standard certificate, and that of each cost matrix and decision rule, are separate statements, each at
    its alpha. The front shows what accuracy a rule or a model pays for its rob_cs, or for its rob_cost under costs
    that differ in size.

    Args:
        run: Runs: folders, s3://bucket/prefix, or unique prefixes; folders of runs, for all in them; or files with
            tables of locuslab/smoothing.
        costs: Show only these certificate sets; by default all that are stored.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four up to the largest certified one. The
            front is at the smallest that is not 0.
        rules: Show only these decision rules, as they were written or by their ids; by default all that the runs
            have. A selection is a view: it leaves the numbers beside the certificate sets as they are.
        out: Folder for report.html, report.md, summary.parquet, curves.png and front.png over all of them, local or
            s3://; and for the standard certificates of each run and rule in a .tsv that locuslab/smoothing's analysis
            reads. report.html has more than is printed: pairs of classes, recalls, the costliest images.
        allow_missing: Report on a run although listed images have no certificate yet.
        table_alpha: Failure probability of one image's certificate in the tables of locuslab/smoothing, which do not
            say it; without it they have no guaranteed shares.

    Returns:
        The table: run, costs, rule, rule_id, metric (what they are compared by), the columns of `raycsr.summarize`,
        and collapsed (the classes that are hardly answered rightly any more, in words).

    Raises:
        UserError: where a run has no certificates, or lacks images and may not; or no run has a rule.
    """
    costs, radii, rules = listed(costs), listed(radii), listed(rules)
    if radii is not None and not (radii and all(np.isfinite(radius) and radius >= 0 for radius in radii)):
        raise UserError(f"radii must be non-negative numbers, got {radii}")
    if table_alpha is not None:
        check_alpha(table_alpha, "table_alpha")
    if out is not None:
        Store(out).check_writable()
    sets, left_out = load_certified(run, costs=costs, rules=rules, allow_missing=allow_missing, table_alpha=table_alpha)
    asked = list(dict.fromkeys(radii if radii is not None else default_radii(sets)))
    table = summaries(sets, asked)
    radius = min((r for r in asked if r > 0), default=0.0)
    points = table[(table["radius"] == radius) & table["rob_cs"].notna()]
    compared = points["run"].nunique() > 1 or points["rule_id"].nunique() > 1
    drawn = legible(sets, table[table["radius"] == radius])
    curves = certified_curves(drawn)

    notes = notes_below(sets, left_out, radius, points if compared else None, some_drawn=len(drawn) < len(sets))
    text = "\n\n".join([format_summary(table), *(compared_lines(points, radius) if compared else [])])
    stand = stands_on(sets)
    print(text)
    for line in [*stand.brief(), *notes]:
        print(printable(line))
    if rules is None:
        _write_beside(sets, table, curves)
    if out is not None:
        store = Store(out)
        store.write_table("summary.parquet", pa.Table.from_pandas(table, preserve_index=False))
        facts = f"What this stands on:\n\n{markdown_table(stand.rows())}"
        store.write("report.md", "\n".join([text, "", facts, "", *map(in_markdown, notes), ""]).encode())
        store.write("report.html", report_page(sets, table, curves, radius, notes, stand).encode())
        store.write("curves.png", plot_curves(curves))
        if compared:
            store.write("front.png", plot_front(points))
        pictures = "curves.png and front.png" if compared else "curves.png"
        tables = _write_locuslab_tables(sets, store)
        print(f"wrote {store.location}/report.html, report.md, summary.parquet, {', '.join([pictures, *tables])}")
    return table


def _write_beside(sets: list[Certified], table: pd.DataFrame, curves: dict[tuple[str, str, str], pd.DataFrame]) -> None:
    """Writes the numbers and the picture of each certificate set into its folder, all rules in one."""
    folders = {(one.run, one.costs): one.folder for one in sets if one.folder is not None}
    for (run, costs), folder in folders.items():
        rows = table[(table["run"] == run) & (table["costs"] == costs)]
        picture = plot_curves({key: curve for key, curve in curves.items() if key[:2] == (run, costs)})
        try:
            folder.write("metrics.json", json.dumps(rows.to_dict("records"), indent=1).encode())
            folder.write("curves.png", picture)
        except UserError as error:  # of results that may only be read
            warnings.warn(f"nothing is stored beside the certificates: {error}", stacklevel=3)


def _write_locuslab_tables(sets: list[Certified], store: Store) -> list[str]:
    """Writes the standard certificates of each run, rule and alpha, the same under all costs, and names the files."""
    standard = {(one.run, one.rule_id, one.alpha): one for one in sets if one.positions is not None}
    written: list[str] = []
    for (run, rule_id, alpha), one in standard.items():
        name = run.replace("σ=", "sigma_") + ("" if rule_id == "argmax" else f" {rule_id}")
        if len({key for key in standard if key[:2] == (run, rule_id)}) > 1:
            name += f" alpha_{alpha:g}"
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        while f"{name}.tsv" in written:  # labels that differ in other characters only
            name += "_"
        numbered = one.certificates.assign(image_id=one.positions).sort_values("image_id")
        store.write(f"{name}.tsv", write_locuslab_tsv(numbered).encode())
        written.append(f"{name}.tsv")
    return written
