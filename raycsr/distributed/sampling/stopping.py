"""Blocks of a run that is to stop: those that are begun are finished, and the others are neither read nor sampled."""

from dataclasses import dataclass

import numpy as np

from raycsr.data.decode import Decode, decode_images
from raycsr.distributed.sampling.voter import Voters, VoterSpec
from raycsr.results.owners import reason_to_stop
from raycsr.store import Store


@dataclass(frozen=True)
class HeedingDecode(Decode):
    """Decodes as `Decode` does, until the driver of the run is asked to stop.

    Attributes:
        run: Location of the run.
        owner: Number of the driver that owns it.
    """

    run: str
    owner: int

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `Decode.__call__`; of a batch that is not begun, `stopped` is true, and its pixels are none."""
        if reason_to_stop(Store(self.run), self.owner) is None:
            return super().__call__(batch)
        images = len(batch["image_id"])
        nothing = decode_images([InterruptedError("not sampled: the run is to stop")] * images, self.preprocessing)
        return {**batch, **nothing, "stopped": np.ones(images, bool)}


class HeedingVoters(Voters):
    """Samples as `Voters` do, until the driver of the run is asked to stop."""

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """As `Voters.__call__`, with `stopped`: whether the block was left out."""
        spec, images = self._specs[int(block["run"][0])], len(block["image_id"])
        if not block["stopped"].any() and not _is_to_stop(spec):
            return {**super().__call__(block), "stopped": np.zeros(images, bool)}
        return {
            "image_id": block["image_id"],
            "error": np.full(images, None, object),
            "samples": np.zeros(images, np.int64),
            "batch_size": np.full(images, spec.draws.batch_size),
            "halved": np.zeros(images, bool),
            "run": block["run"],
            "stopped": np.ones(images, bool),
        }


def _is_to_stop(spec: VoterSpec) -> bool:
    return reason_to_stop(Store(spec.run), spec.owner) is not None
