"""Files of a source: what is below a root, and what stands for an image that cannot be read."""

import functools
import os
import re
from collections import Counter
from collections.abc import Iterator

from raycsr.data.images import LATER, MAX_BYTES, Image, Room, too_large
from raycsr.errors import UserError
from raycsr.store import AccessDenied, File, FileMissing, FileTooLarge, Store

_OF_FILE_MANAGERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")
READ_THREADS = 16  # an object store answers in tens of milliseconds: read many at once


def walk(root: str, left_out: Counter[str]) -> Iterator[File]:
    """All files below a root, or the root itself where it is a file, but hidden ones and those of file managers.

    Args:
        root: Local or s3://.
        left_out: Counts the files that are not yielded, by what they are.

    Raises:
        UserError: the root cannot be listed, or a name below it is not UTF-8.
    """
    try:
        for file in Store(root).walk():
            why = not_data(file.path)
            if why is None:
                yield _named(file, root)
            elif not file.path.endswith("/"):
                left_out[why] += 1
    except FileMissing:
        raise UserError(f"there is no {root!r}: check the path") from None


def not_data(path: str) -> str | None:
    """What a file is that nobody put there as data: `hidden`, or the folder it is in; None for all others."""
    for part in path.split("/"):
        if part in _OF_FILE_MANAGERS:
            return f"in {part}"
        if part.startswith(".") and part != ".":
            return "hidden"
    return None


def _named(file: File, root: str) -> File:
    """The file; its name becomes an id, which is stored as UTF-8."""
    try:
        file.path.encode()
    except UnicodeEncodeError:
        raise UserError(f"{file.path!r} below {root!r} has a name that is not UTF-8: rename it") from None
    return file


def folder_of(root: str) -> Store:
    """The folder that ids are relative to: the root, or where the root is one file, the file's folder."""
    store = Store(root)
    return Store(os.path.dirname(store.location)) if store.exists() else store


def read_image(folder: Store, path: str, room: Room) -> Image:
    """The bytes of an image file, or why they are not read.

    Raises:
        FileMissing, AccessDenied: for `instead` to tell whether that is so of one image, or of all.
        UserError: the storage stays away.
    """
    if room.full:
        return LATER
    fits = functools.cache(lambda size: size <= MAX_BYTES and room.take(size))  # cached: a retry takes no more room
    try:
        return folder.read(path, fits)
    except FileTooLarge as error:
        return too_large(error.size) if error.size > MAX_BYTES else LATER


def instead(error: FileMissing | AccessDenied, root: Store) -> Exception:
    """What stands for an image whose file is missing or forbidden, unless the whole source is.

    Raises:
        UserError: the source is missing on this node, or S3 refuses the keys.
    """
    if isinstance(error, AccessDenied) and root.remote:
        raise error
    if not root.exists() and not _holds_something(root):
        raise UserError(f"there is no {root.location!r} on this node: use a path all nodes share, or s3://")
    if isinstance(error, FileMissing):
        return FileNotFoundError("the file vanished after it was listed")
    return PermissionError("access to the file is denied")


def _holds_something(root: Store) -> bool:
    try:
        return next(root.walk(), None) is not None
    except FileMissing:
        return False


def natural(path: str) -> tuple[list[tuple[int, str]], str]:
    """Sort key under which a2 comes before a10; the path itself decides between a2 and a02."""
    parts = re.split(r"([0-9]+)", path)  # text and digits in turn; a number may be longer than Python converts
    digits = [part.lstrip("0") for part in parts[1::2]]
    parts[1::2] = digits
    return [(len(part) if i % 2 else 0, part) for i, part in enumerate(parts)], path


def reason(error: Exception) -> str:
    """The first line of an error's text; of one of the system, without its number and its path."""
    text = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return text.splitlines()[0] if text else type(error).__name__
