"""What an actor shows to Prometheus, without a Prometheus: see tests/jobs for one."""

from collections import Counter

import pytest

from raycsr.distributed.sampling import prometheus as metrics
from raycsr.distributed.sampling.prometheus import Metrics


@pytest.fixture
def shown(monkeypatch):
    """Name -> what the counter has come to, or the gauge was last set to."""
    values = Counter()

    class Recorder:
        def __init__(self, name, *_, **__):
            self.name = name

        def set_default_tags(self, tags):
            assert tags == {"run": "ab12"}

        def inc(self, value):
            assert value > 0  # Ray's counters refuse zero
            values[self.name] += value

        def set(self, value):
            values[self.name] = value

    monkeypatch.setattr(metrics, "Counter", Recorder)
    monkeypatch.setattr(metrics, "Gauge", Recorder)
    return values


def test_blocks_add_up_and_retries_are_counted_once(shown):
    actor = Metrics("ab12")
    actor.add_block(images=3, errored=1, samples=2048, retries=2)
    actor.add_block(images=2, errored=0, samples=1024, retries=3)
    assert shown == {"raycsr_images": 5, "raycsr_errored_images": 1, "raycsr_samples": 3072, "raycsr_s3_retries": 3}


def test_a_batch_cut_to_a_quarter_is_two_halvings(shown):
    actor = Metrics("ab12")
    actor.show(1000, 0.5, 64)
    actor.show(1000, 0.25, 16)
    assert shown["raycsr_samples_per_second"] == 4000 and shown["raycsr_batch_size"] == 16
    assert shown["raycsr_out_of_memory_halvings"] == 2
