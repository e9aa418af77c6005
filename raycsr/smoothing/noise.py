"""The seeded noise schemes: noisy copies of images that depend on (seed, image_id, phase, chunk) alone.

`lattice` (v2) is that of every run: whole grey levels, exact, equal on every device (`lattice`). `float32` (v1) is
kept for `count_votes` on images that have no whole grey levels.
"""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from hashlib import blake2b
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
import torch

from raycsr.errors import UserError
from raycsr.smoothing.lattice import LatticeTable, lattice_table
from raycsr.smoothing.options import CHUNK

LANE = 8
"""Samples of a chunk that share a stream of float32 noise on the CPU, so that threads can draw lanes side by side."""

if TYPE_CHECKING:
    from raycsr.smoothing.lattice_kernel import LatticeKernel

Noise = Literal["lattice", "float32"]

Phase = Literal[
    "selection", "estimation", "pilot selection", "pilot estimation", "tuning selection", "tuning estimation"
]

Purpose = Literal["certification", "pilot", "tuning"]

PHASES: dict[Purpose, tuple[Phase, Phase]] = {
    "certification": ("selection", "estimation"),
    "pilot": ("pilot selection", "pilot estimation"),
    "tuning": ("tuning selection", "tuning estimation"),
}
"""The phases that selection and estimation votes are drawn in, by what the votes are for.

No two share noise. What is chosen after a look at votes (n after a pilot, a rule after its tuning) is then chosen
without a look at the votes that certify it.
"""

_ON_LATTICE = 2**-15  # grey levels: how far k / 255 is from k after two roundings to float32
_PIECE = 2**16  # elements that a thread draws at a time: they stay in its cache


def noise_key(seed: int, image_id: str, phase: Phase, chunk: int) -> int:
    """Returns the 128-bit key under which one chunk of noise is drawn.

    A JSON list is hashed because its encoding is unambiguous: no two different tuples share a message.
    """
    message = json.dumps([seed, image_id, phase, chunk]).encode()
    return int.from_bytes(blake2b(message, digest_size=16).digest(), "little")


class Copies(NamedTuple):
    """Noisy copies of one image that are rows of a chunk of noise.

    Attributes:
        slot: The image's place among the pixels.
        key: Key of the chunk.
        first: The first row within the chunk.
    """

    slot: int
    key: int
    first: int


class NoiseScheme(Protocol):
    """How pixels become noisy copies.

    Attributes:
        kernel: What makes them on a GPU from numbers that are there already; None where `add` is all there is.
    """

    kernel: "LatticeKernel | None"

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """An image (C, H, W) as `add` wants it, but for its type: uint8 or float32 (H, W, C).

        Raises:
            UserError: the scheme has no noise for such an image.
        """

    def add(self, pixels: torch.Tensor, copies: Sequence[Copies], out: torch.Tensor) -> None:
        """Writes noisy copies.

        Args:
            pixels: What `pixels` returned, float32 (slots, H, W, C).
            copies: Of which images, from which noise; the rows of one follow those of another.
            out: float32 (B, H, W, C) in [0, 1] pixel units, of which they take the first rows.
        """


def noise_scheme(noise: Noise, sigma: float, rows: int, device: torch.device) -> NoiseScheme:
    """The noise scheme of a name.

    Args:
        noise: Name of the scheme.
        sigma: Standard deviation of the noise, in [0, 1] pixel units.
        rows: Number of rows of each `Copies`, CHUNK at most.
        device: Device of the pixels.

    Raises:
        UserError: there is no such scheme.
    """
    if noise == "lattice":
        return LatticeNoise(sigma, rows, device)
    if noise == "float32":
        return Float32Noise(sigma, rows)
    raise UserError(f"noise is {noise!r}; give 'lattice', or 'float32' for pixels that are no whole grey levels")


def grey_levels(pixels: torch.Tensor) -> torch.Tensor:
    """Images as whole grey levels.

    Args:
        pixels: uint8 in 0..255, or floating point in [0, 1] that is k / 255 but for rounding to float32; any shape.

    Returns:
        uint8 of the same shape.

    Raises:
        UserError: they are no such images. To round them would be to certify other ones.
    """
    if pixels.dtype == torch.uint8:
        return pixels
    levels = pixels.double() * 255
    rounded = levels.round().clamp(0, 255)
    off = (levels - rounded).abs()
    if not (off <= _ON_LATTICE).all():  # nor NaN
        value = pixels.flatten()[int((~(off <= _ON_LATTICE)).flatten().nonzero()[0])].item()
        raise UserError(
            f"a pixel of type {pixels.dtype} is {value:.7g}, which is no k / 255 for a k of 0 to 255; give uint8 "
            "pixels, for certificates are exact for those alone, or count_votes(..., noise='float32')"
        )
    return rounded.to(torch.uint8)


