"""The lattice noise on a GPU: one Triton kernel from the key to the pixels that the network sees.

It draws the bits, looks them up, adds the noise to the image's grey levels, divides by 255 and stores the copy,
channels last, in one pass: to the bit what `LatticeTable.fill` and `LatticeNoise.add` do on a CPU. What follows, the
normalisation and the cast, is the network's own. Under TRITON_INTERPRET=1 the kernel runs on a CPU, which is how it is
tested without a GPU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

from raycsr.smoothing.lattice import LatticeTable

if TYPE_CHECKING:
    from raycsr.smoothing.noise import Copies

_BLOCKS = 64  # of 16 elements, in each program

_ROUND_0 = tl.constexpr(0xD2E7470EE14C6C93)  # Philox4x64's multipliers
_ROUND_1 = tl.constexpr(0xCA5A826395121157)
_KEY_0 = tl.constexpr(0x9E3779B97F4A7C15)  # and what its keys grow by in each round
_KEY_1 = tl.constexpr(0xBB67AE8584CAA73B)


class LatticeKernel:
    """The noise of one table on one device."""

    def __init__(self, table: LatticeTable, device: torch.device) -> None:
        """Copies the table to the device."""
        self._lowest = table.lowest
        self._values = torch.from_numpy(table.values).to(device)
        self._starts = torch.from_numpy(table.starts).to(device)
        self._fractions = torch.from_numpy(table.fractions.view("i8")).to(device)
        most = int((table.starts[1:] - table.starts[:-1]).max())  # edges in one bucket
        self._halvings = most.bit_length()

    def numbers(self, copies: Sequence["Copies"]) -> torch.Tensor:
        """Noisy copies as the kernel reads them: slot, first row, low and high half of the key; int64 (copies, 4)."""
        halves = [(one.slot, one.first, _signed(one.key & (2**64 - 1)), _signed(one.key >> 64)) for one in copies]
        return torch.tensor(halves, dtype=torch.int64)

    def __call__(self, pixels: torch.Tensor, numbers: torch.Tensor, rows: int, out: torch.Tensor) -> None:
        """Writes float32(x + N) / 255, all on the device.

        Args:
            pixels: Grey levels, float32 (slots, H, W, C).
            numbers: Noisy copies to make, as `numbers` gives them.
            rows: Number of rows of each of them.
            out: Of which they take the first rows; float32 (B, H, W, C).
        """
        elements = pixels[0].numel()
        blocks = (rows * elements + 15) // 16 + 1  # one more where the first row begins within a block
        grid = (triton.cdiv(blocks, _BLOCKS), len(numbers))
        with torch.cuda.device_of(out):  # Triton launches on the current device
            _noisy_copies[grid](
                out,
                pixels,
                numbers,
                self._values,
                self._starts,
                self._fractions,
                self._lowest,
                rows,
                elements,
                HALVINGS=self._halvings,
                BLOCKS=_BLOCKS,
            )


def _signed(word: int) -> int:
    """The int64 of the same 64 bits."""
    return word - 2**64 if word >= 2**63 else word


@triton.jit
def _philox(block, stream: tl.constexpr, key_0, key_1):  # type: ignore[no-untyped-def]
    """The four words of blocks, uint64 of their shape each; the counter is (block + 1, stream, 0, 0)."""
    word_0 = block + 1
    word_1 = tl.zeros_like(word_0) + stream
    word_2 = tl.zeros_like(word_0)
    word_3 = tl.zeros_like(word_0)
    for _ in tl.static_range(10):
        high_0 = tl.umulhi(word_0, tl.zeros_like(word_0) + _ROUND_0)
        high_1 = tl.umulhi(word_2, tl.zeros_like(word_0) + _ROUND_1)
        low_0 = word_0 * _ROUND_0
        low_1 = word_2 * _ROUND_1
        word_0 = high_1 ^ word_1 ^ key_0
        word_1 = low_1
        word_2 = high_0 ^ word_3 ^ key_1
        word_3 = low_0
        key_0 += _KEY_0
        key_1 += _KEY_1
    return word_0, word_1, word_2, word_3


@triton.jit
def _one_of(place, word_0, word_1, word_2, word_3):  # type: ignore[no-untyped-def]
    """Of four words the one at a place."""
    return tl.where(place < 2, tl.where(place == 0, word_0, word_1), tl.where(place == 2, word_2, word_3))


@triton.jit(do_not_specialize=["lowest", "rows", "elements"])
def _noisy_copies(  # type: ignore[no-untyped-def]
    out,  # float32 (copies * rows, elements)
    pixels,  # float32 (slots, elements)
    copies,  # int64 (copies, 4): slot, first row, low and high half of the key
    values,  # the table
    starts,
    fractions,
    lowest,
    rows,
    elements,  # of an image
    HALVINGS: tl.constexpr,
    BLOCKS: tl.constexpr,
):
    """A program: elements of a chunk that stand next to each other, as (block of 16, word of the block, lane)."""
    one = tl.program_id(1).to(tl.int64)
    slot = tl.load(copies + 4 * one)
    begin = tl.load(copies + 4 * one + 1) * elements  # the first element, of the chunk's
    key_0 = tl.load(copies + 4 * one + 2).to(tl.uint64, bitcast=True)
    key_1 = tl.load(copies + 4 * one + 3).to(tl.uint64, bitcast=True)
    count = rows * elements

    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)[:, None, None]  # from the one of the first element on
    word = tl.arange(0, 4)[None, :, None]
    lane = tl.arange(0, 4)[None, None, :]
    place = (block * 4 + word) * 4 + lane - (begin % 16).to(tl.int32)  # among the elements of these
    mine = (place >= 0) & (place < count)

    block = (begin // 16 + block).to(tl.uint64)  # of the chunk's
    word_0, word_1, word_2, word_3 = _philox(block, 0, key_0, key_1)
    lanes = (_one_of(word, word_0, word_1, word_2, word_3) >> (16 * lane).to(tl.uint64)) & 0xFFFF
    bucket = lanes.to(tl.int32)
    noise = tl.load(values + bucket)

    straddles = mine & (noise == float("inf"))
    word_0, word_1, word_2, word_3 = _philox(block * 4 + word.to(tl.uint64), 1, key_0, key_1)
    more = _one_of(lane, word_0, word_1, word_2, word_3)
    low = tl.load(starts + bucket, mask=straddles, other=0)
    high = tl.load(starts + bucket + 1, mask=straddles, other=0)
    for _ in range(HALVINGS):
        is_open = low < high
        middle = (low + high) // 2
        fraction = tl.load(fractions + middle, mask=is_open, other=0).to(tl.uint64, bitcast=True)
        reached = is_open & (fraction <= more)
        high = tl.where(is_open & (fraction > more), middle, high)
        low = tl.where(reached, middle + 1, low)
    noise = tl.where(straddles, (lowest + low).to(tl.float32), noise)

    grey = tl.load(pixels + slot * elements + place % elements, mask=mine, other=0.0)
    copy = tl.div_rn(grey + noise, tl.zeros_like(noise) + 255.0)
    tl.store(out + one * count + place, copy, mask=mine)
