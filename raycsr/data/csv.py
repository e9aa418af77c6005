"""The source csv: a table whose rows are images, by their paths in one or several folders, with their labels."""

import codecs
import csv
import io
import itertools
import os
import posixpath
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from raycsr.data.columns import GROUP, IMAGE, LABEL, SPLIT, class_labels, find_columns, some_of
from raycsr.data.files import READ_THREADS, instead, natural, read_image, walk
from raycsr.data.images import EXTENSIONS, Found, Image, Images, Room, extension, frame
from raycsr.data.kinds import SourceKind
from raycsr.data.options import DataOptions
from raycsr.errors import UserError, refuse_credentials
from raycsr.store import AccessDenied, File, FileMissing, Store

_COMMON = {"image": IMAGE, "label": LABEL, "split": SPLIT, "group": GROUP}


@dataclass(frozen=True)
class _Table:
    """A CSV as text.

    Attributes:
        path: Location of the table.
        columns: Their names; of several that are alike none can be named.
        rows: The stripped cells of each row below the header.
        lines: The number of each row's last line in the file.
    """

    path: str
    columns: list[str]
    rows: list[list[str]]
    lines: list[int]

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        position = self.columns.index(name)
        return [row[position] for row in self.rows]


def list_csv(options: DataOptions) -> Found:
    """The rows of the split, in natural order of their files, and the class names where labels are names.

    Class names are those of all splits, so that each has its index in all of them.
    """
    return _list(options, labelled=True)


def list_csv_of_images(options: DataOptions) -> Found:
    """The rows of the split, in natural order of their files: a column of paths is enough."""
    return _list(options, labelled=False)


def _list(options: DataOptions, labelled: bool) -> Found:
    table = _read(str(options.path), labelled)
    columns = find_columns(options, table.columns, repr(table.path), _COMMON, labelled=labelled)
    paths = table.column(columns.image)
    _refuse_doubled(table, paths, range(len(paths)))
    splits = None if columns.split is None else table.column(columns.split)
    chosen = _of_split(table, columns.split, splits, options.split)
    labels, names = np.full(len(paths), -1), None
    if columns.label is not None:
        _refuse_unlabelled(table, columns.label, chosen)
        of_column = f"column {columns.label!r} of {table.path!r}"
        labels, names = class_labels(table.column(columns.label), of_column, lambda row: f"line {table.lines[row]}")
    groups = None if columns.group is None else _groups(table, columns.group, splits, chosen)
    left_out = Counter({"of other splits": len(paths) - len(chosen)})
    files = _find_files(options, table, paths, chosen, left_out)
    _refuse_doubled(table, [file.path for file in files], chosen)  # one file under two names
    order = sorted(range(len(files)), key=lambda row: natural(files[row].path))
    in_order, rows = [files[row] for row in order], chosen[order]
    images = frame(
        [file.path for file in in_order],
        labels[rows],
        [file.size for file in in_order],
        [file.version for file in in_order],
        None if groups is None else groups[rows],
    )
    return Found(images, names, left_out, all_splits=columns.split is None)


def read_csv(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """Each image's file, from the root that has it, or why it cannot be read."""
    roots = [Store(root) for root in _roots(options)]

    def read_one(image_id: str) -> Image:
        errors: list[FileMissing | AccessDenied] = []
        for root in roots:
            try:
                return read_image(root, image_id, room)
            except (FileMissing, AccessDenied) as error:
                errors.append(error)
        worst = next((error for error in errors if isinstance(error, AccessDenied)), errors[0])
        stands_for = [instead(worst, root) for root in roots]  # of each, for any may be missing as a whole
        return stands_for[0]

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(read_one, image_ids))


def checked_roots(path: str, roots: Sequence[str] | None) -> list[str] | None:
    """The image roots as every node reads them: absolute where they are local.

    Args:
        path: Path of the CSV, absolute where it is local.
        roots: Roots as the user wrote them.

    Raises:
        UserError: none is left, one is of an unknown scheme or in another.
    """
    if roots is None:
        return None
    absolute = list(dict.fromkeys(_absolute(path, root) for root in roots))
    if not absolute:
        raise UserError("image_roots is an empty list: name the folders of the images, or leave it out")
    for inner, outer in itertools.permutations(absolute, 2):
        if inner.startswith(f"{outer}/"):
            raise UserError(
                f"image_roots has {outer!r} and {inner!r} within it: an image would have two names; drop one"
            )
    return absolute


def _absolute(path: str, root: str) -> str:
    refuse_credentials(root)
    if "://" in root:
        return Store(root).location
    Store(root)  # refuses what is no location, before a home is looked for
    root = os.path.expanduser(root)
    bucket, folder = ("s3://", path.removeprefix("s3://")) if path.startswith("s3://") else ("", path)
    if os.path.isabs(root):
        return Store(root).location
    return Store(bucket + posixpath.normpath(posixpath.join(posixpath.dirname(folder), root))).location


