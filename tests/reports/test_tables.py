import math
from pathlib import PurePath

import pandas as pd
import pytest

from raycsr import CostMatrix, certify_counts, summarize
from raycsr.reports.comparison import at_equal_accuracy, front, non_dominated, rank_points
from raycsr.reports.labels import Named, distinct_labels, facts_named
from raycsr.reports.tables import equal_accuracy_table, front_table, marks_line, ranking_table, summary_table
from raycsr.results.notes import model_of


def test_a_summary_shows_intervals_images_and_guarantees_and_leaves_out_what_is_unknown():
    counts = [[0, 1000]]
    certificates = certify_counts(
        counts, counts, [1], costs=CostMatrix.pairwise(2, {0: [1]}), sigma=0.5, sampling="fixed"
    )
    summary = summarize(certificates, costs=CostMatrix.pairwise(2, {0: [1]}), radii=[0.25])
    summary = summary.assign(run="r", costs="c", rule="argmax", rule_id="argmax", collapsed="")
    table = summary_table(summary)
    row = dict(zip(titles(table), table.rows[0], strict=True))
    assert row["certified acc. (standard)"] == "1.000 [0.207, 1.000]"  # Wilson for 1 of 1
    assert (row["images"], row["sensitive images"], row["target images"]) == ("1", "0", "1")
    assert row["certified acc. (multiclass)"] == "1.000 [0.207, 1.000]"
    names = ("certified acc. (standard)", "certified acc. (multiclass)", "rob_cs")
    assert [row[f"{name} guaranteed"] for name in names] == ["1.000", "1.000", "-"]
    assert [row[name] for name in ("rob_cs", "rob_cost", "worst cost", "seed recall")] == ["-"] * 4
    assert "rule" not in row
    table = summary_table(summary.assign(rule="offset:1*pair:0/1", rule_id="offset-0123456789"))
    assert dict(zip(titles(table), table.rows[0], strict=True))["rule"] == "offset:1*pair:0/1"
    assert [column.title for column in table.columns if not column.numeric] == ["run", "costs", "rule"]


def points(*rows):
    """Rows of a summary at one radius: run, rule, accuracy, rob_cs; the rule's name serves as its id."""
    table = pd.DataFrame(rows, columns=["run", "rule", "accuracy", "rob_cs"])
    named = {"costs": "seed:cat", "rule_id": table["rule"], "metric": "rob_cs", "collapsed": "", "radius": 0.25}
    counts = {
        "certified_accuracy": 0.5,
        "multiclass_certified_accuracy": 0.5,
        "num_images": 50,
        "num_sensitive": 20,
        "num_target": 30,
        "coverage": 0.9,
    }
    return table.assign(**named, **counts, rob_cost=1.5, seed_recall=0.7, target_recall=0.4)


def titles(table):
    return [column.title for column in table.columns]


def test_a_point_is_dominated_by_one_that_is_as_good_in_both_and_better_in_one():
    accuracy = [0.70, 0.70, 0.65, 0.65, 0.60, 0.70, 0.90]
    rob_cs = [0.30, 0.40, 0.40, 0.50, 0.50, 0.40, math.nan]
    #         first: same accuracy, less rob_cs than the second; third: less accuracy, same rob_cs; fifth likewise;
    #         the second and the sixth are one point twice, and neither beats the other; the last has no rob_cs
    assert non_dominated(accuracy, rob_cs).tolist() == [False, True, False, True, False, True, False]


def test_the_front_is_each_runs_own_and_says_what_is_best_of_all():
    table = points(
        ("a", "argmax", 0.70, 0.30),
        ("a", "worse", 0.60, 0.30),
        ("a", "strong", 0.60, 0.50),
        ("b", "argmax", 0.65, 0.60),
    )
    on_front = front(table)
    assert on_front[["run", "rule", "best"]].to_numpy().tolist() == [
        ["a", "argmax", True],
        ["a", "strong", False],  # b's argmax is better in both
        ["b", "argmax", True],
    ]
    assert titles(front_table(on_front))[-1] == "best of all runs"
    assert "best of all runs" not in titles(front_table(front(table[table["run"] == "a"])))
    row = ["seed:cat", "a", "strong", "50", "0.600", "0.900", "20", "0.500", "1.500", "0.700", "30", "0.400", ""]
    assert front_table(on_front).rows[1] == row


def test_where_costs_differ_in_size_the_front_and_equal_accuracy_go_by_what_is_left_of_them():
    table = points(("a", "argmax", 0.70, 0.50), ("a", "cheap", 0.65, 0.40), ("a", "dear", 0.60, 0.60))
    table = table.assign(metric="rob_cost", rob_cost=[2.0, 0.5, 3.0])
    assert front(table)["rule"].tolist() == ["argmax", "cheap"]
    assert at_equal_accuracy(table, [0, 0.05, 0.1])["rule"].tolist() == ["argmax", "cheap", "cheap"]
    assert equal_accuracy_table(at_equal_accuracy(table, [0, 0.05])).rows[0][3:] == ["2.000", "0.500"]