class LatticeNoise:
    """Noise of whole grey levels, added exactly (`lattice` has the theorem); f sees float32(x + N) / 255.

    The same bits on every device: one kernel on a GPU, numpy elsewhere.

    Attributes:
        table: Inverse CDF of the noise level.
        kernel: The kernel that draws it on a GPU; None elsewhere, and where there is no Triton.
    """

    def __init__(self, sigma: float, rows: int, device: torch.device) -> None:
        """Builds the table of a noise level, or takes it from before."""
        self.table = lattice_table(float(sigma))
        self._rows = rows
        self.kernel = _kernel(self.table, device) if device.type == "cuda" else None

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """Grey levels, uint8 (H, W, C); refuses an image that has none."""
        return grey_levels(image).permute(1, 2, 0)

    def add(self, pixels: torch.Tensor, copies: Sequence[Copies], out: torch.Tensor) -> None:
        """Writes float32(x + N) / 255."""
        if self.kernel is not None:
            self.kernel(pixels, self.kernel.numbers(copies).to(out.device), self._rows, out)
        elif out.device.type == "cpu":
            self._add_here(pixels, copies, out)
        else:  # without Triton; and a division there need not be one on a CPU, to the last bit
            here = torch.empty(out.shape)
            self._add_here(pixels.cpu(), copies, here)
            out.copy_(here)

    def _add_here(self, pixels: torch.Tensor, copies: Sequence[Copies], out: torch.Tensor) -> None:
        whole = out[: len(copies) * self._rows].unflatten(0, (len(copies), self._rows))  # copies rows H W C
        elements = pixels[0].numel()
        pieces = []
        for one, rows in zip(copies, whole.flatten(1).numpy(), strict=True):
            for start in range(0, len(rows), _PIECE):
                pieces.append((rows[start : start + _PIECE], one.key, one.first * elements + start))
        _in_threads(lambda piece: self.table.fill(*piece), pieces)
        for one, noisy in zip(copies, whole, strict=True):
            noisy.add_(pixels[one.slot]).div_(255)


class Float32Noise:
    """Noise that is drawn and added in float32 (v1): its low bits tell what it was added to, so it has no theorem."""

    kernel: "LatticeKernel | None" = None

    def __init__(self, sigma: float, rows: int) -> None:
        """Takes the noise level, and the rows of each `Copies`."""
        self._sigma, self._rows = sigma, rows
        self._chunk, self._drawn = torch.empty(0), -1  # of noise, and its key

    def pixels(self, image: torch.Tensor) -> torch.Tensor:
        """Pixels in [0, 1], float32 (H, W, C)."""
        return (image.float() / 255 if image.dtype == torch.uint8 else image.float()).permute(1, 2, 0)

    def add(self, pixels: torch.Tensor, copies: Sequence[Copies], out: torch.Tensor) -> None:
        """Writes x + sigma * eps; a chunk is drawn whole and cut."""
        for one, noisy in zip(copies, out.split(self._rows), strict=False):
            if self._chunk.shape[1:] != noisy.shape[1:]:
                self._chunk, self._drawn = noisy.new_empty((CHUNK, *noisy.shape[1:])), -1
            if one.key != self._drawn:
                fill_noise(self._chunk, one.key)
                self._drawn = one.key
            noise = self._chunk[one.first : one.first + self._rows]
            torch.add(pixels[one.slot], noise, alpha=self._sigma, out=noisy)


def fill_noise(out: torch.Tensor, key: int) -> None:
    """Fills `out` with the standard normal draws of one chunk, in float32.

    The CPU uses numpy's Philox under the whole 128-bit key, one counter range a lane (torch's CPU generator
    keeps 32 bits of a seed: streams would repeat). CUDA uses torch's Philox under the low 64 bits.
    The draws are equal for equal arguments on the same kind of device; CPU and CUDA draw different ones.

    Args:
        out: Overwritten whole; float32 (CHUNK, H, W, C), contiguous.
        key: Key of the chunk, as `noise_key` gives it.
    """
    if out.device.type != "cpu":
        generator = torch.Generator(out.device)
        generator.manual_seed(key & (2**64 - 1))
        out.normal_(generator=generator)
        return
    lanes = out.numpy().reshape(CHUNK // LANE, -1)
    _in_threads(lambda i: _fill_lane(lanes[i], key, i), range(len(lanes)))


def _fill_lane(lane: np.ndarray, key: int, index: int) -> None:
    stream = np.random.Generator(np.random.Philox(key=key, counter=index << 192))
    stream.standard_normal(out=lane, dtype=np.float32)


def _in_threads(work: Callable, pieces: Iterable) -> None:
    """Does pieces of work on as many threads as torch has; numpy gives up the interpreter's lock meanwhile."""
    threads = torch.get_num_threads()
    if threads == 1:
        for piece in pieces:
            work(piece)
    else:
        list(_pool(threads).map(work, pieces))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="noise")


def _kernel(table: LatticeTable, device: torch.device) -> "LatticeKernel | None":
    """The kernel; None, and a warning, on a machine that cannot build it."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    if find_spec("triton") is None or compiler is None:
        lacking = "Triton" if find_spec("triton") is None else "C compiler, which Triton needs"
        warnings.warn(f"there is no {lacking}: noise comes from the CPU, which is slow; install it", stacklevel=2)
        return None
    from raycsr.smoothing.lattice_kernel import LatticeKernel  # Triton comes with PyTorch for GPUs alone

    return LatticeKernel(table, device)
