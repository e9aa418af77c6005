"""The seeded noise scheme: standard normal draws that depend on (seed, image_id, phase, chunk) alone."""

import json
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from typing import Literal

import numpy as np
import torch

from raycsr.smoothing.options import CHUNK

LANE = 8
"""Samples of a chunk that share a stream on the CPU, so that threads can draw lanes side by side."""

Phase = Literal[
    "selection", "estimation", "pilot selection", "pilot estimation", "tuning selection", "tuning estimation"
]

Purpose = Literal["certification", "pilot", "tuning"]

PHASES: dict[Purpose, tuple[Phase, Phase]] = {
    "certification": ("selection", "estimation"),
    "pilot": ("pilot selection", "pilot estimation"),
    "tuning": ("tuning selection", "tuning estimation"),
}
"""The phases that selection and estimation votes are drawn in, by what the votes are for.

No two share noise. What is chosen after a look at votes (n after a pilot, a rule after its tuning) is then chosen
without a look at the votes that certify it.
"""


def noise_key(seed: int, image_id: str, phase: Phase, chunk: int) -> int:
    """Returns the 128-bit key under which one chunk of noise is drawn.

    A JSON list is hashed because its encoding is unambiguous: no two different tuples share a message.
    """
    message = json.dumps([seed, image_id, phase, chunk]).encode()
    return int.from_bytes(blake2b(message, digest_size=16).digest(), "little")


def fill_noise(out: torch.Tensor, seed: int, image_id: str, phase: Phase, chunk: int) -> None:
    """Fills `out` with the standard normal draws of one chunk.

    The CPU uses numpy's Philox under the whole 128-bit key, one counter range a lane (torch's CPU generator
    keeps 32 bits of a seed: streams would repeat). CUDA uses torch's Philox under the low 64 bits.
    The draws are equal for equal arguments on the same kind of device; CPU and CUDA draw different ones.

    Args:
        out: float32 (CHUNK, H, W, C), contiguous; overwritten whole.
        seed: of the run.
        image_id: of the image.
        phase: one of `PHASES`, none of which shares noise with another.
        chunk: index of the chunk within the phase.
    """
    key = noise_key(seed, image_id, phase, chunk)
    if out.device.type != "cpu":
        generator = torch.Generator(out.device)
        generator.manual_seed(key & (2**64 - 1))
        out.normal_(generator=generator)
        return
    lanes = out.numpy().reshape(CHUNK // LANE, -1)
    draws = [(lanes[i], key, i) for i in range(len(lanes))]
    threads = torch.get_num_threads()
    if threads == 1:
        for draw in draws:
            _fill_lane(*draw)
    else:
        list(_pool(threads).map(lambda draw: _fill_lane(*draw), draws))


def _fill_lane(lane: np.ndarray, key: int, index: int) -> None:
    stream = np.random.Generator(np.random.Philox(key=key, counter=index << 192))
    stream.standard_normal(out=lane, dtype=np.float32)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="noise")
