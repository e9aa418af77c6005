"""Certificate sets of answers other than argmax: stored, read back, reported and merged by name."""

import json

import numpy as np
import pytest
from handmade import IDS, LABELS, PLAIN, write_run

from raycsr import (
    CostMatrix,
    UserError,
    certify_stored,
    collect_certificates,
    load_certificates,
    load_votes,
    sealed,
    summarize,
)
from raycsr.results import Run, histograms, votes_table
from raycsr.results.schema import ADDED
from raycsr.store import Store
from raycsr.verbs.certify import certify
from raycsr.verbs.compare import compare
from raycsr.verbs.merge import merge
from raycsr.verbs.report import report

# votes of the six images, of classes a, a, b, b, c, c: some sure, some without a majority
VOTES = [[900, 80, 20], [450, 430, 120], [100, 850, 50], [300, 480, 220], [60, 40, 900], [490, 10, 500]]
ANSWERS = ["argmax", "majority", "threshold:b=0.85"]


def write_unsure(results, part="argmax.parquet", rows=range(6)):
    """A run of the six images whose votes are VOTES; of some alone, which have a part."""
    run = write_run(results, "a.pt", {"argmax": PLAIN}, certify_under=())
    run.store.remove("votes/argmax.parquet")
    counts = np.array([VOTES[i] for i in rows])
    of_all = {"rule": "argmax", "n0": 1000, "n": 1000, "sampling": "fixed", "device": "cpu", "image_sha": "0"}
    of_all |= {"batch_size": 64, "seconds": 0.1, "error": None}
    columns = {name: [value] * len(counts) for name, value in of_all.items()}
    columns |= {"image_id": [IDS[i] for i in rows], "label": [LABELS[i] for i in rows]}
    run.write_votes(part, votes_table({**columns, "selection": histograms(counts), "estimation": histograms(counts)}))
    return run


@pytest.fixture
def run(tmp_path):
    return write_unsure(tmp_path)


def test_each_answer_has_a_set_and_argmax_keeps_the_name_that_it_had(run):
    made = certify(run=[run.location], costs=["pair:a/b"], alpha=0.01, answers=ANSWERS)[run.location]
    assert made[0] == "pair-a-b-4a925d636e"
    assert [name.rsplit("-", 1)[0] for name in made] == ["pair-a-b", "pair-a-b-majority", "pair-a-b-threshold"]
    assert certify(run=[run.location], costs=["pair:a/b"], alpha=0.01)[run.location] == made[:1]
    assert "answer" not in json.loads(run.store.read(f"certificates/{made[0]}/costs.json"))
    stored = run.certificate_sets()
    assert [stored[name]["answer"].spec for name in made] == ANSWERS
    assert not any(run.uncertified(name) for name in made)
    assert run.certify("pair:a/b", run.costs("pair:a/b"), 0.01, *run.answers(["majority"])) == made[1]


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_stored_is_what_is_made_in_memory(run, answer):
    fresh = load_certificates(run.location, costs="pair:a/b", alpha=0.01, answer=answer)
    certify(run=[run.location], costs=["pair:a/b"], alpha=0.01, answers=[answer])
    (says,) = run.answers([answer])
    for stored in (
        load_certificates(run.location, costs="pair:a/b", alpha=0.01, answer=answer),
        load_certificates(run.location, answer=answer),
        load_certificates(run.location),
        collect_certificates(run.location),
        certify_stored(load_votes(run.location), run.costs("pair:a/b"), 0.01, answer=says),
    ):
        assert set(stored["answer"]) == set(fresh["answer"]) == {says.id}
        for column in ("abstain", "standard_radius", "multiclass_radius", "cost_sensitive_radius", "route"):
            np.testing.assert_array_equal(stored[column].to_numpy(), fresh[column].to_numpy(), err_msg=column)


def test_several_answers_are_told_apart_by_name(run):
    certify(run=[run.location], costs=["pair:a/b"], alpha=0.01, answers=ANSWERS)
    with pytest.raises(UserError, match=r"has 3 certificate sets .*majority.*answer="):
        load_certificates(run.location)
    assert set(load_certificates(run.location, answer="majority")["answer"]) == {"majority"}
    assert set(load_certificates(run.location, costs="pair:a/b", alpha=0.01)["answer"]) == {"argmax"}
    with pytest.raises(UserError, match="several values of answer"):
        summarize(collect_certificates(run.location), costs=run.costs("pair:a/b"), radii=0.1)


