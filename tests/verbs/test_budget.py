"""Sampling for a budget, and until somebody asks it to stop: what is done, what counts of it, and what goes on."""

import functools
import json
import threading
from collections import Counter
from dataclasses import replace

import pandas as pd
import pytest
from test_sample import comparable

from raycsr import UserError, collect_certificates, load_certificates, load_votes
from raycsr.distributed.sampling.budget import Budget, Spending
from raycsr.results import Run
from raycsr.results.owners import Ownership, reason_to_stop
from raycsr.results.prefix import in_random_order, prefix_of
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store
from raycsr.verbs import ls as listing
from raycsr.verbs.compare import compare
from raycsr.verbs.cp import cp
from raycsr.verbs.evaluate import evaluate
from raycsr.verbs.merge import merge
from raycsr.verbs.report import report
from raycsr.verbs.rm import rm
from raycsr.verbs.sample import sample
from raycsr.verbs.stop import stop

# A job of 12 images has blocks of 3; an image takes 32 + 128 passes, so that this is the second block's end.
TWO_BLOCKS = "900 passes"


@pytest.mark.parametrize(
    ("text", "actors", "amount", "is_time"),
    [
        ("2 h", 2, 7200, True),
        ("90min", 0, 5400, True),
        ("1.5 days", 1, 129_600, True),
        ("45 s", 1, 45, True),
        ("1e9 passes", 1, 1e9, False),
        ("1,000,000 passes", 1, 1e6, False),
        ("$50 at $2.5 an hour", 4, 18_000, True),
        ("$3 at $3/h", 0, 3600, True),
    ],
)
def test_a_budget_is_time_passes_or_money_at_a_price(text, actors, amount, is_time):
    assert Budget.parse(text, actors) == Budget(amount, is_time)


@pytest.mark.parametrize("text", ["", "2", "2 weeks", "0 h", "-1 h", "1e999 h", "$50 at $0 an hour", "h", "50 $"])
def test_what_is_no_budget_is_refused_with_the_forms(text):
    with pytest.raises(UserError, match="1e9 passes"):
        Budget.parse(text, 1)


def test_money_without_a_price_is_refused_by_name(job):
    with pytest.raises(UserError, match=r"budget '\$50' needs the price of an actor's device for an hour"):
        sample(**job(budget="$50"))


def test_each_run_may_spend_an_equal_share_of_what_is_left():
    spending = Spending(Budget(900, is_time=False), runs=3)
    assert [spending.is_spent(0, 100) for _ in range(3)] == [False, False, True]
    assert not spending.is_spent(1, 290)
    assert spending.is_spent(1, 100)  # ninety more than its share, for a block is finished
    assert not spending.is_spent(2, 200)  # 210 are left
    assert spending.is_spent(2, 10)


def test_the_order_is_of_the_seed_and_the_names_alone():
    images = pd.DataFrame({"image_id": [f"i{k}" for k in range(50)]})
    order = in_random_order(images, 0)["image_id"].tolist()
    assert sorted(order) == sorted(images["image_id"]) and order != images["image_id"].tolist()
    assert in_random_order(images[::-1], 0)["image_id"].tolist() == order
    assert in_random_order(images[:20], 0)["image_id"].tolist() == [one for one in order if int(one[1:]) < 20]
    assert in_random_order(images, 1)["image_id"].tolist() != order


def sampled_of(run):
    """All images that have votes, those behind the first that is not done, too."""
    return set(run.votes()["image_id"].to_pylist())


def order_of(run):
    return in_random_order(run.images(), 0)["image_id"].tolist()


def test_a_budget_is_spent_in_the_random_order_and_the_same_command_goes_on(job, tmp_path, capsys):
    options = job(costs=["uniform"], rules=["offset:1*seed:3"])
    (first,) = sample(**options, budget=TWO_BLOCKS)
    run = first.run
    order, counted = order_of(run), prefix_of(run)
    assert counted.image_ids == order[:6] and (counted.others, counted.num_images) == (0, 12)
    assert not first.errors and not run.finished() and set(load_votes(run.location)["image_id"]) == set(order[:6])
    said = capsys.readouterr().out
    assert "6 of 12 images are left to the same command" in said and f"budget of {TWO_BLOCKS}" in said
    with pytest.warns(UserWarning, match="first 6 of 12 images"):
        assert set(load_certificates(run.location, rule="argmax")["image_id"]) == set(order[:6])
    parts = run.vote_parts()
    (second,) = sample(**options, budget="1 passes")  # a block is finished, whatever there is
    counted = prefix_of(run).image_ids
    assert 6 < len(counted) < 12 and counted == order[: len(counted)] and set(parts) < set(run.vote_parts())
    (third,) = sample(**options)
    assert prefix_of(run) is None and run.finished()
    assert first.sampled == 6 and first.sampled + second.sampled + third.sampled == 12
    (whole,) = sample(**{**options, "results": str(tmp_path / "whole")})
    assert comparable(load_votes(run.location)) == comparable(load_votes(whole.run.location))
    assert len(load_votes(run.location)) == 24  # each image once under each rule


