"""Image sources: what to certify, as a listing without pixels, and the images of a block of ids.

Every kind of source is a pair of functions, one that lists and one that reads: see `_KINDS` at the end.
"""

import difflib
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from torchvision.datasets import CIFAR10

from raycsr.errors import UserError

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm")
READ_THREADS = 16  # an object store answers in tens of milliseconds: read many at once
RETRY_DELAYS = (0.5, 2.0, 8.0)  # seconds before each further attempt

Image = bytes | np.ndarray | Exception  # one image as it was read, or why it could not be
Images = list[Image]
T = TypeVar("T")


@dataclass(frozen=True)
class DataOptions:
    """What to certify. The subset is taken in the order classes, skip, limit.

    Attributes:
        source: One of digits, cifar10, imagefolder, parquet.
        path: Folder or file, local or s3://bucket/prefix; for cifar10 the local folder that torchvision
            keeps it in.
        split: Part of the data, where the source has parts: digits, cifar10, and Parquet folders with files
            named <split>-*. An imagefolder has none: its path names the folder of classes.
        skip: Take every skip-th image of the sorted listing.
        limit: Take at most this many images.
        classes: Take only these classes, by index or by name.
        class_names: The names of the classes in the order of their labels, or a text file with one a line;
            where absent, the names that the source itself gives.
        download: Let torchvision download CIFAR-10 where it is missing.
    """

    source: str
    path: str | None = None
    split: str = "test"
    skip: int = 1
    limit: int | None = None
    classes: list[int | str] | None = None
    class_names: list[str] | str | None = None
    download: bool = False


@dataclass(frozen=True)
class Listing:
    """The images of a source, without their pixels.

    Attributes:
        images: One row an image, in natural order of the ids (a2 before a10). Columns:
            image_id (str): relative path with forward slashes, or `file#row`; never absolute.
            label (int32).
            size (int64): bytes; for Parquet the mean of the image's row group.
            version (str): of its file, the etag on S3 or the mtime in ns; a constant for packaged data.
        class_names: Name of each class, in the order of the labels.
        identity: What identifies the data for a run's id: the kind of the source and a digest of all its
            image ids and labels, before any subset. So it changes neither when the data moves, nor with
            classes, skip and limit, but tells two data sets, and two splits of one, apart.
    """

    images: pd.DataFrame
    class_names: list[str]
    identity: dict[str, str]


@dataclass(frozen=True)
class Source:
    """A source of images; holds options and no data, so it travels cheaply to any node.

    Attributes:
        options: As checked by `open_source`; a local path is absolute.
    """

    options: DataOptions

    def read(self, image_ids: Sequence[str]) -> Images:
        """Reads images, given their ids in any order.

        Transient errors are retried and then raised, so that they never become the result of an image.

        Args:
            image_ids: Ids of the listing. Neighbouring Parquet rows share one read of their row group.

        Returns:
            For each id in order: the encoded bytes; or pixels, uint8 (H, W, 3); or the exception that says
            why this image cannot be read: it vanished after the listing, or access to its file is denied.

        Raises:
            UserError: The whole source is missing on this node.
            OSError: Reading kept failing.
        """
        return _KINDS[self.options.source].read(self.options, image_ids)

    def list(self) -> Listing:
        """Lists the images, without reading their pixels.

        Raises:
            UserError: The source is missing, unreadable, empty or not laid out as its kind is; a class of the
                subset is unknown; a label has no class.
        """
        images, known_names = _KINDS[self.options.source].list(self.options)
        if images.empty:
            raise UserError(f"no images in {_describe(self.options)}: {_KINDS[self.options.source].layout}")
        class_names = _class_names(self.options, known_names, images)
        lines = "\n".join(f"{i}\t{label}" for i, label in zip(images.image_id, images.label, strict=True))
        identity = {"source": self.options.source, "images": hashlib.sha256(lines.encode()).hexdigest()}
        return Listing(_subset(images, class_names, self.options), class_names, identity)


