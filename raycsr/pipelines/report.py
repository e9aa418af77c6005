"""Reporting: certificates -> one table, overlaid curves, the front of decision rules, numbers beside each set."""

import json
import re
from dataclasses import dataclass, replace
from pathlib import PurePath

import numpy as np
import pandas as pd
import pyarrow as pa

from raycsr.certification import summarize
from raycsr.costs import CostMatrix
from raycsr.errors import UserError, nearest
from raycsr.results import Run, Store, read_locuslab_tsv, resolve_run
from raycsr.results.plots import plot_curves, plot_front
from raycsr.results.tables import (
    at_equal_accuracy,
    distinct_labels,
    format_equal_accuracy,
    format_front,
    format_summary,
    front,
    write_locuslab_tsv,
)

_CURVE_POINTS = 101
_RADII = 4  # where the user names none
_DRAWN = 4  # rules beside argmax whose curves are still legible
_DRAWN_LOSS = 0.025  # of accuracy against argmax: beyond it, a curve shows a rule that few would use


def report(
    *,
    run: list[str],
    costs: list[str] | None = None,
    radii: list[float] | None = None,
    rules: list[str] | None = None,
    out: str | None = None,
    allow_missing: bool = False,
) -> pd.DataFrame:
    """Prints one table over all certificate sets of some runs, and draws their certified curves and their front.

    The standard certificate, and that of each cost matrix and decision rule, are separate statements, each at
    its alpha. The front shows what accuracy a rule or a model pays for its rob_cs.

    Args:
        run: Runs: folders, s3://bucket/prefix, or unique prefixes; or .tsv tables of locuslab/smoothing.
        costs: Show only these certificate sets; by default all that are stored.
        radii: L2 radii of the table, in [0, 1] pixel units; by default four up to the largest certified one. The
            front is at the smallest that is not 0.
        rules: Show only these decision rules, as they were written or by their ids; by default all that the runs
            have. A selection is a view: it leaves the numbers beside the certificate sets as they are.
        out: Folder for summary.parquet, report.md, curves.png and front.png over all of them, local or s3://; and
            for the standard certificates of each run and rule in a .tsv that locuslab/smoothing's analysis reads.
        allow_missing: Report on a run although listed images have no certificate yet.

    Returns:
        The table: run, costs, rule, rule_id, and the columns of `raycsr.summarize`.

    Raises:
        UserError: where a run has no certificates, or lacks images and may not; or no run has a rule.
    """
    if radii is not None and not (radii and all(np.isfinite(radius) and radius >= 0 for radius in radii)):
        raise UserError(f"radii must be non-negative numbers, got {radii}")
    sources = list({source.location: source for source in map(_open, run)}.values())
    ids = _rule_ids(rules, sources)
    labels = distinct_labels([(source.model, source.after, source.run_id) for source in sources])
    loaded = [_load(source, label, costs, ids, allow_missing) for source, label in zip(sources, labels, strict=True)]
    sets = _distinct_costs([one for several in loaded for one in several])
    if not sets:
        raise UserError("there are 0 certificates to report on; make some with `raycsr sample` and `raycsr certify`")
    reach = max(_reach(one.certificates) for one in sets)
    asked = radii if radii is not None else [round(reach * i / _RADII, 2) for i in range(_RADII)]
    asked = list(dict.fromkeys(asked))
    table = pd.concat([_summary(one, asked) for one in sets], ignore_index=True)
    radius = min((r for r in asked if r > 0), default=0.0)
    points = table[(table["radius"] == radius) & table["rob_cs"].notna()]
    compared = points["run"].nunique() > 1 or points["rule_id"].nunique() > 1
    drawn = _drawn(sets, table[table["radius"] == radius])
    grid = np.linspace(0, reach * 1.05 or 1.0, _CURVE_POINTS)
    curves = {(one.run, one.costs, one.rule): _summary(one, grid) for one in drawn}

    notes = _notes(sets, labels, radius, points if compared else None, some_drawn=len(drawn) < len(sets))
    text = "\n\n".join([format_summary(table), *(_comparison(points, radius) if compared else [])])
    print(text)
    for note in notes:
        print(note)
    if rules is None:
        _write_beside(sets, table, curves)
    if out is not None:
        store = Store(out)
        store.write_table("summary.parquet", pa.Table.from_pandas(table, preserve_index=False))
        store.write("report.md", "\n".join([text, "", *notes, ""]).encode())
        store.write("curves.png", plot_curves(curves))
        if compared:
            store.write("front.png", plot_front(points))
        pictures = "curves.png and front.png" if compared else "curves.png"
        tables = _write_locuslab_tables(sets, store)
        print(f"wrote {store.location}/report.md, summary.parquet, {', '.join([pictures, *tables])}")
    return table


