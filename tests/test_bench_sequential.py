"""The benchmark of sequential sampling: what it counts."""

import numpy as np
import pytest

from jobs.bench_sequential import N0, certified, imagenet
from raycsr.smoothing.options import CHUNK


@pytest.mark.parametrize(
    ("row", "least", "most"),
    [
        ("0\t8\t7\t1.5\t0\t0:01", N0, N0),  # a wrong answer certifies nothing, however sure
        # a tie is far from the .84 that the radius needs; where the selection votes have it wrong they end it
        ("0\t8\t-1\t0.0\t0\t0:01", N0, N0 + CHUNK),
    ],
)
def test_an_image_that_certifies_nothing_takes_one_look(tmp_path, row, least, most):
    table = tmp_path / "sigma_0.50.tsv"
    table.write_text(f"idx\tlabel\tpredict\tradius\tcorrect\ttime\n{row}\n")
    fixed, sequential = imagenet(str(table), 0.5, samples_per_second=100.0)
    assert least <= sequential["samples_an_image"] <= most
    assert sequential["hours"] == pytest.approx(50_000 * sequential["samples_an_image"] / 100 / 3600)
    assert fixed["ratio"] == 1


def test_a_statement_is_about_all_images_or_about_those_of_a_seed_class():
    # a cat that is surely a cat, a frog that is surely a frog, a frog that is taken for a cat
    votes = np.zeros((3, 10), int)
    votes[[0, 1, 2], [3, 6, 3]] = 1000
    about, made = certified(votes, votes, np.array([3, 6, 6]), "one radius, seed:cat", "sequential")
    assert about.tolist() == [[True, True], [True, False], [True, False]]  # standard; cost-sensitive under seed:cat
    assert made.tolist() == [[True, True], [True, False], [False, False]]
