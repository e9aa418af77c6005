"""What a report comes to, in sentences that need no other word of it: a few a cost matrix."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from raycsr.certification.summary import RHO
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
        said.append(Notes([_sentences(one, _point(one, points), radius) for one in sets]))
    return [*said, *(Paragraph(line) for line in _sizes([one for sets in looked_at.values() for one in sets], radius))]


def costly_mistakes(one: Certified) -> str:
    """The costly mistakes of a cost matrix, in words."""
    if one.origin is None:
        return "A published table of standard certificates: it has no votes to certify costs from."
    if not one.matrix.sensitive.any():
        return "No mistake is costly."
    return f"Costly mistakes: images of {_true_classes(one)} taken for {_costly_answers(one)}."


def _true_classes(one: Certified) -> str:
    seeds = np.flatnonzero(one.matrix.sensitive)
    return "any class" if len(seeds) == one.matrix.num_classes else _names(one, seeds)


def _costly_answers(one: Certified) -> str:
    targets = np.flatnonzero(one.matrix.target_classes)
    return "any other class" if len(targets) >= one.matrix.num_classes - 1 else _names(one, targets)


def _names(one: Certified, classes: Sequence[int] | np.ndarray) -> str:
    names = one.matrix.class_names or [str(y) for y in range(one.matrix.num_classes)]
    return first_of([names[y] for y in classes], _NAMED)


def _point(one: Certified, points: pd.DataFrame) -> pd.Series:
    (row,) = points.index[
        (points["run"] == one.run) & (points["costs"] == one.costs) & (points["rule_id"] == one.rule_id)
    ]
    return points.loc[row]


def _sentences(one: Certified, point: pd.Series, radius: float) -> str:
    """What holds for the images of one set, and how the classifier does where nobody perturbs them."""
    within = f"no change of L2 size up to {radius:g}" if radius else "nothing but noise"
    if point["num_sensitive"] and not np.isnan(point["rob_cs"]):
        images, metric = int(point["num_sensitive"]), "rob_cs"
        of = "" if one.matrix.sensitive.all() else f" of {_true_classes(one)}"
        makes = f"{within} makes the smoothed classifier answer {_costly_answers(one)}"
    else:
        images, metric, of = int(point["num_images"]), "certified_accuracy", ""
        makes = f"the answer is right, and {within} makes it another"
    certified = round(images * point[metric])
    truly = point[f"{metric}_guaranteed"]
    surely = "" if np.isnan(truly) else f" ({1 - RHO:.1%} sure: truly on {max(0, round(images * truly)):,} at least)"
    left = ""
    if point["metric"] == "rob_cost":
        left = f" The costs of the mistakes that are not ruled out come to {point['rob_cost']:.3g} an image on average."
    rest = (
        f"Unchanged, {point['accuracy']:.1%} of all {int(point['num_images']):,} images are provably answered rightly"
    )
    if not one.answer.is_argmax:
        rest += f", and {1 - point['coverage']:.1%} are left to a person; an attacker can make that more"
    return f"{one.label}: on {certified:,} of {images:,} images{of}{surely}, {makes}.{left} {rest}.{_warning(one)}"


def _warning(one: Certified) -> str:
    return (
        f" Yet it hardly ever answers some class rightly, which makes others safe: {one.collapse}."
        if one.collapse
        else ""
    )


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
