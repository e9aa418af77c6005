"""What names say of a split: images that are kept to test on are not for training, nor for tuning."""

import itertools
import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing
from raycsr.data.split_names import TEST, TRAIN, words
from raycsr.errors import UserError


def refuse_test_images(options: DataOptions, listing: Listing, *, allowed: bool) -> None:
    """Refuses images that are named test, val or validation, for training and for tuning.

    Asked are, whole words alone: the split; files that hold many images (shards) and folders below the path, but for
    those of a class; the last part of the path, or of an image root; and the folder that this lies in, where the split
    is its whole name. Of a path with several such names the last says what the images are: `test/cifar/train` is to
    train on. Names of single images are not asked: those of Imagenette's training images say `val`.

    Args:
        options: Options of the source, as `open_source` returns them.
        listing: Listing of the images.
        allowed: Whether the user takes such images all the same.

    Raises:
        UserError: naming the word and where it stands.
    """
    named = None if allowed else _named_test(options, listing)
    if named is not None:
        raise UserError(
            f"{named}, and numbers on images that a model was trained on, or a rule tuned on, say nothing about "
            "others; give training images (data.path, data.split), or --allow_test_images true to take these"
        )


def _named_test(options: DataOptions, listing: Listing) -> str | None:
    if options.split is not None and _test_word([options.split]):
        return f"data.split is {options.split!r}"
    classes = set(listing.class_names)
    folders = list(dict.fromkeys(_without_last(image_id) for image_id in listing.images["image_id"]))
    roots = [("data.image_roots", root) for root in options.image_roots or []]
    for (option, path), inside in itertools.product([("data.path", options.path), *roots], folders):
        below = [part for part in re.split("[/#]", inside) if part not in classes]
        if found := _test_word([*_path_parts(path), *below]):
            part, word = found
            where = f"{option} {path!r}" + (f" has {part!r}, which" if part in below else "")
            return f"{where} is named {word!r}"
    return None


def _without_last(image_id: str) -> str:
    """The folders and the shard of an image: all before its own name, row or key."""
    return image_id[: max(image_id.rfind("/"), image_id.rfind("#"), 0)]


def _path_parts(path: str | None) -> list[str]:
    """The last part of a path, and before it the folder around it where a split is its whole name."""
    if path is None:
        return []
    _, is_uri, rest = path.partition("://")
    parts = PurePosixPath(rest if is_uri else path).parts[1:]  # without the bucket, or the root
    around = [part for part in parts[-2:-1] if len(words(part)) == 1]
    return [*around, *parts[-1:]]


def _test_word(parts: Iterable[str]) -> tuple[str, str] | None:
    """The last part that is named by a split, and the word, where that is one to test on."""
    for part in reversed(list(parts)):
        found = words(part)
        to_test_on = [word for word in found if word in TEST]
        to_train_on = any(word in TRAIN for word in found)
        if to_test_on and not to_train_on:
            return part, to_test_on[0]
        if to_train_on and not to_test_on:
            return None
    return None
