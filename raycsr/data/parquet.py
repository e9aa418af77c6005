"""The source parquet: files with a column of encoded images and one of labels; an image is file#row."""

import itertools
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raycsr.data.columns import GROUP, class_labels, find_columns
from raycsr.data.files import READ_THREADS, folder_of, instead, natural, reason, walk
from raycsr.data.images import LATER, MAX_BYTES, Found, Image, Images, Room, extension, frame, too_large
from raycsr.data.kinds import SourceKind
from raycsr.data.options import DataOptions
from raycsr.data.split_names import TEST, TRAIN
from raycsr.errors import UserError
from raycsr.store import AccessDenied, File, FileMissing, SeekableFile, Store

_BUFFER = 2**23  # bytes of a column read at once
_DAMAGED = (OSError, ValueError, pa.ArrowException)  # of pyarrow; of bytes that cannot be had a store says a UserError
_COMMON = {"image": ("image",), "label": ("label",), "group": GROUP}


class _Columns(NamedTuple):
    """The columns of a file: where its encoded images are, as a path in its schema, and the others' names."""

    image: str
    label: str | None
    group: str | None


class _Rows(NamedTuple):
    """What a file says of its rows: one value each."""

    file: File
    labels: pa.Array  # int32, or string
    sizes: np.ndarray
    groups: pa.Array | None  # string
    class_names: list[str] | None


def list_parquet(options: DataOptions) -> Found:
    """All rows of the split, in natural order of the files, and the class names where the files give them."""
    return _list(options, labelled=True)


def list_parquet_of_images(options: DataOptions) -> Found:
    """All rows of the split, in natural order of the files: a column of images is enough."""
    return _list(options, labelled=False)


def _list(options: DataOptions, labelled: bool) -> Found:
    root = str(options.path)
    left_out: Counter[str] = Counter()
    files = []
    for file in walk(root, left_out):
        if file.path.endswith(".parquet"):
            files.append(file)
        elif not file.path.endswith("/"):
            left_out[extension(file.path)] += 1
    files.sort(key=lambda file: natural(file.path))
    folder = folder_of(root)
    of_split = _of_split(files, options.split) if folder.location == root and options.split is not None else []
    chosen = of_split or files
    left_out["of other splits"] += len(files) - len(chosen)
    with ThreadPoolExecutor(READ_THREADS) as pool:

        def read(some: list[File]) -> list[_Rows]:
            return list(pool.map(lambda file: _list_parquet_file(folder, file, options, labelled), some))

        rows = read(chosen)
        if all(pa.types.is_integer(of_file.labels.type) for of_file in rows):
            images = pd.concat([frame([], [], [], []), *map(_frame, rows)], ignore_index=True)
            return Found(images, _names_of_all(rows), left_out, all_splits=not of_split)
        others = read([file for file in files if file not in chosen])  # a class has one index in all splits
    return Found(*_with_named_classes(rows, others), left_out, all_splits=not of_split)


def _names_of_all(rows: list[_Rows]) -> list[str] | None:
    """The class names that all files give; refuses files that differ, for one label would be two classes."""
    for one in rows:
        if one.class_names != rows[0].class_names:
            raise UserError(
                f"{rows[0].file.path!r} and {one.file.path!r} name their classes {_some(rows[0].class_names)} and "
                f"{_some(one.class_names)}: write them alike, or certify them one by one"
            )
    return rows[0].class_names if rows else None


def _some(names: list[str] | None) -> str:
    return "not at all" if names is None else repr(names[:5]) + (" ..." if len(names) > 5 else "")


def _frame(rows: _Rows) -> pd.DataFrame:
    ids = [f"{rows.file.path}#{row}" for row in range(len(rows.labels))]
    groups = None if rows.groups is None else rows.groups.to_pandas()
    return frame(ids, pc.fill_null(rows.labels, -1).to_numpy(), rows.sizes, rows.file.version, groups)


def _with_named_classes(rows: list[_Rows], others: list[_Rows]) -> tuple[pd.DataFrame, list[str] | None]:
    """The rows of files whose labels are text, by the labels of all files."""
    cells = [pc.fill_null(one.labels.cast(pa.string()), "").to_pylist() for one in [*rows, *others]]
    names = list(itertools.chain(*cells))
    places = [f"{one.file.path}#{row}" for one in [*rows, *others] for row in range(len(one.labels))]
    labels, class_names = class_labels(names, "the label column", places.__getitem__)
    ends = np.cumsum([len(one.labels) for one in rows])
    parts = np.split(labels[: ends[-1]].astype(np.int32), ends[:-1])
    frames = [_frame(one._replace(labels=pa.array(part))) for one, part in zip(rows, parts, strict=True)]
    return pd.concat(frames, ignore_index=True), class_names


