import json

import pandas as pd

from raycsr.certification import METRICS
from raycsr.reports import as_markdown, rank_trials
from raycsr.reports.leaderboard import leaderboard


def trial(name, costs="seed:4", *, state="finished", error=None, lr=0.1, metric="rob_cs", collapsed="", **metrics):
    numbers = dict.fromkeys(METRICS, 0.5) | {"metric": metric, "collapsed": collapsed} | metrics
    point = json.dumps({"costs": costs, "training.lr": lr})
    return {
        "trial": name,
        "state": state,
        "error": error,
        "sigma": 0.25,
        "costs": costs,
        "point": point,
        "epoch": 8,
        **numbers,
    }


TRIALS = pd.DataFrame(
    [
        trial("a", accuracy=0.90, rob_cs=0.50, rob_cost=0.9),
        trial("b", accuracy=0.87, rob_cs=0.70, rob_cost=0.6, lr=0.01),
        trial("c", accuracy=0.60, rob_cs=0.99, rob_cost=0.1, state="stopped"),
        trial("d", state="failed", error="the loss is nan", accuracy=None, rob_cs=None, rob_cost=None),
        trial("e", costs="pair:4/9", accuracy=0.5, rob_cs=0.2),
    ]
)


def table(markdown):
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in markdown.splitlines() if line.startswith("|")]


def test_trials_are_ranked_within_their_sigma_and_costs_and_those_that_lose_too_much_accuracy_come_last():
    of = rank_trials(TRIALS, "rob_cs", budget=0.05)
    assert of["trial"].tolist() == ["e", "b", "a", "c"]
    assert of.set_index("trial")["within_budget"].to_dict() == {"e": True, "b": True, "a": True, "c": False}
    assert rank_trials(TRIALS, "rob_cs", budget=0.01)["trial"].tolist() == ["e", "a", "c", "b"]
    assert rank_trials(TRIALS, "rob_cost", budget=0.05)["trial"].tolist()[1:] == ["b", "a", "c"]  # less is better
    assert rank_trials(TRIALS, "rob_cs", budget=0.5)["trial"].tolist()[1] == "c"


def test_the_leaderboard_shows_a_table_for_each_costs_and_what_failed():
    best = {(0.25, "seed:4"): "b.pt", (0.25, "pair:4/9"): "e.pt"}
    text = as_markdown(leaderboard(TRIALS, ["costs", "training.lr"], best, 0.05))
    assert text.startswith("# Leaderboard by rob_cs\n")
    seed = text.split("## sigma 0.25, costs seed:4, by rob_cs\n")[1]
    rows = table(seed)
    assert rows[0][:4] == ["", "training.lr", "rob_cs", "accuracy"]
    assert rows[2][:4] == ["1", "0.01", "0.700", "0.870"] and rows[2][-1] == "b"
    assert rows[4][-2:] == ["stopped, accuracy beyond budget", "c"]
    assert "Best: b.pt" in seed and "- d" in seed and "the loss is nan" in seed


def test_each_costs_are_ranked_by_what_their_trials_compete_in():
    trials = pd.DataFrame(
        [
            trial("a", "dear.csv", metric="rob_cost", accuracy=0.9, rob_cs=0.9, rob_cost=2.0),
            trial("b", "dear.csv", metric="rob_cost", accuracy=0.9, rob_cs=0.5, rob_cost=1.0),
            trial("c", "uniform", rob_cs=0.1),
        ]
    )
    best = {(0.25, "dear.csv"): "b.pt", (0.25, "uniform"): "c.pt"}
    text = as_markdown(leaderboard(trials, ["training.lr"], best, 0.05))
    assert text.startswith("# Leaderboard by rob_cost, rob_cs\n")
    dear = table(text.split("costs dear.csv, by rob_cost (less is better)")[1].split("##")[0])
    assert dear[0][2:5] == ["rob_cost", "accuracy", "ACR"]
    assert [row[2] for row in dear[2:]] == ["1.000", "2.000"]


def test_a_trial_of_which_a_class_collapsed_is_marked():
    trials = pd.DataFrame([trial("a", rob_cs=1.0, collapsed="dog 0 of 30 right", target_recall=0.0), trial("b")])
    text = as_markdown(leaderboard(trials, ["training.lr"], {(0.25, "seed:4"): "a.pt"}, 0.05))
    first, second = table(text)[2:]
    assert first[2:4] == ["1.000 †", "0.500 †"] and "0.000" in first
    assert "†" not in "".join(second) and text.count("a: dog 0 of 30 right") == 1
