"""When sampling stops for statements about answers that may abstain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raycsr.certification import certify_counts
from raycsr.certification.answers import ARGMAX, MAJORITY, parse_answers
from raycsr.certification.looks import looks
from raycsr.certification.statements import Statements, Tallies
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix

SEED_0, PAIR = CostMatrix.seedwise(4, [0]), CostMatrix.pairwise(4, {0: [3]})
SETTING = {"sigma": 0.5, "alpha": 0.001}
N = 100_000
ANSWERS = parse_answers(["majority", "threshold:0.8*pair:0/3", "threshold:0.3*uniform", "threshold:1=0.2,3=0.6"], 4)


def decided(counts, *, costs=(SEED_0,), radii=(0.1,), counts0=(9, 1, 0, 0), label=0, answers=(MAJORITY,)):
    return Statements(costs, radii, n=N, answers=answers, **SETTING).decided([counts0], [counts], label)


def test_by_majority_nothing_is_lost_where_the_top_class_is_costly():
    """Image of class 0, class 1 on top: argmax has said so, the majority may never say it."""
    counts0 = (3, 5, 1, 1)
    assert decided([0, 0, 0, 0], counts0=counts0, answers=[ARGMAX])
    assert not decided([0, 0, 0, 0], counts0=counts0)
    assert not decided([380, 250, 5, 5], counts0=counts0)
    assert decided([3000, 3000, 2000, 2000], counts0=counts0)  # .3 is not half
    assert decided([300, 700, 0, 0], counts0=counts0)  # futile: it is said


def test_a_threshold_above_a_half_is_part_of_the_standard_statement():
    answers = parse_answers(["threshold:0=0.8"], 4)
    counts = [853, 147, 0, 0]  # radius .1 needs a share of .579 by a majority, and of .851 above .8
    assert decided(counts, costs=())
    assert not decided(counts, costs=(), answers=answers)
    assert not decided(counts, costs=(), answers=[ARGMAX, *answers])


def test_a_threshold_below_a_half_is_part_of_the_multiclass_statement():
    answers = parse_answers(["threshold:0=0.4"], 4)
    counts = [420, 200, 200, 180]  # radius .05 is reached against the rivals, and needs a share of .44 above .4
    assert (
        certify_counts([(9, 1, 0, 0)], [counts], [0], costs=SEED_0, sampling="sequential", **SETTING)[
            "multiclass_radius"
        ][0]
        >= 0.05
    )
    assert decided(counts, costs=(), radii=(0.05,), answers=[ARGMAX])
    assert not decided(counts, costs=(), radii=(0.05,), answers=answers)
    assert decided([4800, 1800, 1800, 1600], costs=(), radii=(0.05,), answers=answers)


VOTES = st.lists(st.integers(0, 400), min_size=4, max_size=4).filter(lambda votes: sum(votes) > 0)


@settings(max_examples=40)
@given(VOTES, VOTES, st.integers(0, 3), st.sampled_from([0.05, 0.2, 0.4]), st.sampled_from(ANSWERS))
def test_an_undecided_image_is_one_whose_certificate_does_not_say(counts0, counts, label, radius, answer):
    """A statement that the certificate makes is decided, by the answer that it is of."""
    rows = [
        certify_counts([counts0], [counts], [label], costs=costs, sampling="sequential", answer=answer, **SETTING).iloc[
            0
        ]
        for costs in (SEED_0, PAIR)
    ]
    right = rows[0]["prediction"] == label
    standard = rows[0]["standard_radius"] >= radius or not right
    multiclass = rows[0]["multiclass_radius"] >= radius or not right
    made = all(not row["cost_sensitive_radius"] < radius for row in rows)
    if standard and multiclass and made:
        statements = Statements([SEED_0, PAIR], [radius], n=N, answers=[answer], **SETTING)
        assert statements.decided([counts0], [counts], label)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda answer: answer.spec)
def test_no_statement_is_lost_that_all_samples_make_but_a_few(answer):
    generator, lost, made, taken = np.random.default_rng(0), 0, 0, []
    statements = Statements([SEED_0, PAIR], [0.1], n=6400, answers=[answer], **SETTING)
    for _ in range(40):
        p = generator.dirichlet([3, 2, 1, 1])
        counts0 = generator.multinomial(64, p)
        counts, n, stop = np.zeros(4, int), 0, None
        for look in looks(6400, 64):
            counts, n = counts + generator.multinomial(look - n, p), look
            if stop is None and statements.decided([counts0], [counts], 0):
                stop = counts.copy()
        stop = counts if stop is None else stop
        taken.append(stop.sum())
        for costs in (SEED_0, PAIR):
            at_stop, at_end = (
                certify_counts(
                    [counts0], [votes], [0], costs=costs, sampling="sequential", answer=answer, **SETTING
                ).iloc[0]
                for votes in (stop, counts)
            )
            for name in ("cost_sensitive_radius", "standard_radius", "multiclass_radius"):
                at_end_made = at_end[name] >= 0.1 and (name == "cost_sensitive_radius" or at_end["prediction"] == 0)
                made += at_end_made
                lost += at_end_made and not at_stop[name] >= 0.1
    assert made > 20 and lost <= 0.05 * made + 1 and np.mean(taken) < 3200


def test_tallies_stand_in_a_table_and_argmax_keeps_its_digest():
    both = Statements([SEED_0, PAIR], [0.1], n=N, answers=[ARGMAX, *ANSWERS], **SETTING)
    generator = np.random.default_rng(0)
    counts0, counts = generator.integers(0, 50, (2, 30, 4))
    labels = generator.integers(0, 4, 30)
    tallies = both.tally(SparseVotes.from_dense(counts0), SparseVotes.from_dense(counts), labels, 4)
    again = Tallies.of_columns(tallies.n, tallies.columns())
    assert (both.are_decided(again) == both.are_decided(tallies)).all()
    plain, named = (Statements([SEED_0], [0.1], n=N, **more, **SETTING).digest for more in ({}, {"answers": [ARGMAX]}))
    assert plain == named != Statements([SEED_0], [0.1], n=N, answers=[MAJORITY], **SETTING).digest
    assert "of majority" in str(Statements([SEED_0], [0.1], n=N, answers=[MAJORITY], **SETTING))
