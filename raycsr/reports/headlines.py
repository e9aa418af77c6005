"""What a report comes to, in sentences that need no other word of it: a few a cost matrix."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from raycsr.certification.summary import RHO, most_false
from raycsr.errors import first_of
from raycsr.reports.certified import Certified
from raycsr.reports.document import Block, Notes, Paragraph

_NAMED = 8  # classes in a sentence
_LEVELS = 255  # grey levels from black to white
_COLOURS = 3  # values of a pixel


def headlines(looked_at: dict[str, list[Certified]], points: pd.DataFrame, radius: float) -> list[Block]:
    """Says of each cost matrix on how many images a costly mistake is ruled out, and what that costs.

    Args:
        looked_at: Costs -> the sets to speak of: the most accurate argmax, and the best.
        points: Summaries of the sets at the radius.
        radius: L2 radius that is spoken of, in [0, 1] pixel units.
    """
    said: list[Block] = []
    for costs, sets in looked_at.items():
        said.append(Paragraph(f"{costs}: {costly_mistakes(sets[0])}"))
        among = int((points["costs"] == costs).sum())
        said.append(Notes([_sentences(one, _point(one, points), radius, among) for one in sets]))
    return [*said, *(Paragraph(line) for line in _sizes([one for sets in looked_at.values() for one in sets], radius))]


def costly_mistakes(one: Certified) -> str:
    """The costly mistakes of a cost matrix, in words."""
    if one.origin is None:
        return "A published table of standard certificates: it has no votes to certify costs from."
    if not one.matrix.sensitive.any():
        return "No mistake is costly."
    said = [f"{seeds} taken for {targets}" for seeds, targets in _mistakes(one)]
    return f"Costly mistakes: images of {first_of(said, _NAMED, '; of ')}."


def _mistakes(one: Certified) -> list[tuple[str, str]]:
    """True classes and what they must not be taken for: pairs of words, of which each holds by itself."""
    if groups := _groups(one):
        return [("any class", f"one of another group: {first_of(groups, _NAMED, ' | ')}")]
    costly, of_class = _costly(one)
    alike: dict[bytes, list[int]] = {}  # by what is costly for them, nothing where it is all but themselves
    for seed in np.flatnonzero(one.matrix.sensitive).tolist():
        rest = one.matrix.num_targets[seed] == one.matrix.num_classes - 1
        alike.setdefault(b"" if rest else costly[of_class[seed]].tobytes(), []).append(seed)
    return [
        (
            "any class" if len(seeds) == one.matrix.num_classes else _names(one, seeds),
            _names(one, np.flatnonzero(costly[of_class[seeds[0]]])) if row else "any other class",
        )
        for row, seeds in alike.items()
    ]


def _costly(one: Certified) -> tuple[NDArray[np.bool_], NDArray[np.integer]]:
    """What is costly to answer, bool (R, m), and which of these rows each class has, (m,).

    A class costs nothing for itself, whatever a row says there that several classes have.
    """
    kept = one.matrix.distinct
    rows, of_row = np.unique(kept.is_positive, axis=0, return_inverse=True)
    of_class = of_row.reshape(-1)[kept.of_class]
    (alone,) = np.nonzero(np.bincount(of_class, minlength=len(rows))[of_class] == 1)
    rows[of_class[alone], alone] = False
    return rows, of_class


def _groups(one: Certified) -> list[str]:
    """The classes of each group, where costs are of groups: to answer outside a class's own costs something."""
    costly, of_class = _costly(one)
    members = np.arange(len(costly))[:, None] == of_class  # (R, m)
    if not (costly ^ members).all() or len(costly) in (1, one.matrix.num_classes):
        return []
    return [_names(one, np.flatnonzero(members[group])) for group in dict.fromkeys(of_class.tolist())]


def _true_classes(one: Certified) -> str:
    seeds = np.flatnonzero(one.matrix.sensitive)
    return "any class" if len(seeds) == one.matrix.num_classes else _names(one, seeds)


def _without_images(one: Certified) -> str:
    """The true classes that nothing is known of, where some have an image."""
    absent = np.setdiff1d(np.flatnonzero(one.matrix.sensitive), one.certificates["label"])
    return f" (there is none of {_names(one, absent)})" if len(absent) else ""


