"""Randomized smoothing's sampling: seeded noise, and the engine that counts votes on the device."""

from raycsr.smoothing.engine import NOT_FINITE, Counted, Request, Sampler, Votes, count_votes, is_out_of_memory
from raycsr.smoothing.noise import CHUNK, NOISE_SCHEME
from raycsr.smoothing.options import SamplingOptions, check_sampling

__all__ = [
    "CHUNK",
    "NOISE_SCHEME",
    "NOT_FINITE",
    "Counted",
    "Request",
    "Sampler",
    "SamplingOptions",
    "Votes",
    "check_sampling",
    "count_votes",
    "is_out_of_memory",
]
