"""The memory of a pass, counted by hand, and beside what a process takes."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from torch import nn

from raycsr.models.loading import load_base_classifier
from raycsr.models.memory import memory_of
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions


class Layers(nn.Module):
    """Two convolutions of 8 channels around a shortcut, and the mean of each channel."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.first(x)
        return (self.second(x) + x).mean(dim=(2, 3))


@pytest.fixture
def model():
    made = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16), num_classes=8)
    made.network = Layers()
    return made


@pytest.mark.parametrize(("precision", "size"), [("fp32", 4), ("bf16", 2)])
def test_what_is_alive_at_once_is_counted(model, precision, size):
    found = memory_of(model, precision)
    channels, pixels, floats = 16 * 16 * 8 * size, 16 * 16 * 3 * size, 16 * 16 * 3 * 4
    assert found.weights == (3 * 8 + 8 + 8 * 8 + 8) * size + 6 * 4
    # pixels, normalised, the two sides of the shortcut and their sum; in bf16 the normalised ones are there twice
    cast = 0 if precision == "fp32" else pixels
    assert found.row == 2 * floats + cast + 3 * channels


def test_what_has_been_used_is_counted_no_more_and_the_classifier_is_left_alone():
    plain = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16), num_classes=10)
    before, weights = plain.components, sum(one.numel() for one in plain.network.parameters())
    found = memory_of(plain, "fp32")
    assert plain.components == before and 4 * weights < found.weights < 4.2 * weights
    assert 3 * 16 * 16 * 16 * 4 <= found.row < 6 * 16 * 16 * 16 * 4  # of 17 layers' features no more than a few at once


def test_a_denoiser_is_part_of_it():
    asked = DenoiserOptions("dncnn", args={"depth": 5, "channels": 64})
    plain, behind = (
        memory_of(load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=one)), "fp32")
        for one in (None, asked)
    )
    assert behind.row >= 2 * 64 * 16 * 16 * 4 > plain.row / 2
    assert behind.weights > plain.weights


def test_a_denoiser_that_keeps_parts_in_float32_is_counted_as_it_is_cast():
    args = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2]}
    asked = DenoiserOptions("improved_diffusion", args=args, sigma=0.5)
    behind = load_base_classifier(ModelOptions("cifar_resnet8", input_size=16, denoiser=asked))
    whole, half = memory_of(behind, "fp32"), memory_of(behind, "bf16")
    assert half.row < whole.row
    cast = prepare_for_inference(behind, precision="bf16", device="cpu")
    weights = [*cast.denoisers.parameters(), *cast.network.parameters()]
    assert half.weights == pytest.approx(sum(one.nbytes for one in weights), rel=0.01)
    assert {one.dtype for one in cast.denoisers.parameters()} == {torch.float32, torch.bfloat16}


def test_code_that_looks_at_values_has_no_plan(model):
    class Looks(nn.Module):
        def forward(self, x):
            return x.mean(dim=(2, 3)) if x.sum() > 0 else x.amax(dim=(2, 3))

    model.network = nn.Sequential(Looks(), nn.Linear(3, 8))
    assert memory_of(model, "fp32") is None and torch.isfinite(model(torch.rand(1, 3, 16, 16))).all()


A_PROCESS = """
import ctypes, json, sys, torch
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import DenoiserOptions, ModelOptions

def resident(name):
    (line,) = [line for line in open("/proc/self/status") if line.startswith(name)]
    return int(line.split()[1]) * 1024

torch.set_num_threads(1)
asked, precision, rows = json.loads(sys.argv[1])
model = load_base_classifier(ModelOptions("cifar_resnet8", 10, input_size=32, denoiser=DenoiserOptions(**asked)))
prepared = prepare_for_inference(model, precision=precision, device="cpu")
with torch.inference_mode():
    prepared(torch.rand(1, 3, 32, 32))  # what a library makes once
    pixels = torch.rand(rows, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    before = resident("VmRSS")
    open("/proc/self/clear_refs", "w").write("5")  # the peak is forgotten
    prepared(pixels)
    print(resident("VmHWM") - before)
"""


@pytest.mark.long
@pytest.mark.parametrize(
    ("asked", "precision", "rows"),
    [
        (DenoiserOptions("improved_diffusion", sigma=0.25), "fp32", 8),  # of the published size
        (DenoiserOptions("improved_diffusion", sigma=0.25), "bf16", 8),
        (DenoiserOptions("improved_diffusion", sigma=0.25, levels=[0.2, 0.25, 0.3]), "fp32", 8),
        (DenoiserOptions("drunet", sigma=0.25), "fp32", 32),
        (DenoiserOptions("dncnn", sigma=0.25), "fp32", 128),
    ],
)
def test_a_process_takes_what_is_planned(asked, precision, rows):
    """The C library gives back what is freed here; as it comes it keeps some tens of MiB, whatever the batch."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux, which tells a process its peak")
    given_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-c", A_PROCESS, json.dumps([asdict(asked), precision, rows])]
    found = subprocess.run(words, env=os.environ | given_back, capture_output=True, text=True, check=True)
    behind = load_base_classifier(ModelOptions("cifar_resnet8", 10, input_size=32, denoiser=asked))
    assert rows * memory_of(behind, precision).row == pytest.approx(int(found.stdout), rel=0.2)
