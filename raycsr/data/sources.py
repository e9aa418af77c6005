"""Image sources: what to certify, as a listing without pixels, and the images of a block of ids.

Every kind of source is a file with its `SourceKind`, and a line of `_KINDS` at the end; packages add others by entry
points of the group `raycsr.sources`.
"""

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from raycsr.certification import group_numbers
from raycsr.class_names import read_classes
from raycsr.data.csv import CSV, checked_roots
from raycsr.data.imagefolder import IMAGEFOLDER
from raycsr.data.images import LATER, MAX_HELD, Found, Images, Room
from raycsr.data.kinds import SourceKind
from raycsr.data.naming import name_classes, unlabelled
from raycsr.data.options import DataOptions
from raycsr.data.packaged import CIFAR10, DIGITS
from raycsr.data.parquet import PARQUET
from raycsr.data.webdataset import WEBDATASET
from raycsr.errors import UserError, nearest, printable, refuse_credentials
from raycsr.extensions import Extensions
from raycsr.store import Store

_SHOWN = 6  # kinds of files named in the line about those left out


@dataclass(frozen=True)
class Listing:
    """The images of a source, without their pixels.

    Attributes:
        images: One row an image, in natural order of the ids (a2 before a10). Columns:
            image_id (str): relative path with forward slashes, `file#row` or `tar#key`; never absolute.
            label (int32): -1 where the source was opened for images that nobody has labelled.
            size (int64): bytes; for Parquet the mean of the image's row group.
            version (str): of its file, the etag on S3 or the mtime in ns; a constant for packaged data.
            group (str or None): only where the source has groups: what images have in common that belong
                together, such as those of one patient; None for an image that stands alone.
        class_names: Name of each class, in the order of the labels.
        split: The part of the source that the images are of; None where it says no splits.
        identity: Identity of the data for a run's id: the kind of the source and a digest of all its image ids and
            labels, before any subset. It changes neither when the data moves, nor with classes, skip and limit, but
            tells two data sets, and two splits of one, apart.
        notes: Lines of a plan: files that are left out, a split that the data does not have, how the classes came to
            their names, how many groups there are.
    """

    images: pd.DataFrame
    class_names: list[str]
    identity: dict[str, str]
    split: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A source of images; holds options and no data, so it travels cheaply to any node.

    Attributes:
        options: Options as `open_source` checked them; a local path is absolute.
        split_named: Whether the user named the split.
        labelled: Whether images need labels; else any that are there are passed over.
    """

    options: DataOptions
    split_named: bool = False
    labelled: bool = True

    def __str__(self) -> str:
        """What a plan says: kind, path and split."""
        path, split = self.options.path, self.options.split
        return self.options.source + (f" {path!r}" if path else "") + (f", split {split}" if split else "")

    def read(self, image_ids: Sequence[str]) -> Images:
        """Reads images, given their ids in any order.

        Storage that is away is waited for, and then raises, so that they never become the result of an image.

        Args:
            image_ids: Ids of the listing. Neighbouring Parquet rows share one read of their row group,
                images of one tar the walk over its headers.

        Returns:
            For each id in order: the encoded bytes; or pixels, uint8 (H, W, 3); or the exception that says
            why this image cannot be read: it vanished after the listing, access to its file is denied, or it
            is larger than any image should be (`images.MAX_BYTES`).

        Raises:
            UserError: The whole source is missing on this node, changed while it was read, or its storage stays away.
        """
        return list(itertools.chain.from_iterable(self.read_in_turns(image_ids)))

    def read_in_turns(self, image_ids: Sequence[str]) -> Iterator[Images]:
        """Reads images as `read` does, in their order, as many at a time as take `images.MAX_HELD` bytes together.

        Whoever lets go of each turn before the next never has more encoded images in memory.
        """
        read = find_source(self.options.source).read
        while image_ids:
            images = read(self.options, image_ids, Room(MAX_HELD))
            if images[0] is LATER:  # threads read images out of their order; one alone always fits
                images = read(self.options, image_ids[:1], Room(math.inf))
            fit = next((i for i, image in enumerate(images) if image is LATER), len(images))
            image_ids = image_ids[fit:]
            yield images[:fit]
            del images

    def list(self) -> Listing:
        """Lists the images, without reading their pixels.

        Raises:
            UserError: The source is missing, unreadable, empty or not laid out as its kind is; a split is named and
                the source says none; a class of the subset is unknown; names of classes are there twice or do not
                fit; a label has no class.
        """
        kind = find_source(self.options.source)
        list_images = kind.list if self.labelled or kind.unlabelled is None else kind.unlabelled
        found = list_images(self.options)
        where, left_out = _describe(self.options), _left_out(found)
        if self.options.source not in _KINDS and not found.images["image_id"].is_unique:
            twice = found.images["image_id"][found.images["image_id"].duplicated()].iloc[0]
            raise UserError(f"source {self.options.source} lists image {twice!r} twice: give each an id of its own")
        if found.images.empty:
            more = "; " + left_out[0] if left_out else ""
            layout = kind.layout if self.labelled else "nothing there is one of the source's images"
            raise UserError(f"no images in {where}: {layout}{more}")
        split = None if found.all_splits else self.options.split
        if self.split_named and split is None:
            column = ", or name its column by data.split_column" if "split_column" in kind.columns else ""
            raise UserError(
                f"unknown split {self.options.split!r}: nothing in {where} says a split; leave data.split out to take "
                f"all images{column}"
            )
        naming = name_classes(self.options, found, where) if self.labelled else unlabelled(self.options, found)
        images = found.images.assign(label=naming.labels)
        lines = "\n".join(f"{i}\t{label}" for i, label in zip(images.image_id, images.label, strict=True))
        identity = {"source": self.options.source, "images": hashlib.sha256(lines.encode()).hexdigest()}
        chosen = _subset(images, naming.class_names, self.options)
        splits = ["split     none is said by the source: all images are taken"] if split != self.options.split else []
        notes = (*left_out, *splits, *(f"classes   {note}" for note in naming.notes), *_groups_in_words(chosen))
        return Listing(chosen, naming.class_names, identity, split, tuple(map(printable, notes)))


def _groups_in_words(images: pd.DataFrame) -> list[str]:
    """A line about the groups that the images come in, where they do."""
    if "group" not in images:
        return []
    groups = np.unique(group_numbers(images["group"]))
    return [f"groups    {len(groups):,}, whose images stay together; intervals are over groups"]


def _left_out(found: Found) -> list[str]:
    """A line about the files that are no images of the source, where there are any."""
    counts = sorted(
        ((what, count) for what, count in found.left_out.items() if count), key=lambda one: (-one[1], one[0])
    )
    if not counts:
        return []
    shown = ", ".join(f"{what} {count:,}" for what, count in counts[:_SHOWN])
    more = f" and {len(counts) - _SHOWN} other kinds" if len(counts) > _SHOWN else ""
    files = sum(count for _, count in counts)
    return [f"left out: {files:,} file{'' if files == 1 else 's'} ({shown}{more})"]


def open_source(options: DataOptions, *, labelled: bool = True) -> Source:
    """Checks the options and returns the source they name; touches no data.

    Where no split is named it is test, as certificates are for; `with_split` before gives another.

    Args:
        options: The options.
        labelled: Whether images need labels. Without them a folder of images may be laid out in any way, a CSV or
            Parquet needs its column of images alone, and a tar no more than images.

    Raises:
        UserError: An unknown source or split, a split of a source that has none, a path missing or superfluous, skip or
            limit below 1, labels or classes that are named where none are looked for.
    """
    kind = _ADDED.load(options.source) or find_source(options.source)  # load refuses a name that is raycsr's own
    if options.split is not None and not _has_splits(options):
        raise UserError(
            f"{_describe(options)} has no splits (data.split is {options.split!r}): leave data.split out, and let "
            "data.path name the part that you mean"
        )
    # a training's default is settled before it comes here, so train is never known to be named
    split_named = options.split not in (None, "train")
    options = with_split(options, "test")
    if kind.splits and options.split not in kind.splits:
        raise UserError(f"unknown split {options.split!r} of {options.source}: choose one of {', '.join(kind.splits)}")
    for name in _COLUMNS:
        if getattr(options, name) is not None and name not in kind.columns:
            having = ", ".join(other for other, one in _KINDS.items() if name in one.columns)
            raise UserError(
                f"source {options.source} has no {name} (got {getattr(options, name)!r}): only {having} has"
            )
    if options.skip < 1:
        raise UserError(f"skip is {options.skip}: give 1 (every image) or more")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"limit is {options.limit}: give 1 or more, or leave it out for all images")
    for name in () if labelled else ("classes", "label_column"):
        if getattr(options, name) is not None:
            raise UserError(
                f"data.{name} is {getattr(options, name)!r}, and labels are not looked at here: leave it out"
            )
    path = _checked_path(options, kind)
    options = replace(options, path=path, image_roots=checked_roots(str(path), options.image_roots))
    return Source(options, split_named, labelled)


def with_split(options: DataOptions, default: str) -> DataOptions:
    """The options with a default split, where none is named and the source has splits."""
    return replace(options, split=default) if options.split is None and _has_splits(options) else options


def stored_options(stored: Mapping[str, Any]) -> DataOptions:
    """Options as a manifest or a checkpoint has them; of older ones, the split that a source without splits ignored."""
    options = DataOptions(**stored)
    return options if _has_splits(options) else replace(options, split=None)


def _has_splits(options: DataOptions) -> bool:
    one_file = str(options.path).endswith(".parquet")  # which is of one split or of none
    with suppress(UserError):  # of an unknown source: said where it is opened
        return find_source(options.source).splits is not None and not one_file
    return False


def find_source(name: str) -> SourceKind:
    """The kind of that name: raycsr's own, without a look at what is installed, or that of a package.

    Raises:
        UserError: There is none, or the package that adds it cannot be used.
    """
    kind = _KINDS.get(name) or _ADDED.load(name)
    if kind is None:
        raise UserError(f"unknown source {name!r}: {nearest(name, source_names())}")
    return kind


def source_names() -> list[str]:
    """All kinds of sources: raycsr's own, and those of installed packages."""
    return [*_KINDS, *_ADDED.names()]


