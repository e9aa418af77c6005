"""The images that count of a run that a budget ended: as good a sample as one whose size was chosen before."""

import heapq
import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from raycsr.distributed.sampling.budget import Budget, Spending
from raycsr.results.prefix import in_random_order, prefix_of
from raycsr.store import Store

IMAGES, EASY, HARD = 200, 500, 20_000  # passes of an image
IS_HARD = np.random.default_rng(0).random(IMAGES) < 0.4
LISTING = pd.DataFrame({"image_id": [f"i{k}" for k in range(IMAGES)], "label": 0})
PASSES = dict(zip(LISTING["image_id"], np.where(IS_HARD, HARD, EASY).tolist(), strict=True))
DRAWS = 200


def sampled(order, block, at_once, is_killed):
    """Images that are done when 400,000 passes are spent: blocks that are begun are finished, unless all is killed."""
    coming = [order[start : start + block] for start in range(0, IMAGES, block)]
    spending, now, stops = Spending(Budget(400_000, is_time=False), runs=1), 0, False
    under_way, done = [], []
    while True:
        while coming and len(under_way) < at_once and not stops:
            begun = coming.pop(0)
            heapq.heappush(under_way, (now + sum(PASSES[one] for one in begun), begun))
        if not under_way or (stops and is_killed):
            return done
        now, ended = heapq.heappop(under_way)
        done += ended
        stops |= spending.is_spent(0, sum(PASSES[one] for one in ended))


@pytest.mark.parametrize(("block", "at_once", "is_killed"), [(5, 1, False), (5, 4, False), (5, 4, True), (1, 64, True)])
def test_of_the_images_that_count_as_many_are_easy_as_of_a_sample(tmp_path, block, at_once, is_killed):
    """By Wald's equation: whether an image counts follows from those before it, and where all is killed from itself."""
    store, share, over, of_done = Store(str(tmp_path)), 1 - IS_HARD.mean(), [], []
    store.write("budget.json", json.dumps({"budget": "4e5 passes", "rules": ["argmax"], "going_on": []}).encode())
    for seed in range(DRAWS):
        run = SimpleNamespace(store=store, manifest=lambda seed=seed: {"seed": seed})
        done = sampled(in_random_order(LISTING, seed)["image_id"].tolist(), block, at_once, is_killed)
        columns = {"image_id": done, "rule": ["argmax"] * len(done), "continues": pa.nulls(len(done), pa.string())}
        counted = prefix_of(run, LISTING, pa.table(columns))
        assert set(counted.image_ids) <= set(done) and counted.others == len(done) - len(counted.image_ids)
        over.append(sum((PASSES[one] == EASY) - share for one in counted.image_ids))
        of_done.append(sum((PASSES[one] == EASY) - share for one in done))
    error = np.std(over) / DRAWS**0.5
    assert abs(np.mean(over)) < block * is_killed + 3 * error
    if at_once == 64:  # easy images are done first: of all that are done too many are easy
        assert np.mean(of_done) > 10