def _costly_answers(one: Certified) -> str:
    """What the smoothed classifier must not answer, behind "answer"."""
    mistakes = _mistakes(one)
    return mistakes[0][1] if len(mistakes) == 1 and not _groups(one) else "a class that is costly for them"


def _names(one: Certified, classes: Sequence[int] | NDArray[np.integer]) -> str:
    names = one.matrix.class_names or [str(y) for y in range(one.matrix.num_classes)]
    return first_of([names[y] for y in classes], _NAMED)


def _point(one: Certified, points: pd.DataFrame) -> pd.Series:
    (row,) = points.index[
        (points["run"] == one.run) & (points["costs"] == one.costs) & (points["rule_id"] == one.rule_id)
    ]
    return points.loc[row]


def _sentences(one: Certified, point: pd.Series, radius: float, among: int) -> str:
    """What holds for the images of one set, picked `among` so many, and how it does where nobody perturbs them."""
    picture = "of the {} x {} picture ".format(*one.input_size) if one.input_size is not None else ""
    within = f"no change {picture}of L2 size up to {radius:g}"
    if point["num_sensitive"] and not np.isnan(point["rob_cs"]):
        images, metric = int(point["num_sensitive"]), "rob_cs"
        of = "" if one.matrix.sensitive.all() else f" of {_true_classes(one)}{_without_images(one)}"
        answer = f"answer {_costly_answers(one)}"
        makes = (
            f"{within} makes the smoothed classifier {answer}"
            if radius
            else f"the smoothed classifier does not {answer}"
        )
    else:
        images, metric, of = int(point["num_images"]), "certified_accuracy", ""
        makes = f"the answer is right{f', and {within} makes it another' if radius else ''}"
    certified = round(images * point[metric])
    surely = ""
    if not np.isnan(one.alpha):
        # all of those among which it was picked have as few false certificates, with probability 1 - RHO together
        truly = max(0, certified - int(most_false(images, one.alpha, among)))
        surely = f" ({1 - RHO:.1%} sure: truly on {truly:,} at least)"
    left = ""
    if point["metric"] == "rob_cost":
        left = (
            f" On average over them, the costliest mistake that is not ruled out comes to "
            f"{_amount(point['worst_case_cost'])} (worst cost), and all such mistakes of an image in sum to "
            f"{_amount(point['rob_cost'])} (rob_cost)."
        )
    number = int(point["num_images"])
    listed = number + one.missing if one.counted is None else one.counted.num_images
    those = f"all {number:,}" + (f" certified (of {listed:,})" if listed > number else "")
    rest = f"Unchanged, {point['accuracy']:.1%} of {those} images are provably answered rightly"
    if not one.answer.is_argmax:
        early = one.ended_early and point["coverage"] < 1
        unknown = ", for sampling ended before that was known of all" if early else ""
        rest += (
            f", and {1 - point['coverage']:.1%} at most are left to a person{unknown}; an attacker can make that more"
        )
    return f"{one.label}: on {certified:,} of {images:,} images{of}{surely}, {makes}.{left} {rest}.{_warning(one)}"


def _warning(one: Certified) -> str:
    return (
        f" Yet it hardly ever answers some class rightly, which makes others safe: {one.collapse}."
        if one.collapse
        else ""
    )


def _amount(cost: float) -> str:
    """A mean of costs, which may be money: never with an exponent of ten where it is large."""
    return f"{cost:,.0f}" if cost >= 100 else f"{cost:.3g}"


def _sizes(sets: Sequence[Certified], radius: float) -> list[str]:
    """How large a change of the radius is, for the sizes at which radii are measured; nothing where none is known."""
    sizes = sorted({one.input_size for one in sets if one.input_size is not None})
    if not radius or not sizes:
        return []
    every = [
        f"{radius * _LEVELS / np.sqrt(_COLOURS * height * width):.2g} of {_LEVELS} grey levels at {height} x {width} px"
        for height, width in sizes
    ]
    return [
        f"A change has L2 size {radius:g} where every colour of every pixel changes by {' and by '.join(every)}, or a "
        f"single one by {min(radius, 1.0) * _LEVELS:.0f}{' and more of them beside' if radius > 1 else ''}; and so has "
        "anything between."
    ]
