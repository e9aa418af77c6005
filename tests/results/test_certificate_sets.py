"""Certificates count only for the very votes that they were made of."""

import json
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from handmade import IDS, NEVER_B, PLAIN, votes, write_run

from raycsr import CostMatrix, collect_certificates, load_certificates
from raycsr.reports import load_certified
from raycsr.results import Run
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
    assert run.certificate_sets() == {name: facts}


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
