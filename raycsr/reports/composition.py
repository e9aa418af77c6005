"""What a report says, in the order in which it is read: what it comes to, how to read it, what it stands on, more."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from raycsr.certification import class_recalls, costliest_images
from raycsr.certification.comparison import against_first
from raycsr.errors import UserError
from raycsr.reports.attacked import attacked_table, audited, plot_attacked
from raycsr.reports.certified import Certified, pairwise_tables
from raycsr.reports.class_plots import captions, plot_pairwise, plot_recalls
from raycsr.reports.comparison import (
    BUDGET,
    at_equal_accuracy,
    front,
    metric_in_words,
    rank_points,
)
from raycsr.reports.curves import plot_curves, plot_front
from raycsr.reports.document import (
    Block,
    Captioned,
    Column,
    Details,
    Document,
    Gallery,
    Notes,
    Paragraph,
    Picture,
    Section,
    Table,
    kept,
)
from raycsr.reports.drawing import Form
from raycsr.reports.findings import Findings
from raycsr.reports.headlines import costly_mistakes, headlines
from raycsr.reports.looks import Looks
from raycsr.reports.notes import GLOSSARY, notes_on
from raycsr.reports.stand import stands_on
from raycsr.reports.sureness import EXPLAINED as SURENESS
from raycsr.reports.sureness import plot_sureness
from raycsr.reports.tables import equal_accuracy_table, front_table, ranking_table, summary_table, without

_UNFOLDED = 16  # rows of all numbers up to which they are shown unasked
_IMAGES = 12  # of the costliest
_NOISY = 4  # of which so many stand beside a noisy copy
_SHOWN = 2  # images beside pictures near them, and worst pictures of a set

LEFT_OUT = (
    "Pictures of images and the names of their files are left out, for pages travel: `--pictures true` shows them."
)


def compose(found: Findings, *, pictures: bool = False) -> Document:
    """Composes a report; what only its page has room for is made where that is rendered.

    Args:
        found: Findings to report on.
        pictures: Whether the page shows images of the data, with the names of their files.
    """
    return Document(
        "Certified robustness",
        [
            _section("In short", lambda: headlines(found.looked_at, found.points, found.radius)),
            _section("What this stands on", lambda: [stands_on(found.sets)]),
            _section("How to read this", lambda: [Notes(notes_on(found)), Details("the glossary", _glossary)]),
            _section("All numbers", lambda: [summary_table(found.table)], folded=len(found.table) > _UNFOLDED),
            Details("How sure the answers are", partial(_sureness, found)),
            Details(f"What a radius of {found.radius:g} looks like", partial(_a_radius, found, pictures)),
            *(
                _section(f"Costs: {costs}", partial(_of_costs, found, costs, pictures))
                for costs in dict.fromkeys(one.costs for one in found.sets)
            ),
        ],
    )


def _section(title: str, make: Callable[[], Sequence[Block]], folded: bool = False) -> Section:
    """A section of what is made, or of a sentence that says that it failed: the others stay."""
    return Section(title, kept(title, make), folded)


def _only_page(title: str, costs: str, make: Callable[[], Sequence[Block]]) -> Details:
    """A folded section of the page about some costs; a sentence that nobody has to unfold, where it fails."""
    return Details(f"{title} under {costs}", lambda: [Section(title, make(), folded=True)])


def _picture(plot: Callable[..., bytes], description: str) -> list[Block]:
    """What a plot draws, for a page: side by side, and one below the other."""
    return [Picture(plot(form=Form.WIDE), plot(form=Form.NARROW), description)]


def _glossary() -> list[Block]:
    return [Section("Twelve words", [Notes([f"{word}: {meaning}" for word, meaning in GLOSSARY.items()])], folded=True)]


def _of_costs(found: Findings, costs: str, pictures: bool) -> list[Block]:
    """Everything about one cost matrix; what there is nothing to say of is left out.

    Args:
        found: Findings to report on.
        costs: The matrix.
        pictures: Whether images are shown themselves.
    """
    looked_at = found.looked_at[costs]
    at, ranked = f"at radius {found.radius:g}", rank_points(found.points[found.points["costs"] == costs])
    blocks: list[Block] = [Paragraph(costly_mistakes(looked_at[0]))]
    if len(ranked) > 1:
        blocks.append(_only_page(f"Ranking {at}", costs, lambda: _ranking(found, ranked)))
    blocks.append(_only_page("Certified curves", costs, lambda: _curves(found, costs)))
    attacked = kept(f"Attacks under {costs}", lambda: _attacked(found, costs, pictures))
    if attacked:
        blocks.append(Section("Attacks", attacked, folded=True))
    if len(ranked) > 1:
        front = kept(f"The front under {costs}", lambda: _front(found, costs))
        blocks.append(Section(f"Front {at}", front, folded=True))
    if len(ranked):
        blocks.append(_only_page(f"Pairs of classes {at}", costs, lambda: _pairs(found, costs, looked_at)))
    blocks.append(_only_page("Recall of each class", costs, lambda: _recalls(looked_at, found.looks)))
    if len(ranked):
        worst = partial(_costliest, looked_at[-1], found.radius, pictures)
        blocks.append(_only_page(f"The costliest images {at}", costs, worst))
    return blocks


def _sureness(found: Findings) -> list[Block]:
    """The distribution of the answer's share; nothing where only published tables are shown."""
    wide, narrow = (plot_sureness(found.drawn, form, found.looks) for form in (Form.WIDE, Form.NARROW))
    if wide is None or narrow is None:
        return []
    described = "How many images are answered rightly by each share of votes"
    return [Section("How sure the answers are", [Paragraph(SURENESS), Picture(wide, narrow, described)], folded=True)]