def test_a_collapsed_class_is_marked_beside_what_it_flatters_and_explained_in_one_line():
    table = points(("a", "argmax", 0.70, 0.30), ("a", "strong", 0.60, 1.00))
    table["collapsed"] = ["", "dog 0 of 30 (argmax 0.600)"]
    shown = front_table(front(table))
    plain, strong = shown.rows
    assert plain == ["seed:cat", "a", "argmax", "50", "0.700", "0.900", "20", "0.300", "1.500", "0.700", "30", "0.400"]
    assert strong[4:] == [
        "0.600 †",
        "0.900",
        "20",
        "1.000 †",
        "1.500 †",
        "0.700 †",
        "30",
        "0.400",
    ]
    assert shown.marks.startswith("†") and shown.marks.endswith("a · strong: dog 0 of 30 (argmax 0.600).")
    equal = equal_accuracy_table(at_equal_accuracy(table, [0, 0.1]))
    assert equal.rows[0][2:] == ["20", "0.300", "1.000 †"] and "dog 0 of 30" in equal.marks
    assert equal_accuracy_table(at_equal_accuracy(table, [0])).marks == ""


def test_of_many_collapsed_rules_the_line_names_some():
    table = points(*(("a", f"r{i}", 0.7, 0.5) for i in range(12))).assign(collapsed="dog 0 of 30")
    assert marks_line(pd.concat([table, table])).endswith("a · r7: dog 0 of 30; and 4 more.")


def test_runs_are_compared_at_the_accuracy_of_the_best_argmax_less_a_loss():
    table = points(
        ("a", "argmax", 0.52, 0.30),  # the reference, although not the most accurate of all rules
        ("a", "mild", 0.53, 0.40),
        ("a", "strong", 0.47, 0.80),  # 0.52 - 0.05, which is a bit more in floating point
        ("b", "argmax", 0.48, 0.60),
        ("b", "mild", 0.51, 0.50),
    )
    assert at_equal_accuracy(table, [0.01])[["run", "rule", "reference", "rob_cs"]].to_numpy().tolist() == [
        ["a", "mild", True, 0.40],
        ["b", "mild", False, 0.50],
    ]
    assert equal_accuracy_table(at_equal_accuracy(table)).rows == [
        ["seed:cat", "a (reference)", "20", "0.400", "0.400", "0.400", "0.800"],  # less 0, 0.01, 0.025, 0.05
        ["seed:cat", "b", "20", "-", "0.500", "0.500", "0.600"],
    ]
    assert at_equal_accuracy(table[table["rule"] != "argmax"]).empty


def test_a_ranking_begins_with_the_metric_and_says_who_pays_too_much_accuracy():
    table = rank_points(points(("a", "argmax", 0.70, 0.30), ("a", "strong", 0.60, 1.00), ("a", "mild", 0.68, 0.40)))
    shown = ranking_table(table)
    assert titles(shown)[:5] == ["", "run", "rule", "sensitive images", "rob_cs"] and titles(shown)[-1] == "note"
    assert [row[:5] + row[-1:] for row in shown.rows] == [
        ["1", "a", "mild", "20", "0.400", ""],
        ["2", "a", "argmax", "20", "0.300", ""],
        ["3", "a", "strong", "20", "1.000", "accuracy beyond budget"],
    ]
    assert titles(ranking_table(table[:2]))[-1] == "target recall"


@pytest.mark.parametrize(
    ("paths", "labels"),
    [
        (["a/one.pt", "a/two.pt"], ["one.pt", "two.pt"]),
        (["x/gaussian/last.pt", "x/margin_cs/last.pt"], ["gaussian/last.pt", "margin_cs/last.pt"]),
        (["s3://b/gaussian/ckpt/last.pt", "s3://b/macer/ckpt/last.pt"], ["gaussian/…/last.pt", "macer/…/last.pt"]),
        (["a/x/last.pt", "b/x/last.pt", "b/y/last.pt"], ["a/x/last.pt", "b/x/last.pt", "b/y/last.pt"]),
        (["last.pt", "x/last.pt"], ["last.pt", "x/last.pt"]),
        (["resnet50", "resnet50"], ["resnet50 012345", "resnet50 abcdef"]),
        (["x/a.pt", "x/a.pt", "y/a.pt"], ["x/a.pt 012345", "x/a.pt abcdef", "y/a.pt"]),
    ],
)
def test_labels_that_would_be_equal_are_told_apart_by_the_nearest_folders_that_differ(paths, labels):
    runs = ["r/runs/0123456789", "r/runs/abcdefabcd", "r/runs/9876543210"]
    assert distinct_labels([Named(path, "", run) for path, run in zip(paths, runs, strict=False)]) == labels


def test_copies_of_a_run_are_told_apart_by_where_they_are():
    places = ["a/c/runs/0123456789", "b/c/runs/0123456789", "a/c/runs/abcdefabcd"]
    labels = ["m.pt a/…/0123456789", "m.pt b/…/0123456789", "m.pt abcdef"]
    assert distinct_labels([Named("x/m.pt", "", place) for place in places]) == labels