def _roots(options: DataOptions) -> list[str]:
    return options.image_roots or [posixpath.dirname(str(options.path))]


# The table ------------------------------------------------------------------------------------------------


def _read(path: str, labelled: bool) -> _Table:
    """The CSV; refuses one that is not laid out as a table."""
    text = _text(path)
    rows: list[list[str]] = []
    lines: list[int] = []
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text, labelled), strict=True)
        for row in reader:
            cells = [cell.strip() for cell in row]
            if any(cells):
                rows.append(cells)
                lines.append(reader.line_num)
    except csv.Error as error:
        raise UserError(f"{path!r} cannot be read as CSV below line {lines[-1] if lines else 0}: {error}") from None
    columns = _names_without_header(rows[0]) if rows else None
    if columns is None:
        columns, rows, lines = rows[0] if rows else [], rows[1:], lines[1:]
    if not rows:
        raise UserError(f"{path!r} has no rows: give a header, and a row an image")
    if labelled and len(columns) < 2:
        raise UserError(
            f"{path!r} has one column, and needs one of images and one of labels (numbers alone, as of ILSVRC's "
            "validation_ground_truth, name no image, nor do they count classes by sorted wnid): give path,label"
        )
    for cells, line in zip(rows, lines, strict=True):
        if len(cells) != len(columns):
            raise UserError(
                f"line {line} of {path!r} has {len(cells)} cells and the first has {len(columns)}: "
                "give each row as many, and quote cells that hold the delimiter"
            )
    return _Table(path, columns, rows, lines)


def _text(path: str) -> str:
    """The file's text: of UTF-8, UTF-16, or else cp1252."""
    if [file.path for file in itertools.islice(walk(path, Counter()), 2)] != [posixpath.basename(path)]:
        raise UserError(f"{path!r} is no file: path names the CSV, and data.image_roots the folders of the images")
    content = Store(path).read()
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    for encoding in ("utf-16",) if marked else ("utf-8-sig", "utf-16-le", "cp1252"):
        try:
            text = content.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text or (encoding == "utf-16-le" and not text.isascii()):
            continue
        if encoding == "cp1252":
            warnings.warn(f"{path!r} is not UTF-8 and is read as cp1252: look at its class names", stacklevel=2)
        return text
    raise UserError(f"{path!r} is no text: save it as CSV in UTF-8")


def _delimiter(text: str, labelled: bool) -> str:
    """What parts the first line into most cells, a comma, a semicolon or a tab.

    Where none of them does it is a space; or where no labels are needed there is one column, of names with spaces.
    """
    first = next((line for line in text.splitlines() if line.strip()), "")
    cells = {delimiter: len(next(csv.reader([first], delimiter=delimiter))) for delimiter in (",", ";", "\t")}
    best = max(cells, key=lambda delimiter: cells[delimiter])  # of equal ones the first
    return best if cells[best] > 1 or not labelled else " "


def _names_without_header(first: list[str]) -> list[str] | None:
    """Names for the columns of a file whose first line is an image already; None where it is a header."""
    images = [position for position, cell in enumerate(first) if extension(cell) in EXTENSIONS]
    if len(images) != 1:
        return None
    others = ["label", "label"] if len(first) == 2 else [str(position) for position in range(1, len(first) + 1)]
    return ["path" if position == images[0] else name for position, name in enumerate(others)]


def _refuse_doubled(table: _Table, names: Sequence[str], rows: Sequence[int] | np.ndarray) -> None:
    """Refuses two rows of one image: it would have two labels, count twice, or be on both sides of a split."""
    doubled = np.flatnonzero(pd.Series(names).duplicated())
    if len(doubled):
        name = names[doubled[0]]
        lines = [table.lines[rows[position]] for position in (names.index(name), doubled[0])]
        raise UserError(
            f"{len(doubled)} rows of {table.path!r} name an image again, the first {name!r} in lines {lines[0]} and "
            f"{lines[1]}: give each image one row"
        )


def _of_split(table: _Table, column: str | None, splits: list[str] | None, split: str | None) -> np.ndarray:
    """Positions of the rows of the split; of all where the table has no splits."""
    if splits is None:
        return np.arange(len(table.rows))
    chosen = np.flatnonzero([value == split for value in splits])
    if not len(chosen):
        raise UserError(
            f"unknown split {split!r}: column {column!r} of {table.path!r} has {some_of(sorted(set(splits)))}; "
            "choose one by data.split, or all rows by data.split_column none"
        )
    return chosen


