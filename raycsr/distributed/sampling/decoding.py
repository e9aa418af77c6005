"""Decoding on Ray Data's tasks: a process that dies of an image is begun again, and then does without it."""

import numpy as np

from raycsr.data.decode import Decode, decode_images
from raycsr.distributed.sampling.deaths import Block, SharedDeaths, survive


class SurvivingDecode:
    """Decodes blocks, as `Decode` does; what kills its process is an error of its image."""

    def __init__(self, decode: Decode, deaths: SharedDeaths) -> None:
        """Takes what decodes, and where deaths are counted."""
        self._decode, self._deaths = decode, deaths

    def __call__(self, block: Block) -> Block:
        """As `Decode.__call__`."""
        return survive(self._deaths, "decoded", block, self._decode, self._give_up)

    def _give_up(self, block: Block, why: str) -> dict[str, np.ndarray]:
        return {**block, **decode_images([ChildProcessError(why)], self._decode.preprocessing)}