@dataclass(frozen=True)
class _Source:
    """What the user named: a run, or a published table."""

    location: str
    model: str  # its path or name
    after: str  # what else a label says
    rules: dict[str, str]  # id -> as a person writes it
    run: Run | None = None

    @property
    def run_id(self) -> str:
        return "" if self.run is None else self.run.run_id


@dataclass(frozen=True)
class _Certified:
    """The certificates of one run, cost matrix and decision rule."""

    run: str  # label
    costs: str  # as a person writes them
    rule: str
    rule_id: str
    matrix: CostMatrix
    certificates: pd.DataFrame
    missing: int = 0  # listed images that have none
    input_size: tuple[int, int] | None = None
    folder: Store | None = None  # of the certificate set
    positions: pd.Series | None = None  # of each certificate's image in the run's listing

    @property
    def alpha(self) -> float:
        return float(self.certificates["alpha"].iloc[0])


def _open(location: str) -> _Source:
    if location.endswith(".tsv"):
        return _Source(location, location, "", {"argmax": "argmax"})
    run = resolve_run(location)
    manifest = run.manifest()
    rules = run.rules().values()
    specs = [rule.spec for rule in rules]
    shown = {rule.id: rule.spec if specs.count(rule.spec) == 1 else f"{rule.spec} ({rule.id[-4:]})" for rule in rules}
    return _Source(run.location, manifest["model"], f" σ={manifest['sigma']:g}", shown, run)


def _rule_ids(asked: list[str] | None, sources: list[_Source]) -> set[str]:
    """Ids of the rules to show, all without a wish; a rule is one and the same however a run wrote it."""
    specs = [(spec, rule_id) for source in sources for rule_id, spec in source.rules.items()]
    for name in asked or []:
        if not any(name in pair for pair in specs):
            raise UserError(f"no run has a rule {name!r}; {nearest(name, dict.fromkeys(spec for spec, _ in specs))}")
    return {rule_id for spec, rule_id in specs if asked is None or spec in asked or rule_id in asked}


def _load(source: _Source, label: str, costs: list[str] | None, ids: set[str], allow_missing: bool) -> list[_Certified]:
    shown = {rule_id: spec for rule_id, spec in source.rules.items() if rule_id in ids}
    if source.run is None:
        certificates = read_locuslab_tsv(source.location)
        m = max(int(certificates["label"].max()), int(certificates["prediction"].max())) + 1
        matrix = CostMatrix.uniform(m)
        return [_Certified(label, "(standard)", spec, i, matrix, certificates) for i, spec in shown.items()]
    run = source.run
    stored = run.certificate_sets()
    wanted = costs if costs is not None else list(dict.fromkeys(facts["spec"] for facts in stored.values()))
    names = [name for spec in wanted for name, facts in stored.items() if facts["spec"] == spec]
    if not names:
        have = ", ".join(facts["spec"] for facts in stored.values()) or "none"
        asked = "" if costs is None else f" for {', '.join(costs)}"
        raise UserError(
            f"run {run.run_id} has no certificates{asked} (stored: {have}); "
            f"make them with `raycsr certify --run {run.location} --costs ...`"
        )
    listed = run.images()["image_id"]
    return [one for name in names for one in _load_set(run, name, stored[name], label, shown, listed, allow_missing)]


def _load_set(
    run: Run, name: str, facts: dict, label: str, rules: dict[str, str], listed: pd.Series, allow_missing: bool
) -> list[_Certified]:
    """One certificate set, rule by rule; a rule without any certificate is left out."""
    manifest = run.manifest()
    certificates = run.certificates(name)
    num_images, position = len(listed), pd.Series(listed.index, index=listed)
    spec = PurePath(facts["spec"]).name if facts["spec"].endswith(".csv") else facts["spec"]
    matrix = CostMatrix(np.array(facts["values"]), manifest["class_names"])
    size = tuple(manifest["preprocessing"]["input_size"])
    folder = run.store.at(f"certificates/{name}")
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
            missing = num_images - len(rows)
            positions = rows["image_id"].map(position)
            sets.append(_Certified(label, spec, rule, rule_id, matrix, rows, missing, size, folder, positions))
    return sets


def _distinct_costs(sets: list[_Certified]) -> list[_Certified]:
    """Says alpha and values where one spec stands for several: rows that look alike must be alike."""
    meanings = {(one.costs, one.alpha, one.matrix.digest) for one in sets if one.folder is not None}
    specs = [spec for spec, _, _ in meanings]
    return [
        replace(one, costs=f"{one.costs} (alpha {one.alpha:g}, {one.matrix.digest[:4]})")
        if specs.count(one.costs) > 1
        else one
        for one in sets
    ]


def _reach(certificates: pd.DataFrame) -> float:
    return float(np.nanmax(certificates[["standard_radius", "cost_sensitive_radius"]].fillna(0).to_numpy()))


