"""What stands behind the options of a training that goes on: its images and its costs, which a path only names."""

import hashlib
from collections.abc import Mapping
from typing import Any

from raycsr.costs import CostMatrix
from raycsr.data.sources import Listing
from raycsr.errors import UserError


def inputs_of(listing: Listing, costs: Mapping[str, CostMatrix]) -> dict[str, Any]:
    """Describes the images and the cost matrices of a training, or of a sweep, in JSON values.

    Args:
        listing: Listing of the images.
        costs: Spec of each cost matrix -> the matrix.
    """
    rows = listing.images.reindex(columns=["image_id", "label", "size", "group"]).itertuples(index=False, name=None)
    digest = hashlib.sha256("\n".join("\t".join(map(str, row)) for row in rows).encode()).hexdigest()[:16]
    return {
        "num_images": len(listing.images),
        "images": digest,
        "costs": {spec: matrix.digest for spec, matrix in costs.items()},
    }


def refuse_other_inputs(what: str, begun: Mapping[str, Any] | None, now: Mapping[str, Any]) -> None:
    """Refuses to go on with what was begun on other images, or under another matrix of the same name.

    Held-out images would be trained on, and half of the training would stand under a name that is not its own.

    Args:
        what: What goes on, as a message begins.
        begun: Its inputs then (`inputs_of`); None of what does not say so.
        now: Those of now.

    Raises:
        UserError: naming what differs.
    """
    if begun is None:
        return
    again = "put them back to go on, or give another --name"
    if begun["images"] != now["images"]:
        before, after = begun["num_images"], now["num_images"]
        differ = f"{after}" if before != after else f"as many of other names, labels, sizes or groups ({after})"
        raise UserError(f"{what} was begun on other images: {before} then, {differ} now; {again}")
    for spec, digest in now["costs"].items():
        if begun["costs"].get(spec, digest) != digest:
            raise UserError(f"{what} was begun when costs {spec!r} were another matrix; {again}")
