"""The shares of a run's votes, which some objectives lean on, read from where the run is stored."""

from collections.abc import Sequence

import numpy as np

from raycsr.errors import UserError
from raycsr.results import resolve_run
from raycsr.results.schema import sparse_votes
from raycsr.training.objectives.shares import Shares


def read_shares(run: str, image_ids: Sequence[str], class_names: Sequence[str]) -> Shares:
    """Reads what a run's argmax votes say of the images of a training.

    Args:
        run: Location of a run of the training images.
        image_ids: Images that the training takes.
        class_names: Classes of the training.

    Raises:
        UserError: There is no such run, it is of other classes, or it has no votes of some image.
    """
    found = resolve_run(run)
    names = found.manifest()["class_names"]
    if list(names) != list(class_names):
        raise UserError(f"{run} has votes for the classes {list(names)}, and the training has {list(class_names)}")
    votes = found.votes("argmax")
    counts = sparse_votes(votes["estimation"]).dense(len(names))
    total = counts.sum(axis=1)
    shares = counts / np.maximum(total, 1)[:, None]
    told = total > 0  # an errored image has no votes
    ids = np.array(votes["image_id"].to_pylist(), object)[told]
    made = Shares(run, ids.tolist(), shares[told].astype(np.float32))
    made.refuse_others(image_ids)
    return made