def test_a_wrong_answer_is_refused_before_any_work(run):
    with pytest.raises(UserError, match="'majorty'.*did you mean majority"):
        certify(run=[run.location], costs=["pair:a/b"], answers=["argmax", "majorty"])
    with pytest.raises(UserError, match="'threshold:d=0.7'.*'d'"):
        certify(run=[run.location], costs=["pair:a/b"], answers=["threshold:d=0.7"])
    assert run.store.names("certificates") == []
    with pytest.raises(UserError, match="'majorty'"):
        load_certificates(run.location, costs="pair:a/b", answer="majorty")


def test_parts_of_before_have_no_answer_and_are_argmax(run):
    name = run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    part = f"certificates/{name}/argmax.parquet"
    table = sealed.from_bytes(run.store.read(part))
    assert "answer" in ADDED and table["answer"].to_pylist() == ["argmax"] * 6
    run.store.write(part, sealed.to_bytes(table.drop_columns(["answer"])))
    assert set(load_certificates(run.location)["answer"]) == {"argmax"} and not run.uncertified(name)


def test_the_report_runs_over_answers_and_never_takes_one_for_another(run, tmp_path, capsys):
    certify(run=[run.location], costs=["pair:a/b"], alpha=0.01, answers=ANSWERS)
    table = report(run=[run.location], radii=[0.03], out=str(tmp_path / "out"))
    assert table["rule"].tolist() == ANSWERS
    assert table["rule_id"].tolist()[:2] == ["argmax", "argmax+majority"]
    rob_cs = dict(zip(table["rule"], table["rob_cs"], strict=True))
    assert rob_cs["majority"] > rob_cs["argmax"]  # of the two images of a, one has no clear top class
    coverage = dict(zip(table["rule"], table["coverage"], strict=True))
    assert coverage["argmax"] == coverage["majority"] == 0.5
    out = capsys.readouterr().out
    assert "majority" in out and "coverage" in out
    of_majority = json.loads(run.store.read(f"certificates/{_set(run, 'majority')}/metrics.json"))
    assert [row["rule"] for row in of_majority] == ["majority"]
    assert [path.name for path in (tmp_path / "out").glob("*.tsv")] == ["a.pt-sigma_0.5.tsv"]  # standard is standard
    (row,) = report(run=[run.location], radii=[0.03], answers=["majority"]).to_dict("records")
    assert row["rule"] == "majority"
    with pytest.raises(UserError, match=r"by threshold:a=0.6 .*by majority.*--answers"):
        report(run=[run.location], radii=[0.03], answers=["threshold:a=0.6"])


def _set(run, answer):
    return next(name for name, facts in run.certificate_sets().items() if facts["answer"].id == answer)


def test_sets_of_answers_are_merged_under_their_answers(tmp_path):
    one, other = (
        write_unsure(tmp_path / "one", "0001-a.parquet", [0, 1]),
        write_unsure(tmp_path / "two", "0001-b.parquet", [2, 3, 4, 5]),
    )
    certify(run=[one.location], costs=["pair:a/b"], alpha=0.01, answers=["majority"])
    merge(run=[one.location], into=other.location)
    target = Run(Store(other.location))
    (name,) = target.certificate_sets()
    assert target.certificate_sets()[name]["answer"].id == "majority" and not target.uncertified(name)
    assert len(target.certificates(name)) == 6


def test_two_answers_of_one_run_are_compared_by_name(run):
    certify(run=[run.location], costs=["pair:a/b"], alpha=0.01, answers=ANSWERS)
    table = compare(run=[run.location], radius=0.03, answers=["argmax", "majority"]).set_index("metric")
    assert (table.loc["rob_cs", "a"], table.loc["rob_cs", "b"]) == (0.5, 1.0)
    with pytest.raises(UserError, match=r"has the answers argmax, majority, threshold:b=0.85; .*--answers"):
        compare(run=[run.location], radius=0.03)
    with pytest.raises(UserError, match="both sides are"):
        compare(run=[run.location], radius=0.03, answers=["majority"])


def test_coverage_and_accuracy_among_the_answered_by_hand(run):
    certificates = load_certificates(run.location, costs="pair:a/b", alpha=0.01, answer="majority")
    assert certificates.sort_values("image_id")["abstain"].tolist() == [False, True, False, True, False, True]
    certificates.loc[4, "label"] = 1  # so that one answer is wrong
    (row,) = summarize(certificates, costs=CostMatrix.pairwise(3, {0: [1]}), radii=0.1).to_dict("records")
    assert (row["coverage"], row["accuracy"]) == (3 / 6, 2 / 6)
    assert row["answered_accuracy"] == pytest.approx(2 / 3)
    assert row["coverage_low"] < 0.5 < row["coverage_high"]