def open_source(options: DataOptions) -> Source:
    """Checks the options and returns the source they name; touches no data.

    Raises:
        UserError: An unknown source or split, a path missing or superfluous, skip or limit below 1.
    """
    kind = _KINDS.get(options.source)
    if kind is None:
        raise UserError(f"unknown source {options.source!r}{_nearest(options.source, list(_KINDS))}")
    if kind.splits and options.split not in kind.splits:
        raise UserError(f"unknown split {options.split!r} of {options.source}: choose one of {', '.join(kind.splits)}")
    if options.skip < 1:
        raise UserError(f"skip is {options.skip}: give 1 (every image) or more")
    if options.limit is not None and options.limit < 1:
        raise UserError(f"limit is {options.limit}: give 1 or more, or leave it out for all images")
    return Source(replace(options, path=_checked_path(options, kind.layout)))


def _checked_path(options: DataOptions, layout: str) -> str | None:
    """The path as every node reads it: absolute where it is local."""
    path = options.path
    if options.source == "digits":
        if path is not None:
            raise UserError(f"source digits is packaged and has no path (got {path!r}): drop it")
        return None
    if not path:
        raise UserError(f"source {options.source} needs a path: {layout}")
    scheme, separator, rest = path.partition("://")
    if not separator:
        return os.path.abspath(os.path.expanduser(path))
    if "@" in rest.partition("/")[0]:
        raise UserError("path has credentials before '@': write s3://bucket/prefix, set AWS_ACCESS_KEY_ID")
    if scheme != "s3":
        raise UserError(f"unknown scheme of path {path!r}: give a local path or s3://bucket/prefix")
    if options.source == "cifar10":
        raise UserError(f"source cifar10 reads a local folder, not {path!r}: on S3 use source parquet")
    return path.rstrip("/")


# --- The subset and the classes


def _subset(images: pd.DataFrame, class_names: list[str], options: DataOptions) -> pd.DataFrame:
    if options.classes is not None:
        images = images[images.label.isin([_class_index(c, class_names) for c in options.classes])]
    images = images.iloc[:: options.skip].iloc[: options.limit].reset_index(drop=True)
    if images.empty:
        raise UserError(f"no image of {_describe(options)} is in classes {options.classes}: widen the subset")
    return images


def _class_index(wanted: int | str, class_names: list[str]) -> int:
    if isinstance(wanted, str) and wanted in class_names:
        return class_names.index(wanted)
    if isinstance(wanted, int) and 0 <= wanted < len(class_names):
        return wanted
    hint = _nearest(wanted, class_names) if isinstance(wanted, str) else ""
    raise UserError(f"unknown class {wanted!r}{hint or f': give a name or an index below {len(class_names)}'}")


def _class_names(options: DataOptions, known: list[str] | None, images: pd.DataFrame) -> list[str]:
    """The user's names, else the source's own, else the indices; refuses labels that have no name."""
    names = options.class_names
    if isinstance(names, str):
        try:
            with open(os.path.expanduser(names), encoding="utf-8") as file:
                names = [line.strip() for line in file if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"cannot read class_names {options.class_names!r}: {_reason(error)}") from None
    if names is not None and known is not None and len(names) != len(known):
        raise UserError(f"class_names has {len(names)} names, {_describe(options)} has {len(known)} classes")
    if names is None:
        names = known if known is not None else [str(label) for label in range(images.label.max() + 1)]
    outside = images[(images.label < 0) | (images.label >= len(names))]
    if not outside.empty:
        first = outside.iloc[0]
        raise UserError(
            f"{len(outside)} labels are outside 0..{len(names) - 1}, the first is {first.label} of "
            f"{first.image_id!r}: choose a labelled split, or give all class_names"
        )
    return names


def _nearest(value: str, known: list[str]) -> str:
    close = difflib.get_close_matches(value, known, n=3, cutoff=0.5)
    if close:
        return f": did you mean {' or '.join(close)}?"
    return f": choose one of {', '.join(known)}" if len(known) <= 20 else ""


