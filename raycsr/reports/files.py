"""The files of a report: of its folder, and the numbers beside each certificate set."""

import json
import re
import warnings
from collections.abc import Sequence

import pandas as pd
import pyarrow as pa

from raycsr.certification.answers import ARGMAX, MAJORITY
from raycsr.errors import UserError
from raycsr.reports.attacked import plot_attacked
from raycsr.reports.certified import Certified, certified_curves
from raycsr.reports.curves import plot_curves, plot_front
from raycsr.reports.document import Document
from raycsr.reports.findings import Findings
from raycsr.reports.html import as_html
from raycsr.reports.markdown import as_markdown
from raycsr.results.locuslab import write_locuslab_tsv
from raycsr.store import Store


def write_report(found: Findings, document: Document, store: Store) -> list[str]:
    """Writes all files of a report into a folder, and returns their names.

    Args:
        found: Findings to report on.
        document: The report.
        store: The folder.
    """
    store.write_table("summary.parquet", pa.Table.from_pandas(found.table, preserve_index=False))
    store.write("report.md", as_markdown(document).encode())
    store.write("report.html", as_html(document).encode())
    store.write("curves.png", plot_curves(found.curves, looks=found.looks))
    names = ["report.html", "report.md", "summary.parquet", "curves.png"]
    if len(found.compared):
        store.write("front.png", plot_front(found.compared, looks=found.looks))
        names.append("front.png")
    if len(found.attacked):
        store.write("attacked.png", plot_attacked(found.attacked, found.curves, looks=found.looks))
        names.append("attacked.png")
    return [*names, *_write_locuslab_tables(found.sets, store)]


def write_beside(found: Findings) -> None:
    """Writes the numbers and the picture of each certificate set into its folder, all rules in one."""
    folders = {one.folder.location: one.folder for one in found.sets if one.folder is not None}
    for location, folder in folders.items():
        of_set = [one for one in found.sets if one.folder is not None and one.folder.location == location]
        keys = [one.key for one in of_set]
        rows = found.table[pd.MultiIndex.from_frame(found.table[["run", "costs", "rule"]]).isin(keys)]
        drawn = {key: curve for key, curve in found.curves.items() if key in keys}
        picture = plot_curves(drawn or certified_curves(of_set[:1]))
        try:
            folder.write("metrics.json", json.dumps(rows.to_dict("records"), indent=1).encode())
            folder.write("curves.png", picture)
        except UserError as error:  # of results that may only be read
            warnings.warn(f"nothing is stored beside the certificates: {error}", stacklevel=3)


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
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
        while f"{name}.tsv" in written:  # labels that differ in other characters only
            name += "_"
        numbered = one.certificates.assign(image_id=one.positions).sort_values("image_id")
        store.write(f"{name}.tsv", write_locuslab_tsv(numbered).encode())
        written.append(f"{name}.tsv")
    return written
