"""From a timm name, a checkpoint or `ModelOptions` to a base classifier ready for inference."""

import os
from dataclasses import replace

import timm
import torch

from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier, create_base_classifier
from raycsr.models.checkpoints import load_checkpoint
from raycsr.models.spec import ModelOptions


def load_base_classifier(
    model: str | ModelOptions, *, num_classes: int | None = None, device: str | torch.device = "cpu"
) -> BaseClassifier:
    """Loads or creates a base classifier, in eval mode and without gradients for its weights.

    Args:
        model: A timm name, the path or s3:// URI of a checkpoint, or `ModelOptions`.
        num_classes: The number of classes it must have. A model with random weights gets a head of that size.
        device: Where to put it.

    Returns:
        A module that maps pixels (N, 3, H, W) in [0,1] to logits (N, num_classes).

    Raises:
        UserError: The name is unknown or ambiguous, the checkpoint cannot be read, or it has
            another number of classes.
    """
    options = ModelOptions(model) if isinstance(model, str) else model
    if _is_checkpoint(options.name):
        base_classifier = _from_checkpoint(options)
    else:
        if not options.pretrained and options.num_classes is None:
            options = replace(options, num_classes=num_classes)
        base_classifier = create_base_classifier(options)
    if num_classes not in (None, base_classifier.num_classes):
        raise UserError(
            f"model {options.name!r} has {base_classifier.num_classes} classes, {num_classes} are needed: "
            f"choose another, or train a new head (model.num_classes: {num_classes})."
        )
    return base_classifier.eval().requires_grad_(False).to(device)


def _is_checkpoint(name: str) -> bool:
    """Whether the name means a file; one that also means a timm model is refused."""
    if os.path.isfile(name) and timm.is_model(name):
        raise UserError(
            f"model.name {name!r} is a timm model and a file here: "
            f"say './{name}' for the file, or rename the file for the timm model."
        )
    if name.startswith(("hf-hub:", "local-dir:")):
        return False
    return "/" in name or os.path.isfile(name) or name.endswith((".pt", ".pth", ".tar", ".ckpt"))


def _from_checkpoint(options: ModelOptions) -> BaseClassifier:
    if options.args or options.pretrained:
        raise UserError(
            f"{options.name!r} brings its own architecture and weights: leave out model.args and pretrained."
        )
    base_classifier = load_checkpoint(options.name)
    if options.num_classes not in (None, base_classifier.num_classes):
        raise UserError(
            f"the checkpoint {options.name} has {base_classifier.num_classes} classes, "
            f"model.num_classes says {options.num_classes}: leave it out or choose another checkpoint."
        )
    if options.input_size is not None:
        size = (options.input_size, options.input_size)
        base_classifier.preprocessing = replace(base_classifier.preprocessing, input_size=size)
    return base_classifier
