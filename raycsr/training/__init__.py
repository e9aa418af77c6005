"""Training a base classifier for robustness under Gaussian noise."""

from raycsr.training.batches import InMemoryBatches
from raycsr.training.loop import Epoch, TrainingOptions, train

__all__ = ["Epoch", "InMemoryBatches", "TrainingOptions", "train"]
