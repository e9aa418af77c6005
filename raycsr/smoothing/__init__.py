"""Randomized smoothing's sampling: seeded noise, and the engine that counts votes on the device."""

from raycsr.smoothing.engine import Sampler, Votes, count_votes
from raycsr.smoothing.noise import CHUNK, NOISE_SCHEME
from raycsr.smoothing.options import SamplingOptions

__all__ = ["CHUNK", "NOISE_SCHEME", "Sampler", "SamplingOptions", "Votes", "count_votes"]