def _describe(options: DataOptions) -> str:
    return repr(options.path) if options.path else f"{options.source} {options.split}"


def _reason(error: Exception) -> str:
    """The first line of an error, without its address in memory or its errno."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__


# --- Files, local and on S3


class _File(NamedTuple):
    path: str  # relative to the root; a folder ends with a slash
    size: int
    version: str


def _walk(root: str) -> Iterator[_File]:
    """All files below a root, or the root itself where it is a file; hidden ones are left out."""
    for file in _walk_s3(root) if root.startswith("s3://") else _walk_local(root):
        if "/." not in f"/{file.path}":
            yield file


def _walk_local(root: str) -> Iterator[_File]:
    try:
        if os.path.isfile(root):
            yield _file(os.path.basename(root), os.stat(root))
        else:
            yield from _scan(root, "")
    except FileNotFoundError:
        raise UserError(f"there is no {root!r}: check the path") from None
    except OSError as error:
        raise UserError(f"cannot list {root!r}: {_reason(error)}") from None


def _scan(folder: str, prefix: str) -> Iterator[_File]:
    with os.scandir(folder) as entries:
        for entry in entries:
            relative = prefix + entry.name
            if entry.is_dir():
                yield _File(relative + "/", 0, "")
                yield from _scan(entry.path, relative + "/")
            else:
                # A dangling link stays in the listing: its image counts, as one that cannot be read.
                yield _file(relative, entry.stat(follow_symlinks=entry.is_file()))


def _file(path: str, stat: os.stat_result) -> _File:
    return _File(path, stat.st_size, str(stat.st_mtime_ns))


def _walk_s3(root: str) -> Iterator[_File]:
    import boto3
    from botocore.config import Config

    bucket, _, key = root.removeprefix("s3://").partition("/")
    prefix = f"{key}/" if key else ""
    with _s3_errors(root, bucket):
        # A session of its own: the default one would keep credentials that the user has mended since.
        client = boto3.Session().client("s3", config=Config(connect_timeout=10))
        # The key itself sorts before all longer ones.
        first = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1).get("Contents", [])
        if key and first and first[0]["Key"] == key:
            yield _object(os.path.basename(key), first[0])
            return
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if item["Key"] != prefix:
                    yield _object(item["Key"][len(prefix) :], item)


def _object(path: str, item: dict[str, Any]) -> _File:
    return _File(path, item["Size"], item["ETag"].strip('"'))


@contextmanager
def _s3_errors(root: str, bucket: str) -> Iterator[None]:
    """Turns boto's errors into the user's, by their codes alone: their texts may repeat an access key."""
    from botocore.exceptions import (
        BotoCoreError,
        ClientError,
        ConnectionError,
        HTTPClientError,
        NoCredentialsError,
    )

    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "NoSuchBucket":
            raise UserError(f"there is no bucket {bucket!r}: check path {root!r} and the endpoint") from None
        raise UserError(f"S3 refused to list {root!r} ({code}): check the AWS keys and their rights") from None
    except NoCredentialsError:
        raise UserError(f"no AWS credentials to list {root!r}: set AWS_ACCESS_KEY_ID or AWS_PROFILE") from None
    except (ConnectionError, HTTPClientError) as error:
        host = urlsplit(os.environ.get("AWS_ENDPOINT_URL", "")).hostname or "AWS"
        raise UserError(
            f"cannot reach S3 at {host} for {root!r} ({type(error).__name__}): check AWS_ENDPOINT_URL and the network"
        ) from None
    except BotoCoreError as error:
        raise UserError(
            f"cannot list {root!r} ({type(error).__name__}): check the bucket's name and the AWS settings"
        ) from None


def _filesystem(root: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a root, and the root's path in it."""
    if not root.startswith("s3://"):
        return pafs.LocalFileSystem(), root
    path = root.removeprefix("s3://")  # only its bucket goes into a URI, where a key would need escapes
    return pafs.FileSystem.from_uri(f"s3://{path.split('/')[0]}")[0], path