def _checked_path(options: DataOptions, kind: SourceKind) -> str | None:
    """The path as every node reads it: absolute where it is local."""
    path = options.path
    if not kind.has_path:
        if path is not None:
            raise UserError(f"source {options.source} has no path (got {path!r}): drop it")
        return None
    if not path:
        raise UserError(f"source {options.source} needs a path: {kind.layout}")
    if kind.local and "://" in path:
        refuse_credentials(path)
        raise UserError(f"source {options.source} reads a local folder, not {path!r}: on S3 use source parquet")
    Store(path)  # refuses what is no location, before a home is looked for
    return Store(os.path.expanduser(path)).location


def _subset(images: pd.DataFrame, class_names: list[str], options: DataOptions) -> pd.DataFrame:
    if options.classes is not None:
        images = images[images.label.isin([k for c in options.classes for k in _classes_of(c, class_names)])]
    images = images.iloc[:: options.skip].iloc[: options.limit].reset_index(drop=True)
    if images.empty:
        raise UserError(f"no image of {_describe(options)} is in classes {options.classes}: widen the subset")
    return images


def _classes_of(wanted: int | str, class_names: list[str]) -> list[int]:
    """The classes that one of `classes` names: a name as it stands, or a list of names and indices."""
    if wanted in class_names:
        return [class_names.index(str(wanted))]
    return read_classes(str(wanted), len(class_names), class_names)


def _describe(options: DataOptions) -> str:
    return repr(options.path) if options.path else " ".join(filter(None, [options.source, options.split]))


_COLUMNS = CSV.columns  # the options that only some kinds have
_KINDS = {
    "digits": DIGITS,
    "cifar10": CIFAR10,
    "imagefolder": IMAGEFOLDER,
    "csv": CSV,
    "parquet": PARQUET,
    "webdataset": WEBDATASET,
}


def _wrong(kind: Any) -> str | None:
    """What is wrong with a source of a package."""
    return (
        None
        if isinstance(kind, SourceKind)
        else f"it is of type {type(kind).__name__}, no raycsr.data.kinds.SourceKind"
    )


_ADDED = Extensions("source", "raycsr.sources", _KINDS, _wrong)
