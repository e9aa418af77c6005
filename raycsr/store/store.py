"""A location and the files below it, with patience for storage that is away for a while."""

import io
import os
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import pyarrow as pa
from botocore.exceptions import NoCredentialsError

from raycsr import sealed
from raycsr.errors import DamagedFile, UserError, WaitedInVain, refuse_credentials, shown
from raycsr.store.errors import FAILURES, are_stale_keys, as_user_error, is_transient
from raycsr.store.files import File, LocalFiles
from raycsr.store.s3 import S3Files, forget_client

T = TypeVar("T")

PATIENCE = 300.0  # seconds for which storage that does not answer is waited for; RAYCSR_PATIENCE gives others
READERS = 16  # files, or folders, that are read side by side: reading waits for the network
_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)  # seconds before each further attempt; the last one again and again
_TAIL = 1 << 16  # bytes that hold nearly every footer
_ANONYMOUS = "anonymous@"  # as Ray's and Arrow's URIs have it


class Store:
    """The files under one location.

    S3 follows the usual AWS variables and profiles, as boto3 does. A location is no URI: what follows the bucket is
    the beginning of keys as it stands, be it `#`, `%`, a space or a letter of any script. `s3://anonymous@bucket/...`
    sends no keys, for buckets that are public. A store pickles: it is its location and its patience.

    Attributes:
        location: A local folder or file (made absolute) or an `s3://bucket/prefix`, without a trailing slash.
        remote: Whether the location is on S3.
        patience: Seconds for which an operation is tried again while the storage does not answer.
        retries: Number of times that an operation of this store was tried again.
    """

    def __init__(self, location: str | os.PathLike[str], patience: float | None = None) -> None:
        """Opens a location, which need not exist yet; asks nobody.

        Args:
            location: Location of the files.
            patience: Seconds of patience; by default those of RAYCSR_PATIENCE, or PATIENCE.

        Raises:
            UserError: the location has a scheme other than s3://, credentials or settings, no bucket, or a name that S3
                or a file system does not tell from others.
        """
        location = os.fspath(location)
        _check(location)
        self.remote = location.startswith("s3://")
        self.location = location.rstrip("/") if self.remote else os.path.abspath(location)
        self.patience, self.retries = _patience() if patience is None else patience, 0
        self._files: LocalFiles | S3Files
        if self.remote:
            bucket, _, prefix = self.location.removeprefix("s3://").partition("/")
            self._files = S3Files(bucket.removeprefix(_ANONYMOUS), prefix, bucket.startswith(_ANONYMOUS))
        else:
            self._files = LocalFiles(self.location)

    def __reduce__(self) -> tuple:
        """Pickles as the location and the patience."""
        return Store, (self.location, self.patience)

    def __repr__(self) -> str:
        """Shows the location."""
        return f"Store({self.location!r})"

    def at(self, name: str) -> "Store":
        """The store of a folder below this one."""
        return Store(f"{self.location}/{name}", self.patience)

    def _where(self, name: str) -> str:
        return f"{self.location}/{name}" if name else self.location

    def _try(self, name: str, operation: Callable[[], T]) -> T:
        """Runs an operation on a file; again while the storage does not answer and patience lasts.

        Raises:
            UserError: in one line, where it cannot be done; the cause stays attached.
        """
        start, attempts, renewed = time.monotonic(), 0, False
        while True:
            try:
                return operation()
            except UserError:
                raise
            except FAILURES as error:
                if are_stale_keys(error) and not renewed:
                    renewed = True
                    forget_client()
                    continue
                if isinstance(error, NoCredentialsError):
                    forget_client()  # or it would be without when they have come
                if not is_transient(error):
                    raise as_user_error(error, self._where(name)) from error
                line = as_user_error(error, self._where(name))
                delay = _DELAYS[min(attempts, len(_DELAYS) - 1)]
                if time.monotonic() - start + delay > self.patience:
                    raise WaitedInVain(str(line)) from error
                if attempts == 0:
                    warnings.warn(f"{line}; trying again for {self.patience:g} s", stacklevel=3)
                attempts += 1
                self.retries += 1
                time.sleep(delay)

    def find(self, name: str = "") -> File | None:
        """Size and version of a file, of the location itself without a name; None where there is no such file."""
        return self._try(name, lambda: self._files.find(name))

    def exists(self, name: str = "") -> bool:
        """Whether there is a file of this name."""
        return self.find(name) is not None

    def names(self, folder: str) -> list[str]:
        """Names of what a folder holds, files and folders, sorted; none where it does not exist."""
        # a dot marks a write that has not been renamed into place
        found = self._try(folder, lambda: self._files.names(folder))
        return sorted({name for name in found if not name.startswith(".")})

    def walk(self) -> Iterator[File]:
        """All files and folders below the location, or the file that it is, hidden ones too; in no order.

        Raises:
            UserError: it cannot be listed; FileMissing where a local one does not exist.
        """
        token: Any = None
        while True:
            files, token = self._try("", lambda: self._files.page(token))  # noqa: B023
            yield from files
            if token is None:
                return

    def read(self, name: str = "", fits: Callable[[int], bool] = lambda size: True) -> bytes:
        """The bytes of a file, of the location itself without a name.

        Args:
            name: Name of the file.
            fits: Function of the file's size, asked before it is read and again after a failure: whether to read it.

        Raises:
            FileMissing: there is none of this name.
            AccessDenied: it may not be read.
            FileTooLarge: it does not fit.
            UserError: it cannot be read for another reason.
        """
        return self._try(name, lambda: self._files.read(name, fits))

    def read_range(self, file: File, offset: int, size: int) -> bytes:
        """Bytes within a file, as `find` gave it; fewer where it ends before.

        Raises:
            UserError: it cannot be read, or has changed since.
        """
        size = min(size, file.size - offset)
        if size <= 0:
            return b""
        return self._try(file.path, lambda: self._files.read_range(file.path, offset, size, file.version))

    def open(self, name: str = "") -> "SeekableFile":
        """A file to read parts of, each with a request of its own.

        Raises:
            FileMissing: there is none of this name.
        """
        file = self.find(name)
        if file is None:
            raise as_user_error(FileNotFoundError(), self._where(name))
        return SeekableFile(self, file)

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole: a reader sees the old bytes or the new ones, never a part."""
        self._try(name, lambda: self._files.write(name, data))

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file only if there is none of this name; of several writers at once one wins.

        Returns:
            Whether the file holds what this call gave: a write whose answer was lost counts as done.
        """
        return self._try(name, lambda: self._files.create(name, data)) or self.read(name) == data

    def remove(self, name: str) -> None:
        """Deletes a file, if it is there."""
        self._try(name, lambda: self._files.remove(name))

    def age(self, name: str) -> float:
        """Seconds since a file was last written, by the clock of the store itself."""
        return self._try(name, lambda: self._files.age(name))

    def check_writable(self) -> None:
        """Finds out whether files can be written here, and leaves nothing behind.

        Raises:
            UserError: saying why not.
        """
        take_back = self._try("", self._files.try_to_write)
        self._try("", take_back)  # by itself: to begin anew would leave the first behind

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
        with self.open(name) as file:
            file.seek(-_TAIL, os.SEEK_END)
            tail = file.read()
            footer = sealed.footer_size(tail)
            if footer > len(tail):
                file.seek(-footer, os.SEEK_END)
                tail = file.read()
        return self._whole(name, lambda: sealed.footer_rows(tail))

    def _whole(self, name: str, read: Callable[[], T]) -> T:
        try:
            return read()
        except sealed.Damaged as error:
            raise DamagedFile(self._where(name), str(error)) from error

    def write_table(self, name: str, table: pa.Table, metadata: Mapping[str, str] | None = None) -> None:
        """Writes a table as one Parquet file, whole or not at all, with texts that are kept beside it."""
        self.write(name, sealed.to_bytes(table, metadata))


