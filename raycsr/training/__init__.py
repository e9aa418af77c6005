"""Training a base classifier for robustness under Gaussian noise."""

from raycsr.training.augmentation import AugmentationOptions, augmentation
from raycsr.training.batches import Batch, InMemoryBatches
from raycsr.training.holdout import (
    METRICS,
    HeldOut,
    ValidationOptions,
    certified_metrics,
    check_validation,
    hold_out,
)
from raycsr.training.loop import Epoch, Trainer, TrainingOptions, check_training

__all__ = [
    "METRICS",
    "AugmentationOptions",
    "Batch",
    "Epoch",
    "HeldOut",
    "InMemoryBatches",
    "Trainer",
    "TrainingOptions",
    "ValidationOptions",
    "augmentation",
    "certified_metrics",
    "check_training",
    "check_validation",
    "hold_out",
]
