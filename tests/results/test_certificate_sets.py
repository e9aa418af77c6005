"""Certificates count only for the very votes that they were made of."""

import json
import os
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from handmade import IDS, NEVER_B, PLAIN, votes, write_run

from raycsr import CostMatrix, UserError, collect_certificates, load_certificates, sealed, summarize
from raycsr.certification import METHODS, NEWEST
from raycsr.certification.answers import ARGMAX
from raycsr.reports import load_certified
from raycsr.reports.findings import find
from raycsr.reports.notes import notes_on
from raycsr.results import Run, certificate_set
from raycsr.results.schema import ADDED
from raycsr.store import Store

PART = "argmax.parquet"


@pytest.fixture
def run(store):
    return write_run(store.location, "a.pt", {"argmax": NEVER_B})


def right_votes(answers=PLAIN):
    return votes("argmax", IDS, range(6), answers, ["0"] * 6)


READERS = {
    "load_certificates of the set": lambda run: load_certificates(run.location),
    "load_certificates by costs": lambda run: load_certificates(run.location, "pair:a/b", alpha=0.01),
    "collect": lambda run: collect_certificates(run.location),
    "report": lambda run: load_certified([run.location])[0][0].certificates,
}


def predictions(certificates):
    return dict(zip(certificates["image_id"], certificates["prediction"], strict=True))


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
@pytest.mark.parametrize("name", [PART, "0002-a.parquet"])
def test_a_part_that_was_moved_away_and_sampled_again_is_certified_by_its_new_votes(run, read, name):
    (store, (kept,)) = run.store, run.certificate_sets()
    old = store.read(f"votes/{PART}")
    store.remove(f"votes/{PART}")
    run.write_votes(name, right_votes())
    with pytest.warns(UserWarning, match=rf"{kept} lacks certificates of the votes in 1 parts.*the first {name}"):
        assert predictions(read(run)) == dict(zip(IDS, PLAIN, strict=True))
    assert run.uncertified(kept) == [name]
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    assert run.uncertified(kept) == []
    assert predictions(read(run)) == dict(zip(IDS, PLAIN, strict=True))
    store.remove(f"votes/{name}")
    store.write(f"votes/{PART}", old)  # and back
    with pytest.warns(UserWarning) if name == PART else np.errstate():
        assert predictions(read(run)) == dict(zip(IDS, NEVER_B, strict=True))


def test_certificates_of_votes_that_are_gone_count_for_nothing(run):
    run.write_votes("0002-b.parquet", right_votes())
    (name,) = run.certificate_sets()
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    for part in run.vote_parts():
        run.store.remove(f"votes/{part}")
    assert len(run.certificates(name)) == 0 and run.uncertified(name) == []


def test_nothing_is_certified_again_that_is_valid(run):
    (name,) = run.certificate_sets()
    before = run.store.read(f"certificates/{name}/{PART}")
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    assert run.store.read(f"certificates/{name}/{PART}") == before
    assert run.store.read_table(f"certificates/{name}/{PART}").schema.metadata.keys() == {b"raycsr.votes_md5"}


def test_on_s3_the_listing_tells_which_certificates_are_valid(run, monkeypatch):
    if not run.store.remote:
        pytest.skip("a local folder lists no digests")
    (name,) = run.certificate_sets()
    read, asked = Store.read, []
    monkeypatch.setattr(Store, "read", lambda self, *args: asked.append(self.location) or read(self, *args))
    assert run.uncertified(name) == [] and not any(location.endswith("/votes") for location in asked)


def test_certificates_of_earlier_versions_which_name_no_votes_are_made_again(tmp_path):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN})
    (name,) = run.certificate_sets()
    path = f"{run.location}/certificates/{name}/{PART}"
    old = pq.read_table(path).drop_columns(["device", "batch_size"]).replace_schema_metadata()
    pq.write_table(old, path)
    with pytest.warns(UserWarning, match="made in memory"):
        assert predictions(load_certificates(run.location)) == dict(zip(IDS, PLAIN, strict=True))
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    assert run.uncertified(name) == [] and "device" in pq.read_schema(path).names


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_damaged_certificates_are_made_again(run, read):
    (name,) = run.certificate_sets()
    data = run.store.read(f"certificates/{name}/{PART}")
    run.store.write(f"certificates/{name}/{PART}", data[:100] + b"\0" + data[101:])
    with pytest.warns(UserWarning, match="made in memory"):
        assert predictions(read(run)) == dict(zip(IDS, NEVER_B, strict=True))
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    assert run.store.read(f"certificates/{name}/{PART}") == data