def _retried(operation: Callable[[], T]) -> T:
    """Tries again after transient I/O errors; a file that is missing or forbidden will stay so."""
    for delay in RETRY_DELAYS:
        try:
            return operation()
        except (FileNotFoundError, PermissionError):
            raise
        except OSError:
            time.sleep(delay)
    return operation()


def _one_image_failed(error: OSError, filesystem: pafs.FileSystem, root: str) -> Exception:
    """What stands for an image whose file is missing or forbidden, unless the whole source is."""
    if _retried(lambda: filesystem.get_file_info(root)).type == pafs.FileType.NotFound:
        raise UserError(f"there is no {root!r} on this node: use a path all nodes share, or s3://")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError("the file vanished after it was listed")
    return PermissionError("access to the file is denied")


def _natural(path: str) -> tuple[list[str | int], str]:
    """Sort key under which a2 comes before a10; the path itself decides between a2 and a02."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", path)], path


def _frame(image_id: Sequence[str], label: Any, size: Any, version: Any) -> pd.DataFrame:
    frame = pd.DataFrame({"image_id": image_id, "label": label, "size": size, "version": version})
    return frame.astype({"label": "int32", "size": "int64"})


# --- imagefolder: path/<class>/<image>


def _list_imagefolder(options: DataOptions) -> tuple[pd.DataFrame, list[str]]:
    root = str(options.path)
    folders: set[str] = set()
    files: list[_File] = []
    for file in _walk(root):
        folder, slash, name = file.path.partition("/")
        if "/" in name:
            raise UserError(
                f"{root!r} has folders inside its class folders ({file.path!r}): "
                "path must name the folder whose sub-folders are the classes"
            )
        if slash:
            folders.add(folder)  # an empty one too: it has its index all the same
        if name.lower().endswith(EXTENSIONS):
            files.append(file)
    names = sorted(folders)
    label = {name: index for index, name in enumerate(names)}
    files.sort(key=lambda file: _natural(file.path))
    paths = [file.path for file in files]
    labels = [label[path.partition("/")[0]] for path in paths]
    return _frame(paths, labels, [file.size for file in files], [file.version for file in files]), names


def _read_imagefolder(options: DataOptions, image_ids: Sequence[str]) -> Images:
    filesystem, root = _filesystem(str(options.path))

    def read_one(image_id: str) -> Image:
        try:
            return _retried(lambda: filesystem.open_input_file(f"{root}/{image_id}").readall())
        except (FileNotFoundError, PermissionError) as error:
            return _one_image_failed(error, filesystem, root)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return list(pool.map(read_one, image_ids))


# --- parquet: files with the columns image: struct<bytes, path> and label, an image is file#row


def _list_parquet(options: DataOptions) -> tuple[pd.DataFrame, list[str] | None]:
    root = str(options.path)
    files = sorted((f for f in _walk(root) if f.path.endswith(".parquet")), key=lambda f: _natural(f.path))
    with _parquet_errors(root):
        filesystem, path = _filesystem(root)
        folder = _parquet_folder(filesystem, path)
    if folder == path:
        files = _of_split(files, options.split)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        parts = list(pool.map(lambda file: _list_parquet_file(filesystem, folder, file), files))
    if not parts:
        return _frame([], [], [], []), None
    return pd.concat([images for images, _ in parts], ignore_index=True), parts[0][1]


@contextmanager
def _parquet_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"cannot read {path!r} as Parquet: {_reason(error)}") from None


def _parquet_folder(filesystem: pafs.FileSystem, path: str) -> str:
    """The folder that ids are relative to: the path, or where the path is one file, the file's folder."""
    return os.path.dirname(path) if filesystem.get_file_info(path).is_file else path


