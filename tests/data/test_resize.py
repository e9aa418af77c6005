"""The pixels are timm's, whatever the size, the crop and the interpolation."""

import itertools

import numpy as np
import pytest
from PIL import Image
from timm.data import create_transform

from raycsr.data.resize import to_input_size
from raycsr.models.spec import Preprocessing

SIZES = [(37, 53), (500, 375), (32, 32), (8, 200), (200, 8), (225, 224), (1, 1), (30, 1000)]  # height, width
INPUTS = [(224, 224), (32, 32), (33, 33), (48, 64), (65, 33)]
INTERPOLATIONS = ["bicubic", "bilinear", "nearest", "lanczos", "box", "hamming"]


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
@pytest.mark.parametrize("crop_pct", [0.875, 0.95, 1.0])
def test_pixels_are_those_of_timms_evaluation_transform(crop_mode, crop_pct):
    generator, interpolations = np.random.default_rng(0), itertools.cycle(INTERPOLATIONS)
    for size, input_size in itertools.product(SIZES, INPUTS):
        interpolation = next(interpolations)
        image = Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8))
        timms = create_transform(
            (3, *input_size), interpolation=interpolation, crop_pct=crop_pct, crop_mode=crop_mode, normalize=False
        )
        ours = np.asarray(to_input_size(image, Preprocessing(input_size, interpolation, crop_pct, crop_mode)))
        assert (ours == timms(image).permute(1, 2, 0).numpy()).all(), (size, input_size, interpolation)
