"""Files under one folder, local or s3://, by one code path: atomic writes, exclusive creation, ages."""

import io
import os
import time
import uuid
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.exceptions
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq

from raycsr.errors import UserError


class Store:
    """The files under one location.

    S3 follows the usual AWS environment variables, AWS_ENDPOINT_URL among them. A store pickles: it is its
    location.

    Attributes:
        location: a local folder (made absolute) or an `s3://bucket/prefix`, without a trailing slash.
    """

    def __init__(self, location: str | os.PathLike[str]) -> None:
        """Opens a location, which need not exist yet.

        Raises:
            UserError: where the location has a scheme other than s3://.
        """
        location = os.fspath(location)
        if "://" in location and not location.startswith("s3://"):
            raise UserError(f"location {location!r} is neither a local path nor s3://; use one of the two")
        self.remote = location.startswith("s3://")
        self.location = location.rstrip("/") if self.remote else os.path.abspath(location)
        self._fs, self._root = pyarrow.fs.LocalFileSystem(), self.location
        if self.remote:
            with _explained(self.location):
                self._fs, self._root = pyarrow.fs.FileSystem.from_uri(self.location)

    def __reduce__(self) -> tuple:
        """Pickles as the location alone."""
        return Store, (self.location,)

    def __repr__(self) -> str:
        """Shows the location."""
        return f"Store({self.location!r})"

    def at(self, name: str) -> "Store":
        """The store of a folder below this one."""
        return Store(f"{self.location}/{name}")

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        with _explained(self.location):
            return self._fs.get_file_info(self._path(name)).type == pyarrow.fs.FileType.File

    def names(self, folder: str) -> list[str]:
        """Names of what a folder holds, files and folders, sorted; none where it does not exist."""
        selector = pyarrow.fs.FileSelector(self._path(folder), allow_not_found=True)
        with _explained(self.location):
            found = self._fs.get_file_info(selector)
        # a dot marks a write that has not been renamed into place
        return sorted(info.base_name for info in found if not info.base_name.startswith("."))

    def read(self, name: str) -> bytes:
        """The bytes of a file.

        Raises:
            UserError: where it cannot be read.
        """
        with _explained(f"{self.location}/{name}"), self._fs.open_input_stream(self._path(name)) as stream:
            return stream.read()

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole: a reader sees the old bytes or the new ones, never a part."""
        path = self._path(name)
        with _explained(f"{self.location}/{name}"):
            if self.remote:  # an object appears when its upload is complete
                with self._fs.open_output_stream(path) as stream:
                    stream.write(data)
                return
            os.replace(_written_beside(path, data), path)

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file only if there is none of this name; of several writers at once one wins.

        Returns:
            Whether this call wrote it.
        """
        path = self._path(name)
        with _explained(f"{self.location}/{name}"):
            if self.remote:
                bucket, key = path.split("/", 1)
                try:
                    _s3().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
                except botocore.exceptions.ClientError as error:
                    if error.response["Error"]["Code"] in (
                        "PreconditionFailed",
                        "ConditionalRequestConflict",
                    ):
                        return False
                    raise
                return True
            written = _written_beside(path, data)
            try:
                os.link(written, path)  # fails where there is a file, and shows a whole one where there was none
            except FileExistsError:
                return False
            finally:
                os.unlink(written)
            return True

    def age(self, name: str) -> float:
        """Seconds since a file was last written, by the clock of the store itself."""
        path = self._path(name)
        with _explained(f"{self.location}/{name}"):
            if not self.remote:
                return time.time() - os.stat(path).st_mtime
            bucket, key = path.split("/", 1)
            head = _s3().head_object(Bucket=bucket, Key=key)
            now = parsedate_to_datetime(head["ResponseMetadata"]["HTTPHeaders"]["date"])
            written: datetime = head["LastModified"]
            return (now - written).total_seconds()

    def read_table(self, name: str, columns: list[str] | None = None) -> pa.Table:
        """A Parquet file as a table.

        Raises:
            pyarrow.ArrowException, OSError: where the file is not whole Parquet.
            UserError: where it cannot be read at all.
        """
        return pq.read_table(io.BytesIO(self.read(name)), columns=columns)

    def write_table(self, name: str, table: pa.Table) -> None:
        """Writes a table as one Parquet file, whole or not at all."""
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        self.write(name, buffer.getvalue())


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


def _s3() -> Any:
    # a client a call: clients do not pickle, and these calls are rare; a session of its own sees mended keys
    return boto3.Session().client("s3")


class _explained:
    """Turns what a store's libraries raise into one line for the user; the cause stays attached."""

    def __init__(self, location: str) -> None:
        self.location = location

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError)):
            raise UserError(f"cannot use {self.location}: {_reason(error)}") from error


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
