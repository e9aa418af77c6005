"""What an actor samples and commits at once."""

import pandas as pd
import pytest

from raycsr.data.options import DataOptions
from raycsr.distributed.options import PoolOptions
from raycsr.distributed.pool import Probe
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import check
from raycsr.distributed.sampling.stream import Work, blocks_of
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions


@pytest.fixture
def blocks(tmp_path):
    """`blocks(groups, actors)`: the blocks of so many images that go on from each of some parts."""
    model = ModelOptions("cifar_resnet8", num_classes=10, input_size=8)
    asked = {"data": DataOptions("digits"), "model": model, "sampling": SamplingOptions(), "results": str(tmp_path)}

    def make(groups, actors):
        parts = [part for part, images in enumerate(groups) for _ in range(images)]
        missing = pd.DataFrame({"image_id": [str(i) for i in range(len(parts))], "label": 0, "rules": "argmax"})
        missing = missing.assign(continues=[f"{part}.parquet" for part in parts], batch_size=64)
        (job,) = check(SampleArguments(**asked, pool=PoolOptions(actors=actors)))
        return blocks_of(Work(job, None, Probe("fp32", "cpu", 64, 1e9), None, missing))

    return make


def test_each_actor_begins_with_one_image_and_has_four_blocks_at_least(blocks):
    sizes = [len(block) for block in blocks([100], actors=2)]
    assert sizes[:2] == [1, 1] and sum(sizes) == 100 and max(sizes) == 13


def test_a_block_goes_on_from_one_part(blocks):
    found = blocks([5, 3], actors=1)
    assert [set(block["continues"].to_pylist()) for block in found] == [{"0.parquet"}] * 3 + [{"1.parquet"}] * 2
    assert [image for block in found for image in block["image_id"].to_pylist()] == [str(i) for i in range(8)]


def test_what_goes_on_from_many_parts_is_not_cut_further(blocks):
    assert len(blocks([20] * 50, actors=2)) == 50 + 2