def _refuse_unlabelled(table: _Table, column: str, rows: np.ndarray) -> None:
    cells = table.column(column)
    without = [row for row in rows.tolist() if not cells[row]]
    if without:
        raise UserError(
            f"{len(without)} of {len(rows)} images of {table.path!r} have no label in column {column!r}, the first in "
            f"line {table.lines[without[0]]}: write it, or take their rows out"
        )


def _groups(table: _Table, column: str, splits: list[str] | None, rows: np.ndarray) -> np.ndarray:
    """The group of each row, None where its cell is empty; refuses groups that are in several splits."""
    groups = np.array([cell or None for cell in table.column(column)], object)
    pairs = pd.DataFrame({"group": groups, "split": "" if splits is None else splits}).dropna().drop_duplicates()
    torn = pairs[pairs["group"].duplicated(keep=False)]
    if len(torn):
        first = torn["group"].iloc[0]
        raise UserError(
            f"{torn['group'].nunique()} groups of column {column!r} of {table.path!r} are in several splits, the first "
            f"{first!r} in {some_of(sorted(torn['split'][torn['group'] == first]))}: a network knows the other images "
            "of a group; mend the splits, or set data.group_column none where images are independent"
        )
    alone = sum(group is None for group in groups[rows])
    if alone:
        warnings.warn(
            f"{alone} of {len(rows)} images of {table.path!r} have no {column!r}: each is a group of its own",
            stacklevel=2,
        )
    return groups


# The files ------------------------------------------------------------------------------------------------


def _find_files(
    options: DataOptions, table: _Table, paths: list[str], rows: np.ndarray, left_out: Counter[str]
) -> list[File]:
    """The file of each of the rows; refuses paths that have none, or several. Counts images that no row names."""
    roots = _roots(options)
    found: dict[str, File] = {}
    within: dict[str, list[str]] = {}  # the roots that have it
    with_extension: dict[str, list[str]] = {}  # path without extension -> paths
    for root in roots:
        for file in walk(root, left_out):
            if not file.path.endswith("/"):
                found[file.path] = file
                within.setdefault(file.path, []).append(root)
        if Store(root).exists():
            raise UserError(f"image root {root!r} is a file: name the folder that the paths of {table.path!r} begin in")
    for path in found:
        if extension(path) in EXTENSIONS:
            with_extension.setdefault(posixpath.splitext(path)[0], []).append(path)
    named = {_relative(path, roots) for path in paths}
    left_out["images that no row names"] += sum(
        path not in named for stem, with_stem in with_extension.items() if stem not in named for path in with_stem
    )

    files, missing = [], []
    for row in rows.tolist():
        path = _relative(paths[row], roots)
        here = [path] if path in found else with_extension.get(path, [])
        places = [f"{root}/{one}" for one in here for root in within[one]]
        if len(places) > 1:
            raise UserError(
                f"image {paths[row]!r} in line {table.lines[row]} of {table.path!r} may be {' or '.join(places[:2])}: "
                "write its extension, or drop one of the files or of data.image_roots"
            )
        if here:
            files.append(found[here[0]])
        else:
            missing.append(row)
    if missing:
        wanted = {_relative(paths[row], roots) for row in missing}
        elsewhere = _folders(wanted, {path: within[path][0] for path in found}, posixpath.dirname(table.path))
        fix = (
            f"give data.image_roots [{', '.join(elsewhere[:4])}]" if elsewhere else "mend data.image_roots or the rows"
        )
        raise UserError(
            f"{len(missing)} of {len(rows)} images of {table.path!r} are not in {', '.join(map(repr, roots[:4]))}, the "
            f"first {paths[missing[0]]!r} in line {table.lines[missing[0]]}: {fix}"
        )
    return files


def _relative(path: str, roots: Iterable[str]) -> str:
    """A path as the table has it -> relative to its root, with forward slashes."""
    path = path.replace("\\", "/")
    for root in roots:
        path = path.removeprefix(f"{root}/")
    return posixpath.normpath(path)


def _folders(wanted: set[str], found: dict[str, str], base: str) -> list[str]:
    """Folders that some of the wanted paths begin in, as a user names them who knows the table's folder.

    Args:
        wanted: Paths that are not at a root.
        found: Paths of files, and the root of each.
        base: The table's folder.
    """
    folders: dict[str, None] = {}
    for path, root in found.items():
        for name in (path, posixpath.splitext(path)[0]):
            parts = name.split("/")
            for depth in range(1, len(parts)):
                if "/".join(parts[depth:]) in wanted:
                    folders[f"{root}/{'/'.join(parts[:depth])}".removeprefix(f"{base}/")] = None
    return sorted(folders, key=natural)


CSV = SourceKind(
    list_csv,
    read_csv,
    "a CSV file with a column of images and one of labels",
    splits=(),
    columns=("image_roots", "image_column", "label_column", "split_column", "group_column"),
    unlabelled=list_csv_of_images,
)