@contextmanager
def _parquet_errors(path: str) -> Iterator[None]:
    try:
        yield
    except _DAMAGED as error:  # or of a type that Ray registered with it
        raise UserError(f"cannot read {path!r} as Parquet: {reason(error)}") from None


def _of_split(files: list[File], split: str) -> list[File]:
    """The files of a split, by their names or their folders'; none where no file is named by a split."""
    chosen = [file for file in files if _split_named(file.path, {split}) or _base(file.path).startswith(f"{split}-")]
    sharded = {match[1] for file in files if (match := re.match(r"(.+)-\d+-of-\d+", _base(file.path)))}
    splits = sharded | {name for file in files if (name := _split_named(file.path, TRAIN | TEST))}
    if splits and not chosen:
        raise UserError(f"unknown split {split!r}: the files are of {', '.join(sorted(splits))}")
    return chosen


def _base(path: str) -> str:
    return os.path.basename(path)


def _split_named(path: str, splits: Set[str]) -> str | None:
    """The split that a file is of by its whole name, <split>.parquet, or by that of a folder, <split>/0000.parquet."""
    *folders, name = path.split("/")
    return next((part for part in [name.removesuffix(".parquet"), *reversed(folders)] if part in splits), None)


def _list_parquet_file(folder: Store, file: File, options: DataOptions, labelled: bool) -> _Rows:
    """Rows and class names of one file, from its footer and its columns of labels and groups alone."""
    with _parquet_errors(file.path), SeekableFile(folder, file) as handle:
        parquet = pq.ParquetFile(handle, page_checksum_verification=True)
        row_groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
        rows = [group.num_rows for group in row_groups]
        if sum(rows) > file.size:  # labels that are all one take no space, images do
            raise ValueError(f"{file.size:,} bytes cannot hold the {sum(rows):,} rows that it claims")
        columns = _columns(parquet.schema_arrow, file.path, options, labelled)
        table = parquet.read(columns=[name for name in (columns.label, columns.group) if name is not None])
        labels = pa.chunked_array([pa.nulls(sum(rows), pa.int32())])
        if columns.label is not None:
            labels = table[columns.label]
        # cast, for a label beyond int32 would come back as another class
        labels = labels.cast(pa.int32() if pa.types.is_integer(labels.type) else pa.string())
        groups = None if columns.group is None else table[columns.group].cast(pa.string()).combine_chunks()
        if sum(rows) != len(labels):
            raise ValueError(f"its row groups have {sum(rows):,} rows and {len(labels):,} labels")
        sizes = np.repeat([_image_bytes(group, columns.image) // max(group.num_rows, 1) for group in row_groups], rows)
    names = None if columns.label is None else _hub_class_names(parquet.schema_arrow, columns.label)
    return _Rows(file, labels.combine_chunks(), sizes, groups, names)


def _columns(schema: pa.Schema, path: str, options: DataOptions, labelled: bool) -> _Columns:
    """Refuses other types; extension types too, for Ray registers one whose values are unpickled, which runs code."""
    found = find_columns(options, schema.names, repr(path), _COMMON, labelled=labelled)
    image = schema.field(found.image).type
    is_struct = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    encoded = image.field("bytes").type if is_struct else image
    has_bytes = pa.types.is_binary(encoded) or pa.types.is_large_binary(encoded)
    names = [schema.field(name).type for name in (found.label, found.group) if name is not None]
    if not has_bytes or not all(pa.types.is_integer(kind) or _is_text(kind) for kind in names):
        label = "" if found.label is None else f", {found.label}: int or text"
        group = "" if found.group is None else f", and {found.group}: int or text"
        raise UserError(
            f"{path!r} needs columns {found.image}: struct<bytes, path> or binary{label}{group}, "
            f"has {', '.join(f'{field.name}: {field.type}' for field in schema)}; name others by data.image_column, "
            "label_column and group_column"
        )
    return _Columns(f"{found.image}.bytes" if is_struct else found.image, found.label, found.group)


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _image_bytes(group: Any, column: str) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == column)


def _hub_class_names(schema: pa.Schema, label: str) -> list[str] | None:
    """The names of a ClassLabel feature, which the hub's writers leave in the schema's metadata."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = described["info"]["features"][label]["names"]
    except (ValueError, LookupError, TypeError, RecursionError):  # as of a file without names: they are no part of it
        return None
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def read_parquet(options: DataOptions, image_ids: Sequence[str], room: Room) -> Images:
    """Each row's encoded image, or why it cannot be read; opens each file once."""
    folder = folder_of(str(options.path))
    places = pd.DataFrame([i.rsplit("#", 1) for i in image_ids], columns=["file", "row"]).astype({"row": int})
    images: dict[int, Image] = {}
    for file, rows in places.groupby("file").row:
        try:
            read = _read_rows(folder, str(file), rows.to_numpy(), options, room)
        except (FileMissing, AccessDenied) as error:
            read = [instead(error, folder)] * len(rows)
        images.update(zip(rows.index, read, strict=True))
    return [images[position] for position in range(len(image_ids))]


def _read_rows(folder: Store, path: str, rows: np.ndarray, options: DataOptions, room: Room) -> Images:
    """The encoded images of some rows of one file; reads each row group that they lie in once."""
    images: Images = [IndexError("the row vanished after it was listed")] * len(rows)
    with folder.open(path) as handle:
        try:
            parquet = pq.ParquetFile(handle, buffer_size=_BUFFER, page_checksum_verification=True)
            column = _columns(
                parquet.schema_arrow, path, options, labelled=False
            ).image  # what was listed may have been replaced
        except _DAMAGED as error:
            return [_damage(error)] * len(rows)  # since it was listed
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        group_of = np.searchsorted(starts, rows, side="right") - 1
        for group in np.unique(group_of[rows < starts[-1]]).tolist():
            positions = np.flatnonzero(group_of == group)
            of_group = _read_group(parquet, group, column, rows[positions] - starts[group], room)
            for position, image in zip(positions, of_group, strict=True):
                images[position] = image
    return images


def _read_group(parquet: pq.ParquetFile, group: int, column: str, rows: np.ndarray, room: Room) -> Images:
    """The encoded images of some rows of a row group; where a page of it is damaged, those before that page."""
    if room.full:
        return [LATER] * len(rows)
    try:
        at_once = _at_once(parquet.metadata.row_group(group), column)
    except _DAMAGED as error:
        return [_damage(error)] * len(rows)
    images, damaged = _read_cells(parquet, group, column, rows, at_once, room)
    if damaged == 0:
        images, _ = _read_cells(parquet, group, column, rows, 1, room)
    return images


def _at_once(metadata: Any, column: str) -> int:
    """Rows of a row group that are read at once: all, or where they are large, one."""
    return metadata.num_rows if _image_bytes(metadata, column) <= MAX_BYTES else 1


def _read_cells(
    parquet: pq.ParquetFile, group: int, column: str, rows: np.ndarray, at_once: int, room: Room
) -> tuple[Images, int | None]:
    """The encoded images of some rows of a row group, read so many rows at once, and where damage ended that."""
    images: Images = [IndexError("the row vanished after it was listed")] * len(rows)
    first, damaged, rest = 0, None, None
    try:
        for cells in _image_columns(parquet, group, column, at_once):
            for position in np.flatnonzero((rows >= first) & (rows < first + len(cells))):
                images[position] = _image(cells[rows[position] - first], room)
            first += len(cells)
            if room.full or first > rows.max():
                rest = LATER
                break
    except _DAMAGED as error:
        damaged, rest = first, _damage(error)
    return [image if row < first or rest is None else rest for row, image in zip(rows, images, strict=True)], damaged


def _damage(error: Exception) -> ValueError:
    """What stands for an image whose bytes are damaged in their file; where they cannot be had, the store says so."""
    return ValueError(f"its file is damaged: {reason(error)}")


def _image_columns(parquet: pq.ParquetFile, group: int, column: str, at_once: int) -> Iterator[pa.Array]:
    """The encoded images of a row group, so many rows at once."""
    for batch in parquet.iter_batches(at_once, row_groups=[group], columns=[column]):
        cells = batch.column(0)
        yield pc.struct_field(cells, "bytes") if pa.types.is_struct(cells.type) else cells


def _image(cell: pa.Scalar, room: Room) -> Image:
    if not cell.is_valid:
        return ValueError("the row holds no image bytes")
    size = cell.as_buffer().size
    if size > MAX_BYTES:
        return too_large(size)
    return cell.as_py() if room.take(size) else LATER


PARQUET = SourceKind(
    list_parquet,
    read_parquet,
    "a file, or a folder of files, named *.parquet",
    splits=(),
    columns=("image_column", "label_column", "group_column"),
    unlabelled=list_parquet_of_images,
)
