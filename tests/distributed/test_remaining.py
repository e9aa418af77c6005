"""What of a run is still to be drawn, and how often a command reads a part to know it."""

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from raycsr.data.options import DataOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.verbs.sample import sample

SEQUENTIAL = SamplingOptions(sigma=0.5, n0=32, n=1280, radii=[0.3], precision="fp32", batch_size=64)


@pytest.fixture
def reads(monkeypatch):
    """Counts how often each file is read."""
    read, counted = Store.read, Counter()

    def counting(store, name="", *arguments):
        counted[f"{store.location}/{name}"] += 1
        return read(store, name, *arguments)

    monkeypatch.setattr(Store, "read", counting)
    return counted


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param({}, {}, id="nothing is left"),
        pytest.param({}, {"data": DataOptions(source="digits", limit=24)}, id="more images"),
        pytest.param({}, {"rules": ["offset:1*seed:3"]}, id="another rule"),
        pytest.param({}, {"rules": ["offset:1*seed:3"], "budget": "1 passes"}, id="another rule for a budget"),
        pytest.param({"budget": "900 passes"}, {"budget": "1 passes"}, id="a budget goes on"),
        pytest.param({"sampling": SEQUENTIAL}, {"sampling": replace(SEQUENTIAL, radii=[0.3, 0.9])}, id="a radius more"),
    ],
)
def test_a_command_reads_each_part_of_a_run_once(job, s3, reads, before, after):
    options = job(costs=["uniform"], results=f"s3://{s3.new_bucket()}/results")
    (first,) = sample(**{**options, **before})
    parts = first.run.vote_parts()
    reads.clear()
    (second,) = sample(**{**options, **after})
    of_parts = Counter({part: reads[f"{first.run.location}/votes/{part}"] for part in second.run.vote_parts()})
    assert len(of_parts) > len(parts) if second.sampled else of_parts.keys() == set(parts)
    blocks = second.run.rows(["part", "continues"]).to_pandas().drop_duplicates().dropna()
    assert of_parts == Counter(of_parts.keys()) + Counter(blocks["continues"])  # what goes on is given its votes


@pytest.mark.filterwarnings("ignore")
def test_so_it_does_where_the_images_were_copied_since_and_where_the_run_was_joined(job, s3, reads, photographs):
    options = job(**photographs, results=f"s3://{s3.new_bucket()}/results")
    (first,) = sample(**options)
    for image in Path(photographs["data"].path).rglob("*.png"):
        os.utime(image, (0, 0))
    note = json.loads(first.run.store.read("finished.json"))
    first.run.store.write("finished.json", json.dumps({**note, "votes": "of other parts"}).encode())
    reads.clear()
    (second,) = sample(**options)
    assert {reads[f"{first.run.location}/votes/{part}"] for part in first.run.vote_parts()} == {1}
    assert not second.sampled and second.run.is_noted() and list(second.errors) == ["dog/1.png"]