def _a_radius(found: Findings, shown: bool) -> list[Block]:
    """What the radius of comparison and the noise look like, on images of the first run that can be read."""
    from raycsr.reports.perturbed import EXPLAINED, gallery, perturbed  # what reads data, which only the page needs
    from raycsr.reports.photographs import read_pictures

    one = next((one for one in found.sets if one.origin is not None), None)
    if one is None or one.origin is None or not found.radius:
        return []
    title = f"What a radius of {found.radius:g} looks like"
    if not shown:
        return [
            Section(title, [Paragraph(f"{LEFT_OUT} `raycsr show` does so before anything is sampled.")], folded=True)
        ]
    rows = one.certificates.iloc[np.unique(np.linspace(0, len(one.certificates) - 1, _SHOWN).astype(int))]
    sigma, blocks = one.origin.manifest()["sigma"], list[Block]([Paragraph(EXPLAINED)])
    try:
        pictures = read_pictures(one.origin, rows)
    except UserError as error:
        pictures = []
        blocks = [Paragraph(f"The images of {one.run} cannot be shown: {error}")]
    for name, picture in zip(rows["image_id"], pictures, strict=False):
        if isinstance(picture, str):
            blocks.append(Paragraph(f"{name} cannot be shown: {picture}"))
        else:
            blocks.append(gallery(picture, name, perturbed(picture, name, radius=found.radius, sigma=sigma)))
    return [Section(title, blocks, folded=True)]


def _ranking(found: Findings, ranked: pd.DataFrame) -> list[Block]:
    """The ranking of one costs, with what is told apart from the first, image by image."""
    metric = ranked["metric"].iloc[0]
    explained = (
        f"By {metric_in_words(metric)}, among those whose accuracy is at most {BUDGET:g} below the "
        "most accurate; the others come after. One that is picked from these very images has no valid alpha. Against "
        "the first: whether chance alone explains the difference, by the images that both have, where intervals side "
        "by side do not tell; p is corrected for all pairs, since the first was picked from them."
    )
    by_key = {(one.run, one.costs, one.rule_id): one for one in found.sets}
    keys = zip(ranked["run"], ranked["costs"], ranked["rule_id"], strict=True)
    sets = [by_key[key] for key in keys]
    frames = [one.certificates for one in sets]
    against = against_first(frames, costs=sets[0].matrix, radius=found.radius, metric=metric)
    return [Paragraph(explained), ranking_table(ranked, against)]


