"""Reporting: certificates -> one table, curves, the front of decision rules, a web page; numbers beside each set."""

import json
import re
import warnings

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.certification import check_alpha, group_numbers
from raycsr.certification.metrics import RHO
from raycsr.errors import UserError, printable
from raycsr.options import Spec, listed
from raycsr.pipelines.report_page import report_page
from raycsr.results import (
    Certified,
    at_equal_accuracy,
    certified_curves,
    default_radii,
    format_equal_accuracy,
    format_front,
    format_summary,
    front,
    in_markdown,
    legible,
    load_certified,
    markdown_table,
    seen_images_of,
    summaries,
)
from raycsr.results.certified import DRAWN_LOSS, MOST_DRAWN
from raycsr.results.locuslab import write_locuslab_tsv
from raycsr.results.plots import plot_curves, plot_front
from raycsr.results.ranking import metric_in_words
from raycsr.results.stand import stands_on
from raycsr.store import Store


def report(
    *,
    run: list[str],
    costs: list[Spec] | None = None,
    radii: list[float] | None = None,
    rules: list[Spec] | None = None,
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

    notes = _notes(sets, left_out, radius, points if compared else None, some_drawn=len(drawn) < len(sets))
    text = "\n\n".join([format_summary(table), *(_comparison(points, radius) if compared else [])])
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


def _comparison(points: pd.DataFrame, radius: float) -> list[str]:
    """The front, and the runs at equal accuracy, in words and tables: for each metric those of its costs."""
    parts = []
    for metric, of_metric in points.groupby("metric", sort=False):
        by, on_front, equal = metric_in_words(str(metric)), front(of_metric), at_equal_accuracy(of_metric)
        parts += [
            f"Front at radius {radius:g}: each run's decision rules that no other of its rules beats in both accuracy "
            f"and {by}.",
            format_front(on_front),
        ]
        if len(equal):
            parts += [
                f"At equal accuracy: the best {by} at radius {radius:g} among a run's rules whose accuracy is at least "
                "that of the reference (the most accurate argmax), less the loss.",
                format_equal_accuracy(equal),
            ]
    return parts


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


def _seen(sets: list[Certified]) -> list[str]:
    """Which runs stand on images that their models were trained on, or their rules tuned on."""
    rules: dict[str, list[str]] = {}
    for one in sets:
        rules.setdefault(one.run, []).append(one.rule_id)
    runs = {one.run: one.origin for one in sets if one.origin is not None}
    return [f"{label}: {line}." for label, run in runs.items() for line in seen_images_of(run, rules[label])]


def _notes(
    sets: list[Certified], left_out: list[str], radius: float, compared: pd.DataFrame | None, some_drawn: bool
) -> list[str]:
    """What a reader of the table must know to read it right."""
    sizes = sorted({one.input_size for one in sets if one.input_size is not None})
    tables = ", ".join(dict.fromkeys(one.run for one in sets if one.origin is None))
    alphas = sorted({one.alpha for one in sets if not np.isnan(one.alpha)})
    grouped = {one.run for one in sets if "group" in one.certificates}
    units = "images" if not grouped else "groups" if grouped == {one.run for one in sets} else "images or their groups"
    each = "cost matrix and rule" if len({one.rule_id for one in sets}) > 1 else "cost matrix"
    notes = [
        "radius: L2 in [0, 1] pixel units"
        + (f" at {', '.join(f'{h} x {w}' for h, w in sizes)} px" if sizes else "")
        + f"; brackets: 95 % interval over {units}.",
        f"Each row's certificates fail with probability at most {', '.join(f'{a:g}' for a in alphas) or 'alpha'} an "
        f"image: the standard one and that of each {each} are separate statements.",
        f"guaranteed: with probability {1 - RHO:g} the share of these images that is truly certified is no smaller, at "
        "all radii at once.",
    ]
    if tables:
        notes.append(
            f"{tables}: a radius counts as half a unit of its last digit less than written, as it may be rounded up."
        )
    if any(np.isnan(one.alpha) for one in sets):
        notes.append(
            f"{tables}: no guaranteed shares, as such a table does not say its alpha; give it by --table_alpha "
            "(certify.py's default is 0.001)."
        )
    if compared is not None:
        notes.append(
            "A front is a picture: a rule or model picked from it on these images has no valid alpha. Tune a rule on "
            "others (`raycsr tune-rule`), then certify it here."
        )
    if compared is not None and (compared.groupby("costs")["num_images"].nunique() > 1).any():
        notes.append("The points of a front stand on different numbers of images: compare them with care.")
    if some_drawn:
        notes.append(
            f"Curves: where a run has more than {MOST_DRAWN} rules beside argmax, argmax and of each kind the best "
            f"on the front at radius {radius:g} that loses at most {DRAWN_LOSS:g} of argmax's accuracy."
        )
    for run, one in {one.run: one for one in sets if "group" in one.certificates}.items():
        groups = len(np.unique(group_numbers(one.certificates["group"])))
        notes.append(
            f"The images of {run} come in {groups:,} groups (such as one a patient), which are not independent within: "
            "its intervals are over groups, not over images."
        )
    notes += _seen(sets)
    errors = sum(int(one.certificates["error"].notna().sum()) for one in sets)
    if errors:
        notes.append(f"{errors} rows have an error: they count as failing.")
    missing = max(one.missing for one in sets)
    if missing:
        notes.append(f"INCOMPLETE: up to {missing} listed images a run have no certificate and are left out.")
    if left_out:
        notes.append(f"{', '.join(left_out)}: no certificates of these costs and rules, left out.")
    return notes
