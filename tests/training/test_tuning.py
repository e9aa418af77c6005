"""Tuning rules on votes whose answer is known."""

import numpy as np
import pandas as pd
import pytest

from raycsr.certification import certify_counts
from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.rules import ARGMAX
from raycsr.training.tuning import (
    Budget,
    choose_rule,
    compare_rules,
    draw_images,
    finer_strengths,
    rule_grid,
    tune,
    weights_of,
)

PAIR = CostMatrix.pairwise(3, {0: [1]})  # a cat (0) taken for a dog (1) is costly; owls (2) are in nobody's way
NAMES = ["cat", "dog", "owl"]


def unanimous(answers, labels, rule, costs=PAIR):
    """Certificates of images on which all 1000 samples agree."""
    votes = np.eye(costs.num_classes, dtype=int)[answers]
    return certify_counts(
        10 * votes, 1000 * votes, labels, costs=costs, sigma=0.5, sampling="fixed", rules=[rule] * len(labels),
        image_ids=[str(i) for i in range(len(labels))],
    )  # fmt: skip


def test_half_of_the_draw_is_of_seed_classes_and_a_quarter_of_targets():
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    drawn = draw_images(labels, PAIR, 80, seed=0)
    assert np.bincount(labels[drawn]).tolist() == [40, 20, 20]
    assert np.array_equal(drawn, draw_images(labels, PAIR, 80, seed=0))
    assert not np.array_equal(drawn, draw_images(labels, PAIR, 80, seed=1))
    assert len(set(drawn)) == 80


def test_where_all_other_classes_are_targets_they_share_a_half_and_where_all_are_seeds_all_is_theirs():
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    drawn = draw_images(labels, CostMatrix.seedwise(3, [0]), 80, seed=0)
    assert np.count_nonzero(labels[drawn] == 0) == 40 and len(drawn) == 80
    assert len(draw_images(labels, CostMatrix.uniform(3), 80, seed=0)) == 80


def test_a_part_with_too_few_images_is_taken_whole():
    labels = np.repeat([0, 1, 2], [5, 200, 700])
    assert np.bincount(labels[draw_images(labels, PAIR, 80, seed=0)]).tolist() == [5, 20, 20]


