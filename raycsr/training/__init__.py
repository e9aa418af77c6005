"""Training a base classifier for robustness under Gaussian noise."""

from raycsr.training.augmentation import AugmentationOptions, augmentation
from raycsr.training.batches import Batch, InMemoryBatches, whole_batch
from raycsr.training.holdout import HeldOut, Metrics, ValidationOptions, certified_metrics, check_validation, hold_out
from raycsr.training.loop import Batches, Epoch, Trainer, TrainingOptions, check_training
from raycsr.training.workers import num_workers, rank, share

__all__ = [
    "AugmentationOptions",
    "Batch",
    "Batches",
    "Epoch",
    "HeldOut",
    "InMemoryBatches",
    "Metrics",
    "Trainer",
    "TrainingOptions",
    "ValidationOptions",
    "augmentation",
    "certified_metrics",
    "check_training",
    "check_validation",
    "hold_out",
    "num_workers",
    "rank",
    "share",
    "whole_batch",
]
