"""Blocks of several threads that share an engine: each has the votes it would have alone."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.feeder import Feeder
from raycsr.smoothing.options import Draws

SHAPE = (3, 4, 4)
PATIENCE = 60  # seconds after which a test has hung


class Brightness(nn.Module):
    """Counts its passes, and may do something in one of them."""

    def __init__(self, in_pass=None):
        super().__init__()
        self.passes, self.in_pass = 0, in_pass or (lambda passes, rows: None)

    def forward(self, pixels):
        self.passes += 1
        self.in_pass(self.passes, len(pixels))
        score = pixels.double().mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-score, score], dim=1)


def enough(counts0, counts, labels):
    return counts.sum(axis=1) >= 100 * labels


def sampler(network=None, batch_size=512):
    draws = Draws(0.5, 64, 640, batch_size=batch_size)
    return Sampler(network or Brightness(), draws, checks=[0, 64, 128, 256, 512], enough=enough)


def block(name, images):
    generator = torch.Generator().manual_seed(len(name))
    pixels = torch.randint(256, (images, *SHAPE), dtype=torch.uint8, generator=generator)
    return [Request(image, f"{name} {i}", label=i % 6) for i, image in enumerate(pixels)]


def of(done):
    return {one.position: (one.counts0.tolist(), one.counts.tolist(), one.drawn, one.error) for one in done}


def counted(feeder, requests, batch_size=512):
    with feeder.counting(requests, len(requests), batch_size) as done:
        pairs = list(done)
    assert len(pairs) == len(requests) and all(seconds >= 0 for _, seconds in pairs)
    return of(one for one, _ in pairs)


def alone(requests, batch_size=512):
    return of(sampler(batch_size=batch_size).sample(requests))


def counted_or_error(feeder, requests, number, batch_size):
    try:
        with feeder.counting(requests, number, batch_size) as done:
            return of(one for one, _ in done)
    except Exception as error:
        return error


class Gathering(Brightness):
    """Whose second pass waits until so many blocks are there."""

    def __init__(self, blocks, in_pass=None):
        super().__init__(in_pass)
        self.blocks, self.feeder = blocks, None

    def forward(self, pixels):
        end = time.monotonic() + PATIENCE
        while self.passes == 1 and len(self.feeder._blocks) < self.blocks and time.monotonic() < end:
            time.sleep(0.001)
        return super().forward(pixels)


def gathered(blocks, in_pass=None, batch_size=512):
    """A feeder, its network, and what each block had of it, in company."""
    network = Gathering(len(blocks), in_pass)
    network.feeder = feeder = Feeder(sampler(network, batch_size))
    with ThreadPoolExecutor(len(blocks)) as pool:
        futures = [pool.submit(counted_or_error, feeder, iter(one), len(one), batch_size) for one in blocks]
        return feeder, network, [future.result(PATIENCE) for future in futures]


def test_a_block_alone_is_counted_as_by_the_engine():
    requests = block("a", 30)
    assert counted(Feeder(sampler()), requests) == alone(requests)


def test_blocks_in_company_have_the_votes_that_each_has_alone_in_fewer_passes():
    blocks = [block("a", 30), block("bb", 11), block("ccc", 1)]
    _, network, found = gathered(blocks)
    assert found == [alone(one) for one in blocks]
    by_itself = Brightness()
    for one in blocks:
        list(sampler(by_itself).sample(one))
    assert network.passes < by_itself.passes


def test_blocks_come_and_go():
    """Each thread has a block after the other: somebody always drives, and none is counted twice."""
    network, blocks = Brightness(), [block("x" * k, 1 + k % 7) for k in range(1, 25)]
    feeder = Feeder(sampler(network))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda one: counted(feeder, one), blocks, timeout=PATIENCE)) == [alone(b) for b in blocks]


def test_what_breaks_the_engine_is_raised_for_all_of_the_company_and_the_next_block_begins_anew():
    def breaks(passes, rows):
        if passes == 3:
            raise RuntimeError("the device is lost")

    feeder, _, found = gathered([block("a", 30), block("bb", 30)], breaks)
    assert [str(one) for one in found] == ["the device is lost"] * 2
    assert counted(feeder, block("ccc", 9)) == alone(block("ccc", 9))


def test_out_of_memory_begins_all_blocks_again_in_smaller_passes():
    def runs_out(passes, rows):
        if passes == 3 and rows > 256:
            raise torch.OutOfMemoryError

    blocks = [block("a", 30), block("bb", 30)]
    feeder, _, found = gathered(blocks, runs_out)
    assert feeder._sampler.batch_size == 256 and found == [alone(one) for one in blocks]


def test_a_block_that_is_given_up_takes_nothing_from_another():
    """A consumer that breaks off in the middle: its images are nobody's, and the rest go on."""
    feeder, first = Feeder(sampler()), block("a", 30)
    with pytest.raises(ZeroDivisionError), feeder.counting(first, len(first), 512) as done:
        next(done)
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(counted, feeder, block("bb", 12))
            while len(feeder._blocks) < 2:
                time.sleep(0.001)
            done.close()  # as the end of `with` does
            assert other.result(PATIENCE) == alone(block("bb", 12))
        raise ZeroDivisionError
    assert not feeder._blocks and counted(feeder, first) == alone(first)


def test_a_batch_size_is_taken_when_nobody_is_under_way():
    feeder = Feeder(sampler())
    assert counted(feeder, block("a", 5), 128) == alone(block("a", 5), 128) and feeder._sampler.batch_size == 128
    assert counted(feeder, block("a", 5), 512) == alone(block("a", 5)) and feeder._sampler.batch_size == 512


def test_a_block_without_images_waits_for_nobody():
    assert counted(Feeder(sampler()), []) == {}
