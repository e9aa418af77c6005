"""Two runs or rules side by side: the sets that are meant, their paired differences, and the document about them."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from raycsr.certification import METRICS, compare
from raycsr.certification.answers import as_answer
from raycsr.certification.comparison import SIGNIFICANCE
from raycsr.costs.files import table_of
from raycsr.errors import UserError, first_of
from raycsr.reports.certified import Certified, default_radii
from raycsr.reports.document import Column, Document, Notes, Paragraph, Picture, Section, Table, kept
from raycsr.reports.drawing import NARROW, Form, fitted, rendered, styled
from raycsr.reports.loading import load_certified
from raycsr.reports.notes import images_in_words
from raycsr.reports.stand import stands_on
from raycsr.reports.tables import p_in_words
from raycsr.results.locations import resolve_run
from raycsr.store import Store

_HEADER = ("image_id", "group")
_NAMED = 4  # costs or rules in a message


@dataclass(frozen=True)
class Compared:
    """Two sets of certificates and their paired differences.

    Attributes:
        a: The first set.
        b: The second set.
        radius: Radius at which they are compared, in [0, 1] pixel units.
        table: What `raycsr.compare` returns.
        margin: How much worse B may be and count as no worse; None where nobody asks.
    """

    a: Certified
    b: Certified
    radius: float
    table: pd.DataFrame
    margin: float | None


def compare_sets(
    a: Certified, b: Certified, *, radius: float | None = None, groups: str | None = None, margin: float | None = None
) -> Compared:
    """Compares two sets of certificates.

    Args:
        a: The first set.
        b: The second set.
        radius: Radius at which they are compared; by default the smallest of `default_radii` that is not 0.
        groups: Location of a table of image_id and group.
        margin: As `raycsr.compare` takes it.

    Raises:
        UserError: as `raycsr.compare`, or the table of groups cannot be used.
    """
    if a.matrix.digest != b.matrix.digest:
        raise UserError(f"{a.costs} means other costs in {a.run} than in {b.run}; certify both under one cost matrix")
    at = radius if radius is not None else min((one for one in default_radii([a, b]) if one > 0), default=0.0)
    of_images = None if groups is None else read_groups(groups)
    table = compare(a.certificates, b.certificates, costs=a.matrix, radius=at, groups=of_images, margin=margin)
    return Compared(a, b, at, table, margin)


def both_sides(
    runs: Sequence[str], costs: str | None, rules: Sequence[str] | None, answers: Sequence[str] | None = None
) -> tuple[Certified, Certified]:
    """The two sets that are meant by a run each, or by one run and two rules or answers.

    Args:
        runs: One or two runs: folders, `s3://bucket/prefix`, unique prefixes, or tables of locuslab/smoothing.
        costs: Spec of the cost matrix; None for the only one of which both have certificates.
        rules: Two decision rules, as they were written or by their ids; one for both; None for the only one of each.
        answers: Two answers; one for both; None for the only one of each.

    Raises:
        UserError: where a side means no set of certificates, or several, or both mean the same.
    """
    rules, answers = [] if rules is None else rules, [] if answers is None else answers
    if not 1 <= len(runs) <= 2:
        raise UserError(f"{len(runs)} runs to compare; give --run A --run B, or one run and --rules R --rules S")
    if len(rules) > 2:
        raise UserError(f"{len(rules)} rules to compare; give one for each side, or one for both")
    if len(answers) > 2:
        raise UserError(f"{len(answers)} answers to compare; give one for each side, or one for both")
    # missing images are no matter here: the images are compared that both have
    asked = None if costs is None else [costs]
    sets, _ = load_certified(runs, costs=asked, rules=rules or None, answers=answers or None, allow_missing=True)
    if costs is None:
        sets = _of_common_costs(sets)
    first, second = (
        _side(sets, *(of[i % len(of)] if of else None for of in (rules, answers)), run=runs[i % len(runs)])
        for i in range(2)
    )
    if first is second:
        raise UserError(
            f"both sides are {first.label} under {first.costs}; give another run, or another of --rules or --answers"
        )
    return first, second


def _of_common_costs(sets: Sequence[Certified]) -> list[Certified]:
    """The sets of the only costs that all runs have."""
    runs = {one.run for one in sets}
    common = [
        costs
        for costs in dict.fromkeys(one.costs for one in sets)
        if {one.run for one in sets if one.costs == costs} == runs
    ]
    if len(common) != 1:
        have = first_of(common, _NAMED) or "none"
        raise UserError(f"name the cost matrix by --costs; both sides have certificates of {have}")
    return [one for one in sets if one.costs == common[0]]


def _side(sets: Sequence[Certified], rule: str | None, answer: str | None, *, run: str) -> Certified:
    """The one set that a run, a rule and an answer mean."""
    locations = {one.location for one in sets if one.origin is None}
    location = run if run in locations else resolve_run(run).location
    found = [one for one in sets if one.location == location and rule in (None, one.decision_spec, one.decision)]
    if answer is not None:
        says = as_answer(answer, sets[0].matrix.num_classes, sets[0].matrix.class_names)
        found = [one for one in found if one.answer == says]
    if not found:
        of = ("" if rule is None else f" by rule {rule}") + ("" if answer is None else f" by answer {answer}")
        raise UserError(f"{run} has no certificates under {sets[0].costs}{of}; make them with `raycsr certify`")
    if len(found) > 1:
        several = list(dict.fromkeys(one.rule for one in found))
        if len({one.answer.id for one in found}) > 1:
            said = first_of([one.answer.spec for one in found], _NAMED)
            raise UserError(f"{run} has the answers {said}; name one for each side by --answers")
        if len(several) > 1:
            raise UserError(f"{run} has the rules {first_of(several, _NAMED)}; name one for each side by --rules")
        alphas = ", ".join(one.costs for one in found)
        raise UserError(
            f"{run} has several certificate sets of these costs ({alphas}); compare those of one alpha from Python, by "
            "raycsr.compare of raycsr.load_certificates(run, costs=..., alpha=...)"
        )
    return found[0]


def read_groups(location: str) -> dict[str, str | None]:
    """Reads which group each image is of: image_id -> name of the group, None for an image that stands alone.

    Args:
        location: A CSV, local or s3://, with a header `image_id,group` and a row an image.

    Raises:
        UserError: it cannot be read, or has an image twice.
    """
    try:
        rows, _ = table_of(Store(location).read())
    except csv.Error as error:
        raise UserError(f"groups {location} cannot be read: {error}; give a CSV of image_id and group") from None
    if not rows or tuple(cell.casefold() for cell in rows[0]) != _HEADER:
        raise UserError(f"groups {location} begin with no header; write image_id,group, then a row an image")
    groups: dict[str, str | None] = {}
    for row in rows[1:]:
        if len(row) != 2:
            raise UserError(f"groups {location} have a row {','.join(row)!r}; give image_id,group")
        if row[0] in groups:
            raise UserError(f"groups {location} have image {row[0]!r} twice; give each image one group")
        groups[row[0]] = row[1] or None
    return groups


def compose_comparison(of: Compared) -> Document:
    """Composes what is said of a comparison."""
    described = f"Differences of {of.b.label} to {of.a.label}, with 95 % intervals"
    plotted = kept(
        described, lambda: [Picture(plot_differences(of, Form.WIDE), plot_differences(of, Form.NARROW), described)]
    )
    return Document(
        f"B against A at radius {of.radius:g}",
        [
            Notes([f"A: {of.a.label}", f"B: {of.b.label}", f"costs: {of.a.costs}"]),
            Section("Differences", [Paragraph(_verdict(of)), difference_table(of), *plotted]),
            Section("How to read this", [Notes(_notes(of))]),
            Section("What this stands on", [stands_on([of.a, of.b])]),
        ],
    )


def difference_table(of: Compared) -> Table:
    """The differences, a row a metric."""
    numbers = ("images", "A", "B", "B - A", "A better on", "B better on", "p", "p (Holm)")
    columns = [Column("metric"), *(Column(title, numeric=True) for title in numbers), Column("verdict")]
    rows = []
    for row in of.table.to_dict("records"):
        limits = f"[{row['difference_low']:+.3f}, {row['difference_high']:+.3f}]"
        cells = [METRICS[row["metric"]].title, f"{row['num_images']:,}", f"{row['a']:.3f}", f"{row['b']:.3f}"]
        cells += [f"{row['difference']:+.3f} {limits}", f"{row['a_better']:,}", f"{row['b_better']:,}"]
        cells += [p_in_words(row["p"]), p_in_words(row["p_holm"]), _verdict_of(row)]
        rows.append(cells)
    return Table(columns, rows)


def _verdict_of(row: dict) -> str:
    told = f"{row['better'].upper()} is better" if row["better"] else "not told apart"
    no_worse = row.get("no_worse", pd.NA)
    return told if pd.isna(no_worse) else f"{told}; {'no worse' if no_worse else 'may be worse'}"


def _verdict(of: Compared) -> str:
    """What the table shows, in a sentence."""
    names = {
        side: [METRICS[name].title for name in of.table["metric"][of.table["better"] == side]] for side in ("a", "b")
    }
    told = [f"{side.upper()} is better in {', '.join(those)}" for side, those in names.items() if those]
    return f"{'; '.join(told)}." if told else f"Nothing tells A and B apart at p < {SIGNIFICANCE:g}."


def _notes(of: Compared) -> list[str]:
    a, b = (set(one.certificates["image_id"]) for one in (of.a, of.b))
    common = len(a & b)
    notes = [
        f"Paired: the {common:,} images that both have certificates of; of those, A better on and B better on count "
        "where the two differ.",
        "p: how often chance alone, were A and B exchangeable, would give a difference as large. Shares of independent "
        "images: the exact McNemar test; else exchanges of A and B, image by image or group by group.",
        f"p (Holm): corrected for the {len(of.table)} metrics of the table; a verdict asks for less than "
        f"{SIGNIFICANCE:g}. Brackets: 95 % interval of each difference alone.",
        "A rule or a model that was picked because it is best on these very images has no valid p.",
    ]
    if of.margin is not None:
        notes.append(
            f"no worse: the interval lies above -{of.margin:g}, so that B loses no more than that; said falsely with "
            "probability 2.5 % at most. It is asked of shares alone."
        )
    if len(a) != common or len(b) != common:
        notes.append(f"Of other images, A has {len(a) - common:,} and B has {len(b) - common:,}: they are left out.")
    if of.a.input_size != of.b.input_size:
        sizes = " and ".join(f"{h} x {w} px" for h, w in filter(None, (of.a.input_size, of.b.input_size)))
        notes.append(f"Radii are measured at {sizes}: the same radius is not the same perturbation.")
    if of.a.method != of.b.method:
        notes.append(f"A is certified by {of.a.method}, B by {of.b.method}: the difference is theirs, too.")
    return notes + _other_files(of) + images_in_words([of.a, of.b])


def _other_files(of: Compared) -> list[str]:
    """Whether images of one id are other files in the two runs."""
    if of.a.origin is None or of.b.origin is None or of.a.location == of.b.location:
        return []
    listings = [one.origin.images().set_index("image_id")["size"] for one in (of.a, of.b) if one.origin is not None]
    both = pd.concat(listings, axis=1, join="inner", keys=["a", "b"])
    differ = int((both["a"] != both["b"]).sum())
    return [f"{differ:,} images of one id are files of another size in B: are they the same?"] if differ else []


def plot_differences(of: Compared, form: Form = Form.PNG) -> bytes:
    """Draws B - A with its 95 % interval: the shares in one panel, each mean in its own, for it has its own unit.

    Args:
        of: The comparison.
        form: What becomes of it.

    Returns:
        A picture. Filled points are differences that are significant.
    """
    shares = of.table[[METRICS[name].is_share for name in of.table["metric"]]]
    means = of.table.drop(shares.index)
    panels = ([shares] if len(shares) else []) + [means.iloc[[i]] for i in range(len(means))]
    heights = [len(rows) + 1.2 for rows in panels]
    with styled(of.a.label, of.b.label):
        figure = Figure(
            figsize=(NARROW if form is Form.NARROW else 8, 0.9 + 0.42 * sum(heights)), dpi=120, layout="constrained"
        )
        axes = figure.subplots(max(1, len(panels)), 1, squeeze=False, height_ratios=heights or [1.0])[:, 0]
        for axis, rows in zip(axes, panels, strict=False):
            _draw(axis, rows)
            axis.xaxis.set_major_locator(MaxNLocator(3 if form is Form.NARROW else 7))
        title = f"B - A at radius {of.radius:g}, 95 % intervals; filled: p (Holm) < {SIGNIFICANCE:g}"
        figure.suptitle(fitted(title, form), fontsize=9)
        figure.supxlabel(fitted(f"A: {of.a.label}\nB: {of.b.label}", form), fontsize=9)
        return rendered(figure, form)


def _draw(axis: Axes, rows: pd.DataFrame) -> None:
    """Differences from top to bottom."""
    for place, row in enumerate(rows.to_dict("records")):
        low, high = row["difference_low"], row["difference_high"]
        colour = {"": "0.45", "a": "C1", "b": "C0"}[row["better"]]
        axis.plot([low, high], [place, place], color=colour, linewidth=1.6)
        fill = colour if row["better"] else "white"
        axis.plot(row["difference"], place, "o", color=colour, markerfacecolor=fill, markersize=6)
    axis.axvline(0, color="0.2", linewidth=0.8)
    titles = [
        METRICS[name].title + ("" if METRICS[name].more_is_better else " (less is better)") for name in rows["metric"]
    ]
    axis.set_yticks(range(len(rows)), titles)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.grid(alpha=0.25, axis="x")
