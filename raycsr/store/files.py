"""What both kinds of storage have: the names of files, and the files of a local folder."""

import contextlib
import os
import stat
import time
import uuid
from collections.abc import Callable
from typing import NamedTuple

from raycsr.store.errors import ChangedFileError, FileTooLarge


class File(NamedTuple):
    """A file or a folder, as it was listed.

    Attributes:
        path: Relative to where the listing began; a folder ends with a slash.
        size: Size in bytes.
        version: Changes with the file: the etag on S3, or the mtime in ns.
    """

    path: str
    size: int
    version: str


class LocalFiles:
    """Files by their paths in the local file system; every method may raise OSError."""

    def __init__(self, root: str) -> None:
        """Takes the absolute path of a folder or a file."""
        self._root = root

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root

    def find(self, name: str) -> File | None:
        """What there is to know of a file; None where there is none of this name."""
        try:
            found = os.stat(self._path(name))
        except (FileNotFoundError, NotADirectoryError):
            return None
        return None if stat.S_ISDIR(found.st_mode) else _file(name, found)

    def names(self, folder: str) -> list[str]:
        """Names of what a folder holds."""
        try:
            return os.listdir(self._path(folder))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def page(self, folders: list[str] | None) -> tuple[list[File], list[str] | None]:
        """Some of all files and folders below the root, or the root itself where it is a file; and how to go on."""
        if folders is None:
            if not os.path.isdir(self._root):
                return [_file(os.path.basename(self._root), os.stat(self._root))], None
            folders = [""]
        *left, folder = folders
        files = []
        with os.scandir(self._path(folder.rstrip("/"))) as entries:
            for entry in entries:
                if entry.is_dir():
                    files.append(File(f"{folder}{entry.name}/", 0, ""))
                    left.append(f"{folder}{entry.name}/")
                else:  # a dangling link stays in the listing: its image counts, as one that cannot be read
                    files.append(_file(folder + entry.name, entry.stat(follow_symlinks=entry.is_file())))
        return files, left or None

    def read(self, name: str, fits: Callable[[int], bool]) -> bytes:
        """The bytes of a file.

        Raises:
            FileTooLarge: they do not fit.
        """
        with open(self._path(name), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if not fits(size):
                raise FileTooLarge(f"{self._path(name)} has {size:,} bytes, too many", size)
            return file.read()

    def read_range(self, name: str, offset: int, size: int, version: str) -> bytes:
        """Bytes within a file that is still of a version."""
        with open(self._path(name), "rb", buffering=0) as file:
            data = os.pread(file.fileno(), size, offset)
            while 0 < len(data) < size:  # the system reads 2 GiB at once, at most
                more = os.pread(file.fileno(), size - len(data), offset + len(data))
                if not more:
                    break
                data += more
            if str(os.fstat(file.fileno()).st_mtime_ns) != version or len(data) < size:
                raise ChangedFileError(name)
            return data

    def write(self, name: str, data: bytes) -> None:
        """Writes a file whole: beside its place, and then moves it there."""
        hidden = self._written_beside(name, data)
        try:
            os.replace(hidden, self._path(name))
        except BaseException:
            os.unlink(hidden)
            raise

    def create(self, name: str, data: bytes) -> bool:
        """Writes a file where there is none of this name; says whether it did."""
        hidden = self._written_beside(name, data)
        try:
            os.link(hidden, self._path(name))  # fails where there is a file, and shows a whole one where there was none
        except FileExistsError:
            return False
        finally:
            os.unlink(hidden)
        return True

    def remove(self, name: str) -> None:
        """Deletes a file, if it is there."""
        try:
            os.unlink(self._path(name))
        except FileNotFoundError:
            return

    def age(self, name: str) -> float:
        """Seconds since a file was last written."""
        return time.time() - os.stat(self._path(name)).st_mtime

    def try_to_write(self) -> Callable[[], object]:
        """Writes into the folder, or the nearest above it that is there; returns what is left to take back: nothing."""
        folder = self._root
        while not os.path.lexists(folder):
            folder = os.path.dirname(folder)
        hidden = os.path.join(folder, f".{uuid.uuid4().hex}")
        with open(hidden, "xb") as file:
            os.unlink(hidden)
            file.write(b"raycsr")
        return lambda: None

    def _written_beside(self, name: str, data: bytes) -> str:
        """Writes a hidden file in the same folder, and returns its path; a failure leaves no file and no new folder."""
        folder, base = os.path.split(self._path(name))
        is_new = not os.path.isdir(folder)
        os.makedirs(folder, exist_ok=True)
        hidden = os.path.join(folder, f".{base[:200]}.{uuid.uuid4().hex}")
        try:
            with open(hidden, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            if os.path.lexists(hidden):
                os.unlink(hidden)
            if is_new:
                with contextlib.suppress(OSError):  # another has written into it
                    os.rmdir(folder)
            raise
        return hidden


def _file(path: str, found: os.stat_result) -> File:
    return File(path, found.st_size, str(found.st_mtime_ns))