def test_groups_are_drawn_whole():
    generator = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    groups = generator.permutation(np.arange(1000) // 3)  # of three images each, of any class
    drawn = draw_images(labels, PAIR, 80, seed=0, groups=groups)
    left = np.setdiff1d(np.arange(1000), drawn)
    assert not set(groups[drawn]) & set(groups[left])
    counts = np.bincount(labels[drawn])
    assert (counts >= [40, 20, 20]).all() and weights_of(labels[drawn], labels, PAIR).sum() == pytest.approx(1000)


def test_data_without_a_seed_class_cannot_be_tuned_on():
    with pytest.raises(UserError, match="none of the 4 images is of a class that the costs are about"):
        draw_images(np.array([1, 1, 2, 2]), PAIR, 4, seed=0)


def test_weights_give_the_accuracy_on_the_mix_of_the_data():
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    drawn = np.repeat([0, 1, 2], [40, 20, 20])
    weights = weights_of(drawn, labels, PAIR)
    assert [weights[drawn == k][0] for k in range(3)] == [2.5, 10.0, 35.0] and weights.sum() == 1000
    # cats all right, dogs all wrong, owls all right: 800 of 1000
    assert np.average(drawn != 1, weights=weights) == pytest.approx(0.8)


def test_rules_are_compared_on_the_same_images():
    # 20 cats, 20 dogs, 20 owls; each cat stands for 1 of the data's images, each dog for 2, each owl for 7
    labels = np.repeat([0, 1, 2], 20)
    plain, ruled = labels.copy(), labels.copy()
    plain[:5] = 1  # 5 cats are taken for dogs, by argmax
    ruled[:1] = 1  # 1 by the rule,
    ruled[20:26] = 0  # which takes 6 dogs for cats
    certificates = pd.concat([unanimous(plain, labels, "argmax"), unanimous(ruled, labels, "rule")])
    table = compare_rules(certificates, costs=PAIR, radius=0.5, weights=np.repeat([1.0, 2.0, 7.0], 20))
    assert table["rule"].tolist() == ["argmax", "rule"]
    assert table["accuracy"].tolist() == pytest.approx([195 / 200, 187 / 200])
    assert table["accuracy_loss"].tolist() == pytest.approx([0, 8 / 200])
    assert table["rob_cs"].tolist() == pytest.approx([15 / 20, 19 / 20])
    assert table["seed_recall"].tolist() == pytest.approx([15 / 20, 19 / 20])
    assert table["target_recall"].tolist() == pytest.approx([1, 14 / 20])
    assert table["recall_loss"].tolist() == pytest.approx([0, 6 / 20])
    assert table["recall_class"].iloc[1] == 1


def test_a_rule_under_which_a_class_collapses_says_so():
    labels = np.repeat([0, 1, 2], 20)
    never_dog = np.where(labels == 1, 0, labels)
    certificates = pd.concat([unanimous(labels, labels, "argmax"), unanimous(never_dog, labels, "rule")])
    named = CostMatrix(PAIR.values, NAMES)
    table = compare_rules(certificates, costs=named, radius=0.5, weights=np.ones(60))
    assert table["collapsed"].tolist() == ["", "dog 0 of 20 right (argmax 1.000)"]


def test_the_recall_of_a_class_with_few_images_is_not_judged():
    labels = np.repeat([0, 1, 2], [20, 19, 20])
    ruled = np.where(labels == 1, 0, labels)
    certificates = pd.concat([unanimous(labels, labels, "argmax"), unanimous(ruled, labels, "rule")])
    table = compare_rules(certificates, costs=PAIR, radius=0.5, weights=np.ones(59))
    assert table["recall_loss"].tolist() == [0, 0] and table["accuracy_loss"].iloc[1] == pytest.approx(19 / 59)


def grid_table(*rows):
    return pd.DataFrame(rows, columns=["rob_cs", "accuracy_loss", "recall_loss"]).assign(coverage_loss=0.0)


def test_coverage_has_a_budget_of_its_own():
    table = grid_table((0.5, 0, 0), (0.6, 0, 0), (0.7, 0, 0)).assign(coverage_loss=[0, 0.05, 0.06])
    assert choose_rule(table, Budget()) == 1 and choose_rule(table, Budget(coverage=0.1)) == 2


def test_the_largest_rob_cs_within_both_budgets_is_chosen():
    table = grid_table((0.5, 0, 0), (0.6, 0.01, 0.05), (0.8, 0.02, 0.1), (0.9, 0.021, 0.1), (0.95, 0.01, 0.2))
    assert choose_rule(table, Budget(0.02, 0.15)) == 2
    assert choose_rule(table, Budget(0.015, 0.15)) == 1
    assert choose_rule(table, Budget(0.03, 0.15)) == 3
    assert choose_rule(table, Budget(0.02, 0.25)) == 4


def test_where_costs_differ_in_size_the_least_that_is_left_of_them_is_chosen():
    table = grid_table((0.5, 0, 0), (0.6, 0.01, 0.05), (0.8, 0.01, 0.05)).assign(rob_cost=[3.0, 1.0, 2.0])
    assert choose_rule(table, Budget(), "rob_cost") == 1
    assert choose_rule(table, Budget(), "rob_cs") == 2
    assert choose_rule(table.assign(rob_cost=[1.0, 1.0, 2.0]), Budget(), "rob_cost") == 0


def test_of_equal_rules_the_one_that_loses_least():
    assert choose_rule(grid_table((0.5, 0, 0), (0.6, 0.01, 0), (0.6, 0.005, 0), (0.6, 0.005, 0)), Budget()) == 2


def test_argmax_stays_where_nothing_is_better_within_the_budgets():
    assert choose_rule(grid_table((0.5, 0, 0), (0.9, 0.5, 0), (0.5, -0.01, 0)), Budget()) == 0


@pytest.mark.parametrize(
    "wrong",
    [{"accuracy": 0.0}, {"accuracy": 1.0}, {"recall": 1.5}, {"accuracy": float("nan")}, {"coverage": 0}],
)
def test_what_is_no_budget_is_refused(wrong):
    with pytest.raises(UserError, match="budget is a share between 0 and 1, got"):
        Budget(**wrong)


def test_the_finer_grid_lies_between_the_neighbours_of_the_best():
    assert finer_strengths([1, 2, 4], 2) == pytest.approx([1.375, 1.75, 2.125, 2.5, 2.875, 3.25, 3.625])
    assert finer_strengths([1, 2, 4], 1) == pytest.approx([0.25, 0.5, 0.75, 1.25, 1.5, 1.75])
    assert finer_strengths([1, 2], 2) == pytest.approx([1.25, 1.5, 1.75, 2.25, 2.5, 2.75])
    assert finer_strengths([1, 2], 0) == pytest.approx([i / 8 for i in range(1, 8)])


def test_the_grid_has_both_kinds_and_no_offsets_that_would_change_nothing():
    assert [(rule.spec, s) for rule, s in rule_grid(PAIR, "pair:cat/dog", NAMES, [1.0, 2.0])] == [
        ("offset:1*pair:cat/dog", 1.0),
        ("offset:2*pair:cat/dog", 2.0),
        ("expected_cost:1.718*pair:cat/dog", 1.0),
        ("expected_cost:6.389*pair:cat/dog", 2.0),
    ]
    assert [rule.kind for rule, _ in rule_grid(CostMatrix.uniform(3), "uniform", NAMES, [1.0])] == ["expected_cost"]


# A world in which the right strength is known: of 100 cats the i-th has logits (0, s_i, -9) with s_i close to 0.02 i,
# so that a cat is taken for a dog unless dogs are lowered by more than s_i. Of 100 dogs the i-th has logits
# (0, 1 + 0.04 i, -9), about, and lowering dogs by more than that turns it into a cat. Argmax has no cat right.
WORLD_LABELS = np.repeat([0, 1], 100)
WORLD_LOGITS = np.concatenate([[(0, 0.02 * i + 0.005, -9) for i in range(100)],
                               [(0, 1.0 + 0.04 * i + 0.02, -9) for i in range(100)]])  # fmt: skip


def certify_world(rules):
    import torch

    logits = torch.from_numpy(WORLD_LOGITS)
    return pd.concat([unanimous(rule(logits).numpy(), WORLD_LABELS, rule.id) for rule in rules], ignore_index=True)


def tuned(budget, strengths=(0.5, 1.0, 2.0)):
    return tune(
        certify_world, costs=PAIR, spec="pair:cat/dog", class_names=NAMES, radius=0.5,
        # cats are rare: each dog stands for 100 images, each cat for one
        weights=np.repeat([1.0, 100.0], 100), budget=budget, strengths=strengths,
    )  # fmt: skip


def test_tuning_finds_the_strength_that_the_budget_allows():
    # Lowering dogs by s turns 25 (s - 1) dogs of 100 into cats, from s = 1 on, and makes 50 s cats right.
    # The finer grid around 1 goes from 0.5 to 2 in steps of 0.1875. At 1.4375, 11 dogs (1.02, 1.06, ..., 1.42) go for
    # 72 cats: an accuracy loss of (100 * 11 - 72) / 10100 = 0.102. At 1.25, 6 dogs go for 63 cats.
    found = tuned(Budget(0.1, 0.5))
    assert found.rule.kind == "offset" and next(iter(found.rules.values())) == ARGMAX
    chosen = found.table.iloc[found.chosen]
    assert found.rule.spec == "offset:1.25*pair:cat/dog"
    assert chosen["rob_cs"] == pytest.approx(0.63)
    assert chosen["accuracy_loss"] == pytest.approx((100 * 6 - 63) / 10100)
    assert set(found.table.query("rob_cs > 0.63")["accuracy_loss"] > 0.1) == {True}


def test_the_budget_of_recall_binds_alone_too():
    # at most 5 dogs of 100: 1.25 costs 6 of them, 1.0625 costs 2 (1.02 and 1.06)
    found = tuned(Budget(0.5, 0.05))
    assert found.rule.spec == "offset:1.062*pair:cat/dog"
    assert found.table["recall_loss"].iloc[found.chosen] == pytest.approx(0.02)


def test_where_even_the_weakest_rule_costs_too_much_the_grid_is_refined_below_it():
    # 2.0 costs 25 dogs; of the finer grid 0.25, 0.5, ..., 1.75 the first four cost none
    found = tuned(Budget(0.001, 0.5), strengths=[2.0])
    assert found.rule.spec == "offset:1*pair:cat/dog"
    assert found.table["rob_cs"].iloc[found.chosen] == pytest.approx(0.5)


# Of 60 cats 30 are taken for dogs, at .6 of the votes; dogs are sure.
def test_an_answer_is_tuned_with_the_rule_and_costs_coverage():
    labels = np.repeat([0, 1], [60, 40])
    shares = np.array([[0.9, 0.1, 0]] * 30 + [[0.4, 0.6, 0]] * 30 + [[0.05, 0.95, 0]] * 40)

    def certify(rules):
        votes = np.round(1000 * shares).astype(int)
        return pd.concat(
            certify_counts(
                votes, votes, labels, costs=PAIR, sigma=0.5, sampling="fixed", rules=[rule.id] * 100, answer=answer
            )
            for rule in rules
            for answer in ("argmax", "majority", "threshold:0.7*pair:0/1")
        )

    of_all = {"costs": PAIR, "spec": "pair:cat/dog", "class_names": NAMES, "radius": 0.05, "weights": np.ones(100)}
    found = tune(certify, budget=Budget(coverage=0.35), **of_all)
    assert found.rule == ARGMAX and found.answer.startswith("threshold-")
    chosen, plain = found.table.iloc[found.chosen], found.table.iloc[0]
    assert (plain["rob_cs"], chosen["rob_cs"]) == (0.5, 1.0)  # dogs at .6 are not said
    assert chosen["coverage_loss"] == pytest.approx(0.3) and chosen["accuracy_loss"] == 0
    assert tune(certify, budget=Budget(coverage=0.25), **of_all).answer == "argmax"  # the majority says dog at .6


def test_an_answer_gains_no_accuracy_by_another_convention():
    """Cats at .45 against .3: right by a threshold of .2, as by argmax, if only the runner-up is to be beaten."""
    votes, labels = np.tile([450, 300, 250], (20, 1)), np.zeros(20, int)
    rows = [
        certify_counts(votes, votes, labels, costs=PAIR, sigma=0.5, sampling="fixed", answer=answer)
        for answer in ("argmax", "threshold:0=0.2")
    ]
    assert rows[0]["abstain"].all() and not rows[1]["abstain"].any()
    table = compare_rules(pd.concat(rows), costs=PAIR, radius=0.1, weights=np.ones(20))
    assert table["accuracy"].tolist() == [0, 0] and table["coverage_loss"].tolist() == [0, 0]


def test_where_no_rule_helps_argmax_stays():
    def certify(rules):
        return pd.concat([unanimous(WORLD_LABELS, WORLD_LABELS, rule.id) for rule in rules], ignore_index=True)

    found = tune(
        certify, costs=PAIR, spec="pair:cat/dog", class_names=NAMES, radius=0.5, weights=np.ones(200), budget=Budget()
    )
    assert found.rule == ARGMAX


# To take a fox (0) for a dog (1) costs 1, for an owl (2) 10. Of 100 foxes argmax takes 40 for dogs and 20 for owls; one
# rule makes these dogs foxes, which is rob_cs, another these owls dogs, which is cost.
DEAR = CostMatrix([[0, 1, 10], [0, 0, 0], [0, 0, 0]], ["fox", "dog", "owl"])


def test_a_rule_is_tuned_by_the_costs_where_they_differ_in_size(tmp_path):
    labels = np.zeros(100, int)
    (tmp_path / "dear.csv").write_text("0,1,10\n0,0,0\n0,0,0\n")
    answers = {"argmax": [0] * 40 + [1] * 40 + [2] * 20, "fewer": [0] * 80 + [2] * 20, "cheaper": [0] * 40 + [1] * 60}

    def certify(rules):
        # the first two rules of the first grid are these; all others answer as argmax
        names = ["argmax", "fewer", "cheaper"] if rules[0] == ARGMAX else []
        names += ["argmax"] * (len(rules) - len(names))
        rows = [unanimous(np.array(answers[n]), labels, r.id, DEAR) for n, r in zip(names, rules, strict=True)]
        return pd.concat(rows, ignore_index=True)

    found = tune(
        certify, costs=DEAR, spec=str(tmp_path / "dear.csv"), class_names=["fox", "dog", "owl"], radius=0.5,
        weights=np.ones(100), budget=Budget(0.5, 0.5), strengths=[0.5, 1.0],
    )  # fmt: skip
    assert found.metric == "rob_cost" and found.table["rob_cs"].tolist()[:3] == [0.4, 0.8, 0.4]
    assert found.table["rob_cost"].tolist()[:3] == [2.4, 2.0, 0.6] and found.chosen == 2
