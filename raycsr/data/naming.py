"""Which class a label is: the user's names and the source's own, brought together and nothing renamed in silence."""

import os
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from raycsr.class_names import are_numbers, check_class_names, tidy
from raycsr.data.files import reason
from raycsr.data.images import Found
from raycsr.data.options import DataOptions
from raycsr.errors import UserError, first_of, shown
from raycsr.store import Store

_MAX_UNNAMED = 100_000  # classes of a source that names none: a label beyond is no index, but would be counted up to
_MAX_FILE = 2**24  # bytes of a file of names
_SHOWN = 3  # classes named in a line


class Naming(NamedTuple):
    """The classes of a listing.

    Attributes:
        class_names: Name of each class, in the order of the labels.
        labels: int32, one an image, among these.
        notes: Lines that tell the user how the names came about.
    """

    class_names: list[str]
    labels: np.ndarray
    notes: list[str]


def name_classes(options: DataOptions, found: Found, where: str) -> Naming:
    """Names the classes of a source.

    Names that the user and the source both have are matched, so labels follow `options.class_names` wherever the
    source knows names; where it knows only numbers, or the user renames its classes, they are matched by position,
    and a note says so.

    Args:
        options: `class_names` are the user's.
        found: The source's images and own names.
        where: The source, for messages.

    Raises:
        UserError: names are missing, there twice, or would give a class another's; a label has no class.
    """
    given, own = _given(options), found.class_names
    if given is not None:
        check_class_names(given, "data.class_names")
    if own is None:
        return _numbered(found.images, given)
    _refuse_outside(found.images, len(own))
    labels = found.images.label.to_numpy()
    own = [tidy(name) for name in own]
    notes = _unused(own, labels)
    if given is None:
        check_class_names(own, where)
        return Naming(own, labels, [*_order_of_numbers(own), *notes])
    place = _places(own, given, where)
    moved = [f"{shown(given[k])} is {k}" for i, k in enumerate(place) if i != k]
    renamed = [
        f"{shown(a)} -> {shown(given[k])}" for a, k in zip(own, place, strict=True) if _keys([a]) != _keys([given[k]])
    ]
    if renamed:
        notes.insert(0, f"renamed by position, as data.class_names has other names: {_some(renamed)}")
    elif moved:
        notes.insert(0, f"numbered as data.class_names lists them: {_some(moved)}")
    return Naming(given, np.array(place, "int32")[labels], notes)


def unlabelled(options: DataOptions, found: Found) -> Naming:
    """No label of any image, under the user's names of the classes, if any."""
    return Naming(_given(options) or [], np.full(len(found.images), -1, np.int32), [])


def _places(own: Sequence[str], given: Sequence[str], where: str) -> list[int]:
    """Where each of the source's own classes is among the user's: by name, else by position."""
    ours, theirs = _keys(own), _keys(given)
    if len(set(ours)) < len(ours) or len(set(theirs)) < len(theirs):  # names that differ in case alone
        ours, theirs = list(own), list(given)
    index = {name: k for k, name in enumerate(theirs)}
    missing = [name for name, key in zip(own, ours, strict=True) if key not in index]
    if not missing and len(set(ours)) == len(ours):
        return [index[key] for key in ours]
    if len(own) != len(given):
        raise UserError(
            f"class_names has {len(given)} names, {where} has {len(own)} classes, which are not all among them: "
            f"{_some([shown(name) for name in missing or own])}"
        )
    for k, key in enumerate(ours):
        if index.get(key, k) != k:
            raise UserError(
                f"class_names has {shown(given[index[key]])} at {index[key]} and {where} has it at {k}; its names are "
                f"{_some([shown(name) for name in own])}: list all of them in the order you want, or rename each in "
                "its place"
            )
    return list(range(len(own)))


def _keys(names: Sequence[str]) -> list[str]:
    return [name.casefold() for name in names]


def _numbered(images: pd.DataFrame, given: list[str] | None) -> Naming:
    """The classes of a source that has numbers alone."""
    labels = images.label.to_numpy()
    if given is None and labels.max() >= _MAX_UNNAMED:
        first = images.iloc[int(labels.argmax())]
        raise UserError(f"label {first.label} of {first.image_id!r} is no class index: number the classes from 0")
    names = [str(label) for label in range(labels.max() + 1)] if given is None else given
    _refuse_outside(images, len(names))
    by_position = [f"{k} -> {shown(name)}" for k, name in enumerate(names)]
    note = f"named by position, as the source has numbers alone: {_some(by_position)}"
    return Naming(names, labels, [note] if given is not None else [])


def _refuse_outside(images: pd.DataFrame, classes: int) -> None:
    outside = images[(images.label < 0) | (images.label >= classes)]
    if not outside.empty:
        first = outside.iloc[0]
        raise UserError(
            f"{len(outside)} labels are outside 0..{classes - 1}, the first is {first.label} of "
            f"{first.image_id!r}: choose a labelled split, or give all class_names"
        )


def _order_of_numbers(own: list[str]) -> list[str]:
    """A note where folders 1, 2, 10 come in another order than a person counts in."""
    if not are_numbers(own):
        return []
    counted = sorted(own, key=lambda name: (len(name.lstrip("0")), name.lstrip("0"), name))
    moved = [f"{shown(name)} is {k}" for k, name in enumerate(own) if counted[k] != name]
    if not moved:
        return []
    first = ", ".join(shown(name) for name in counted[:_SHOWN])
    return [f"numbers are names here, in the order of text: {_some(moved)}; else list data.class_names: {first}, ..."]


def _unused(own: list[str], labels: np.ndarray) -> list[str]:
    empty = [shown(own[k]) for k in np.flatnonzero(np.bincount(labels, minlength=len(own)) == 0)]
    return [f"without an image: {_some(empty)}"] if empty else []


def _some(words: list[str]) -> str:
    return first_of(words, _SHOWN)


def _given(options: DataOptions) -> list[str] | None:
    """The user's names."""
    names = options.class_names
    if isinstance(names, str):
        names = _read(names)
    return None if names is None else [tidy(str(name)) for name in names]


def _read(path: str) -> list[str]:
    """The lines of a file of names; blank ones may end it."""
    if path.lstrip().startswith("["):  # a list that is none of texts
        raise UserError(f"class_names {shown(path)} are not all text; put quotes around 1, no, null and the like")
    try:
        content = Store(os.path.expanduser(path)).read("", lambda size: size <= _MAX_FILE)
        utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # as editors mark it
        lines = content.decode("utf-16" if utf16 else "utf-8-sig").rstrip().split("\n")
    except (UserError, ValueError) as error:  # ValueError: a text that cannot be one
        why = f"cannot read class_names {shown(path)}: {reason(error)}"
        raise UserError(f"{why}; give a list [cat, dog], or a text file with a name a line") from None
    blank = next((number for number, line in enumerate(lines, 1) if not line.strip()), None)
    if blank is not None:
        raise UserError(f"class_names {shown(path)} has no name in line {blank}; give one name a line")
    return lines