def test_on_actors_blocks_that_are_not_begun_are_neither_read_nor_sampled(cluster, job, tmp_path):
    options = job(limit=60, n=512, actors=2, costs=["uniform"])
    (first,) = sample(**options, budget="2000 passes")
    done, order = sampled_of(first.run), order_of(first.run)
    counted = prefix_of(first.run)
    assert not first.errors and 0 < len(counted.image_ids) <= len(done) < 60
    assert counted.image_ids == order[: len(counted.image_ids)]
    (second,) = sample(**options)
    assert second.sampled == 60 - len(done) and second.run.finished() and not second.errors
    (whole,) = sample(**{**options, "results": str(tmp_path / "whole")})
    assert comparable(load_votes(second.run.location)) == comparable(load_votes(whole.run.location))


def test_what_is_done_behind_an_image_that_is_not_is_left_out_of_reports(job, capsys):
    options = job(costs=["uniform"], limit=12, rules=["offset:1*seed:3"])
    (outcome,) = sample(**options)
    run, order = outcome.run, order_of(outcome.run)
    parts = run.read_votes(run.vote_parts(), ["image_id"], lambda table: table)
    images_of = {part: set(rows["image_id"].to_pylist()) for part, rows in parts.items()}
    part, lost = max(images_of.items(), key=lambda one: min(map(order.index, one[1])))  # none of them is the first
    run.store.remove(f"votes/{part}")
    run.store.write("budget.json", json.dumps({"budget": "2 h", "rules": ["argmax"], "going_on": []}).encode())
    first = min(map(order.index, lost))
    counted = prefix_of(run)
    assert counted.image_ids == order[:first] and counted.others == 12 - first - len(lost) > 0
    report(run=[run.location], radii=[0.1])
    said = " ".join(capsys.readouterr().out.split())
    assert f"the first {first} of 12 images" in said and "INCOMPLETE" not in said
    assert f"images {first} of 12 listed" in said and f"of all {first} certified (of 12) images are" in said
    compare(run=[run.location], rules=["argmax", "offset:1*seed:3"])
    said = " ".join(capsys.readouterr().out.split())
    assert said.count(f"the first {first} of 12 images") == 1 and f"the {first} images that both have" in said
    for read in (collect_certificates, load_certificates, load_votes):
        with pytest.warns(UserWarning, match=f"the first {first} of 12"):
            assert set(read(run.location)["image_id"]) == set(order[:first])


def test_where_the_first_image_is_not_done_there_is_nothing_to_report(job):
    (outcome,) = sample(**job(costs=["uniform"], limit=3))
    first = order_of(outcome.run)[0]
    outcome.run.store.write(
        "budget.json", json.dumps({"budget": "2 h", "rules": ["argmax"], "going_on": [first]}).encode()
    )
    with pytest.raises(UserError, match=f"{outcome.run.run_id} ended by its budget of 2 h before the first"):
        report(run=[outcome.run.location], radii=[0.1])


def test_an_image_that_cannot_be_read_is_done_as_errored(job, photographs):
    (outcome,) = sample(**job(**photographs, budget="1e6 passes"))
    assert list(outcome.errors) == ["dog/1.png"] and prefix_of(outcome.run) is None
    (part,) = outcome.run.vote_parts()[:1]
    outcome.run.store.remove(f"votes/{part}")
    (again,) = sample(**job(**photographs, budget="1e6 passes"))
    assert again.run.finished() and list(again.errors) == ["dog/1.png"]


def test_a_run_that_a_budget_ended_is_deleted_at_once(job):
    (outcome,) = sample(**job(), budget="1 passes")
    assert outcome.run.store.names("owners") == ["0001.json", "0001.stop"]
    rm(run=[outcome.run.location], yes=True)
    assert not outcome.run.store.names("")


def test_runs_of_several_sigmas_share_a_budget(job):
    options = job()
    options["sampling"] = replace(options["sampling"], sigma=[0.25, 0.5])
    done = [prefix_of(outcome.run) for outcome in sample(**options, budget="1800 passes")]
    assert [len(one.image_ids) for one in done] == [6, 6]
    assert done[0].image_ids == done[1].image_ids  # the same images in each


def test_evaluate_reports_what_the_budget_paid_for(job, capsys):
    (outcome,) = evaluate(**job(costs=["uniform"], budget=TWO_BLOCKS), radii=[0.1]).outcomes
    assert "the first 6 of 12 images" in " ".join(capsys.readouterr().out.split())
    assert len(prefix_of(outcome.run).image_ids) == 6