def _curves(found: Findings, costs: str) -> list[Block]:
    explained = (
        "As perturbations may be larger, the shares fall and the cost rises. Bands: the intervals that tables have in "
        "brackets."
    )
    of_costs = {key: curve for key, curve in found.curves.items() if key[1] == costs}
    plot = partial(plot_curves, of_costs, looks=found.looks)
    return [Paragraph(explained), *_picture(plot, f"Certified curves under {costs}")]


def _attacked(found: Findings, costs: str, pictures: bool) -> list[Block]:
    """What attacks found under one costs; nothing where there were none."""
    blocks: list[Block] = [
        Paragraph(line) for line in audited([one for one in found.sets if one.costs == costs], found.attacks)
    ]
    shares = found.attacked[found.attacked["costs"] == costs]
    of_costs = [one for one in found.sets if one.costs == costs and len(found.attacks[one.key])]
    blocks += [Details(f"The worst pictures of {one.label}", partial(_worst, one)) for one in of_costs if pictures]
    if shares.empty:
        return blocks
    explained = (
        "Of the images that were attacked at a radius: rob_cs and certified accuracy, which are certified, are lower "
        "bounds on the shares that are robust; not broken and not wrong, which attacks leave, are upper bounds, but "
        "for verdicts that are false with probability 1e-6 each. Brackets: 95 % interval over images."
    )
    described = f"What is certified under {costs}, and above it what attacks leave"
    plot = partial(plot_attacked, shares, found.curves, looks=found.looks)
    picture = Details(described, partial(_picture, plot, described))
    return [*blocks, Paragraph(explained), picture, attacked_table(shares)]


def _worst(one: Certified) -> Sequence[Block]:
    """The nearest pictures on which attacks of a set succeeded."""
    from raycsr.reports.worst import worst_found  # what reads data, which only the page needs

    return worst_found(one, _SHOWN)


def _front(found: Findings, costs: str) -> list[Block]:
    """The front of one costs, and the runs at equal accuracy."""
    points = found.compared[found.compared["costs"] == costs]
    by, on_front, equal = metric_in_words(str(points["metric"].iloc[0])), front(points), at_equal_accuracy(points)
    blocks: list[Block] = [
        Paragraph(f"Each run's decision rules that no other of its rules beats in both accuracy and {by}."),
        Details(f"The picture of the front under {costs}", lambda: _front_picture(points, found.looks)),
        without(front_table(on_front), "costs"),
    ]
    if len(equal):
        explained = (
            f"At equal accuracy: the best {by} among a run's rules whose accuracy is at least that of the reference "
            "(the most accurate argmax), less the loss."
        )
        blocks += [Paragraph(explained), without(equal_accuracy_table(equal), "costs")]
    return blocks


def _front_picture(points: pd.DataFrame, looks: Looks) -> list[Block]:
    costs, metric = points["costs"].iloc[0], points["metric"].iloc[0]
    colours = "" if looks.coloured == "rule" else ", a colour a run"
    return [
        Paragraph(
            f"A point is a decision rule{colours}, the outlined point its argmax. Up and to the right is better."
        ),
        *_picture(
            partial(plot_front, points, looks=looks),
            f"Accuracy against {metric} under {costs}, and the recalls paid for it",
        ),
    ]


def _counted(tables: dict[str, pd.DataFrame], sets: Sequence[Certified]) -> dict[str, pd.DataFrame]:
    """What `pairwise_tables` returns of some sets, the number of images behind the name of each row."""
    images = [np.bincount(one.certificates["label"], minlength=one.matrix.num_classes).tolist() for one in sets]
    (seeds,) = np.nonzero(sets[0].matrix.sensitive)
    rows = [[of_set[seeds[0]] for of_set in images]] if len(seeds) == 1 else images
    counted = {}
    for (title, table), of_rows in zip(tables.items(), rows, strict=True):
        names = [f"{name} (N={n:,})" for name, n in zip(table.index, of_rows, strict=True)]
        counted[title] = table.set_axis(pd.Index(names, name=table.index.name))
    return counted


