"""The lattice noise on a GPU: from the key to the pixels that the network sees, in two Triton kernels.

The first draws the bits, looks them up, adds the noise to the image's grey levels, divides by 255 and stores the copy,
channels last, in one pass. It notes the few elements whose 16 bits leave more than one value, and the second finishes
those: done where they are, each would cost its whole warp. Together they do to the bit what `LatticeTable.fill` and
`LatticeNoise.add` do on a CPU. What follows, the normalisation and the cast, is the network's own. Under
TRITON_INTERPRET=1 the kernels run on a CPU, which is how they are tested without a GPU.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
import triton
import triton.language as tl

from raycsr.smoothing.lattice import LatticeTable

if TYPE_CHECKING:
    from raycsr.smoothing.noise import Copies

_BLOCKS = 32  # of 16 elements, in each program of the first kernel
_WARPS = 1  # so that each thread has a block of its own
_FINISHED = 256  # elements that a program of the second finishes at a time
_FINISHERS = 1024  # its programs

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
        self._unfinished_share = float(np.isinf(table.values).mean())
        self._unfinished = torch.empty(0, dtype=torch.int64, device=device)
        self._count = torch.zeros(1, dtype=torch.int32, device=device)

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
        copies = len(numbers) * rows
        # Half as many again as there will be, and 65,536: more than ever come. One beyond them would stay infinite,
        # and an infinite pixel voids its image.
        capacity = int(1.5 * self._unfinished_share * copies * elements) + 2**16
        if len(self._unfinished) < capacity:
            self._unfinished = self._unfinished.new_empty(capacity)
        blocks = triton.cdiv(elements, 16) + (elements % 16 != 0)  # one more where rows begin within a block
        noise = (out, pixels, numbers, self._unfinished, self._count)
        with torch.cuda.device_of(out):  # Triton launches on the current device
            self._count.zero_()
            _noisy_copies[(triton.cdiv(blocks, _BLOCKS), copies)](
                *noise, self._values, capacity, rows, elements, BLOCKS=_BLOCKS, num_warps=_WARPS
            )
            _finish[(_FINISHERS,)](
                *noise,
                self._starts,
                self._fractions,
                self._lowest,
                capacity,
                rows,
                elements,
                HALVINGS=self._halvings,
                BLOCK=_FINISHED,
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
def _side_by_side(one, two, three, four):  # type: ignore[no-untyped-def]
    """Four tensors, element by element: (..., 4)."""
    pairs = tl.join(tl.join(one, three), tl.join(two, four))
    return pairs.reshape(pairs.shape[:-2] + [4])  # noqa: RUF005  (Triton unpacks no lists)


@triton.jit(do_not_specialize=["capacity", "rows", "elements"])
def _noisy_copies(  # type: ignore[no-untyped-def]
    out,  # float32 (copies * rows, elements)
    pixels,  # float32 (slots, elements)
    copies,  # int64 (copies, 4): slot, first row, low and high half of the key
    unfinished,  # int64 (capacity,): row, place in it (28 bits) and bucket (16) of elements that want more bits
    count,  # int32 (1,): of those
    values,  # of the table, for each bucket
    capacity,
    rows,
    elements,  # of an image
    BLOCKS: tl.constexpr,
):
    """A program: blocks of 16 elements of one noisy copy that stand next to each other."""
    row = tl.program_id(1)
    one = row // rows
    slot = tl.load(copies + 4 * one)
    begin = (tl.load(copies + 4 * one + 1) + row % rows) * elements  # the row's first element, among the chunk's
    key_0 = tl.load(copies + 4 * one + 2).to(tl.uint64, bitcast=True)
    key_1 = tl.load(copies + 4 * one + 3).to(tl.uint64, bitcast=True)

    block = tl.program_id(0) * BLOCKS + tl.arange(0, BLOCKS)  # from the one of the first element on
    words = _philox((begin // 16 + block).to(tl.uint64), 0, key_0, key_1)
    word = _side_by_side(words[0], words[1], words[2], words[3])  # blocks 4
    bucket = _side_by_side(word & 0xFFFF, (word >> 16) & 0xFFFF, (word >> 32) & 0xFFFF, word >> 48)
    bucket = bucket.reshape((BLOCKS, 16)).to(tl.int32)
    place = block[:, None] * 16 + tl.arange(0, 16)[None, :] - (begin % 16).to(tl.int32)  # in the row
    mine = (place >= 0) & (place < elements)

    noise = tl.load(values + bucket)
    grey = tl.load(pixels + slot * elements + place, mask=mine, other=0.0)
    copy = tl.div_rn(grey + noise, tl.zeros_like(noise) + 255.0)
    tl.store(out + row.to(tl.int64) * elements + place, copy, mask=mine)

    straddles = (mine & (noise == float("inf"))).reshape((BLOCKS * 16,))
    before = tl.cumsum(straddles.to(tl.int32), 0) - 1
    at = tl.atomic_add(count, tl.sum(straddles.to(tl.int32), 0)) + before
    what = (row.to(tl.int64) << 44) | (place.to(tl.int64) << 16) | bucket.to(tl.int64)
    tl.store(unfinished + at, what.reshape((BLOCKS * 16,)), mask=straddles & (at < capacity))


@triton.jit(do_not_specialize=["lowest", "capacity", "rows", "elements"])
def _finish(  # type: ignore[no-untyped-def]
    out,
    pixels,
    copies,
    unfinished,
    count,
    starts,  # of the table: the first edge of each bucket
    fractions,  # and where in its bucket each edge is
    lowest,
    capacity,
    rows,
    elements,
    HALVINGS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A program: every so many of the elements that `_noisy_copies` noted."""
    total = tl.minimum(tl.load(count), capacity)
    for start in range(tl.program_id(0) * BLOCK, total, tl.num_programs(0) * BLOCK):
        each = start + tl.arange(0, BLOCK)
        mine = each < total
        what = tl.load(unfinished + each, mask=mine, other=0)
        row, place, bucket = what >> 44, (what >> 16) & 0xFFFFFFF, (what & 0xFFFF).to(tl.int32)
        one = row // rows
        slot = tl.load(copies + 4 * one)
        element = (tl.load(copies + 4 * one + 1) + row % rows) * elements + place  # among the chunk's
        key_0 = tl.load(copies + 4 * one + 2).to(tl.uint64, bitcast=True)
        key_1 = tl.load(copies + 4 * one + 3).to(tl.uint64, bitcast=True)
        words = _philox((element // 4).to(tl.uint64), 1, key_0, key_1)
        lane = element % 4
        more = tl.where(lane < 2, tl.where(lane == 0, words[0], words[1]), tl.where(lane == 2, words[2], words[3]))
        low, high = tl.load(starts + bucket), tl.load(starts + bucket + 1)
        for _ in range(HALVINGS):
            is_open = low < high
            middle = (low + high) // 2
            fraction = tl.load(fractions + middle, mask=is_open, other=0).to(tl.uint64, bitcast=True)
            reached = is_open & (fraction <= more)
            high = tl.where(is_open & (fraction > more), middle, high)
            low = tl.where(reached, middle + 1, low)
        noise = (lowest + low).to(tl.float32)
        grey = tl.load(pixels + slot * elements + place, mask=mine, other=0.0)
        tl.store(out + row * elements + place, tl.div_rn(grey + noise, tl.zeros_like(noise) + 255.0), mask=mine)
