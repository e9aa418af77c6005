"""Which images a model was trained on, or a rule tuned on: kept with it, and recognised in the listing of a run."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
import pandas as pd

from raycsr.errors import UserError
from raycsr.results.notes import is_text, read_note
from raycsr.results.runs import Run

KEPT = 16_384  # hashes of a set, 8 bytes each
_AGAIN = "write the checkpoint again with raycsr"
_FOLDER = "known_sets"  # of a run


@dataclass(frozen=True)
class ImageSet:
    """Images as they were listed, in little space.

    An image is recognised by its id (its path below the data's path, or its place in a shard) and its size in bytes. So
    it is not where it was renamed, moved to another folder below the path, packed into another kind of source or
    encoded again; and another image of its id and size is taken for it, which small files of numbered names can be.
    Of a set of more than `KEPT` images those with the smallest hashes are kept, a sample that no one chose: shares are
    then estimates, and a few images among many may go unseen.

    Attributes:
        listing: Identity of the whole listing (`Listing.identity`), which these images are all or a part of.
        num_images: Number of the images.
        hashes: uint64, ascending.
    """

    listing: Mapping[str, str]
    num_images: int
    hashes: np.ndarray

    @classmethod
    def of(cls, images: pd.DataFrame, listing: Mapping[str, str]) -> "ImageSet":
        """The set of some rows of a listing: image_id, size."""
        return cls(listing, len(images), hashes_of(images)[:KEPT])

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        encoded = base64.b64encode(self.hashes.astype("<u8").tobytes()).decode()
        return {"listing": dict(self.listing), "num_images": self.num_images, "hashes": encoded}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> "ImageSet":
        """The reverse of `to_dict`.

        Raises:
            UserError: It is no such description.
        """
        try:
            hashes = np.frombuffer(base64.b64decode(stored["hashes"]), "<u8")
            found = cls(dict(stored["listing"]), int(stored["num_images"]), hashes)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"what is noted of the images of a training or a tuning is damaged: {_AGAIN}") from error
        if not 0 < len(hashes) <= found.num_images:
            raise UserError(f"{len(hashes)} hashes are noted of {found.num_images} images of a training: {_AGAIN}")
        return found

    @property
    def whole(self) -> bool:
        """Whether every image is known, rather than a sample of them."""
        return len(self.hashes) == self.num_images

    def share_of(self, hashes: np.ndarray) -> float:
        """The share of other images, by their hashes, that are of this set; an estimate where this is not whole."""
        if not self.whole:
            hashes = hashes[hashes <= self.hashes[-1]]  # of these, and no others, it is known
        return float(np.isin(hashes, self.hashes).mean()) if len(hashes) else 0.0


def hashes_of(images: pd.DataFrame) -> np.ndarray:
    """A 64-bit hash of the id and the size of each image, ascending."""
    keys = zip(images["image_id"], images["size"], strict=True)
    digests = b"".join(blake2b(f"{size} {name}".encode(), digest_size=8).digest() for name, size in keys)
    return np.sort(np.frombuffer(digests, "<u8"))


def trained_on(training_info: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The sets (`ImageSet.to_dict`) of a checkpoint's training, and of those that it started from.

    Raises:
        UserError: One is damaged.
    """
    noted = training_info.get("trained_on", [])
    return [ImageSet.from_dict(one).to_dict() for one in (noted if isinstance(noted, list) else [noted])]


def known_sets(training_info: Mapping[str, Any], rules: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """What is known of the images that a model was trained on, and some of its rules tuned on.

    Args:
        training_info: Facts of its checkpoint; earlier versions noted no images, so that nothing is known of theirs.
        rules: Id of each rule, and how a person writes it.

    Returns:
        A set each (`ImageSet.to_dict`), with `what` these images were for, and the `rule`, None of the training.

    Raises:
        UserError: One is damaged.
    """
    try:
        tuned = [(one["id"], one["tuned_on"]) for one in training_info.get("tuned_rules", []) if "tuned_on" in one]
    except (TypeError, KeyError) as error:
        raise UserError(f"what is noted of the tuning of rules is damaged: {_AGAIN}") from error
    trained = [{"what": "the model was trained on", "rule": None, **one} for one in trained_on(training_info)]
    return trained + [
        {"what": f"rule {spec} was tuned on", "rule": rule_id, **images}
        for rule_id, spec in rules
        for of_rule, images in tuned  # several, where it was tuned under several answers
        if of_rule == rule_id
    ]


def seen_images(
    known: Iterable[Mapping[str, Any]], images: Callable[[], pd.DataFrame], listing: Mapping[str, str]
) -> list[str]:
    """Says which images of a listing are in known sets.

    Args:
        known: Known sets, as `known_sets` returns them.
        images: Gives rows of the listing, image_id and size; asked only where something is known.
        listing: Identity of the listing.

    Returns:
        A line for each set that has some of the images, or is of the same listing.
    """
    sets = [(one["what"], ImageSet.from_dict(one)) for one in known]
    hashes = hashes_of(images()) if sets else np.array([])
    lines = [_line(what, seen, hashes, listing) for what, seen in sets]
    return list(dict.fromkeys(line for line in lines if line is not None))


def _line(what: str, seen: ImageSet, hashes: np.ndarray, listing: Mapping[str, str]) -> str | None:
    share, total = seen.share_of(hashes), len(hashes)
    if share:
        number = f"{share * total:,.0f}" if seen.whole else f"about {float(f'{100 * share:.2g}'):g} %"
        return (
            f"{number} of {total:,} images are, by name and size, among those that {what}: numbers on them say nothing "
            "about other images"
        )
    if dict(seen.listing) == dict(listing):
        return f"these are the data that {what}" + (", though other images of them" if seen.whole else "")
    return None


def note_known_sets(run: Run, known: Iterable[Mapping[str, Any]]) -> None:
    """Keeps known sets with a run, for those who read its numbers."""
    for one in known:
        text = json.dumps(one, sort_keys=True).encode()
        run.store.create(f"{_FOLDER}/{blake2b(text, digest_size=8).hexdigest()}.json", text)


def seen_images_of(run: Run, rules: Iterable[str]) -> list[str]:
    """Says which of a run's images its model was trained on, and some of its rules, by their ids, tuned on."""
    shown = set(rules)
    fields = {"what": is_text, "rule": lambda value: value is None or is_text(value)}
    names = [name for name in run.store.names(_FOLDER) if name.endswith(".json")]
    stored = [read_note(run.store, f"{_FOLDER}/{name}", fields, "move it away") for name in names]
    known = [one for one in stored if one.get("rule") is None or one["rule"] in shown]
    return seen_images(known, run.images, run.manifest().get("data", {})) if known else []