def test_the_noise_level_tells_runs_of_one_model_apart():
    runs = [Named("x/a.pt", " σ=0.25", "0"), Named("x/a.pt", " σ=0.5", "1")]
    assert distinct_labels(runs) == ["a.pt σ=0.25", "a.pt σ=0.5"]


def test_what_is_in_int8_is_told_from_its_twin_by_its_label():
    """Of one name in two folders, and of one that was written over: labels do not hang on what files are called."""
    facts = {"model": "x/m.pt", "precision": "fp32"}
    assert model_of(facts) == "x/m.pt" and model_of({**facts, "precision": "int8"}) == "x/m.pt int8"
    models = [model_of({"model": path, "precision": how}) for path, how in (("x/m.pt", "bf16"), ("q/m.pt", "int8"))]
    assert distinct_labels([Named(model, " σ=0.5", "r/0") for model in models]) == ["m.pt σ=0.5", "m.pt int8 σ=0.5"]
    twins = [model_of({"model": f"{folder}/m.pt (behind d.pt)", "precision": "int8"}) for folder in "ab"]
    labels = ["a/m.pt (behind d.pt) int8", "b/m.pt (behind d.pt) int8"]
    assert distinct_labels([Named(model, "", "r/0", ("d.pt",)) for model in twins]) == labels
    assert distinct_labels([Named("local-dir:models/net/", "", "r/0")]) == ["net"]


MANIFEST = {"precision": "fp32", "preprocessing": {"input_size": [32, 32]}, "n0": 64, "n": 1000, "sampling": "fixed"}
MANIFEST |= {"seed": 0, "config": {"data": {"source": "cifar10", "path": "data/c10", "split": "test"}}}


@pytest.mark.parametrize(
    ("changes", "labels"),
    [
        ([{}, {"precision": "bf16"}], ["m.pt fp32", "m.pt bf16"]),
        ([{}, {"compile": True}], ["m.pt", "m.pt compiled"]),
        ([{}, {"n": None, "sampling": "sequential"}], ["m.pt n=1,000", "m.pt sequential"]),
        ([{"n0": 100, "seed": 1}, {"seed": 2}], ["m.pt n0=100", "m.pt n0=64"]),
        (
            [{}, {"precision": "bf16"}, {"precision": "bf16", "seed": 1}],
            ["m.pt fp32", "m.pt bf16 seed 0", "m.pt bf16 seed 1"],
        ),
        ([{}, {"preprocessing": {"input_size": [64, 32]}}], ["m.pt 32x32 px", "m.pt 64x32 px"]),
        ([{}, {"config": {"data": {"source": "cifar10", "path": "data/c10.1"}}}], ["m.pt c10", "m.pt c10.1"]),
        ([{}, {"config": {}, "preprocessing": {}, "n0": None}], ["m.pt 32x32 px", "m.pt"]),
        ([{}, {}], ["m.pt 000000", "m.pt 111111"]),  # of other weights in a file of that name, say
    ],
)
def test_runs_of_one_model_are_told_apart_by_what_differs(changes, labels):
    """Rather than by their ids, which tell nobody anything."""
    places = [f"r/{number}" for number in ("0" * 16, "1" * 16, "2" * 16)]
    runs = [
        Named("x/m.pt", "", place, facts=facts_named(MANIFEST | change))
        for place, change in zip(places, changes, strict=False)
    ]
    assert distinct_labels(runs) == labels


@pytest.mark.parametrize(
    ("denoisers", "labels"),
    [
        ([["p/mse/d.pt"], ["p/stab/d.pt"]], ["(behind mse/d.pt)", "(behind stab/d.pt)"]),
        (
            [["mse/d.pt", "a/d.pt"], ["mse/d.pt", "b/d.pt"]],
            ["(behind d.pt, behind a/d.pt)", "(behind d.pt, behind b/d.pt)"],
        ),
        (
            [["a/d.pt", "x/e.pt"], ["b/d.pt", "x/e.pt"]],
            ["(behind a/d.pt, behind e.pt)", "(behind b/d.pt, behind e.pt)"],
        ),
        ([["d.pt"], ["d.pt"]], ["(behind d.pt) 012345", "(behind d.pt) abcdef"]),  # of another sigma, say
        ([[], []], ["(behind ) 012345", "(behind ) abcdef"]),  # of before it was noted
    ],
)
def test_denoisers_of_one_name_are_told_apart_by_their_folders(denoisers, labels):
    places = ["r/runs/0123456789", "r/runs/abcdefabcd"]
    runs = []
    for paths, place in zip(denoisers, places, strict=True):
        model = f"x/m.pt ({', '.join(f'behind {path}' for path in (PurePath(one).name for one in paths or ['']))})"
        runs.append(Named(model, "", place, tuple(paths)))
    assert distinct_labels(runs) == [f"m.pt {label}" for label in labels]
