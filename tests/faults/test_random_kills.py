"""A sequential run of two rules that is topped up, and whose driver is killed again and again.

pytest -m long tests/faults/test_random_kills.py
"""

import os
import random
from pathlib import Path

import pytest
from verbs.test_sample import comparable

from raycsr import load_votes

IMAGES, RULES = 300, 2

CONFIG = """
data: {{source: digits, limit: {images}}}
model: {{name: cifar_resnet8, num_classes: 10, input_size: 8}}
sampling: {{sigma: 0.5, n0: 64, n: {n}, radii: {radii}, precision: fp32, batch_size: 64}}
pool: {{actors: 2, elastic: true, gpus_per_actor: 1}}
rules: ["offset:1*seed:8"]
costs: [uniform, "seed:8"]
"""
FIRST = CONFIG.format(images=IMAGES, n=2048, radii=[0.25, 0.9])
TOP_UP = CONFIG.format(images=IMAGES, n=4096, radii=[0.25, 0.9, 1.2])  # further radii to decide, and more samples


def drawn(sampling):
    """(image, rule) -> estimation samples, of all that is committed."""
    if not sampling.parts():
        return {}
    rows = sampling.run.rows(["image_id", "rule", "n"]).to_pandas()
    return rows.groupby(["image_id", "rule"])["n"].max().to_dict()


@pytest.fixture
def undisturbed_top_up(sampling):
    """The votes of the same two commands when nothing happens."""
    disturbed, sampling.results = sampling.results, f"{sampling.results}-undisturbed"
    here(sampling, FIRST)
    before = drawn(sampling)
    here(sampling, TOP_UP)
    after = drawn(sampling)
    assert len(after) == IMAGES * RULES and sum(after[key] > before[key] for key in after) > IMAGES / 10
    votes = comparable(load_votes(sampling.run.location))
    sampling.results = disturbed
    return votes


def here(sampling, config):
    sampling.config.write_text(config)
    sampling.here()


@pytest.mark.long
@pytest.mark.timeout(2400)
def test_a_top_up_of_two_rules_whose_driver_is_killed_again_and_again(sampling, undisturbed_top_up, capfd):
    moments, before = random.Random(0), {}
    for config, kills in ((FIRST, (0, 1, 1)), (TOP_UP, (1, 0, 1))):
        sampling.config.write_text(config)
        for parts in kills:
            moment = moments.uniform(0, 0.5 if parts else 10)
            sampling.start().kill(parts, moment)
            now = drawn(sampling)
            assert [key for key, n in before.items() if now.get(key, 0) < n] == []
            before = now
            print(f"killed {moment:.1f} s after {parts} parts: {len(now)} images under a rule, {sum(now.values()):,}")
        status, out = sampling.start().finish()  # a top-up begins where each image had stopped under all rules
        assert status == 0, out
        before = drawn(sampling)
    rows = sampling.run.rows(["image_id", "rule", "n"]).to_pandas()
    votes = load_votes(sampling.run.location)
    assert len(votes) == IMAGES * RULES == len(votes.drop_duplicates(["image_id", "rule"]))
    assert comparable(votes) == undisturbed_top_up
    print(f"{len(rows)} committed rows for {len(votes)} images under a rule")
    for certificates in sampling.run.certificate_sets():
        assert sampling.run.missing(sampling.run.certificates(certificates)) == []
    assert sampling.run.finished()
    assert not any(name.startswith(".") for name in os.listdir(Path(sampling.run.location, "votes")))
    capfd.readouterr()
    here(sampling, TOP_UP)
    assert "all sampled" in capfd.readouterr().out
