"""Comparing: two runs or rules, paired by image -> what differs, by how much, and whether chance explains it."""

import json
from functools import partial

import pandas as pd
import pyarrow as pa

from raycsr.certification.answers import AnswerSpec
from raycsr.costs import CostSpec
from raycsr.models.rules import RuleSpec
from raycsr.options import listed
from raycsr.reports.compared import both_sides, compare_sets, compose_comparison, plot_differences
from raycsr.reports.document import failures
from raycsr.reports.files import draw, with_lacks
from raycsr.reports.html import as_html
from raycsr.reports.markdown import as_markdown
from raycsr.reports.text import as_text
from raycsr.store import Store


def compare(
    *,
    run: list[str],
    costs: CostSpec | None = None,
    radius: float | None = None,
    rules: list[RuleSpec] | None = None,
    answers: list[AnswerSpec] | None = None,
    groups: str | None = None,
    margin: float | None = None,
    out: str | None = None,
) -> pd.DataFrame:
    """Compares the certificates of two runs, or of two rules or answers of one, on the images that both have.

    Intervals of two runs that overlap do not tell whether they differ: both stand on the same images. Paired by image,
    shares have the exact McNemar test, means a paired one, and p is corrected for the number of metrics.

    Args:
        run: The first run and the second: their folders, s3://bucket/prefix, or unique prefixes of them; or files with
            tables of locuslab/smoothing. One run where two of its rules or answers are compared.
        costs: Cost matrix whose certificates are compared; by default the only one of which both have certificates.
        radius: L2 radius at which they are compared, in [0, 1] pixel units; by default a quarter of the way to the
            largest certified one.
        rules: Decision rules of the first and of the second, as they were written or by their ids; one for both. By
            default the only one of each.
        answers: Answers of the first and of the second, such as argmax and majority; one for both. By default the only
            one of each.
        groups: Table (CSV) of image_id and group, local or s3://, for images that are not independent, such as those
            of one patient; by default the groups of the data.
        margin: Share of images that the second may lose and count as no worse, such as 0.02.
        out: Folder for comparison.html, .md, .png, .parquet and .json, local or s3://.

    Returns:
        The table, a row a metric, as `raycsr.compare` returns it; its `attrs` are those of a report.

    Raises:
        UserError: where a side means no certificates, or several; or the two cannot be compared.
    """
    if out is not None:
        Store(out).check_writable()
    first, second = both_sides(listed(run), costs, listed(rules), listed(answers))
    compared = compare_sets(first, second, radius=radius, groups=groups, margin=margin)
    document = compose_comparison(compared)
    lacks = failures(document.blocks)
    wrote = ""
    if out is not None:
        store = Store(out)
        facts = {"a": first.key, "b": second.key, "radius": compared.radius, "margin": margin}
        facts["metrics"] = json.loads(compared.table.to_json(orient="records", double_precision=15))
        store.write("comparison.json", json.dumps(facts, indent=1).encode())
        store.write_table("comparison.parquet", pa.Table.from_pandas(compared.table, preserve_index=False))
        store.write("comparison.md", as_markdown(document).encode())
        store.write("comparison.html", as_html(document).encode())
        undrawn = draw(partial(plot_differences, compared), "comparison.png", store)
        lacks += undrawn
        drawn = "" if undrawn else " .png,"
        wrote = f"\n\nwrote {store.location}/comparison.html, .md,{drawn} .parquet, .json"
    print(as_text(document) + wrote, flush=True)  # last: who reads a part of it, as `| less` does, ends it there
    return with_lacks(compared.table, lacks)
