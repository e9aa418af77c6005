"""Votes of a network in other precisions, and of a compiled one: it gets whole grey levels, and is asked as it is."""

import numpy as np
import pytest
import torch

from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.engine import Sampler
from raycsr.smoothing.lattice import lattice_table
from raycsr.smoothing.noise import noise_key
from raycsr.smoothing.options import CHUNK, Draws

SIGMA, SEED, NAME = 0.5, 3, "an image"


@pytest.fixture
def image():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=generator)


def noisy(image, phase, chunk):
    """Noisy copies of an image, drawn and added apart from the engine; int32 grey levels (CHUNK, C, H, W)."""
    noise = np.empty((CHUNK, *image.shape[1:], 3), np.float32)
    lattice_table(SIGMA).fill(noise.reshape(-1), noise_key(SEED, NAME, phase, chunk), 0)
    return image.to(torch.int32) + torch.from_numpy(noise).to(torch.int32).permute(0, 3, 1, 2)


@pytest.mark.parametrize(
    ("precision", "compiled"),
    [("bf16", False), ("fp16", False), pytest.param("bf16", True, marks=pytest.mark.long)],
)
@torch.inference_mode()
def test_votes_are_those_of_copies_that_are_made_apart(precision, compiled, image):
    base = load_base_classifier(ModelOptions("cifar_resnet8", input_size=8), num_classes=5)
    network = prepare_for_inference(base, precision=precision, device="cpu", compile=compiled)
    seen = []

    def asked(pixels):
        seen.append(255 * pixels.double())
        return network(pixels)

    counts0, counts = Sampler(asked, Draws(SIGMA, CHUNK, 3 * CHUNK, SEED, CHUNK)).count(image, NAME)
    copies = [noisy(image, "selection", 0), *(noisy(image, "estimation", chunk) for chunk in range(3))]
    for levels, copy in zip(seen, copies, strict=True):
        assert torch.equal(levels.round(), copy.double()) and (levels - copy).abs().max() < 1e-3  # its own last digits
    layout = torch.channels_last
    votes = [network((copy / torch.tensor(255.0)).contiguous(memory_format=layout)).argmax(dim=1) for copy in copies]
    expected = [np.bincount(torch.cat(part), minlength=5).tolist() for part in (votes[:1], votes[1:])]
    assert [counts0[0].tolist(), counts[0].tolist()] == expected
    assert np.count_nonzero(counts) > 1  # else any votes would do
