"""The engine as a GPU has it: launches run when the host waits for votes, which it does a pass later, and no sooner."""

from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.forward_pass import ForwardPass
from raycsr.smoothing.options import Draws

SHAPE = (3, 4, 4)
CHECKS = [0, 64, 128, 256, 512]


class Brightness(nn.Module):
    def forward(self, pixels):
        score = pixels.double().mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-score, score], dim=1)


@dataclass
class Stream:
    """What was launched and has not run yet, of a pass that would run at once."""

    here: ForwardPass
    waiting: list = field(default_factory=list)
    passes: int = 0  # that were launched
    ahead: list[int] = field(default_factory=list)  # passes that were launched and had not run, at each wait for votes

    def put(self, slot, image):
        self.waiting.append(lambda: self.here.put(slot, image))

    def run(self, copies, cells):
        self.passes += 1
        self.waiting.append(lambda: self.here.run(copies, cells))

    def fetch(self, slots):
        fetched = []
        self.waiting.append(lambda: fetched.append(self.here.fetch(slots)))
        return Awaited(self, fetched, self.passes)


@dataclass
class Awaited:
    stream: Stream
    fetched: list
    passes: int

    def wait(self):
        self.stream.ahead.append(self.stream.passes - self.passes)
        while not self.fetched:
            self.stream.waiting.pop(0)()
        return self.fetched[0].wait()


def enough(counts0, counts, labels):
    """An image's label says how many hundreds of votes it wants."""
    return counts.sum(axis=1) >= 100 * labels


def sampler(is_behind, batch_size=256):
    made = Sampler(Brightness(), Draws(0.5, 64, 640, batch_size=batch_size), checks=CHECKS, enough=enough)
    made._is_behind = is_behind
    return made


def requests(count):
    images = torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return [Request(image, str(i), label=i % 6) for i, image in enumerate(images)]


def counted(made, given):
    found = {one.position: (one.counts0.tolist(), one.counts.tolist(), one.drawn) for one in made.sample(given)}
    return [found[i] for i in range(len(found))]


@pytest.mark.parametrize("batch_size", [64, 256])
def test_votes_are_those_of_passes_that_run_at_once(batch_size):
    behind = sampler(True, batch_size)
    behind._pass = Stream(behind._pass)
    assert counted(behind, requests(40)) == counted(sampler(False, batch_size), requests(40))


def test_a_full_pass_is_launched_before_votes_are_awaited_and_one_with_room_waits_for_what_may_fill_it():
    behind = sampler(True)
    behind._pass = stream = Stream(behind._pass)
    drawn = sum(drawn for _, _, drawn in counted(behind, requests(40)))
    full = -(-drawn // 256)
    assert stream.passes <= full + 8  # the last images are alone, and wait for nobody
    assert stream.ahead[:20] == [1] * 20 and stream.ahead[-1] == 0


def test_a_source_that_has_nothing_now_is_asked_again_before_the_next_pass():
    def now_and_then():
        for i, request in enumerate(requests(12)):
            yield from [None] * (i % 3) if i else []  # never while nothing is under way
            yield request

    assert counted(sampler(False), now_and_then()) == counted(sampler(False), requests(12))


def test_an_image_is_done_once_the_rules_that_it_wants_have_votes_enough():
    def of(wanted):
        network = Brightness()
        network.num_classes, network.class_names = 2, ("dark", "light")
        made = Sampler(
            network,
            Draws(0.5, 64, 640),
            rules=["argmax", "offset:dark=-5"],  # of a black image the one says dark, and the other light
            checks=CHECKS,
            enough=lambda counts0, counts, labels: counts[:, 1] > counts[:, 0],
        )
        (one,) = made.sample([Request(torch.zeros(SHAPE, dtype=torch.uint8), "black", wanted=wanted)])
        return one.counts.sum(axis=1).tolist()

    assert of([1]) == [64, 64]
    assert of([0]) == of([0, 1]) == of(None) == [640, 640]