def _pairs(found: Findings, costs: str, looked_at: Sequence[Certified]) -> list[Block]:
    """Of one seed class a row for each run and rule that is drawn; of several a picture each of those looked at."""
    one_seed = np.count_nonzero(looked_at[0].matrix.sensitive) == 1
    drawn = [one for one in found.drawn if one.costs == costs]
    explained = (
        "A row is a class of images (N of them), a column a class that they must not be taken for: the darker, the "
        "larger the share of the images on which that is ruled out. The lightest cell is where to begin."
    )
    tables = _counted(pairwise_tables(drawn if one_seed else looked_at, found.radius), drawn if one_seed else looked_at)
    described = "Share of images that no perturbation turns into each other class: {}"
    plots = {title: partial(plot_pairwise, of, radius=found.radius, title=title) for title, of in tables.items()}
    pictures = {described.format(title): plot for title, plot in plots.items()}
    return [Paragraph(explained), *(Details(name, partial(_picture, plot, name)) for name, plot in pictures.items())]


def _recalls(looked_at: Sequence[Certified], looks: Looks) -> list[Block]:
    explained = (
        "What the costs of one class take from the others: compare the bars of each class. Lines: 95 % intervals."
    )
    recalls = {one.label: class_recalls(one.certificates, one.matrix.num_classes) for one in looked_at}
    of_sets = {one.label: looks.of_key(one.key) for one in looked_at}
    plot = partial(plot_recalls, recalls, looked_at[0].matrix.class_names, looks=of_sets)
    return [Paragraph(explained), *_picture(plot, f"Recall of each class: {' and '.join(recalls)}")]


def _costliest(one: Certified, radius: float, pictures: bool) -> list[Block]:
    """The images on which an adversary may do the greatest damage; with their pictures where these may be shown."""
    images = costliest_images(one.certificates, costs=one.matrix, radius=radius, k=_IMAGES)
    if images.empty or one.origin is None:
        return [Paragraph(f"Of {one.label} there is no image on which a costly mistake is left.")]
    explained = Paragraph(
        f"Of {one.label}: what an adversary within the radius can cost at most, how far each image is certified, and "
        "what is answered today. Look for what they have in common."
    )
    lines = captions(images, one.matrix)
    columns = [Column(title) for title in ("image", "may be taken for", "cost", "certified", "today")]
    if not pictures:
        place = pd.Series(one.positions).set_axis(one.certificates["image_id"])
        rows = [[f"row {place[name] + 1:,} of the listing", *line] for name, *line in lines]
        return [explained, Table(columns, rows), Paragraph(LEFT_OUT)]
    return [explained, *_pictured(one, images, lines, Table(columns, lines))]


def _pictured(one: Certified, images: pd.DataFrame, lines: Sequence[Sequence[str]], table: Table) -> list[Block]:
    """Images above their lines, the first beside a noisy copy; the table where the images cannot be read."""
    from raycsr.reports.perturbed import as_seen  # what reads data, which only this needs
    from raycsr.reports.photographs import read_pictures, small_png

    assert one.origin is not None
    try:
        pictures = read_pictures(one.origin, images)
    except UserError as error:
        return [Paragraph(f"Their pictures cannot be shown: {error}"), table]
    sigma, shown = one.origin.manifest()["sigma"], list[Captioned]()
    for picture, of_image in zip(pictures, lines, strict=True):
        shown.append(Captioned(picture if isinstance(picture, str) else small_png(picture), of_image))
        if not isinstance(picture, str) and len(shown) < 2 * _NOISY:
            noisy = as_seen(picture, of_image[0], sigma)
            shown.append(Captioned(small_png(noisy.pixels), ["the same, noisy", noisy.title]))
    return [Gallery(shown)]