@pytest.mark.parametrize(
    "costs",
    [None, b"", b"[]", b"\xff", b'{"spec": "uniform"}', b"[" * 100_000, "other costs", "other alpha"],
    ids=["none", "empty", "list", "bytes", "half", "deep", "other costs", "other alpha"],
)
def test_a_set_that_does_not_say_what_it_is_of_is_none_and_certify_mends_it(run, costs):
    (name,) = run.certificate_sets()
    file = f"certificates/{name}/costs.json"
    facts = json.loads(run.store.read(file))
    changes = {"other costs": {"values": CostMatrix.uniform(3).values.tolist()}, "other alpha": {"alpha": 0.5}}
    if costs is None:
        run.store.remove(file)
        assert run.certificate_sets() == {}
    else:
        damaged = json.dumps(facts | changes[costs]).encode() if isinstance(costs, str) else costs
        run.store.write(file, damaged)
        with pytest.warns(UserWarning, match=f"{file} is damaged"):
            assert run.certificate_sets() == {}
    assert run.certify("pair:a/b", run.costs("pair:a/b"), 0.01) == name
    of_set = {field: facts[field] for field in ("spec", "alpha", "bound")}
    assert run.certificate_sets() == {name: {**of_set, "answer": ARGMAX, "costs": run.costs("pair:a/b")}}


def test_an_empty_folder_or_a_foreign_file_is_no_set(tmp_path):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN})
    os.mkdir(f"{run.location}/certificates/uniform-0123456789")
    run.store.write("certificates/notes.txt", b"mine")
    (name,) = run.certificate_sets()
    run.store.write(f"certificates/{name}/notes.txt", b"mine")
    assert len(load_certificates(run.location)) == 6
    assert len(load_certified([run.location])[0]) == 1
    assert len(collect_certificates(tmp_path)) == 6


def test_certificates_are_found_valid_where_a_run_was_copied_to(store, tmp_path):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN})
    for folder in ("votes", "certificates/" + next(iter(run.certificate_sets()))):
        for file in run.store.names(folder):
            store.write(f"{folder}/{file}", run.store.read(f"{folder}/{file}"))
    store.write("manifest.json", run.store.read("manifest.json"))
    assert Run(store).uncertified(next(iter(run.certificate_sets()))) == []


# Sets of a method of before

BEFORE = "clopper-pearson"


@pytest.fixture
def old(tmp_path):
    """A run as the first raycsr of this schema left it: its only set is of the first method."""
    run = write_run(tmp_path, "a.pt", {"argmax": NEVER_B}, certify_under=())
    as_of_before(run)
    return run


def as_of_before(run, spec="pair:a/b", alpha=0.01):
    """Certifies a run by the first method, into parts that lack what was added since; returns the set's name."""
    costs = run.costs(spec)
    name = certificate_set(spec, costs, alpha, "fixed", BEFORE)
    facts = {"spec": spec, "alpha": alpha, "bound": BEFORE, "values": costs.values.tolist()}
    run.store.write(f"certificates/{name}/costs.json", json.dumps(facts).encode())
    run.certify_parts(name, run.vote_parts(), costs, alpha)
    for part in run.vote_parts():
        table = sealed.from_bytes(run.store.read(f"certificates/{name}/{part}"))
        run.store.write(f"certificates/{name}/{part}", sealed.to_bytes(table.drop_columns(list(ADDED))))
    return name


