"""Parts of attacks on either kind of store: which rows stand, what is lacking, and what damage leaves."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from raycsr.certification.answers import MAJORITY
from raycsr.costs import CostMatrix
from raycsr.errors import DamagedFile
from raycsr.results.attacks import AttackSet, attack_set
from raycsr.results.schema import ATTACKS
from raycsr.smoothing.options import AttackOptions

COSTS = CostMatrix.uniform(3)


def rows(*of):
    """Attacks of (image, radius, alpha or None, error or None)."""
    table = [
        {"image_id": image, "radius": radius, "alpha": alpha, "error": error, "distance": radius, "broken": False}
        for image, radius, alpha, error in of
    ]
    return pa.Table.from_pylist(table, schema=ATTACKS)


@pytest.fixture
def attacks(store):
    one = AttackSet(store, attack_set("uniform", COSTS, "argmax", AttackOptions()))
    assert len(one.read()) == 0  # of a run that was never attacked
    one.note("uniform", COSTS, "argmax", AttackOptions())
    return one


def keys(table):
    return table[["image_id", "radius", "alpha"]].fillna(0).values.tolist()


def test_a_row_without_an_error_stands_before_one_with_it_else_the_first_part_does(attacks):
    attacks.write("0001-a.parquet", rows(("x", 0.5, None, "gone"), ("y", 0.5, None, None)))
    attacks.write("0002-b.parquet", rows(("x", 0.5, None, None), ("y", 0.5, None, "gone")))
    found = attacks.read()
    assert keys(found) == [["x", 0.5, 0], ["y", 0.5, 0]] and found["error"].isna().all()


def test_a_named_radius_and_a_certificate_of_that_very_radius_are_two_attacks(attacks):
    attacks.write("0001-a.parquet", rows(("x", 0.5, None, None), ("x", 0.5, 0.001, None)))
    assert keys(attacks.read()) == [["x", 0.5, 0.001], ["x", 0.5, 0]]


def test_lacking_is_what_is_not_there_or_has_an_error(attacks):
    attacks.write("0001-a.parquet", rows(("x", 0.5, None, None), ("y", 0.5, None, "gone"), ("z", 0.5, 0.01, None)))
    wanted = pd.DataFrame(
        {"image_id": ["x", "y", "z", "z", "w"], "radius": 0.5, "alpha": [np.nan] * 2 + [0.01, 0.001, np.nan]}
    )
    assert keys(attacks.lacking(wanted)) == [["y", 0.5, 0], ["z", 0.5, 0.001], ["w", 0.5, 0]]


def test_a_part_that_was_cut_off_counts_for_nothing(attacks, store):
    attacks.write("0001-a.parquet", rows(("x", 0.5, None, None)))
    whole = store.read(f"attacks/{attacks.name}/0001-a.parquet")
    store.write(f"attacks/{attacks.name}/0001-a.parquet", whole[: len(whole) // 2])
    with pytest.warns(UserWarning, match=r"0001-a\.parquet cannot be read and counts for nothing"):
        assert len(attacks.read()) == 0


@pytest.mark.parametrize("said", [b"", b"[]", b'{"spec": "uniform"}', b'{"steps": -1}'])
def test_a_damaged_note_is_one_line(attacks, store, said):
    assert attacks.facts()["steps"] == 20
    store.write(f"attacks/{attacks.name}/attack.json", said)
    with pytest.raises(DamagedFile, match=r"attack\.json is damaged"):
        attacks.facts()


def test_a_note_of_another_budget_is_damage(attacks, store):
    note = store.read(f"attacks/{attacks.name}/attack.json")
    store.write(f"attacks/{attacks.name}/attack.json", note.replace(b'"steps":20', b'"steps":99'))
    with pytest.raises(DamagedFile, match="of other attacks than its folder"):
        attacks.facts()


def test_each_budget_rule_and_matrix_is_a_set_of_its_own():
    names = {attack_set("uniform", COSTS, "argmax", AttackOptions())}
    names |= {
        attack_set("uniform", COSTS, "argmax", AttackOptions(steps=21)),
        attack_set("uniform", COSTS, "offset-1", AttackOptions()),
    }
    names |= {attack_set("uniform", CostMatrix.uniform(4), "argmax", AttackOptions())}
    names |= {attack_set("uniform", COSTS, "argmax", AttackOptions(), MAJORITY)}
    assert len(names) == 5 and all(name.startswith("uniform-") for name in names)
    assert "uniform-0641a87e6e" in names  # that of argmax, as sets were called before there were other answers


def test_a_set_says_the_answer_that_it_is_of(store):
    one = AttackSet(store, attack_set("uniform", COSTS, "argmax", AttackOptions(), MAJORITY))
    one.note("uniform", COSTS, "argmax", AttackOptions(), MAJORITY)
    assert one.facts()["answer"] == MAJORITY and one.name.startswith("uniform-majority-")
    note = store.read(f"attacks/{one.name}/attack.json")
    for damage in (b'"thresholds":[2]', b'"thresholds":"none"', b'"thresholds":[0.6]'):
        store.write(f"attacks/{one.name}/attack.json", note.replace(b'"thresholds":[0.5]', damage))
        with pytest.raises(DamagedFile, match="of other attacks than its folder"):
            one.facts()
