import pandas as pd

from raycsr.certification import METRICS
from raycsr.reports import rank_points, rank_trials, ranking_table


def points(*rows):
    names = ["costs", "run", "rule", "accuracy", "rob_cs", "rob_cost"]
    others = dict.fromkeys(set(METRICS) - set(names), 0.5) | {"metric": "rob_cs", "collapsed": ""}
    others |= {"num_images": 50, "num_sensitive": 20, "num_target": 30}
    limits = {f"{name}_{end}": 0.5 for name in ("rob_cs", "certified_accuracy") for end in ("low", "high")}
    return pd.DataFrame([dict(zip(names, row, strict=True)) | others | limits for row in rows])


POINTS = points(
    ("seed:a", "m", "argmax", 0.90, 0.50, 0.9),
    ("seed:a", "m", "offset", 0.87, 0.70, 0.6),
    ("seed:a", "n", "argmax", 0.60, 0.99, 0.1),  # it calls everything an a
    ("seed:a", "n", "offset", 0.90, 0.70, 0.7),
    ("pair:a/b", "m", "argmax", 0.90, 0.20, 0.8),
    ("(standard)", "tsv", "argmax", 0.99, None, None),
)


def test_points_are_ranked_by_rob_cs_among_those_that_lose_little_accuracy():
    ranked = rank_points(POINTS, budget=0.05)
    of_seed = ranked[ranked["costs"] == "seed:a"]
    assert of_seed[["run", "rule"]].to_numpy().tolist() == [
        ["n", "offset"],  # as robust as the next and more accurate
        ["m", "offset"],
        ["m", "argmax"],
        ["n", "argmax"],
    ]
    assert of_seed["place"].tolist() == [1, 2, 3, 4] and of_seed["within_budget"].tolist() == [True] * 3 + [False]
    assert ranked[ranked["costs"] == "pair:a/b"]["place"].tolist() == [1]
    assert "(standard)" not in set(ranked["costs"])
    assert rank_points(POINTS, budget=0.5)["run"].tolist()[1] == "n"


def test_of_costs_less_is_better():
    ranked = rank_points(POINTS, metric="rob_cost", budget=0.05)
    assert ranked[ranked["costs"] == "seed:a"]["rob_cost"].tolist() == [0.6, 0.7, 0.9, 0.1]


def test_each_costs_go_by_their_own_metric_unless_one_is_named():
    weighed = POINTS.assign(metric=["rob_cost"] * 4 + ["rob_cs"] * 2)
    of_seed = rank_points(weighed, budget=0.05).query("costs == 'seed:a'")
    assert of_seed["rob_cost"].tolist() == [0.6, 0.7, 0.9, 0.1]
    titles = [column.title for column in ranking_table(of_seed).columns]
    assert titles[3:6] == ["sensitive images", "rob_cost", "rob_cs"]
    of_seed = rank_points(weighed, metric="rob_cs", budget=0.05).query("costs == 'seed:a'")
    assert of_seed["rob_cs"].tolist() == [0.7, 0.7, 0.5, 0.99]
    trials = weighed.assign(sigma=0.25, state="finished")
    assert rank_trials(trials).query("costs == 'seed:a'")["rob_cost"].iloc[0] == 0.6


def test_trials_without_metrics_have_no_rank():
    trials = POINTS[:3].assign(sigma=0.25, state=["finished", "stopped", "failed"])
    assert rank_trials(trials)["rule"].tolist() == ["offset", "argmax"]