def test_certificates_of_a_method_of_before_are_read_as_they_are(old, recwarn):
    certificates = load_certificates(old.location)
    assert not recwarn and set(certificates["method"]) == {BEFORE}
    assert certificates["multiclass_radius"].isna().all() and set(certificates["route"]) == {"pair"}
    assert [list(radii) for radii in certificates["target_radius"]] == [
        list(radii) for radii in certificates["pairwise_radius"]
    ]
    summary = summarize(certificates, costs=old.costs("pair:a/b"), radii=[0.5])
    assert summary["certified_accuracy"][0] == 4 / 6 and np.isnan(summary["multiclass_certified_accuracy"][0])


def test_certify_gives_such_a_run_a_set_of_its_own_by_the_newest_method_and_leaves_the_other(old):
    (before,) = old.certificate_sets()
    kept = old.store.read(f"certificates/{before}/{PART}")
    assert old.certify("pair:a/b", old.costs("pair:a/b"), 0.01) != before
    (name,) = old.certificate_sets()  # of one costs and alpha the newest stands
    assert name != before and old.certificate_sets()[name]["bound"] == "cp-2"
    assert set(load_certificates(old.location)["method"]) == {"cp-2"}
    assert set(load_certificates(old.location, "pair:a/b", 0.01)["method"]) == {"cp-2"}
    assert set(load_certificates(old.location, "pair:a/b", 0.01, method=BEFORE)["method"]) == {BEFORE}
    assert old.store.read(f"certificates/{before}/{PART}") == kept
    assert set(collect_certificates(old.location)["method"]) == {"cp-2"}


def test_a_method_that_is_none_or_of_another_design_is_refused(old):
    with pytest.raises(UserError, match=r"no method of certificates is called 'cp-3'; did you mean cp-2"):
        load_certificates(old.location, "pair:a/b", method="cp-3")
    with pytest.raises(UserError, match="'sequence-2' does not hold for votes sampled by 'fixed'; use .*cp-2"):
        load_certificates(old.location, "pair:a/b", method="sequence-2")


def test_a_run_that_grows_has_no_set_of_two_methods(old):
    old.write_votes("0002-b.parquet", votes("offset-1", IDS, range(6), PLAIN, ["0"] * 6))
    with pytest.warns(UserWarning, match=f"made in memory; .* stores a set of method cp-2, not of {BEFORE}"):
        certificates = load_certificates(old.location)
    assert len(certificates) == 12 and set(certificates["method"]) == {BEFORE}
    name = old.certify("pair:a/b", old.costs("pair:a/b"), 0.01)
    assert old.uncertified(name) == [] and set(old.certificates(name)["method"]) == {"cp-2"}


def test_certificates_of_two_methods_are_neither_summed_up_nor_tabled_as_one(old, tmp_path):
    new = write_run(tmp_path, "b.pt", {"argmax": NEVER_B})
    both = pd.concat([load_certificates(run.location) for run in (old, new)])
    with pytest.raises(UserError, match="several values of method"):
        summarize(both, costs=new.costs("pair:a/b"), radii=[0.5])
    assert set(collect_certificates(tmp_path)["method"]) == {BEFORE, "cp-2"}
    found = find([old.location, new.location])
    assert [one.costs for one in found.sets] == [f"pair:a/b ({BEFORE})", "pair:a/b"]
    assert any(note.startswith(f"{BEFORE}: certified by a method of before") for note in notes_on(found))
    assert not len(found.compared)  # of other costs: nothing to rank between them


def test_a_set_of_a_method_to_come_is_read_where_it_is_whole_and_else_refused_by_name(tmp_path, monkeypatch):
    run = write_run(tmp_path, "a.pt", {"argmax": PLAIN}, certify_under=())
    monkeypatch.setitem(METHODS, "cp-9", replace(METHODS["cp-2"], name="cp-9"))
    monkeypatch.setitem(NEWEST, "fixed", METHODS["cp-9"])
    run.certify("pair:a/b", run.costs("pair:a/b"), 0.01)
    monkeypatch.undo()
    assert set(load_certificates(run.location)["method"]) == {"cp-9"}
    run.write_votes("0002-b.parquet", votes("offset-1", IDS, range(6), PLAIN, ["0"] * 6))
    with pytest.raises(UserError, match="a method that this raycsr does not know; it certifies by .*cp-2"):
        load_certificates(run.location)
