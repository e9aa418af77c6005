"""What a kind of source is: how it lists and reads its images, and what it may be asked for."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from raycsr.data.images import Found, Images, Room
from raycsr.data.options import DataOptions


class SourceKind(NamedTuple):
    """A kind of source: a pair of functions, and what messages and checks need to know of it.

    Attributes:
        list: Options -> all images, without their pixels; ids are unique, and never absolute paths.
        read: Options and some of these ids -> each one's encoded bytes, or pixels, uint8 (H, W, 3), or the exception
            that says why this image cannot be read. What is wrong with the whole source is raised. Encoded bytes may
            ask the room for their size first, and are `images.LATER` where they find none.
        layout: Layout of the source, in words that end the message about a source without images.
        splits: Names of its splits; None where it has none, empty where they may have any name.
        columns: Options of single kinds that this kind takes, such as `label_column`.
        has_path: Whether `path` says where it is, local or s3://.
        local: Whether that path is of this machine alone.
        unlabelled: As `list`, where nobody has labelled the images; labels that it finds mean nothing. None where
            `list` does for that as well.
    """

    list: Callable[[DataOptions], Found]
    read: Callable[[DataOptions, Sequence[str], Room], Images]
    layout: str
    splits: tuple[str, ...] | None = None
    columns: tuple[str, ...] = ()
    has_path: bool = True
    local: bool = False
    unlabelled: Callable[[DataOptions], Found] | None = None
