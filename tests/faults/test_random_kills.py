"""A sequential run of two rules that is topped up, and whose driver is killed again and again.

pytest -m long tests/faults/test_random_kills.py
"""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from verbs.test_sample import comparable

from raycsr import load_votes

IMAGES, RULES, KILLS = 300, 2, 8
LONGEST = 30.0  # seconds from a driver's start to its end

CONFIG = """
data: {{source: digits, limit: {images}}}
model: {{name: cifar_resnet8, num_classes: 10, input_size: 8}}
sampling: {{sigma: 0.5, n0: 64, n: {n}, radii: {radii}, precision: fp32, batch_size: 64}}
pool: {{actors: 2, elastic: true, gpus_per_actor: 1}}
rules: ["offset:1*seed:8"]
costs: [uniform, "seed:8"]
"""
FIRST = CONFIG.format(images=IMAGES, n=1024, radii=[0.25, 0.9])
TOP_UP = CONFIG.format(images=IMAGES, n=4096, radii=[0.25, 0.9, 1.2])  # further radii to decide, and more samples


def drawn(sampling):
    """(image, rule) -> estimation samples, of all that is committed."""
    if not sampling.parts():
        return {}
    rows = sampling.run.rows(["image_id", "rule", "n"]).to_pandas()
    return rows.groupby(["image_id", "rule"])["n"].max().to_dict()


def finish(sampling, config):
    sampling.config.write_text(config)
    status, out = sampling.start().finish()
    assert status == 0, out
    return out


@pytest.fixture
def undisturbed_top_up(sampling):
    """The votes of the same two commands when nothing happens."""
    disturbed, sampling.results = sampling.results, f"{sampling.results}-undisturbed"
    finish(sampling, FIRST)
    before = drawn(sampling)
    finish(sampling, TOP_UP)
    after = drawn(sampling)
    assert len(after) == IMAGES * RULES and sum(after[key] > before[key] for key in after) > IMAGES / 10
    votes = comparable(load_votes(sampling.run.location))
    sampling.results = disturbed
    return votes


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_top_up_of_two_rules_whose_driver_is_killed_again_and_again(sampling, undisturbed_top_up):
    moments = random.Random(0)
    kills, before, config = 0, {}, FIRST
    while kills < KILLS:
        sampling.config.write_text(config)
        sampling.start()
        delay, start = moments.uniform(0, LONGEST), time.monotonic()
        while sampling.process.poll() is None and time.monotonic() - start < delay:
            time.sleep(0.05)
        finished = sampling.process.poll() is not None
        if not finished:
            os.killpg(sampling.process.pid, signal.SIGKILL)
            kills += 1
        status, out = sampling.finish()
        assert status == 0 or not finished, out
        now = drawn(sampling)
        lost = [key for key, n in before.items() if now.get(key, 0) < n]
        assert lost == [], f"after kill {kills}"
        print(f"kill {kills}: after {delay:.1f} s, {len(now)} images under a rule, {sum(now.values()):,} samples")
        before = now
        if config == FIRST and (finished or kills == KILLS // 2):
            finish(sampling, FIRST)  # a top-up begins where each image had stopped under all rules
            before, config = drawn(sampling), TOP_UP
        elif finished:  # a run that is finished is not disturbed any more
            assert comparable(load_votes(sampling.run.location)) == undisturbed_top_up
            sampling.results, before, config = f"{sampling.results}+", {}, FIRST
    finish(sampling, config)
    finish(sampling, TOP_UP)
    rows = sampling.run.rows(["image_id", "rule", "n"]).to_pandas()
    votes = load_votes(sampling.run.location)
    assert len(votes) == IMAGES * RULES == len(votes.drop_duplicates(["image_id", "rule"]))
    assert comparable(votes) == undisturbed_top_up
    print(f"{len(rows)} committed rows for {len(votes)} images under a rule")
    for certificates in sampling.run.certificate_sets():
        assert sampling.run.missing(sampling.run.certificates(certificates)) == []
    assert sampling.run.finished()
    assert not any(name.startswith(".") for name in os.listdir(Path(sampling.run.location, "votes")))
    assert "all sampled" in finish(sampling, TOP_UP)