def _summary(one: _Certified, radii: list[float] | np.ndarray) -> pd.DataFrame:
    summary = summarize(one.certificates, costs=one.matrix, radii=radii)
    for name in ("rule_id", "rule", "costs", "run"):
        summary.insert(0, name, getattr(one, name))
    return summary


def _drawn(sets: list[_Certified], points: pd.DataFrame) -> list[_Certified]:
    """The sets whose curves are drawn: all rules of a run and costs, or argmax and the best of each kind.

    The best is the one of the largest rob_cs on the front that loses little accuracy against argmax; where
    all lose more, the most accurate on the front.
    """
    kept = set()
    for (run, costs), rules in points.groupby(["run", "costs"], sort=False):
        ids = rules["rule_id"].tolist()
        if len(set(ids) - {"argmax"}) > _DRAWN:
            plain = rules.loc[rules["rule_id"] == "argmax", "accuracy"]
            on_front = front(rules)
            close = on_front["accuracy"] >= (plain.iloc[0] if len(plain) else rules["accuracy"].max()) - _DRAWN_LOSS
            ranked = pd.concat([on_front[close].sort_values("rob_cs", ascending=False), on_front[~close]])
            best = set(ranked.groupby(ranked["rule_id"].str.split("-").str[0])["rule_id"].first())
            ids = [rule_id for rule_id in ids if rule_id in best | {"argmax"}] or ids[:1]
        kept |= {(run, costs, rule_id) for rule_id in ids}
    return [one for one in sets if (one.run, one.costs, one.rule_id) in kept]


def _comparison(points: pd.DataFrame, radius: float) -> list[str]:
    """The front, and the runs at equal accuracy, in words and tables."""
    title = (
        f"Front at radius {radius:g}: each run's decision rules that no other of its rules beats in both accuracy and "
        "rob_cs."
    )
    parts = [title, format_front(front(points))]
    equal = at_equal_accuracy(points)
    if len(equal):
        title = (
            f"At equal accuracy: the largest rob_cs at radius {radius:g} among a run's rules whose accuracy is at "
            "least that of the reference (the most accurate argmax), less the loss."
        )
        parts += [title, format_equal_accuracy(equal)]
    return parts


def _write_beside(
    sets: list[_Certified], table: pd.DataFrame, curves: dict[tuple[str, str, str], pd.DataFrame]
) -> None:
    """Writes the numbers and the picture of each certificate set into its folder, all rules in one."""
    folders = {(one.run, one.costs): one.folder for one in sets if one.folder is not None}
    for (run, costs), folder in folders.items():
        rows = table[(table["run"] == run) & (table["costs"] == costs)]
        folder.write("metrics.json", json.dumps(rows.to_dict("records"), indent=1).encode())
        folder.write(
            "curves.png", plot_curves({key: curve for key, curve in curves.items() if key[:2] == (run, costs)})
        )


def _write_locuslab_tables(sets: list[_Certified], store: Store) -> list[str]:
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


def _notes(
    sets: list[_Certified], labels: list[str], radius: float, compared: pd.DataFrame | None, some_drawn: bool
) -> list[str]:
    """What a reader of the table must know to read it right."""
    sizes = sorted({one.input_size for one in sets if one.input_size is not None})
    alphas = sorted({one.alpha for one in sets})
    each = "cost matrix and rule" if len({one.rule_id for one in sets}) > 1 else "cost matrix"
    notes = [
        "radius: L2 in [0, 1] pixel units"
        + (f" at {', '.join(f'{h} x {w}' for h, w in sizes)} px" if sizes else "")
        + "; brackets: 95 % interval over images.",
        f"Each row's certificates fail with probability at most {', '.join(f'{a:g}' for a in alphas)} an image: the "
        f"standard one and that of each {each} are separate statements.",
    ]
    if compared is not None:
        notes.append(
            "A front is a picture: a rule or model picked from it on these images has no valid alpha. Tune a rule on "
            "others (`raycsr tune-rule`), then certify it here."
        )
    if compared is not None and (compared.groupby("costs")["num_images"].nunique() > 1).any():
        notes.append("The points of a front stand on different numbers of images: compare them with care.")
    if some_drawn:
        notes.append(
            f"curves.png: where a run has more than {_DRAWN} rules beside argmax, argmax and of each kind the largest "
            f"rob_cs on the front at radius {radius:g} that loses at most {_DRAWN_LOSS:g} of argmax's accuracy."
        )
    errors = sum(int(one.certificates["error"].notna().sum()) for one in sets)
    if errors:
        notes.append(f"{errors} rows have an error: they count as failing.")
    missing = max(one.missing for one in sets)
    if missing:
        notes.append(f"INCOMPLETE: up to {missing} listed images a run have no certificate and are left out.")
    left_out = [label for label in labels if label not in {one.run for one in sets}]
    if left_out:
        notes.append(f"{', '.join(left_out)}: no certificates by these rules, left out.")
    return notes
