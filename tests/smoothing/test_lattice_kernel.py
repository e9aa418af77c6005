"""The kernel against numpy, to the bit: on a GPU where there is one, else by Triton's interpreter on the CPU."""

import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.noise import Copies, LatticeNoise, noise_key
from raycsr.smoothing.options import CHUNK, Draws

pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs alone")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = torch.device("cpu" if INTERPRETED or not torch.cuda.is_available() else "cuda")

runs_kernels = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no GPU: a test below runs this one by the interpreter"
)


def kernel(table):
    from raycsr.smoothing.lattice_kernel import LatticeKernel

    return LatticeKernel(table, DEVICE)


@runs_kernels
@pytest.mark.parametrize("sigma", [0.25, 2.0])
@pytest.mark.parametrize(
    ("shape", "rows", "firsts"),
    [
        ((4, 4, 3), CHUNK, [0, 0]),  # several images in a pass
        ((5, 5, 3), 16, [16, 32]),  # of no whole number of blocks each
        ((5, 7, 3), 1, [0, 63, 7]),  # and in passes of one row
        ((1, 1, 1), 2, [4]),
    ],
)
def test_copies_are_those_of_the_cpu(sigma, shape, rows, firsts):
    scheme = LatticeNoise(sigma, rows, torch.device("cpu"))
    pixels = torch.randint(256, (6, *shape), generator=torch.Generator().manual_seed(0)).float()
    copies = [Copies(5 - i, noise_key(3, f"{i}.png", "estimation", i), first) for i, first in enumerate(firsts)]
    expected = torch.full((len(copies) * rows + 3, *shape), -7.0)
    found = expected.clone().to(DEVICE)
    scheme.add(pixels, copies, expected)
    drawn = kernel(scheme.table)
    drawn(pixels.to(DEVICE), drawn.numbers(copies).to(DEVICE), rows, found)
    assert torch.equal(found.cpu(), expected)


@runs_kernels
def test_both_halves_of_a_key_and_chunks_that_end_in_ones_are_used_whole():
    scheme = LatticeNoise(0.5, 4, torch.device("cpu"))
    pixels = torch.zeros((1, 2, 3, 3))
    copies = [Copies(0, key, 0) for key in (0, 1, 2**64, 2**127, 2**128 - 1, 2**63, 2**31)]
    expected = torch.empty((len(copies) * 4, 2, 3, 3))
    found = expected.clone().to(DEVICE)
    scheme.add(pixels, copies, expected)
    drawn = kernel(scheme.table)
    drawn(pixels.to(DEVICE), drawn.numbers(copies).to(DEVICE), 4, found)
    assert torch.equal(found.cpu(), expected)
    assert len(expected.flatten(1).unique(dim=0)) == len(expected)


class Brightness(nn.Module):
    def forward(self, pixels):
        score = pixels.double().mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-score, score], dim=1)


@runs_kernels
def test_votes_of_images_that_share_passes_are_those_of_the_cpu(monkeypatch):
    images = torch.randint(256, (2, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def votes(device):
        sampler = Sampler(Brightness(), Draws(0.5, 10, 40, batch_size=128), device=device)
        if device == DEVICE:
            monkeypatch.setattr(sampler._pass._noise, "kernel", kernel(sampler._pass._noise.table))
        requests = [Request(image, str(i)) for i, image in enumerate(images)]
        return {one.position: (one.counts0.tolist(), one.counts.tolist()) for one in sampler.sample(requests)}

    on_the_cpu = votes("cpu")
    assert votes(DEVICE) == on_the_cpu and len(on_the_cpu) == 2


@pytest.mark.skipif(INTERPRETED, reason="it is what runs the others so")
def test_the_same_by_the_interpreter():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.skipif(INTERPRETED, reason="interpreted kernels are not compiled")
def test_it_compiles_for_a_gpu_that_is_not_here(tmp_path, monkeypatch):
    """To the machine code of an H100: types and shapes are right, and the division is that of IEEE 754."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from raycsr.smoothing import lattice_kernel

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    noise = {"out": "*fp32", "pixels": "*fp32", "copies": "*i64", "unfinished": "*i64", "count": "*i32"}
    sizes = {"capacity": "i32", "rows": "i32", "elements": "i32"}
    table = {"starts": "*i32", "fractions": "*i64", "lowest": "i32"}
    for kernel, its_own, constants in (
        (lattice_kernel._noisy_copies, {"values": "*fp32"}, {"BLOCKS": 32}),
        (lattice_kernel._finish, table, {"HALVINGS": 11, "BLOCK": 256}),
    ):
        signature = noise | its_own | sizes | dict.fromkeys(constants, "constexpr")
        made = compile(ASTSource(kernel, signature, constexprs=constants), target=GPUTarget("cuda", 90, 32))
        assert "div.rn.f32" in made.asm["ptx"] and "div.full" not in made.asm["ptx"]
        assert len(made.asm["cubin"]) > 1000
