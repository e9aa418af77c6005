"""From a model spec to a base classifier: pixels in [0,1] -> logits, with normalisation inside."""

from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import is_raycsr_checkpoint, load_checkpoint, load_training_state, save_checkpoint
from raycsr.models.loading import has_weights, load_base_classifier
from raycsr.models.prepare import Precision, prepare_for_inference, refuse_batch_dependence, resolve_precision
from raycsr.models.rules import ARGMAX, Decisions, Rule, parse_rules
from raycsr.models.spec import ModelOptions, Preprocessing
from raycsr.models.weights import load_weights

__all__ = [
    "ARGMAX",
    "BaseClassifier",
    "Decisions",
    "ModelOptions",
    "Precision",
    "Preprocessing",
    "Rule",
    "has_weights",
    "is_raycsr_checkpoint",
    "load_base_classifier",
    "load_checkpoint",
    "load_training_state",
    "load_weights",
    "parse_rules",
    "prepare_for_inference",
    "refuse_batch_dependence",
    "resolve_precision",
    "save_checkpoint",
]
