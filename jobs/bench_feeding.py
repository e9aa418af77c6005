"""How much of each forward pass is used, and what the host does for it: the engine as actors feed it, but no network.

    python -m jobs.bench_feeding --published .../imagenet/resnet50/noise_0.50/test/sigma_0.50.tsv [--n N] [--out FILE]

The table of locuslab/smoothing has a radius for each image, which gives its share of votes; votes are drawn by these,
so that each image stops where it would. All else is the real thing: engine, threads, statements.
"""

import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from scipy.special import ndtr

from jobs.bench import show
from raycsr.certification import Statements, looks
from raycsr.cli import run_job
from raycsr.results import read_locuslab_tsv
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.feeder import Feeder
from raycsr.smoothing.forward_pass import KINDS, Fetched
from raycsr.smoothing.noise import Copies
from raycsr.smoothing.options import CHUNK, Draws

RADIUS, ALPHA, N0 = 0.5, 0.001, 64
BATCH_SIZES = (512, 1024, 2048, 4096)
# blocks that an actor has at once, and images of each: what there was before, and what a fast device gets
HANDS = {
    "block after block, 48 images": (1, 48),
    "block after block, 256": (1, 256),
    "4 blocks of 512 at once": (4, 512),
}


class Drawn:
    """A forward pass whose votes are drawn by an image's share, under the key of its noise."""

    def __init__(self, slots: int, rows: int) -> None:
        """All slots are empty."""
        self.rows, self.passes = rows, 0
        self._shares = np.zeros(slots)
        self._votes = np.zeros((slots, 1, KINDS, 3), np.int64)

    def put(self, slot: int, image: torch.Tensor) -> None:
        """An image's only pixel is its share."""
        self._shares[slot] = image.item()
        self._votes[slot] = 0

    def run(self, copies: Sequence[Copies], cells: np.ndarray) -> None:
        """Draws the votes of a pass."""
        self.passes += 1
        kinds = cells[:: self.rows] % KINDS  # of each of the copies
        for one, kind in zip(copies, kinds, strict=False):
            generator = np.random.Generator(np.random.Philox(key=one.key))
            right = generator.binomial(self.rows, self._shares[one.slot])
            self._votes[one.slot, 0, kind, :2] += (right, self.rows - right)

    def fetch(self, slots: Sequence[int]) -> Fetched:
        """A copy of votes."""
        return Fetched(torch.from_numpy(self._votes[list(slots)]), None)


def fed(shares: np.ndarray, labels: np.ndarray, what: Statements, hand: tuple[int, int], batch_size: int) -> dict:
    """Feeds an engine that is behind by a pass, as on a GPU, with all images, in blocks as an actor gets them."""
    at_once, size = hand
    draws = Draws(what.sigma, N0, what.n, batch_size=batch_size)
    sampler = Sampler(torch.nn.Identity(), draws, checks=looks(what.n, CHUNK), enough=what.rows_are_decided)
    drawn = Drawn(2 * batch_size // CHUNK, CHUNK)
    sampler._pass, sampler._is_behind = drawn, True  # type: ignore[assignment]
    feeder = Feeder(sampler)

    def requests(rows: range) -> Iterator[Request]:
        return (Request(torch.tensor([[[shares[i]]]]), str(i), int(labels[i])) for i in rows)

    def one_block(rows: range) -> int:
        with feeder.counting(requests(rows), len(rows), batch_size) as done:
            return sum(counted.drawn for counted, _ in done)

    blocks = [range(start, min(start + size, len(shares))) for start in range(0, len(shares), size)]
    start = time.process_time()
    with ThreadPoolExecutor(at_once) as pool:
        samples = sum(pool.map(one_block, blocks))
    return {
        "batch_size": batch_size,
        "samples_an_image": samples / len(shares),
        "rows_used": samples / (drawn.passes * batch_size),
        "passes": drawn.passes,
        "host_ms_a_pass": 1e3 * (time.process_time() - start) / drawn.passes,
    }


def main(*, published: str, n: int = 10_048, images: int = 6250, out: str | None = None) -> None:
    """Runs the benchmark and prints a table.

    Args:
        published: A table of locuslab/smoothing, .../sigma_SIGMA.tsv.
        n: Samples that an image may have, whole chunks.
        images: Number of images, drawn from the table again and again: an eighth of ImageNet's validation images.
        out: File for the figures as JSON.
    """
    sigma = float(Path(published).name.removesuffix(".tsv").removeprefix("sigma_"))
    table = read_locuslab_tsv(published)
    shares = np.where(table["abstain"], 0.5, ndtr(table["standard_radius"] / sigma))
    labels = np.where(table["abstain"] | (table["prediction"] == table["label"]), 0, 1)
    some = np.random.default_rng(0).integers(len(table), size=images)
    what = Statements([], [RADIUS], sigma=sigma, alpha=ALPHA, n=n)
    results = {
        name: [fed(shares[some], labels[some], what, hand, batch_size) for batch_size in BATCH_SIZES]
        for name, hand in HANDS.items()
    }
    show(results, out)


if __name__ == "__main__":
    sys.exit(run_job(main))
