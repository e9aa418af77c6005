"""Reporting: certificates -> one document, printed and written as Markdown and a web page; numbers beside each set."""

import numpy as np
import pandas as pd

from raycsr.certification import check_alpha
from raycsr.certification.answers import AnswerSpec
from raycsr.costs import CostSpec
from raycsr.errors import UserError
from raycsr.models.rules import RuleSpec
from raycsr.options import listed
from raycsr.reports.composition import compose
from raycsr.reports.document import failures
from raycsr.reports.files import with_lacks, write_beside, write_report
from raycsr.reports.findings import find
from raycsr.reports.letters import fonts
from raycsr.reports.notes import unreadable_in_words
from raycsr.reports.text import as_text
from raycsr.store import Store


def report(
    *,
    run: list[str],
    costs: list[CostSpec] | None = None,
    radii: list[float] | None = None,
    rules: list[RuleSpec] | None = None,
    answers: list[AnswerSpec] | None = None,
    out: str | None = None,
    pictures: bool = False,
    allow_missing: bool = False,
    table_alpha: float | None = None,
) -> pd.DataFrame:
    """Prints one table of all certificate sets of some runs, and draws their certified curves and their front.

    The standard certificate, the multiclass one, and those of each cost matrix and decision rule are separate
    statements, each at its alpha; the report counts them. The front shows how much accuracy a decision rule or a model
    loses for its rob_cs, or for its rob_cost under costs that differ in size.

    Args:
        run: Runs to show: their folders, s3://bucket/prefix, or unique prefixes of them; a folder of runs stands for
            all in it; or files with tables of locuslab/smoothing.
        costs: Cost matrices whose certificate sets are shown, a file by what it holds now; by default all that are
            stored.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four, up to the largest certified one. The
            front is at the smallest that is not 0.
        rules: Decision rules to show, as they were written or by their ids; by default all that the runs have. A
            selection is a view: metrics that are stored beside the certificate sets are not changed by it.
        answers: Answers to show, such as `majority`; by default all that are stored. The front runs over rules and
            answers together.
        out: Folder for report.html, report.md, summary.parquet, curves.png and front.png of all runs together, local or
            s3://; and for the standard certificates of each run and rule in a .tsv that the analysis of
            locuslab/smoothing reads. report.html shows more than is printed: pairs of classes, recalls, and the
            costliest images.
        pictures: Whether report.html shows images of the data and the names of their files, which may be private: the
            costliest ones, and what a radius looks like.
        allow_missing: Whether to report on a run of which listed images have no certificate yet.
        table_alpha: Failure probability of one image's certificate in the tables of locuslab/smoothing, which do not
            store it; without it no guaranteed shares are shown for them.

    Returns:
        The table: run, costs, rule, rule_id, metric (what they are compared by), the columns of `raycsr.summarize`,
        and collapsed (the classes that are hardly answered rightly any more, in words). Its `attrs` say by "lacks"
        which runs could not be read, and which parts could not be made, a line each: the rest is there.

    Raises:
        UserError: where a run has no certificates, or lacks images and may not; no run has a rule, or can be read.
    """
    radii, costs, rules, answers = listed(radii), *(listed(one) or None for one in (costs, rules, answers))
    if radii is not None and not (radii and all(np.isfinite(radius) and radius >= 0 for radius in radii)):
        raise UserError(f"radii must be non-negative numbers, got {radii}")
    if table_alpha is not None:
        check_alpha(table_alpha, "table_alpha")
    if out is not None:
        Store(out).check_writable()
    found = find(
        run,
        costs=costs,
        rules=rules,
        answers=answers,
        radii=radii,
        allow_missing=allow_missing,
        table_alpha=table_alpha,
    )
    fonts(found.names)  # says of all charts at once what cannot be written in them
    document = compose(found, pictures=pictures)
    lacks = unreadable_in_words(found) + failures(document.blocks)
    if rules is None:
        lacks += write_beside(found)
    wrote = ""
    if out is not None:
        written = write_report(found, document, Store(out))
        wrote = f"\n\nwrote {Store(out).location}/{', '.join(written.names)}"
        lacks += written.failures
    print(as_text(document) + wrote, flush=True)  # last: who reads a part of it, as `| less` does, ends it there
    return with_lacks(found.table, lacks)
