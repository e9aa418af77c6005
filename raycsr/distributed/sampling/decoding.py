"""Decoding on Ray Data's tasks: a process that dies of an image is begun again, and then does without it."""

from collections.abc import Sequence

import numpy as np

from raycsr.data.decode import Decode, decode_images
from raycsr.distributed.sampling.deaths import Block, SharedDeaths, survive


class SurvivingDecode:
    """Decodes blocks as the `Decode` of their run does; what kills its process is an error of its image."""

    def __init__(self, decodes: Sequence[Decode], deaths: SharedDeaths | None = None) -> None:
        """Takes what decodes for each run, and where deaths are counted.

        Args:
            decodes: Decoders, by the number in the column `run` of a block; where there is none, the only one.
            deaths: Deaths of the stream's processes; None in the driver's own process.
        """
        self._decodes, self._deaths = decodes, deaths

    def __call__(self, block: Block) -> Block:
        """As `Decode.__call__`."""
        return survive(self._deaths, "decoded", block, self._decode_of(block), self._give_up)

    def _give_up(self, block: Block, why: str) -> dict[str, np.ndarray]:
        return {**block, **decode_images([ChildProcessError(why)], self._decode_of(block).preprocessing)}

    def _decode_of(self, block: Block) -> Decode:
        return self._decodes[int(block["run"][0]) if "run" in block else 0]
