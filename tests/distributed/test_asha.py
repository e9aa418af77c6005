"""ASHA compares trials of one group only."""

from types import SimpleNamespace

from raycsr.distributed.search.asha import AshaByGroup


def trial(name, costs):
    return SimpleNamespace(trial_id=name, config={"costs": costs})


def scheduler():
    return AshaByGroup(
        group=lambda trial: trial.config["costs"],
        metric=lambda trial: "rob_cost" if trial.config["costs"].endswith(".csv") else "rob_cs",
        time_attr="epoch",
        max_t=8,
        grace_period=1,
        reduction_factor=2,
        stop_last_trials=False,
    )


def first_reports(asha, values, costs):
    """What becomes of new trials that report one after the other at epoch 1."""
    actions = []
    for value in values:
        one = trial(f"{costs} {value}", costs)
        asha.on_trial_add(None, one)
        actions.append(asha.on_trial_result(None, one, {"epoch": 1, "rob_cs": value, "rob_cost": value}))
    return actions


def test_a_hard_cost_matrix_is_not_stopped_for_an_easy_one():
    asha = scheduler()
    assert first_reports(asha, [0.9, 0.95], "pair:4/9")[0] == "CONTINUE"
    assert first_reports(asha, [0.2, 0.3], "seed:4") == ["CONTINUE", "CONTINUE"]


def test_the_worse_of_one_group_is_stopped():
    assert first_reports(scheduler(), [0.9, 0.2, 0.95], "pair:4/9") == ["CONTINUE", "STOP", "CONTINUE"]


def test_a_group_that_competes_in_costs_keeps_the_least():
    assert first_reports(scheduler(), [0.9, 0.2, 0.95], "dear.csv") == ["CONTINUE", "CONTINUE", "STOP"]


def test_it_is_what_it_was_once_it_has_taken_up_what_was_reported():
    asha, again = scheduler(), scheduler()
    first_reports(asha, [0.9, 0.5], "pair:4/9")
    for value in (0.5, 0.9):  # in any order
        again.recall(trial(f"pair:4/9 {value}", "pair:4/9"), [{"epoch": 1, "rob_cs": value, "rob_cost": value}])
    for one in (asha, again):
        assert first_reports(one, [0.6, 0.95], "pair:4/9") == ["STOP", "CONTINUE"]
