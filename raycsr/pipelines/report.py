"""Reporting: certificates -> one table, overlaid curves, and the numbers beside each certificate set."""

import json
from pathlib import PurePath

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.certification import summarize
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.results import Run, Store, format_summary, read_locuslab_tsv, resolve_run
from raycsr.results.plots import plot_curves

_CURVE_POINTS = 101
_RADII = 4  # where the user names none


def report(
    *,
    run: list[str],
    costs: list[str] | None = None,
    radii: list[float] | None = None,
    out: str | None = None,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Prints one table over all certificate sets of some runs, and draws their certified curves.

    The standard certificate, and that of each cost matrix, are separate statements, each at its alpha.

    Args:
        run: Runs: folders, s3://bucket/prefix, or unique prefixes; or .tsv tables of locuslab/smoothing.
        costs: Show only these certificate sets; by default all that are stored.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four up to the largest certified one.
        out: Folder for summary.parquet, report.md and curves.png over all of them, local or s3://.
        allow_missing: Report on a run although listed images have no certificate yet.

    Returns:
        The table: run, costs, and the columns of `raycsr.summarize`.

    Raises:
        UserError: where a run has no certificates, or lacks images and may not.
    """
    if radii is not None and not all(np.isfinite(radius) and radius >= 0 for radius in radii):
        raise UserError(f"radii must be non-negative numbers, got {radii}")
    sets = [one for location in run for one in _load(location, costs, allow_missing)]
    reach = max(_reach(certificates) for _, _, certificates, _ in sets)
    asked = radii if radii is not None else [round(reach * i / _RADII, 2) for i in range(_RADII)]
    grid = np.linspace(0, reach * 1.05 or 1.0, _CURVE_POINTS)
    summaries, curves = [], {}
    for legend, matrix, certificates, folder in sets:
        summary = summarize(certificates, costs=matrix, radii=asked)
        curve = summarize(certificates, costs=matrix, radii=grid)
        label, spec = legend
        summary.insert(0, "costs", spec)
        summary.insert(0, "run", label)
        summaries.append(summary)
        curves[label, spec] = curve
        if folder is not None:
            folder.write("metrics.json", json.dumps(summary.to_dict("records"), indent=1).encode())
            folder.write("curves.png", plot_curves({(label, spec): curve}))
    table = pd.concat(summaries, ignore_index=True)
    text = format_summary(table)
    print(text)
    for note in _notes(sets):
        print(note)
    if out is not None:
        store = Store(out)
        store.write_table("summary.parquet", pa.Table.from_pandas(table, preserve_index=False))
        store.write("report.md", "\n".join([text, "", *_notes(sets), ""]).encode())
        store.write("curves.png", plot_curves(curves))
        print(f"wrote {store.location}/report.md, summary.parquet and curves.png")
    return table


_Set = tuple[tuple[str, str], CostMatrix, pd.DataFrame, Store | None]


def _load(location: str, costs: list[str] | None, allow_missing: bool) -> list[_Set]:
    if location.endswith(".tsv"):
        certificates = read_locuslab_tsv(location)
        m = max(int(certificates["label"].max()), int(certificates["prediction"].max())) + 1
        return [((location.rsplit("/", 1)[-1], "(standard)"), CostMatrix.uniform(m), certificates, None)]
    run = resolve_run(location)
    stored = run.certificate_sets()
    shown = costs if costs is not None else list(dict.fromkeys(facts["spec"] for facts in stored.values()))
    names = [name for spec in shown for name, facts in stored.items() if facts["spec"] == spec]
    if not names:
        have = ", ".join(facts["spec"] for facts in stored.values()) or "none"
        wanted = "" if costs is None else f" for {', '.join(costs)}"
        raise UserError(
            f"run {run.run_id} has no certificates{wanted} (stored: {have}); "
            f"make them with `raycsr certify --run {run.location} --costs ...`"
        )
    manifest = run.manifest()
    label = f"{manifest['model'].rsplit('/', 1)[-1]} σ={manifest['sigma']:g}"
    return [_load_set(run, name, stored[name], label, manifest, allow_missing) for name in names]


def _load_set(run: Run, name: str, facts: dict, label: str, manifest: dict, allow_missing: bool) -> _Set:
    certificates = run.certificates(name)
    missing = run.missing(certificates)
    if missing and not allow_missing:
        raise UserError(
            f"run {run.run_id} lacks {len(missing)} of {len(missing) + len(certificates)} images under "
            f"{facts['spec']!r} (the first {missing[0]!r}); finish it with `raycsr sample` and `raycsr certify`, or "
            "report on what is there with --allow_missing true"
        )
    matrix = CostMatrix(np.array(facts["values"]), manifest["class_names"])
    certificates.attrs = {
        "missing": len(missing),
        "input_size": manifest["preprocessing"]["input_size"],
        "alpha": facts["alpha"],
    }
    spec = PurePath(facts["spec"]).name if facts["spec"].endswith(".csv") else facts["spec"]
    return (label, spec), matrix, certificates, run.store.at(f"certificates/{name}")


def _reach(certificates: pd.DataFrame) -> float:
    return float(np.nanmax(certificates[["standard_radius", "cost_sensitive_radius"]].fillna(0).to_numpy()))


def _notes(sets: list[_Set]) -> list[str]:
    """What a reader of the table must know to read it right."""
    frames = [certificates for _, _, certificates, _ in sets]
    sizes = {tuple(frame.attrs["input_size"]) for frame in frames if frame.attrs}
    alphas = sorted({float(frame["alpha"].iloc[0]) for frame in frames})
    notes = [
        "radius: L2 in [0, 1] pixel units"
        + (f" at {', '.join(f'{h} x {w}' for h, w in sorted(sizes))} px" if sizes else "")
        + "; brackets: 95 % interval over images.",
        f"Each row's certificates fail with probability at most {', '.join(f'{a:g}' for a in alphas)} an image: the "
        "standard one and that of each cost matrix are separate statements.",
    ]
    errors = sum(int(frame["error"].notna().sum()) for frame in frames)
    if errors:
        notes.append(f"{errors} rows have an error: they count as failing.")
    missing = max((frame.attrs.get("missing", 0) for frame in frames), default=0)
    if missing:
        notes.append(f"INCOMPLETE: up to {missing} listed images a run have no certificate and are left out.")
    return notes
