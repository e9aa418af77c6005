"""From a base classifier in float32 and images to one in int8: what flows through it is measured under noise."""

import copy
from collections.abc import Iterator

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.int8 import Calibration, measured, observed
from raycsr.models.prepare import fold_batch_norm, prepare_for_inference

_ROWS = 32  # noisy copies in a pass


@torch.no_grad()
def calibrated(base_classifier: BaseClassifier, images: np.ndarray, *, sigma: float, seed: int = 0) -> BaseClassifier:
    """Returns the base classifier as one in int8: of the same weights, and of scales that are measured here.

    Scales are chosen by PyTorch's `HistogramObserver`, which weighs what is cut off against what is rounded. What is
    measured is what the network sees: noisy copies, one of each image, behind its denoisers.

    Args:
        base_classifier: The base classifier; it is left as it is.
        images: Images of its input size, never those to be certified; uint8 (N, H, W, 3).
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        seed: Seed of the noise.

    Raises:
        UserError: It is in int8 already, or its network cannot be.
    """
    watching, places = watched(base_classifier)
    for pixels in noisy(images, sigma=sigma, seed=seed):
        try:
            logits = watching(pixels)
        except RuntimeError as error:  # a histogram has no place for what is not finite
            raise UserError(f"the network cannot be quantised to int8: {str(error).splitlines()[0]}") from error
        if not logits.isfinite().all():
            raise UserError("the network's logits are not finite, so it cannot be quantised to int8")
    quantised = copy.deepcopy(base_classifier)
    quantised.calibration = Calibration(float(sigma), measured(watching.network, places))
    return quantised


def watched(base_classifier: BaseClassifier) -> tuple[BaseClassifier, dict[str, list[str]]]:
    """A copy of a base classifier that watches what flows through its network, and the places (`observed`).

    Raises:
        UserError: It is in int8 already, or its network cannot be.
    """
    if base_classifier.calibration is not None:
        raise UserError("the model is quantised to int8 already: give the one that it was made of")
    watching = copy.deepcopy(base_classifier).cpu().eval().requires_grad_(False)
    fold_batch_norm(watching)  # as `prepare_for_inference` does: places are those of the folded network
    watching.network, places = observed(watching.network, watching.network_size)
    return watching, places


@torch.inference_mode()
def agreement(base_classifier: BaseClassifier, images: np.ndarray, *, sigma: float, seed: int) -> float:
    """The share of noisy copies, one of each image, of which the classifier says the same in int8 as in float32.

    Args:
        base_classifier: Base classifier that `calibrated` returned.
        images: Images of its input size; uint8 (N, H, W, 3).
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        seed: Seed of the noise.
    """
    exact = copy.deepcopy(base_classifier)
    exact.calibration = None
    exact = prepare_for_inference(exact, precision="fp32", device="cpu")
    rough = prepare_for_inference(base_classifier, precision="int8", device="cpu")
    same = [exact(one).argmax(1) == rough(one).argmax(1) for one in noisy(images, sigma=sigma, seed=seed)]
    return float(torch.cat(same).float().mean())


def noisy(images: np.ndarray, *, sigma: float, seed: int) -> Iterator[torch.Tensor]:
    """Noisy copies, one of each image: float32 (n, 3, H, W), channels last. Nothing is certified from them."""
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(images), _ROWS):
        pixels = torch.from_numpy(images[start : start + _ROWS]).float() / 255  # (n, H, W, 3)
        yield (pixels + sigma * torch.randn(pixels.shape, generator=generator)).permute(0, 3, 1, 2)
