"""What sequential sampling decides: agreement with certificates, and how many samples it takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycsr.certification import certify_counts
from raycsr.certification.answers import MAJORITY
from raycsr.certification.looks import looks
from raycsr.certification.statements import Statements, Tallies
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix
from raycsr.errors import UserError

SEED_0 = CostMatrix.seedwise(4, [0])
PAIR = CostMatrix.pairwise(4, {0: [3]})
COSTS = [(), (CostMatrix.uniform(4),), (PAIR,)]
SETTING = {"sigma": 0.5, "alpha": 0.001}
N = 100_000


def decided(counts, *, costs=(), radii=(0.25,), counts0=(9, 1, 0, 0), label=0):
    return Statements(costs, radii, n=N, **SETTING).decided([counts0], [counts], label)


def tally(statements, counts0, counts, labels):
    return statements.tally(*map(SparseVotes.from_dense, (counts0, counts)), np.asarray(labels), 4)


def test_a_clear_answer_is_decided_and_a_close_one_is_not():
    # radius .25 at sigma .5 needs p_A >= Phi(.5) = .691
    assert decided([640, 0, 0, 0])
    assert decided([320, 320, 0, 0])  # futile: p_A cannot be .691
    assert not decided([443, 197, 0, 0])  # .692


def test_a_wrong_answer_is_decided_for_the_standard_statement_alone():
    counts0, counts = (0, 9, 0, 0), [0, 400, 0, 300]
    assert decided(counts, counts0=counts0)
    assert not decided(counts, counts0=counts0, costs=[PAIR], radii=(0.1,))  # harmless, and near to the costly one


def test_an_answer_far_ahead_of_each_rival_is_decided_without_a_majority_of_the_radius():
    # radius .25 at sigma .5 needs p_A >= .691 by a majority, and Phi^-1(p_A) - Phi^-1(p_B) >= 1 against each rival
    assert not decided(
        [38, 9, 9, 8]
    )  # .6 against .14: the standard statement is futile, and it may be that it is ahead
    assert decided([3800, 900, 900, 800])
    assert decided([3800, 2600, 0, 0])  # .59 against .41: it is not
    assert decided([38, 9, 9, 8], label=1)  # wrong: how far ahead it is counts for nothing


@pytest.mark.parametrize(("p", "radius"), [([0.6, 0.14, 0.14, 0.12], 0.25), ([0.8, 0.1, 0.06, 0.04], 0.4)])
def test_sampling_goes_on_until_the_multiclass_radius_is_known_to_reach(p, radius):
    """Where costs ask about one class alone; reports draw certified accuracy by this radius."""
    generator, statements, reached = np.random.default_rng(0), Statements([PAIR], [radius], n=N, **SETTING), 0
    for _ in range(20):
        counts0, counts, n = generator.multinomial(64, p), np.zeros(4, int), 0
        for look in looks(N, 64):
            counts, n = counts + generator.multinomial(look - n, p), look
            if statements.decided([counts0], [counts], 0):
                break
        row = certify_counts([counts0], [counts], [0], costs=PAIR, sampling="sequential", **SETTING).iloc[0]
        reached += row["multiclass_radius"] >= radius
    assert reached == 20


def test_the_multiclass_statement_is_made_once():
    """That no costly class is answered is the same statement where each class but the true one is costly."""
    votes = [[9, 1, 0, 0]], [[38, 9, 9, 8]], [0]
    asked = [(tally(Statements(costs, [0.25], n=N, **SETTING), *votes).of_target >= 0).sum(axis=0) for costs in COSTS]
    assert asked == [1, 1, 2]  # none, uniform, a pair


def test_runs_of_before_that_did_not_decide_it_are_looked_at_again():
    """The digest of the statements, which each row of a run has that was stopped by them, is another one."""
    statements = Statements([SEED_0], [0.25], n=N, **SETTING)
    assert statements.digest != "4f786f745d3e6b0e"
    by_majority = Statements([SEED_0], [0.25], n=N, answers=[MAJORITY], **SETTING)  # then it is the standard one
    assert by_majority.digest == "2fbb174df3e82ec1"


def test_a_costly_answer_is_decided_at_once():
    assert decided([33, 31, 0, 0], counts0=(1, 9, 0, 0), costs=[SEED_0])
    assert not decided([443, 197, 0, 0], costs=[SEED_0], counts0=(9, 1, 0, 0))


def test_an_image_of_no_seed_class_has_no_cost_sensitive_statement():
    counts0, counts = (0, 9, 0, 0), [0, 2000, 900, 0]
    assert not decided(counts, counts0=counts0, label=1)
    assert decided(counts, counts0=counts0, label=1) == decided(counts, counts0=counts0, label=1, costs=[SEED_0])


def test_all_rules_and_all_radii_must_be_decided():
    clear, close = [640, 0, 0, 0], [443, 197, 0, 0]
    statements = Statements([], [0.25], n=N, **SETTING)
    assert statements.decided([[9, 0, 0, 0]] * 2, [clear, clear], 0)
    assert not statements.decided([[9, 0, 0, 0]] * 2, [clear, close], 0)
    assert not Statements([], [0.1, 0.25], n=N, **SETTING).decided([[9, 0, 0, 0]], [close], 0)


VOTES = st.lists(st.integers(0, 400), min_size=4, max_size=4).filter(lambda votes: sum(votes) > 0)


@given(VOTES, VOTES, st.integers(0, 3), st.sampled_from([0.05, 0.2, 0.4]))
def test_an_undecided_image_is_one_whose_certificate_does_not_say(counts0, counts, label, radius):
    """A statement that the certificate makes is decided."""
    rows = {
        costs: certify_counts([counts0], [counts], [label], costs=costs, sampling="sequential", **SETTING).iloc[0]
        for costs in (SEED_0, PAIR)
    }
    right = rows[PAIR]["prediction"] == label
    standard = rows[PAIR]["standard_radius"] >= radius or not right
    multiclass = rows[PAIR]["multiclass_radius"] >= radius or not right
    made = all(not row["cost_sensitive_radius"] < radius for row in rows.values())
    if standard and multiclass and made:
        assert Statements([SEED_0, PAIR], [radius], n=N, **SETTING).decided([counts0], [counts], label)


def simulated(p, label, statements, n_max, images=60):
    """Samples an image takes, and the share of statements that n_max samples make and the stop does not."""
    generator = np.random.default_rng(0)
    taken, lost = [], 0
    for _ in range(images):
        counts0 = generator.multinomial(64, p)
        counts, n = np.zeros(len(p), int), 0
        for look in looks(n_max, 64):
            counts, n = counts + generator.multinomial(look - n, p), look
            if statements.decided([counts0], [counts], label):
                break
        rest = counts + generator.multinomial(n_max - n, p)
        radius, full = (
            certify_counts(
                [counts0], [votes], [label], costs=statements.costs[0], sampling="sequential", **SETTING
            ).iloc[0]["cost_sensitive_radius"]
            for votes in (counts, rest)
        )
        taken.append(n)
        lost += sum(full >= r > radius for r in statements.radii)
    return np.mean(taken), lost / images / len(statements.radii)


def test_most_images_take_a_hundredth_of_the_samples():
    statements = Statements([SEED_0], [0.25], n=N, **SETTING)
    taken, lost = simulated([0.9, 0.05, 0.03, 0.02], 0, statements, 100_000)
    assert taken < 1000 and lost == 0
    taken, lost = simulated([0.3, 0.5, 0.1, 0.1], 0, statements, 100_000)
    assert taken < 1000 and lost == 0
    taken, lost = simulated([0.7, 0.2, 0.05, 0.05], 0, statements, 10_000)  # near the edge of the standard statement
    assert lost <= 0.05


def test_looks_are_whole_chunks_that_end_with_n():
    assert looks(2048, 64) == [*range(0, 1281, 64), 1408, 1536, 1664, 1792, 1920, 2048]
    assert looks(64, 64) == [0, 64]
    many = looks(100_032, 64)
    assert len(many) < 70 and all(look % 64 == 0 for look in many) and many[-1] == 100_032
    assert many[:-1] == looks(200_000 // 64 * 64, 64)[: len(many) - 1]  # a larger n looks at the same ones, and more


def test_radii_that_are_none_are_refused():
    with pytest.raises(UserError, match=r"radii to decide are \[\]; give positive numbers"):
        Statements([], [], n=N, **SETTING)
    with pytest.raises(UserError, match=r"radii to decide are \[0.5, -1\]"):
        Statements([], [0.5, -1], n=N, **SETTING)


def test_an_image_is_given_up_by_what_the_samples_that_are_left_can_do():
    # .71 of 6400: the radius needs .691, which 100,000 samples may certify and 6,464 will not
    votes, counts0 = [4544, 1856, 0, 0], [9, 1, 0, 0]
    assert not Statements([], [0.25], n=100_000, **SETTING).decided([counts0], [votes], 0)
    assert Statements([], [0.25], n=6_464, **SETTING).decided([counts0], [votes], 0)


@pytest.mark.parametrize(
    ("costs", "words"),
    [
        ([], "whether radius 0.1, 0.25 is reached: the standard one and the multiclass one"),
        (
            [SEED_0],
            "whether radius 0.1, 0.25 is reached: the standard one and the multiclass one, and under 1 cost matrix",
        ),
        (
            [SEED_0, PAIR],
            "whether radius 0.1, 0.25 is reached: the standard one and the multiclass one, and under 2 cost matrices",
        ),
    ],
)
def test_statements_in_words(costs, words):
    assert str(Statements(costs, (0.1, 0.25), n=N, **SETTING)) == words


GROUPS = CostMatrix.groups(4, "aaab")
THIRDS, OF_THIRDS = (22, 21, 20, 1), [214, 213, 212, 1]  # the harmless classes share what the pair route needs of one


def test_a_group_that_harmless_classes_rule_out_together_is_decided():
    statements = Statements([GROUPS], [0.5], n=N, **SETTING)
    row = certify_counts([THIRDS], [OF_THIRDS], [1], costs=GROUPS, sampling="sequential", **SETTING).iloc[0]
    assert row["route"] == "pair+set:3" and row["cost_sensitive_radius"] >= 0.5
    assert statements.decided([THIRDS], [OF_THIRDS], 1)
    before = certify_counts([THIRDS], [OF_THIRDS], [1], costs=GROUPS, sampling="sequential", method="e-1", **SETTING)
    assert before["cost_sensitive_radius"][0] < 0.5 and before["route"][0] == "pair"


def test_tallies_come_back_from_the_columns_of_a_table():
    generator = np.random.default_rng(0)
    counts0, counts = (
        generator.multinomial(64, [0.3, 0.3, 0.2, 0.2], 50),
        generator.multinomial(640, [0.3, 0.3, 0.3, 0.1], 50),
    )
    statements = Statements([SEED_0, GROUPS, PAIR], [0.1, 0.3], n=N, **SETTING)
    tallies = tally(statements, counts0, counts, generator.integers(0, 4, 50))
    back = Tallies.of_columns(tallies.n, tallies.columns())
    assert all(np.array_equal(one, other) for one, other in zip(tallies, back, strict=True))
    assert (tallies.set_size[1] > 1).any() and (tallies.set_size[0] == 1).all()


@pytest.mark.parametrize("costs", [(), (SEED_0,), (GROUPS, PAIR, SEED_0)])
def test_many_rows_are_decided_as_each_of_them(costs):
    generator = np.random.default_rng(1)
    p = generator.dirichlet([3, 2, 1, 0.5], 200)
    counts0, counts = (np.stack([generator.multinomial(n, one) for one in p]) for n in (64, 640))
    labels = generator.integers(0, 4, 200)
    statements = Statements(costs, [0.05, 0.2, 0.4], n=N, **SETTING)
    together = statements.are_decided(tally(statements, counts0, counts, labels))
    alone = [statements.decided(c0[None], c[None], int(y)) for c0, c, y in zip(counts0, counts, labels, strict=True)]
    assert together.tolist() == alone and 20 < together.sum() < 180


def test_late_looks_are_less_patient_than_early_ones():
    # .69 where .6915 is needed, of 64, of 6,400 and of 64,000
    share = np.array([0.69, 0.31, 0, 0])
    open_ = [not decided((share * n).round().astype(int)) for n in (100, 6_400, 64_000)]
    assert open_ == [True, True, False]
