"""Whether a model, its data and a run that goes on mean the same class by the same number."""

from collections.abc import Sequence

from raycsr.class_names import tidy
from raycsr.data.sources import Listing
from raycsr.errors import UserError, first_of, shown
from raycsr.models.base_classifier import BaseClassifier

_SHOWN = 6  # classes named in a message
_LISTED = 12  # and in a plan


def check_classes(listing: Listing, base_classifier: BaseClassifier, name: str) -> None:
    """Refuses data whose classes are not those of the model, as far as both are named.

    Args:
        listing: Listing of the data.
        base_classifier: Base classifier; one that raycsr trained knows the names of its classes.
        name: Name of the model, as the user wrote it.

    Raises:
        UserError: they have different numbers of classes, or a name that both have is another class in each.
    """
    check_named_classes(listing, base_classifier.num_classes, base_classifier.class_names, f"model {name!r}")


def check_named_classes(listing: Listing, m: int, class_names: Sequence[str] | None, whose: str) -> None:
    """Refuses data whose classes are not those of a model that there is, or that is still to be trained.

    Args:
        listing: Listing of the data.
        m: Number of the model's classes.
        class_names: Their names, where they are known.
        whose: The model, in words.

    Raises:
        UserError: as `check_classes`.
    """
    names = listing.class_names
    if m != len(names):
        why = "".join(f"; {' '.join(note.split())}" for note in listing.notes if note.startswith("classes"))
        raise UserError(
            f"{whose} has {m} classes and the data has {len(names)} ({_some(names)}); they do not belong "
            f"together, or data.class_names must list the model's{why}"
        )
    own = [tidy(one).casefold() for one in class_names or ()]
    for k, one in enumerate(names):
        there = own.index(one.casefold()) if own.count(one.casefold()) == 1 else k
        if there != k:
            raise UserError(
                f"class {shown(one)} is {k} of the data and {there} of {whose}; give data.class_names in the "
                f"order of the model: {_some(class_names or ())}"
            )


def classes_by_position(listing: Listing, base_classifier: BaseClassifier) -> list[str]:
    """A line of a plan where a class is the model's by its number alone: only the user knows whether it is the same."""
    names = listing.class_names
    if base_classifier.class_names is not None:
        return named_otherwise(listing, base_classifier)
    if names == [str(k) for k in range(len(names))]:
        return []
    numbered = [f"{k} {shown(name)}" for k, name in enumerate(names)]
    return [
        f"classes   {first_of(numbered, _LISTED)}: in this order, for the model names none; where it was trained in "
        "another, list data.class_names in that"
    ]


def named_otherwise(listing: Listing, base_classifier: BaseClassifier) -> list[str]:
    """A line of a plan where the model names its classes, and some of them otherwise than the data does."""
    pairs = enumerate(zip(listing.class_names, base_classifier.class_names or (), strict=False))
    apart = [
        f"{k} {shown(one)} for the model's {shown(its)}"
        for k, (one, its) in pairs
        if one.casefold() != tidy(its).casefold()
    ]
    if not apart:
        return []
    return [
        f"classes   {first_of(apart, _LISTED)}: by position alone, for the names differ; where they are not the same, "
        "list data.class_names in the order of the model"
    ]


def check_same_names(before: Sequence[str], now: Sequence[str], run: str) -> None:
    """Refuses to go on with a run under other names of its classes: costs and rules name classes.

    Raises:
        UserError: naming the first class that has another name.
    """
    if list(before) != list(now):
        first = next((k for k, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), 0)
        raise UserError(
            f"run {run} was begun with class_names {_some(before)} and this call has {_some(now)}: class {first} is "
            f"{shown(before[first])} there and {shown(now[first])} here; give data.class_names as they were, or "
            "sample into another --experiment"
        )


def _some(names: Sequence[str]) -> str:
    return first_of([shown(name) for name in names], _SHOWN)
