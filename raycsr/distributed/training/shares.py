"""The shares of a run's votes, which some objectives lean on, read from where the run is stored."""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import pandas as pd

from raycsr.errors import UserError
from raycsr.results import resolve_run
from raycsr.results.schema import sparse_votes
from raycsr.training.objectives.shares import Shares


def read_shares(run: str, images: pd.DataFrame, class_names: Sequence[str], *, sigma: float) -> Shares:
    """Reads what a run's argmax votes say of the images of a training; warns where they are of other noise.

    Of an image that sequential sampling decided by its selection votes there are no others, and these count. One that
    could not be read has none: a training that cannot read it either leaves it out.

    Args:
        run: Location of a run of the training images.
        images: Images that the training takes, as they are listed: image_id, label, size.
        class_names: Classes of the training.
        sigma: Noise level of the training, in [0, 1] pixel units.

    Raises:
        UserError: There is no such run, it is of other classes or other images, or it has no row of some image.
    """
    found = resolve_run(run)
    manifest = found.manifest()
    names = manifest["class_names"]
    if list(names) != list(class_names):
        raise UserError(f"{run} has votes for the classes {list(names)}, and the training has {list(class_names)}")
    if not math.isclose(manifest["sigma"], sigma, rel_tol=1e-6):
        warnings.warn(
            f"{run} has votes at sigma {manifest['sigma']:g}, and the training is at {sigma:g}: they tell how sure the "
            "baseline is under other noise",
            stacklevel=2,
        )
    votes = found.votes("argmax")
    _refuse_other_images(run, found.images(), images)
    selection, estimation = (sparse_votes(votes[name]).dense(len(names)) for name in ("selection", "estimation"))
    counts = np.where(estimation.sum(axis=1, keepdims=True) > 0, estimation, selection)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    errored = votes["error"].is_valid().to_numpy()
    ids = np.array(votes["image_id"].to_pylist(), object)
    made = Shares(run, ids[~errored].tolist(), shares[~errored].astype(np.float32))
    made.refuse_others(images["image_id"][~images["image_id"].isin(ids[errored])].tolist())
    return made


def _refuse_other_images(run: str, sampled: pd.DataFrame, images: pd.DataFrame) -> None:
    """Refuses images of another label or size than the run has by their ids: `cat/0.png` is in many data."""
    both = images[["image_id", "label", "size"]].merge(sampled, on="image_id", suffixes=("", "_there"))
    for name in ("label", "size"):
        other = both["image_id"][both[name] != both[f"{name}_there"]]
        if len(other):
            raise UserError(
                f"{run} is of other data: {len(other)} of the training images have another {name} there, the first "
                f"{other.iloc[0]!r}; give a run of these images: raycsr sample --data.split train, with the data of "
                "this training"
            )