def test_a_top_up_counts_images_whose_new_statements_are_decided(job, capsys):
    def options(radius, n):
        sampling = SamplingOptions(sigma=0.5, n0=32, n=n, radii=[radius], precision="fp32", batch_size=64)
        return {**job(limit=60, costs=["seed:0,1,2,3,4,5,6,7,8,9"]), "sampling": sampling}

    (first,) = sample(**options(0.3, 64))
    assert first.run.finished()
    (second,) = sample(**options(0.9, 1280), budget="1 passes")
    run, order = second.run, order_of(second.run)
    note = json.loads(run.store.read("budget.json"))
    assert note["going_on"] and second.sampled > 0
    counted = prefix_of(run)
    assert counted.image_ids == order[: min(order.index(one) for one in note["going_on"])]
    (third,) = sample(**options(0.9, 1280))
    assert third.sampled == len(note["going_on"]) and prefix_of(run) is None and run.finished()


def test_more_images_are_sampled_in_the_order_that_they_take_among_the_others(job):
    (outcome,) = sample(**job(limit=12), budget=TWO_BLOCKS)
    sample(**job(limit=24), budget="1 passes")
    order, done = order_of(outcome.run), sampled_of(outcome.run)
    counted = prefix_of(outcome.run).image_ids
    assert len(order) == 24 and counted == order[: len(counted)] and set(counted) <= done and len(done) > 6


def test_halves_that_budgets_ended_are_merged_and_a_copy_keeps_its_note(job, tmp_path):
    (one,) = sample(**job(limit=12), budget=TWO_BLOCKS)
    (other,) = sample(**{**job(limit=24), "results": str(tmp_path / "other")}, budget="2400 passes")
    merge(run=[one.run.location], into=other.run.location)
    order, done = order_of(other.run), sampled_of(other.run)
    counted = prefix_of(other.run)
    assert counted.image_ids == order[: len(counted.image_ids)] and set(counted.image_ids) <= done
    assert counted.others == len(done) - len(counted.image_ids)
    (copy,) = cp(run=[one.run.location], results=str(tmp_path / "copy"))
    assert prefix_of(Run(type(one.run.store)(copy))) == prefix_of(one.run)


@pytest.mark.parametrize("where", ["local", "s3"])
def test_a_run_is_stopped_from_elsewhere_and_the_same_command_goes_on(where, job, request, monkeypatch, capsys):
    write, asked = Run.write_votes, []
    if where == "s3":
        job = functools.partial(job, results=f"s3://{request.getfixturevalue('s3').new_bucket()}/results")

    def write_and_stop(run, name, votes):
        if not asked:
            assert listing.ls(run.location)["state"].tolist() == ["running"]
            asked.extend(stop(run=[run.location]))
        return write(run, name, votes)

    monkeypatch.setattr(Run, "write_votes", write_and_stop)
    (outcome,) = sample(**job())
    assert asked == [outcome.run.location] and len(outcome.run.vote_parts()) == 1  # what was begun is finished
    assert outcome.sampled == 3
    assert "was ended by `raycsr stop`; 9 of 12 images are left" in capsys.readouterr().out
    assert prefix_of(outcome.run) is None  # without a budget images come in the order of the data
    with pytest.raises(UserError, match=f"nobody works on run {outcome.run.location}: it is stopped"):
        stop(run=[outcome.run.location])
    (again,) = sample(**job())
    assert again.sampled == 9 and again.run.finished()


def test_who_heeds_no_stop_is_not_said_to_end_by_it(job):
    (outcome,) = sample(**job(limit=3))
    with Ownership(outcome.run.store), pytest.raises(UserError, match="is not sampled now: process .* Ctrl-C"):
        stop(run=[outcome.run.location])  # as `raycsr attack` or `merge` holds it


def test_a_note_to_stop_is_for_one_owner(store):
    from raycsr.results.owners import ask_to_stop

    with Ownership(store) as owner:
        ask_to_stop(store, owner.number, "me")
        assert reason_to_stop(store, owner.number) == "me"
    with Ownership(store) as owner:
        assert owner.number == 2 and reason_to_stop(store, owner.number) is None


def test_ls_watches_until_nothing_runs_and_reads_each_part_once(job, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(listing, "WATCH_SECONDS", 0.2)
    (outcome,) = sample(**job(limit=3))
    outcome.run.store.remove("finished.json")
    read, reads = Store.read, Counter()
    monkeypatch.setattr(Store, "read", lambda store, name="", *more: reads.update([name]) or read(store, name, *more))
    looks, look = threading.Semaphore(0), listing._listed
    monkeypatch.setattr(listing, "_listed", lambda *of: (looks.release(), look(*of))[1])
    holding = Ownership(outcome.run.store)
    with holding:
        watching = threading.Thread(target=listing.ls, args=(str(tmp_path / "results"),), kwargs={"watch": True})
        watching.start()
        assert all(looks.acquire(timeout=60) for _ in range(2))
        assert watching.is_alive()
    watching.join(20)
    assert not watching.is_alive() and capsys.readouterr().out.count("name a run as") >= 2
    assert {reads[part] for part in outcome.run.vote_parts()} == {1}
