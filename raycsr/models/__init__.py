"""From a model spec to a base classifier: pixels in [0,1] -> logits, with normalisation inside."""

from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import load_checkpoint, save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import Precision, prepare_for_inference, resolve_precision
from raycsr.models.rules import RULES, resolve_rule
from raycsr.models.spec import ModelOptions, Preprocessing

__all__ = [
    "RULES",
    "BaseClassifier",
    "ModelOptions",
    "Precision",
    "Preprocessing",
    "load_base_classifier",
    "load_checkpoint",
    "prepare_for_inference",
    "resolve_precision",
    "resolve_rule",
    "save_checkpoint",
]
