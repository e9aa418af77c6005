import json

import pandas as pd

from raycsr.certification import METRICS
from raycsr.pipelines.leaderboard import leaderboard, ranked


def trial(name, costs="seed:4", *, state="finished", error=None, lr=0.1, **metrics):
    numbers = dict.fromkeys(METRICS, 0.5) | metrics
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


def test_trials_are_ranked_within_their_sigma_and_costs_and_those_that_lose_too_much_accuracy_come_last():
    of = ranked(TRIALS, "rob_cs", budget=0.05)
    assert of["trial"].tolist() == ["e", "b", "a", "c"]
    assert of.set_index("trial")["within_budget"].to_dict() == {"e": True, "b": True, "a": True, "c": False}
    assert ranked(TRIALS, "rob_cs", budget=0.01)["trial"].tolist() == ["e", "a", "c", "b"]
    assert ranked(TRIALS, "rob_cost", budget=0.05)["trial"].tolist()[1:] == ["b", "a", "c"]  # less is better
    assert ranked(TRIALS, "rob_cs", budget=0.5)["trial"].tolist()[1] == "c"


def test_the_leaderboard_shows_a_table_for_each_costs_and_what_failed():
    best = {(0.25, "seed:4"): "b.pt", (0.25, "pair:4/9"): "e.pt"}
    text = leaderboard(TRIALS, ["costs", "training.lr"], best, "rob_cs", 0.05)
    seed = text.split("## sigma 0.25, costs seed:4")[1]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in seed.splitlines() if line.startswith("|")]
    assert rows[0][:4] == ["", "training.lr", "accuracy", "rob_cs"]
    assert rows[2][:4] == ["1", "0.01", "0.870", "0.700"] and rows[2][-1] == "b"
    assert rows[4][-2:] == ["stopped, accuracy beyond budget", "c"]
    assert "Best: b.pt" in seed and "- d" in seed and "the loss is nan" in seed
