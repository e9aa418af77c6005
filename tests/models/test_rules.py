"""Decision rules: what they decide, what they are called, and how people write them."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models.decisions import Decisions
from raycsr.models.rules import ARGMAX, ExpectedCost, Offset, parse_rules, rule_of_dict

NAMES = ["cat", "dog", "owl"]
PAIR = ((0.0, 1.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 0.0))  # a cat taken for a dog costs 1
LOGITS = torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.5, 1.0], [0.0, 0.0, -1.0]])


def parse(*specs, **more):
    return parse_rules(specs, **{"num_classes": 3, "class_names": NAMES, **more})


def test_argmax_takes_the_first_of_equal_logits():
    assert ARGMAX(LOGITS).tolist() == [1, 0, 0]


def test_an_offset_is_added_to_the_logits():
    # z + b: (1, .5, 0), (3, 1, 1), (0, -1.5, -1)
    rule = Offset((0.0, -1.5, 0.0))
    assert rule(LOGITS).tolist() == [0, 0, 0]
    assert Offset((0.0, -1.0, 0.0))(LOGITS).tolist() == [0, 0, 0]  # 1 against 1: the lowest class
    assert Offset((0.0, -0.9, 0.0))(LOGITS).tolist() == [1, 0, 0]


def test_the_expected_cost_weighs_mistakes_by_their_probability():
    # p = (.3, .6, .1): the expected cost of cat is .7, of dog .4 + .3 tau, of owl .9
    logits = torch.tensor([0.3, 0.6, 0.1]).log()
    assert ExpectedCost(tau=0.9, costs=PAIR)(logits).item() == 1  # dog: .67
    assert ExpectedCost(tau=1.1, costs=PAIR)(logits).item() == 0  # dog: .73
    # a dearer matrix: cat -> dog costs 4, owl -> cat costs 30; cat .7 + 30 * .1 tau, dog .4 + 4 * .3 tau
    dear = ((0.0, 4.0, 0.0), (0.0, 0.0, 0.0), (30.0, 0.0, 0.0))
    assert ExpectedCost(tau=0.3, costs=dear)(logits).item() == 1  # cat 1.6, dog .76, owl .9
    assert ExpectedCost(tau=0.5, costs=dear)(logits).item() == 2  # cat 2.2, dog 1.0, owl .9


@pytest.mark.parametrize("seed", [0, 2])
@pytest.mark.parametrize("tau", [0.5, 3.0])
def test_for_one_seed_class_the_expected_cost_raises_it_by_log_1_plus_tau(seed, tau):
    logits = torch.randn(2000, 3, generator=torch.Generator().manual_seed(0))
    weighed = ExpectedCost(tau=tau, costs=tuple(map(tuple, CostMatrix.seedwise(3, [seed]).values.tolist())))
    raised = Offset(tuple(math.log1p(tau) * (k == seed) for k in range(3)))
    assert torch.equal(weighed(logits), raised(logits))


def test_offsets_are_the_same_in_whatever_unit_costs_are_told():
    for cost in (1e-15, 1.0, 1e15):
        (spec,) = Offset.grid(CostMatrix.pairwise(3, {0: [1]}, cost), "costs.csv", [1.0])
        assert spec == "offset:1*costs.csv"
    assert Offset.grid(CostMatrix(1e-15 * CostMatrix.uniform(3).values), "costs.csv", [1.0]) == {}


@pytest.mark.parametrize(("least", "most"), [(1e-15, 1e15), (1e-15, 1e-15), (1e15, 1e15)])
def test_the_rules_of_a_grid_decide_by_numbers_whatever_the_unit_of_costs(least, most):
    costs = CostMatrix([[0, most, least], [0, 0, 0], [0, 0, 0]])
    for spec in ExpectedCost.grid(costs, "costs.csv", [1.0, 3.0]):
        rule = ExpectedCost(tau=float(spec.split(":")[1].split("*")[0]), costs=costs)
        assert rule(torch.tensor([0.4, 0.5, 0.1]).log()).item() == 0  # to take a cat for a dog is what costs most


LOGIT_ARRAYS = arrays("float32", (5, 4), elements=st.floats(-1e4, 1e4, width=32) | st.sampled_from([0, 1, 2**-30]))


@given(LOGIT_ARRAYS)
@example(np.array([[0.0, 1e-9, -1.0, 0.0]], "float32"))  # exp(-1e-9) is 1 in float32
def test_no_offset_and_no_tau_are_argmax_to_the_last_bit(values):
    logits = torch.from_numpy(values)
    costs = tuple(map(tuple, CostMatrix.uniform(4).values.tolist()))
    for rule in (Offset((2.5,) * 4), ExpectedCost(tau=0.0, costs=costs)):
        assert torch.equal(rule(logits), logits.argmax(-1))


@given(arrays("int8", (20, 6), elements=st.integers(0, 12)), st.sampled_from([0.3, 2.0, 50.0]))
def test_ties_stay_ties_among_classes_that_cost_the_same(values, tau):
    logits = torch.from_numpy(values).bfloat16() / 4  # in bf16, logits are often equal
    uniform = ExpectedCost(tau=tau, costs=tuple(map(tuple, CostMatrix.uniform(6).values.tolist())))
    assert torch.equal(uniform(logits), logits.argmax(-1))
    pair = ExpectedCost(tau=tau, costs=tuple(map(tuple, CostMatrix.pairwise(6, {0: [5]}).values.tolist())))
    assert torch.equal(pair(logits[:, :3].repeat_interleave(2, 1)), logits[:, :3].argmax(-1) * 2)


@given(LOGIT_ARRAYS, st.integers(-4096, 4096))
def test_a_constant_shift_is_the_same_rule(values, shift):
    offsets = (0.5, -1.25, 0.0, 2.0)
    rule, shifted = Offset(offsets), Offset(tuple(b + shift / 1024 for b in offsets))
    assert rule == shifted and rule.id == shifted.id
    assert torch.equal(rule(torch.from_numpy(values)), shifted(torch.from_numpy(values)))


def test_a_shift_that_rounds_is_the_same_rule_too():
    assert Offset((0.1, -0.7, 0.0)).id == Offset((0.1 + 0.3, -0.7 + 0.3, 0.3)).id


@given(LOGIT_ARRAYS)
def test_rules_decide_together_as_each_alone(values):
    logits = torch.from_numpy(values)
    rules = parse_rules(
        ["expected_cost:0.5,2*pair:0/1", "argmax", "offset:0.5,1*pair:2/3", "expected_cost:3*seed:1"], num_classes=4
    )
    together = Decisions(rules, "cpu")(logits)
    assert together.shape == (5, 6) and together.dtype == torch.int64
    for r, rule in enumerate(rules):
        assert torch.equal(together[:, r], rule(logits))


def test_logits_of_half_precision_and_any_leading_shape():
    rule = parse("offset:1*pair:cat/dog")[0]
    logits = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert rule(logits).shape == (2, 5)
    assert torch.equal(rule(logits), rule(logits.float()))


def test_ids_tell_rules_apart_and_do_not_depend_on_the_words():
    pair, named, number = (parse(spec)[0] for spec in ("offset:1.5*pair:cat/dog", "offset:dog=-1.5", "offset:1=-1.50"))
    assert pair == named == number and len({rule.id for rule in (pair, named, number)}) == 1
    assert pair.id.startswith("offset-") and len(pair.id) == len("offset-") + 10
    assert (pair.spec, named.spec) == ("offset:1.5*pair:cat/dog", "offset:dog=-1.5")
    others = parse("argmax", "offset:1.4*pair:cat/dog", "expected_cost:1.5*pair:cat/dog", "expected_cost:1.5*seed:cat")
    assert len({rule.id for rule in [pair, *others]}) == 5
    assert others[0].id == "argmax" and others[2].id.startswith("expected_cost-")


def test_the_ids_are_those_that_stored_votes_have():
    ids = [rule.id for rule in parse("offset:1.5*pair:cat/dog", "expected_cost:2*pair:cat/dog")]
    assert ids == ["offset-f5866dfa83", "expected_cost-1556eadefc"]


def test_a_rule_comes_back_from_json_and_pickle():
    for rule in parse("argmax", "offset:0.1*pair:cat/dog", "expected_cost:0.1*seed:cat"):
        for back in (rule_of_dict(rule.to_dict()), pickle.loads(pickle.dumps(rule))):
            assert back == rule and (back.id, back.spec) == (rule.id, rule.spec)


def test_a_spec_of_several_strengths_is_a_grid_and_doubles_are_dropped():
    rules = parse("argmax", "offset:0.5,1*pair:cat/dog", "offset:dog=-1", "argmax", "expected_cost:2*uniform")
    assert [rule.spec for rule in rules] == [
        "argmax", "offset:0.5*pair:cat/dog", "offset:1*pair:cat/dog", "expected_cost:2*uniform",
    ]  # fmt: skip


def test_offsets_of_a_matrix_lower_what_is_costly_to_answer():
    # seed cat: dog and owl are as costly, so cat is raised against both
    assert parse("offset:1.5*seed:cat")[0].offsets == (0.0, -1.5, -1.5)
    # seeds cat and dog: column sums 1, 1, 2
    assert parse("offset:2*seed:cat,dog")[0].offsets == (0.0, 0.0, -1.0)


def test_offsets_of_a_csv_follow_its_real_values(tmp_path):
    (tmp_path / "costs.csv").write_text("0,10,0\n1,0,0\n0,10,0\n")  # column sums 1, 20, 0
    (rule,) = parse(f"offset:2*{tmp_path}/costs.csv")
    assert rule.offsets == pytest.approx((-0.1, -2.0, 0.0))


def test_tuned_is_what_the_checkpoint_holds():
    stored = parse("offset:1*pair:cat/dog", "expected_cost:2*seed:cat")
    assert parse("argmax", "tuned", stored=stored) == [ARGMAX, *stored]
    with pytest.raises(UserError, match="checkpoint holds none; `raycsr tune-rule"):
        parse("tuned")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("argmx", "rule 'argmx' not understood: did you mean argmax"),
        ("ofset:1*seed:cat", r"did you mean offset:1\*COSTS"),
        ("offset", r"did you mean offset:1\*COSTS"),
        ("offset:kat=1", "unknown class 'kat'; nearest names: cat"),
        ("offset:1*seed:kat", "unknown class 'kat'; nearest names: cat"),
        ("offset:cat", "rule 'offset:cat' not understood: 'cat' has no number; write cat=1.5"),
        ("offset:cat=much", "'much' is no number; write cat=1.5"),
        ("offset:cat=nan", "offset has offsets"),
        ("offset:1,x*seed:cat", "strength 'x' is no number"),
        ("offset:-1*seed:cat", "strength -1 is not a finite number, 0 or more"),
        ("offset:1*uniform", "costs 'uniform' would change nothing, for every class is as costly"),
        ("expected_cost:-1*uniform", "strength -1 is not"),
        ("expected_cost:inf*uniform", "strength inf is not"),
        ("expected_cost:uniform", r"has no strength; write expected_cost:1\*uniform"),
    ],
)
def test_a_spec_that_is_not_understood_is_one_line_that_says_so(spec, message):
    with pytest.raises(UserError, match=message) as caught:
        parse(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kind": "median"}, "unknown kind of rule 'median'"),
        ({"kind": "ofset"}, "did you mean offset"),
        ({"kind": "offset", "offsets": ()}, "give a finite one a class"),
        ({"kind": "offset", "offsets": (0.0, math.inf)}, "give a finite one a class"),
        ({"kind": "expected_cost", "tau": -0.1, "costs": PAIR}, "0 or more"),
        ({"kind": "expected_cost", "tau": math.nan, "costs": PAIR}, "0 or more"),
        ({"kind": "expected_cost", "tau": 1e31, "costs": PAIR}, "tau 1e.31"),
        ({"kind": "expected_cost", "tau": 1e16, "costs": ((0.0, 1e15), (0.0, 0.0))}, "tau 1e.16"),
        ({"kind": "expected_cost", "tau": 1.0, "costs": ((0.0, -1.0), (0.0, 0.0))}, "must not be negative"),
        ({"kind": "expected_cost", "tau": 1.0, "costs": ()}, "square"),
    ],
)
def test_parameters_that_make_no_rule_are_refused(wrong, message):
    with pytest.raises(UserError, match=message):
        rule_of_dict({"spec": "", **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "offset"},
        {"kind": "argmax", "offsets": (0.0, 1.0)},
        {"kind": "argmax", "tau": 1.0},
        {"kind": "offset", "offsets": (0.0, 1.0), "costs": PAIR},
        {"kind": "expected_cost", "tau": 1.0},
    ],
)
def test_parameters_of_another_kind_are_no_rule(wrong):
    with pytest.raises(TypeError):
        rule_of_dict({"spec": "", **wrong})


def test_a_rule_for_another_number_of_classes_is_refused():
    with pytest.raises(UserError, match="a rule is for 3 classes and the classifier has 4"):
        Offset((0.0, 1.0, 0.0))(torch.zeros(2, 4))
    with pytest.raises(UserError, match="rules for 2 and for 3 classes cannot decide on the same logits"):
        Decisions([Offset((0.0, 1.0, 0.0)), Offset((0.0, 1.0))], "cpu")