class SeekableFile(io.RawIOBase):
    """A file of a store, open to read parts of it; what it raises is a UserError, never OSError.

    Attributes:
        file: File that is read; where another version has taken its place, reading is refused.
    """

    def __init__(self, store: Store, file: File) -> None:
        """Takes a file as `Store.find`, or `Store.walk`, gave it."""
        self._store, self.file, self._position = store, file, 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position in bytes."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves, as files do."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.file.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def read(self, size: int | None = -1) -> bytes:
        """The next bytes, all that are asked for or there."""
        wanted = self.file.size if size is None or size < 0 else size
        data = self._store.read_range(self.file, self._position, wanted)
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _patience() -> float:
    text = os.environ.get("RAYCSR_PATIENCE", str(PATIENCE))
    try:
        return float(text)
    except ValueError:
        raise UserError(f"RAYCSR_PATIENCE is {shown(text)}; give seconds, as in 300") from None


def _check(location: str) -> None:
    """Refuses what is no location, or would not be the same to all who read it."""
    refuse_credentials(location)
    try:
        location.encode()
    except UnicodeEncodeError:
        raise UserError(f"location {shown(location)} is not UTF-8; rename it") from None
    if "\0" in location:
        raise UserError(f"location {shown(location)} has a zero byte; drop it")
    if not location.startswith("s3://"):
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", location):
            raise UserError(
                f"location {shown(location)} is neither a local path nor s3://; use one of the two (./ before a folder "
                "of that name)"
            )
        return
    bucket, _, prefix = location.removeprefix("s3://").partition("/")
    bucket = bucket.removeprefix(_ANONYMOUS)
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", bucket):
        raise UserError(f"location {shown(location)} names no bucket; write s3://bucket/prefix")
    if re.search(r"\?\w+=", prefix):
        raise UserError(
            f"location {shown(location)} carries settings; write s3://bucket/prefix, and set AWS_ENDPOINT_URL and "
            "AWS_REGION"
        )
    parts = prefix.removesuffix("/").split("/") if prefix else []
    if any(part in ("", ".", "..") for part in parts):
        raise UserError(f"location {shown(location)} has an empty folder name, . or ..; write the key without it")
