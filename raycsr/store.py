"""Files under one folder, local or s3://, by one code path: atomic writes, exclusive creation, ages."""

import os
import time
import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import Any, TypeVar

import boto3
import botocore.exceptions
import pyarrow as pa
import pyarrow.fs
from botocore.config import Config

from raycsr import sealed
from raycsr.errors import DamagedFile, UserError, refuse_credentials

T = TypeVar("T")

PATIENCE = 300.0  # seconds that a run under way waits for S3 to come back
_TAIL = 1 << 16  # bytes that hold nearly every footer
_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt; the last one again and again


class Store:
    """The files under one location.

    S3 follows the usual AWS environment variables, AWS_ENDPOINT_URL among them. A store pickles: it is its
    location and its patience.

    Attributes:
        location: a local folder (made absolute) or an `s3://bucket/prefix`, without a trailing slash.
        patience: seconds for which an operation is tried again while S3 does not answer.
        retries: how often that happened to this store.
    """

    def __init__(self, location: str | os.PathLike[str], patience: float = 0.0) -> None:
        """Opens a location, which need not exist yet.

        Raises:
            UserError: where the location has a scheme other than s3://, or credentials.
        """
        location = os.fspath(location)
        refuse_credentials(location)
        if "://" in location and not location.startswith("s3://"):
            raise UserError(f"location {location!r} is neither a local path nor s3://; use one of the two")
        self.remote = location.startswith("s3://")
        self.location = location.rstrip("/") if self.remote else os.path.abspath(location)
        self.patience, self.retries = patience, 0
        self._fs, self._root = pyarrow.fs.LocalFileSystem(), self.location
        if self.remote:  # which may ask for the bucket's region
            self._fs, self._root = self._try("", lambda: pyarrow.fs.FileSystem.from_uri(self.location))

    def __reduce__(self) -> tuple:
        """Pickles as the location and the patience."""
        return Store, (self.location, self.patience)

    def __repr__(self) -> str:
        """Shows the location."""
        return f"Store({self.location!r})"

    def at(self, name: str) -> "Store":
        """The store of a folder below this one."""
        return Store(f"{self.location}/{name}", self.patience)

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def _try(self, name: str, operation: Callable[[], T]) -> T:
        """Runs an operation on a file; again while S3 does not answer and patience lasts.

        Raises:
            UserError: in one line, where it cannot be done; the cause stays attached.
        """
        start, attempts = time.monotonic(), 0
        while True:
            try:
                return operation()
            except (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
                delay = _DELAYS[min(attempts, len(_DELAYS) - 1)]
                where = f"{self.location}/{name}" if name else self.location
                if not _is_transient(error) or time.monotonic() - start + delay > self.patience:
                    raise UserError(f"cannot use {where}: {_reason(error)}") from error
                if attempts == 0:
                    warnings.warn(f"{where}: {_reason(error)}; trying again for {self.patience:g} s", stacklevel=3)
                attempts += 1
                self.retries += 1
                time.sleep(delay)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        info = self._try(name, lambda: self._fs.get_file_info(self._path(name)))
        return info.type == pyarrow.fs.FileType.File

    def names(self, folder: str) -> list[str]:
        """Names of what a folder holds, files and folders, sorted; none where it does not exist."""
        selector = pyarrow.fs.FileSelector(self._path(folder), allow_not_found=True)
        found = self._try(folder, lambda: self._fs.get_file_info(selector))
        # a dot marks a write that has not been renamed into place
        return sorted(info.base_name for info in found if not info.base_name.startswith("."))

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            UserError: where it cannot be read.
        """

        def read() -> bytes:
            with self._fs.open_input_stream(self._path(name)) as stream:
                return stream.read()

        return self._try(name, read)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole: a reader sees the old bytes or the new ones, never a part."""
        path = self._path(name)
        if self.remote:  # in one request: a multipart upload would leave its parts behind where a writer dies
            bucket, key = path.split("/", 1)
            self._try(name, lambda: self._client.put_object(Bucket=bucket, Key=key, Body=data))
        else:
            self._try(name, lambda: os.replace(_written_beside(path, data), path))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file only if there is none of this name; of several writers at once one wins.

        Returns:
            Whether the file holds what this call gave: a write whose answer was lost counts as done.
        """
        path = self._path(name)
        if self.remote:
            return self._try(name, lambda: self._put_if_absent(path, data)) or self.read(name) == data
        return self._try(name, lambda: _link_if_absent(path, data)) or self.read(name) == data

    def _put_if_absent(self, path: str, data: bytes) -> bool:
        bucket, key = path.split("/", 1)
        while True:
            try:
                self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
                return True
            except botocore.exceptions.ClientError as error:
                code = error.response["Error"]["Code"]
                if code == "PreconditionFailed":
                    return False
                if code != "ConditionalRequestConflict":  # another's write is under way: ask again
                    raise

    def age(self, name: str) -> float:
        """Seconds since a file was last written, by the clock of the store itself."""
        path = self._path(name)
        if not self.remote:
            return self._try(name, lambda: time.time() - os.stat(path).st_mtime)
        bucket, key = path.split("/", 1)
        head = self._try(name, lambda: self._client.head_object(Bucket=bucket, Key=key))
        now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
        written: datetime = head["LastModified"]
        return (now - written).total_seconds()

    @cached_property
    def _client(self) -> Any:
        # a session of its own: the default one would keep credentials that the user has mended since
        return boto3.Session().client("s3", config=Config(connect_timeout=10, read_timeout=30))

    def read_table(self, name: str, columns: Sequence[str] | None = None) -> pa.Table:
        """A Parquet file as a table.

        Raises:
            DamagedFile: where it is not what was written, or lacks a column.
            UserError: where it cannot be read at all.
        """
        return self._whole(name, lambda: sealed.from_bytes(self.read(name), columns))

    def num_rows(self, name: str) -> int:
        """Rows of a Parquet file, by its footer alone.

        Raises:
            DamagedFile: where it is not what was written.
            UserError: where it cannot be read at all.
        """

        def read() -> bytes:
            with self._fs.open_input_file(self._path(name)) as file:
                size = file.size()
                tail = file.read_at(min(size, _TAIL), max(size - _TAIL, 0))
                footer = sealed.footer_size(tail)
                return tail if footer <= len(tail) else file.read_at(min(size, footer), max(size - footer, 0))

        return self._whole(name, lambda: sealed.footer_rows(self._try(name, read)))

    def _whole(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except sealed.Damaged as error:
            raise DamagedFile(f"{self.location}/{name}", str(error)) from error

    def write_table(self, name: str, table: pa.Table, metadata: Mapping[str, str] | None = None) -> None:
        """Writes a table as one Parquet file, whole or not at all, with texts that are kept beside it."""
        self.write(name, sealed.to_bytes(table, metadata))


def _written_beside(path: str, data: bytes) -> str:
    """Writes a hidden file in the same folder, to be moved into place, and returns its path."""
    folder, base = os.path.split(path)
    os.makedirs(folder, exist_ok=True)
    hidden = os.path.join(folder, f".{base}.{uuid.uuid4().hex}")
    with open(hidden, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return hidden


def _link_if_absent(path: str, data: bytes) -> bool:
    written = _written_beside(path, data)
    try:
        os.link(written, path)  # fails where there is a file, and shows a whole one where there was none
    except FileExistsError:
        return False
    finally:
        os.unlink(written)
    return True


_AWAY = (  # pyarrow's words
    "NETWORK_CONNECTION",
    "SLOW_DOWN",
    "SERVICE_UNAVAILABLE",
    "INTERNAL_FAILURE",
    "REQUEST_TIMEOUT",
    "HTTP status 5",
)


def _is_transient(error: BaseException) -> bool:
    """Whether S3 may answer the same request a little later; pyarrow says so in words, botocore by class and status."""
    if isinstance(error, botocore.exceptions.ClientError):
        status = error.response["ResponseMetadata"]["HTTPStatusCode"]
        return status >= 500 or status == 429
    if isinstance(error, botocore.exceptions.ConnectionError | botocore.exceptions.HTTPClientError):
        return True
    return any(sign in str(error) for sign in _AWAY)


def is_damage(error: BaseException) -> bool:
    """Whether an error of pyarrow is about the bytes of a file, which stay as they are, and not about getting them.

    It raises OSError for both: a system's error has a number, one of S3 says so.
    """
    of_access = isinstance(error, OSError) and (error.errno is not None or "AWS Error" in str(error))
    return isinstance(error, OSError | pa.ArrowException) and not of_access


_DENIED = "access denied; check the AWS keys and the bucket's policy"
_NO_BUCKET = "there is no such bucket; create it first"
_UNKNOWN_KEY = "the AWS access key is unknown there; check AWS_ACCESS_KEY_ID"
_WRONG_SECRET = "the AWS secret key is wrong; check AWS_SECRET_ACCESS_KEY"
_REASONS = {  # pyarrow's words and botocore's for the same thing
    "ACCESS_DENIED": _DENIED,
    "AccessDenied": _DENIED,
    "(403)": _DENIED,
    "INVALID_ACCESS_KEY_ID": _UNKNOWN_KEY,
    "InvalidAccessKeyId": _UNKNOWN_KEY,
    "SIGNATURE_DOES_NOT_MATCH": _WRONG_SECRET,
    "SignatureDoesNotMatch": _WRONG_SECRET,
    "NO_SUCH_BUCKET": _NO_BUCKET,
    "NoSuchBucket": _NO_BUCKET,
    "Unable to locate credentials": "no AWS credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "connect": "the S3 endpoint does not answer; check AWS_ENDPOINT_URL and the network",
    "No space left": "no space left on the device; free some and run the same command again",
    "Permission denied": "permission denied; choose a folder that you can write to",
}


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    text = " ".join(str(error).split())
    return next((reason for sign, reason in _REASONS.items() if sign in text), text)
