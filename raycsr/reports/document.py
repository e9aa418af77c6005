"""report.html: tables, curves, front, heat maps, recalls and the costliest images, a section a cost matrix."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from raycsr.certification import class_recalls, costliest_images, group_numbers
from raycsr.certification.summary import RHO
from raycsr.errors import UserError
from raycsr.reports import (
    Certified,
    at_equal_accuracy,
    format_equal_accuracy,
    format_front,
    front,
    pairwise_tables,
    rank_points,
    reference_and_best,
)
from raycsr.reports.class_plots import captions, plot_pairwise, plot_recalls
from raycsr.reports.comparison import BUDGET, DRAWN_LOSS, MOST_DRAWN, metric_in_words
from raycsr.reports.curves import Curves, plot_curves, plot_front
from raycsr.reports.html import Captioned, Gallery, Notes, Part, Picture, Section, Table, render_page
from raycsr.reports.stand import Stand
from raycsr.reports.tables import collapse_line, equal_accuracy_rows, front_rows, ranking_rows, summary_rows
from raycsr.results import seen_images_of

_IMAGES = 12  # of the costliest
_NAMED = 8  # classes in a sentence


def report_page(
    sets: Sequence[Certified],
    table: pd.DataFrame,
    curves: Curves,
    radius: float,
    notes: Sequence[str],
    stand: Stand,
) -> str:
    """The page of a report.

    Args:
        sets: what is reported on.
        table: their summaries at all radii.
        curves: what is drawn of them.
        radius: at which runs and rules are compared.
        notes: what a reader must know.
        stand: what it all stands on.

    Returns:
        HTML that needs nothing but itself.
    """
    compared = reference_and_best(sets, table[table["radius"] == radius])
    sections = [
        Section("How to read this page", [Notes([*_TERMS, *notes])]),
        Section("What this stands on", [Table(stand.rows())]),
    ]
    for costs in dict.fromkeys(one.costs for one in sets):
        of_costs = [one for one in sets if one.costs == costs]
        rows = table[table["costs"] == costs]
        of_curves = {key: curve for key, curve in curves.items() if key[1] == costs}
        sections.append(_costs_section(costs, of_costs, compared[costs], rows, of_curves, radius))
    return render_page("Certified robustness", sections)


_TERMS = [
    "Certified at radius r: no perturbation of the image whose L2 norm is at most r changes what is certified.",
    "certified accuracy: of all images, the share that is answered rightly, and stays so.",
    "rob_cs: of the images on which some mistake is costly, the share on which no perturbation makes a costly one.",
    "images, sensitive images, target images: how many the numbers beside them stand on: all, those on which some "
    "mistake is costly, those of classes that are costly to answer.",
    "rob_cost, worst cost: the mean of the costs that are not ruled out, and of the largest of them. Less is better.",
    "seed recall, target recall: the share answered rightly of the classes with costly mistakes, and of the classes "
    "that are costly to answer. Read them beside rob_cs: a model that calls everything a cat never mistakes a cat.",
]


def _costs_section(
    costs: str,
    sets: Sequence[Certified],
    shown: Sequence[Certified],
    table: pd.DataFrame,
    curves: Curves,
    radius: float,
) -> Section:
    """Everything about one cost matrix; what there is nothing to say of is left out."""
    points = table[table["radius"] == radius]
    ranked = rank_points(points)
    drawn = [one for one in sets if one.key in curves]
    below = []
    if len(ranked) > 1:
        parts = [_ranking(ranked["metric"].iloc[0]), *_marked(ranking_rows(ranked), ranked)]
        below.append(Section(f"Ranking at radius {radius:g}", parts))
    picture = Picture(plot_curves(curves), f"Certified curves under {costs}")
    below.append(Section("Certified curves", [_CURVES, picture]))
    if len(ranked) > 1:
        parts = _front_parts(costs, points[points["rob_cs"].notna()])
        below.append(Section(f"Front at radius {radius:g}", parts))
    if len(ranked):
        below.append(Section(f"Pairs of classes at radius {radius:g}", [_PAIRS, *_heat_maps(shown, drawn, radius)]))
    below.append(Section("Recall of each class", [_RECALLS, _recalls(shown)]))
    if len(ranked):
        below.append(Section(f"The costliest images at radius {radius:g}", list(_costliest(shown[-1], radius))))
    below.append(Section("All numbers", _marked(_without_costs(summary_rows(table)), table)))
    return Section(f"Costs: {costs}", [_mistakes(sets[0])], below)


_CURVES = (
    "As perturbations may be larger, the shares fall and the cost rises. Bands: the intervals of the brackets below."
)
_PAIRS = (
    "A row is a class of images, a column a class that they must not be taken for: the darker, the larger the share of "
    "the images on which that is ruled out. The lightest cell is where to begin."
)
_RECALLS = "What the costs of one class take from the others: compare the bars of each class. Lines: 95 % intervals."


def _ranking(metric: str) -> str:
    return (
        f"By {metric_in_words(metric)}, among those whose accuracy is at most {BUDGET:g} below the most accurate; the "
        "others come after. One that is picked from these very images has no valid alpha."
    )


def _marked(rows: Sequence[Sequence[str]], of: pd.DataFrame) -> list[Part]:
    """A table, and below it what its marks mean."""
    line = collapse_line(of)
    return [Table(rows), *([line] if line else [])]


def _without_costs(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Rows without the column that the heading says."""
    column = list(rows[0]).index("costs")
    return [[*row[:column], *row[column + 1 :]] for row in rows]