def _of_split(files: list[_File], split: str) -> list[_File]:
    """The files named <split>-*; all files where none is named by a split."""
    name = {file: os.path.basename(file.path) for file in files}
    chosen = [file for file in files if name[file].startswith(f"{split}-")]
    splits = {match[1] for file in files if (match := re.match(r"(.+)-\d+-of-\d+", name[file]))}
    if splits and not chosen:
        raise UserError(f"unknown split {split!r}: the files are of {', '.join(sorted(splits))}")
    return chosen or files


def _list_parquet_file(filesystem: pafs.FileSystem, folder: str, file: _File) -> tuple[pd.DataFrame, list[str] | None]:
    """Rows and class names of one file, from its footer and its label column alone."""
    with _parquet_errors(file.path), filesystem.open_input_file(f"{folder}/{file.path}") as handle:
        parquet = pq.ParquetFile(handle)
        _check_columns(parquet.schema_arrow, file.path)
        labels = pc.fill_null(parquet.read(columns=["label"])["label"], -1).to_numpy()
    groups = [parquet.metadata.row_group(i) for i in range(parquet.num_row_groups)]
    rows = [group.num_rows for group in groups]
    sizes = np.repeat([_image_bytes(group) // max(group.num_rows, 1) for group in groups], rows)
    ids = [f"{file.path}#{row}" for row in range(sum(rows))]
    return _frame(ids, labels, sizes, file.version), _hub_class_names(parquet.schema_arrow)


def _check_columns(schema: pa.Schema, path: str) -> None:
    types = {field.name: field.type for field in schema}
    image, label = types.get("image", pa.null()), types.get("label", pa.null())
    has_bytes = pa.types.is_struct(image) and image.get_field_index("bytes") >= 0
    if not has_bytes or not pa.types.is_integer(label):
        columns = ", ".join(f"{name}: {type_}" for name, type_ in types.items())
        raise UserError(f"{path!r} needs columns image: struct<bytes, path> and label: int, has {columns}")


def _image_bytes(group: Any) -> int:
    columns = [group.column(i) for i in range(group.num_columns)]
    return sum(c.total_uncompressed_size for c in columns if c.path_in_schema == "image.bytes")


def _hub_class_names(schema: pa.Schema) -> list[str] | None:
    """The names of a ClassLabel feature, which the hub's writers leave in the schema's metadata."""
    described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    return described.get("info", {}).get("features", {}).get("label", {}).get("names")


def _read_parquet(options: DataOptions, image_ids: Sequence[str]) -> Images:
    filesystem, root = _filesystem(str(options.path))
    folder = _retried(lambda: _parquet_folder(filesystem, root))
    places = pd.DataFrame([i.rsplit("#", 1) for i in image_ids], columns=["file", "row"]).astype({"row": int})
    images: dict[int, Image] = {}
    for file, rows in places.groupby("file").row:
        try:
            read = _retried(partial(_read_rows, filesystem, f"{folder}/{file}", rows.to_numpy()))
        except (FileNotFoundError, PermissionError) as error:
            read = [_one_image_failed(error, filesystem, root)] * len(rows)
        images.update(zip(rows.index, read, strict=True))
    return [images[position] for position in range(len(image_ids))]


def _read_rows(filesystem: pafs.FileSystem, path: str, rows: np.ndarray) -> Images:
    """The encoded images of some rows of one file; reads each row group that they lie in once."""
    images: Images = [IndexError("the row vanished after it was listed")] * len(rows)
    with filesystem.open_input_file(path) as handle:
        parquet = pq.ParquetFile(handle)
        sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
        starts = np.cumsum([0, *sizes])
        group_of = np.searchsorted(starts, rows, side="right") - 1
        for group in np.unique(group_of[rows < starts[-1]]):
            positions = np.flatnonzero(group_of == group)
            column = parquet.read_row_group(int(group), columns=["image.bytes"])["image"]
            encoded = pc.struct_field(column, "bytes").take(pa.array(rows[positions] - starts[group]))
            for position, image in zip(positions, encoded.to_pylist(), strict=True):
                images[position] = image if image is not None else ValueError("the row holds no image bytes")
    return images


# --- digits and cifar10: packaged data that fits in memory, an image is split#index


def digits_arrays(split: str) -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's handwritten digits: 1,078 images to train on and 719 to test on, always the same ones.

    Args:
        split: `train` or `test`.

    Returns:
        Images, uint8 (N, 8, 8, 3), the grey levels 0..16 stretched to 0..255, and labels, int64 (N,);
        image i is `<split>#i` of the source `digits`.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    levels, labels = load_digits(return_X_y=True)
    parts = train_test_split(np.arange(len(labels)), test_size=0.4, stratify=labels, random_state=0)
    chosen = np.sort(parts[["train", "test"].index(split)])
    grey = np.round(levels[chosen] * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return np.repeat(grey, 3, axis=3), labels[chosen].astype(np.int64)


def cifar10_arrays(path: str, split: str, download: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """CIFAR-10 from the folder that torchvision keeps it in.

    Args:
        path: Local folder that holds `cifar-10-batches-py`.
        split: `train` or `test`.
        download: Download it where it is missing.

    Returns:
        Images, uint8 (N, 32, 32, 3), and labels, int64 (N,); image i is `<split>#i` of the source `cifar10`.

    Raises:
        UserError: It is missing or damaged and `download` is false.
    """
    dataset = _cifar10(path, split, download)
    return dataset.data, np.asarray(dataset.targets, dtype=np.int64)


@lru_cache(maxsize=2)
def _cifar10(path: str, split: str, download: bool) -> CIFAR10:
    try:
        return CIFAR10(path, train=split == "train", download=download)
    except (RuntimeError, OSError) as error:
        raise UserError(f"no CIFAR-10 in {path!r} ({_reason(error)}): set download, or mend the path") from None


def _list_digits(options: DataOptions) -> tuple[pd.DataFrame, list[str]]:
    images, labels = digits_arrays(options.split)
    return _frame(_indices(options, images), labels, images[0].size, "scikit-learn"), list("0123456789")


def _list_cifar10(options: DataOptions) -> tuple[pd.DataFrame, list[str]]:
    dataset = _cifar10(str(options.path), options.split, options.download)
    ids = _indices(options, dataset.data)
    return _frame(ids, dataset.targets, dataset.data[0].size, dataset.tgz_md5), dataset.classes


def _indices(options: DataOptions, images: np.ndarray) -> list[str]:
    return [f"{options.split}#{index}" for index in range(len(images))]


def _read_digits(options: DataOptions, image_ids: Sequence[str]) -> Images:
    return _at_indices(digits_arrays(options.split)[0], image_ids)


def _read_cifar10(options: DataOptions, image_ids: Sequence[str]) -> Images:
    # Never downloads: many tasks of a node would write the same folder at once.
    return _at_indices(cifar10_arrays(str(options.path), options.split)[0], image_ids)


def _at_indices(images: np.ndarray, image_ids: Sequence[str]) -> Images:
    return [images[int(image_id.rsplit("#", 1)[1])] for image_id in image_ids]


class _Kind(NamedTuple):
    list: Callable[[DataOptions], tuple[pd.DataFrame, Any]]
    read: Callable[[DataOptions, Sequence[str]], Images]
    layout: str
    splits: tuple[str, ...] = ()


_KINDS = {
    "digits": _Kind(_list_digits, _read_digits, "it comes with scikit-learn", ("train", "test")),
    "cifar10": _Kind(_list_cifar10, _read_cifar10, "the folder that torchvision keeps CIFAR-10 in", ("train", "test")),
    "imagefolder": _Kind(
        _list_imagefolder, _read_imagefolder, f"a folder laid out <class>/<image>{'|'.join(EXTENSIONS)}"
    ),
    "parquet": _Kind(_list_parquet, _read_parquet, "a file, or a folder of files, named *.parquet"),
}
