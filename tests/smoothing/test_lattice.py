"""The lattice noise: its distribution counted out, its bits against their definition."""

from bisect import bisect_right
from decimal import Decimal, localcontext
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom, norm

from raycsr.smoothing.lattice import BUCKETS, STRADDLES, lattice_table

SIGMAS = [0.02, 0.25, 1.0]
WHOLE = 2**80  # probabilities are counted in this many parts


def edges_of(table):
    """The table's edges as whole numbers of 80 bits."""
    buckets = np.repeat(np.arange(BUCKETS), np.diff(table.starts))
    return [(int(bucket) << 64) | int(low) for bucket, low in zip(buckets, table.fractions, strict=True)]


def probabilities(table):
    """value -> its probability in parts of 2^80, bucket by bucket."""
    parts = {}
    for bucket in range(BUCKETS):
        low, high = table.starts[bucket : bucket + 2]
        if low == high:
            cuts, values = [0, 2**64], [int(table.values[bucket])]
        else:
            assert table.values[bucket] == STRADDLES
            cuts = [0, *map(int, table.fractions[low:high]), 2**64]
            values = range(table.lowest + int(low), table.lowest + int(high) + 1)
        for value, part in zip(values, np.diff(np.array(cuts, object)), strict=True):
            parts[value] = parts.get(value, 0) + int(part)
    return parts


def upper_tail(z):
    """1 - Phi(z) by its Taylor series, whose terms are all positive: right to the digits of the context."""
    z, term, total, k = Decimal(z), Decimal(z), Decimal(z), 1
    while term > Decimal(10) ** -70 * total:
        k += 2
        term = term * z * z / k
        total += term
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534")
    return Decimal("0.5") - total * (-z * z / 2).exp() / (2 * pi).sqrt()


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_distribution_is_that_of_rounded_gaussian_noise(sigma):
    """All 2^80 outcomes of an element, counted: their distance from the ideal is what the table says at most."""
    table = lattice_table(sigma)
    parts = probabilities(table)
    assert sum(parts.values()) == WHOLE
    assert all(parts[value] == parts[-value] for value in parts)
    with localcontext() as context:
        context.prec = 80
        step = 1 / (255 * Decimal(sigma))
        tails = [upper_tail((k + Decimal("0.5")) * step) for k in range(max(parts) + 1)]  # P[N > k]
        ideal = [1 - 2 * tails[0], *(above - below for above, below in pairwise(tails))]
        apart = abs(parts[0] / Decimal(WHOLE) - ideal[0])
        apart += 2 * sum(abs(parts[k] / Decimal(WHOLE) - p) for k, p in enumerate(ideal[1:], 1))
        apart += 2 * tails[-1]  # what is never drawn
        assert apart / 2 <= Decimal(table.total_variation)
    assert table.total_variation < 4e-21


@pytest.mark.parametrize("sigma", SIGMAS)
def test_every_bucket_and_both_sides_of_every_edge_give_the_inverse_of_the_distribution(sigma):
    table = lattice_table(sigma)
    edges = edges_of(table)
    assert edges == sorted(edges)

    def defined(bucket, word):
        return table.lowest + bisect_right(edges, (int(bucket) << 64) | int(word))

    ends = np.array([0, 2**64 - 1], np.uint64)
    for bucket, value in enumerate(table.values):
        if value != STRADDLES:
            assert {defined(bucket, word) for word in ends} == {value}
    near = [(edge + by) % WHOLE for edge in edges for by in (-1, 0, 1)]
    asked = [*near, *(int(bucket) << 64 for bucket in np.flatnonzero(table.values == STRADDLES))]
    asked = [one for one in asked if table.values[one >> 64] == STRADDLES]
    buckets = np.array([one >> 64 for one in asked], np.uint16)
    words = np.array([one & (2**64 - 1) for one in asked], np.uint64)
    assert table.between(buckets, words).tolist() == [defined(*one) for one in zip(buckets, words, strict=True)]


def philox(key, counter):
    """Philox4x64-10 as its paper defines it: four words."""
    words, keys, mask = list(counter), [key & (2**64 - 1), key >> 64], 2**64 - 1
    for _ in range(10):
        first, second = 0xD2E7470EE14C6C93 * words[0], 0xCA5A826395121157 * words[2]
        words = [(second >> 64) ^ words[1] ^ keys[0], second & mask, (first >> 64) ^ words[3] ^ keys[1], first & mask]
        keys = [(keys[0] + 0x9E3779B97F4A7C15) & mask, (keys[1] + 0xBB67AE8584CAA73B) & mask]
    return words


def test_philox_gives_the_published_words():
    # Random123's kat_vectors: philox4x64 10, counter and key 0, and all ones
    zeros = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    ones = [0x87B092C3013FE90B, 0x438C3C67BE8D0224, 0x9CC7D7C69CD777B6, 0xA09CAEBF594F0BA0]
    assert philox(0, (0, 0, 0, 0)) == zeros
    assert philox(2**128 - 1, (2**64 - 1,) * 4) == ones


@cache
def element(sigma, key, e):
    """The noise of one element, from the definition alone."""
    table = lattice_table(sigma)
    lane = (philox(key, (e // 16 + 1, 0, 0, 0))[e % 16 // 4] >> (16 * (e % 4))) & 0xFFFF
    word = philox(key, (e // 4 + 1, 1, 0, 0))[e % 4]
    return table.lowest + bisect_right(edges_of(table), (lane << 64) | word)


@pytest.mark.parametrize(("start", "count"), [(0, 200), (48, 16), (1003, 77), (15, 1), (2**33 + 5, 30)])
def test_an_element_is_what_its_place_and_the_key_define(start, count):
    key = 0x0123456789ABCDEF_FEDCBA9876543210
    out = np.empty(count, np.float32)
    lattice_table(1.0).fill(out, key, start)
    assert out.tolist() == [element(1.0, key, e) for e in range(start, start + count)]


def drawn(sigma, key=7, count=2**20):
    noise = np.empty(count, np.float32)
    lattice_table(sigma).fill(noise, key, 0)
    return noise


@pytest.mark.parametrize("sigma", SIGMAS)
def test_shares_of_drawn_noise_are_those_of_the_gaussian(sigma):
    noise = drawn(sigma)
    assert (noise == np.rint(noise)).all()
    for z in (-4, -3, -2, -1, 0, 1, 2, 3, 4):
        k = np.rint(z * 255 * sigma)
        p = norm.cdf((k + 0.5) / (255 * sigma))
        assert binom.cdf((noise <= k).sum(), len(noise), p) == pytest.approx(0.5, abs=0.5 - 1e-6)


def test_noise_of_two_keys_and_of_two_samples_has_nothing_in_common():
    a, b = drawn(0.25), drawn(0.25, key=8)
    assert abs(np.corrcoef(a, b)[0, 1]) < 5 / len(a) ** 0.5
    assert abs(np.corrcoef(a[3072:], a[:-3072])[0, 1]) < 5 / len(a) ** 0.5


def test_tables_and_noise_are_what_they_were():
    # votes already stored belong to these: where this fails, NOISE_SCHEME needs a new name
    assert [lattice_table(sigma).digest for sigma in (0.25, 0.5, 1.0)] == [
        "ce54a0c9ee76ecfe",
        "ec1bc7add19748b3",
        "966809494ee2e97f",
    ]
    assert drawn(0.5, count=8).tolist() == [270, -125, -105, 145, -85, 244, -192, -69]
