"""The files of a report: of its folder, and the numbers beside each certificate set."""

import json
import re
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import pandas as pd
import pyarrow as pa

from raycsr.certification.answers import ARGMAX, MAJORITY
from raycsr.errors import UserError
from raycsr.reports.attacked import plot_attacked
from raycsr.reports.certified import Certified, certified_curves
from raycsr.reports.curves import Curves, plot_curves, plot_front
from raycsr.reports.document import Document, failed, failures, made
from raycsr.reports.findings import Findings
from raycsr.reports.html import as_html
from raycsr.reports.markdown import as_markdown
from raycsr.results.locuslab import write_locuslab_tsv
from raycsr.store import Store


class Written(NamedTuple):
    """What became of the files of a report: their names, and a sentence for each part that could not be made."""

    names: list[str]
    failures: list[str]


def write_report(found: Findings, document: Document, store: Store) -> Written:
    """Writes all files of a report into a folder; one that cannot be made takes no other with it.

    Args:
        found: Findings to report on.
        document: The report.
        store: The folder.
    """
    page = made(document)
    store.write_table("summary.parquet", pa.Table.from_pandas(found.table, preserve_index=False))
    store.write("report.md", as_markdown(document).encode())
    store.write("report.html", as_html(page).encode())
    names, failed_ones = ["report.html", "report.md", "summary.parquet"], failures(page.blocks)
    pictures: dict[str, Callable[[], bytes]] = {"curves.png": lambda: plot_curves(found.curves, looks=found.looks)}
    if len(found.compared):
        pictures["front.png"] = lambda: plot_front(found.compared, looks=found.looks)
    if len(found.attacked):
        pictures["attacked.png"] = lambda: plot_attacked(found.attacked, found.curves, looks=found.looks)
    for name, plot in pictures.items():
        why = draw(plot, name, store)
        failed_ones += why
        names += [] if why else [name]
    return Written([*names, *_write_locuslab_tables(found.sets, store)], failed_ones)


def with_lacks(table: pd.DataFrame, lacks: Sequence[str]) -> pd.DataFrame:
    """Says, as warnings, what a report lacks, and notes it in `attrs` of its table, for the status of the command."""
    table.attrs["lacks"] = list(dict.fromkeys(lacks))
    for line in table.attrs["lacks"]:
        warnings.warn(line, stacklevel=3)
    return table


def draw(plot: Callable[[], bytes], name: str, store: Store) -> list[str]:
    """Writes a picture; returns nothing, or a sentence that says why there is none."""
    try:
        drawn = plot()
    except Exception as error:  # of a chart, whatever the library below it says
        return [failed(f"{store.location}/{name}", error).line]
    store.write(name, drawn)
    return []


def write_beside(found: Findings) -> list[str]:
    """Writes the numbers and the picture of each certificate set into its folder, all rules in one.

    Returns:
        A sentence for each picture that could not be drawn; the numbers are there.
    """
    folders = {one.folder.location: one.folder for one in found.sets if one.folder is not None}
    failed_ones: list[str] = []
    for location, folder in folders.items():
        of_set = [one for one in found.sets if one.folder is not None and one.folder.location == location]
        keys = [one.key for one in of_set]
        rows = found.table[pd.MultiIndex.from_frame(found.table[["run", "costs", "rule"]]).isin(keys)]
        drawn = {key: curve for key, curve in found.curves.items() if key in keys}
        try:
            folder.write("metrics.json", json.dumps(rows.to_dict("records"), indent=1).encode())
            failed_ones += draw(partial(_curves_of, drawn, of_set), "curves.png", folder)
        except UserError as error:  # of results that may only be read
            warnings.warn(f"nothing is stored beside the certificates: {error}", stacklevel=3)
    return failed_ones


def _curves_of(drawn: Curves, of_set: Sequence[Certified]) -> bytes:
    return plot_curves(drawn or certified_curves(of_set[:1]))


def _write_locuslab_tables(sets: Sequence[Certified], store: Store) -> list[str]:
    """Writes the standard certificates of each run, rule and alpha, the same under all costs, and names the files."""
    standard = {
        (one.run, one.decision, one.alpha): one
        for one in sets
        if one.positions is not None and one.answer in (ARGMAX, MAJORITY)  # others have another standard radius
    }
    written: list[str] = []
    for (run, rule_id, alpha), one in standard.items():
        name = run.replace("σ=", "sigma_") + ("" if rule_id == "argmax" else f" {rule_id}")
        if len({key for key in standard if key[:2] == (run, rule_id)}) > 1:
            name += f" alpha_{alpha:g}"
        name = re.sub(r"[^\w.-]+", "-", name).lstrip("-")  # a program would take it for an option
        while f"{name}.tsv" in written:  # labels that differ in other characters only
            name += "_"
        numbered = one.certificates.assign(image_id=one.positions).sort_values("image_id")
        store.write(f"{name}.tsv", write_locuslab_tsv(numbered).encode())
        written.append(f"{name}.tsv")
    return written
