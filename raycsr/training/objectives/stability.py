"""A denoiser that keeps what the classifier answers without noise (Salman et al., NeurIPS 2020, stability)."""

import torch
from torch import nn
from torch.nn import functional

from raycsr.training.objectives.denoise import squared_errors
from raycsr.training.objectives.reweighting import Reduction, reduced


def stability(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    sigma: float,
    costs: torch.Tensor | None,
    progress: float,
    generator: torch.Generator,
    mse: float = 0.0,
    reduction: Reduction = "mean",
) -> torch.Tensor:
    """Returns the mean cross-entropy of denoised images to the classifier's answers without noise, and an MSE term.

    It trains the denoisers in front of the classifier, which stays as it is; labels are not needed. Their code for it
    also begins with a denoiser that was trained by MSE (`denoise`, then its checkpoint as model.denoiser.name).

    Args:
        model: The base classifier, behind denoisers.
        images: Pixels in [0, 1]; float32 (N, 3, H, W).
        labels: Classes of the images, by which `stability_cs` alone weighs them; int64 (N,).
        sigma: Noise level in [0, 1] pixel units.
        costs: Cost matrix, which this objective does not use; (m, m).
        progress: Share of the training that is done; this objective does not use it.
        generator: Source of the noise, on the device of the images.
        mse: Weight of the mean squared error of the denoised pixels, in [0, 1] units, that is added.
        reduction: "mean" for the loss of the batch, "none" for its two parts of each image.

    Returns:
        The loss, a scalar; or each image's cross-entropy and weighed squared error, (N, 2).
    """
    with torch.no_grad():
        answers = model(images, part="classifier").argmax(dim=1)  # (N,)
    noise = torch.randn(images.shape, generator=generator, device=images.device)
    denoised = model(images + sigma * noise, part="denoisers")  # (N, 3, H', W')
    logits = model(denoised, part="classifier")  # (N, m)
    cross_entropy = functional.cross_entropy(logits.float(), answers, reduction="none")
    return reduced(cross_entropy, mse * squared_errors(denoised, images), reduction)