def _mistakes(one: Certified) -> str:
    """The costly mistakes in words."""
    seeds = np.flatnonzero(one.matrix.sensitive).tolist()
    targets = np.flatnonzero(one.matrix.target_classes).tolist()
    if one.origin is None:
        return "A published table of standard certificates: it has no votes to certify costs from."
    if not seeds:
        return "No mistake is costly."
    every = one.matrix.num_classes
    of = "any class" if len(seeds) == every else _names(one, seeds)
    others = "any other class" if len(targets) >= every - 1 else _names(one, targets)
    return f"Costly mistakes: images of {of} taken for {others}."


def _names(one: Certified, classes: Sequence[int]) -> str:
    more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
    return ", ".join(_name(one, y) for y in classes[:_NAMED]) + more


def _name(one: Certified, y: int) -> str:
    return one.matrix.class_names[y] if one.matrix.class_names else str(y)


def _front_parts(costs: str, points: pd.DataFrame) -> list[Part]:
    """The front, and the runs at equal accuracy."""
    metric, on_front, equal = str(points["metric"].iloc[0]), front(points), at_equal_accuracy(points)
    parts: list[Part] = [
        f"Accuracy against {metric_in_words(metric)}. A point is a decision rule, a colour a model, the outlined point "
        "its argmax. Up and to the right is better.",
        Picture(plot_front(points), f"Accuracy against {metric} under {costs}, and the recalls that are paid for it"),
        *_marked(_without_costs(front_rows(on_front)), on_front),
    ]
    if len(equal):
        parts.append(f"At equal accuracy: the best {metric} whose accuracy is the reference's, less a stated loss.")
        parts += _marked(_without_costs(equal_accuracy_rows(equal)), equal)
    return parts


def _heat_maps(shown: Sequence[Certified], drawn: Sequence[Certified], radius: float) -> Iterator[Picture]:
    """Of one seed class a row for each run and rule that is drawn; of several a picture each of the two shown."""
    one_seed = np.count_nonzero(shown[0].matrix.sensitive) == 1
    for title, robustness in pairwise_tables(drawn if one_seed else shown, radius).items():
        picture = plot_pairwise(robustness, radius=radius, title=title)
        yield Picture(picture, f"Share of images that no perturbation turns into each other class: {title}")


def _recalls(shown: Sequence[Certified]) -> Picture:
    recalls = {one.label: class_recalls(one.certificates, one.matrix.num_classes) for one in shown}
    return Picture(plot_recalls(recalls, shown[0].matrix.class_names), f"Recall of each class: {' and '.join(recalls)}")


def _costliest(one: Certified, radius: float) -> Iterator[Part]:
    """The images on which an adversary may do the greatest damage, with their pictures where they can be read."""
    from raycsr.reports.photographs import read_pictures, small_png  # torch, which only this needs

    images = costliest_images(one.certificates, costs=one.matrix, radius=radius, k=_IMAGES)
    if images.empty or one.origin is None:
        yield f"Of {one.label} there is no image on which a costly mistake is left."
        return
    yield f"Of {one.label}: what an adversary within the radius can cost at most. Look for what they have in common."
    lines = captions(images, one.matrix)
    try:
        pictures = read_pictures(one.origin, images)
    except UserError as error:
        yield f"Their pictures cannot be shown: {error}"
        yield Table([["image", "may be taken for", "cost"], *lines])
        return
    yield Gallery(
        [
            Captioned(picture if isinstance(picture, str) else small_png(picture), line)
            for picture, line in zip(pictures, lines, strict=True)
        ]
    )


def compared_lines(points: pd.DataFrame, radius: float) -> list[str]:
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


def _seen(sets: list[Certified]) -> list[str]:
    """Which runs stand on images that their models were trained on, or their rules tuned on."""
    rules: dict[str, list[str]] = {}
    for one in sets:
        rules.setdefault(one.run, []).append(one.rule_id)
    runs = {one.run: one.origin for one in sets if one.origin is not None}
    return [f"{label}: {line}." for label, run in runs.items() for line in seen_images_of(run, rules[label])]


def notes_below(
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
