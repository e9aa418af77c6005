"""The benchmark of feeding: what it counts."""

import numpy as np
import pytest

from jobs.bench_feeding import fed
from raycsr.certification import Statements


@pytest.mark.parametrize("hand", [(1, 3), (4, 2)])
def test_rows_that_are_used_are_the_samples_that_images_stop_at(hand):
    what = Statements([], [0.5], sigma=0.5, alpha=0.001, n=640)
    sure, wrong = np.ones(6), np.zeros(6, int)
    row = fed(sure, wrong, what, hand, batch_size=512)
    assert row["samples_an_image"] == 128  # selection votes, and 64 that prove it
    assert row["rows_used"] == 12 * 64 / (512 * row["passes"])
    assert row["passes"] <= (4 if hand[0] == 1 else 12)  # threads of several blocks come as they are scheduled
    row = fed(sure, wrong + 1, what, hand, batch_size=512)
    assert row["samples_an_image"] == 64  # selection votes of a wrong answer end it
