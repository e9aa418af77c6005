"""Two runs of one identity that were sampled apart become one."""

import json

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from handmade import votes_of_labels

from raycsr import UserError, load_attacks, load_certificates, load_votes
from raycsr.distributed.sampling import job as sampling
from raycsr.results import SCHEMA_VERSION, Ownership, Run, histograms
from raycsr.results.attacks import AttackSet, attack_set
from raycsr.results.joining import IDENTITY, join_runs
from raycsr.results.schema import ATTACKS
from raycsr.results.transfer import RunFiles
from raycsr.smoothing.options import AttackOptions
from raycsr.store import Store
from raycsr.verbs.merge import merge

MANIFEST = {
    "schema_version": SCHEMA_VERSION, "experiment": "e", "model": "m", "sigma": 0.5, "n0": 10, "n": 1000,
    "sampling": "fixed", "num_classes": 3, "class_names": ["a", "b", "c"], "precision": "fp32",
}  # fmt: skip
OFFSET = {"id": "offset-1", "kind": "offset", "spec": "offset:1*seed:a"}


@pytest.fixture
def open_run(store):
    """`open_run(place, ids)` is a run of three classes in a folder of its own, with these images listed."""

    def open_(place, ids, version="v", **manifest):
        run = Run(store.at(f"{place}/e/runs/0123456789abcdef"))
        run.store.create("manifest.json", json.dumps({**MANIFEST, "begun": place, **manifest}).encode())
        if ids:
            labels = [int(one[1:]) % 3 for one in ids]
            run.add_images(pd.DataFrame({"image_id": ids, "label": labels, "size": 1, "version": version}))
        return run

    return open_


def contents(run):
    return {name: run.store.read(name) for name in RunFiles.of(run.store).stored}


def votes(run):
    return load_votes(run.location).set_index(["image_id", "rule"])["n"].to_dict()


def test_halves_make_the_whole_and_what_is_done_twice_changes_nothing(open_run):
    one, other = open_run("one", ["i0", "i1"]), open_run("other", ["i2", "i3"])
    one.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"]))
    other.write_votes("0001-b.parquet", votes_of_labels(["i2", "i3"]))
    one.certify("uniform", one.costs("uniform"), 0.01)
    other.certify("seed:a", other.costs("seed:a"), 0.01)
    for run in (one, other):
        run.finish(num_images=2, num_errors=0)
    before = contents(one)
    location = merge(run=[one.location], into=other.location)
    assert location == other.location and contents(one) == before
    assert other.store.read("votes/0001-a.parquet") == one.store.read("votes/0001-a.parquet")  # never rewritten
    assert votes(other) == {(f"i{i}", "argmax"): 1000 for i in range(4)} and other.finished()
    for costs in ("uniform", "seed:a"):
        assert len(load_certificates(other.location, costs=costs, alpha=0.01)) == 4
    assert sorted(facts["spec"] for facts in other.certificate_sets().values()) == ["seed:a", "uniform"]
    after = contents(other)
    merge(run=[one.location], into=other.location)
    assert contents(other) == after


def attacked(run, owner, *images, error=None, seed=0):
    """Attacks of a driver on some images, in a part each."""
    options, costs = AttackOptions(seed=seed), run.costs("uniform")
    attacks = AttackSet(run.store, attack_set("uniform", costs, "argmax", options))
    attacks.note("uniform", costs, "argmax", options)
    for image in images:
        row = {"image_id": image, "label": 0, "radius": 0.5, "broken": False, "device": owner, "error": error}
        attacks.write(f"0001-{image}.parquet", pa.Table.from_pylist([row], schema=ATTACKS))


def test_attacks_come_along_and_of_two_on_an_image_the_one_without_an_error_stands(open_run):
    one, other = open_run("one", ["i0", "i1", "i2"]), open_run("other", ["i0", "i1"])
    attacked(one, "one", "i0", "i1")
    attacked(one, "one", "i2", seed=1)
    attacked(other, "other", "i0")
    attacked(other, "other", "i1", error="gone")
    assert join_runs(one, other).attacks == 3
    found = load_attacks(other.location).set_index(["seed", "image_id"])
    assert found["device"].to_dict() == {(0, "i0"): "other", (0, "i1"): "one", (1, "i2"): "one"}
    after = contents(other)
    assert join_runs(one, other).attacks == 0 and contents(other) == after
    join_runs(other, one)
    assert load_attacks(one.location)["device"].tolist() == ["one"] * 3


def test_rules_of_one_are_missing_in_the_other(open_run):
    one, other = open_run("one", ["i0", "i1"]), open_run("other", ["i1", "i2"])
    one.add_rules([OFFSET])
    for rule in ("argmax", "offset-1"):
        one.write_votes(f"0001-{rule}.parquet", votes_of_labels(["i0", "i1"], rule))
    other.write_votes("0001-b.parquet", votes_of_labels(["i1", "i2"]))
    for run in (one, other):
        run.finish(num_images=2, num_errors=0)
    join_runs(one, other)
    assert list(other.rules()) == ["argmax", "offset-1"]
    assert tuple(other.progress()) == (3, 2, 1, 0) and not other.finished()  # i2 under the rule


def test_parts_of_one_name_are_both_kept_and_each_image_counts_once(open_run):
    one, other = (open_run(place, ["i0", "i1", "i2"]) for place in ("one", "other"))
    one.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"]))
    errored = pa.concat_tables([votes_of_labels(["i0"]), votes_of_labels(["i1"], error="Unreadable")])
    other.write_votes("0001-a.parquet", errored)
    one.write_votes("0002-b.parquet", votes_of_labels(["i0"], n=5000, continues="0001-a.parquet"))
    assert join_runs(one, other).parts == 2
    assert [name[:6] for name in other.vote_parts()] == ["0001-a", "0001-a", "0002-b"]
    assert votes(other) == {("i0", "argmax"): 5000, ("i1", "argmax"): 1000}
    assert join_runs(one, other).parts == 0


def test_votes_that_go_on_from_others_go_on_in_the_run_that_grew(open_run):
    one, other = (open_run(place, ["i0", "i1"]) for place in ("one", "other"))
    for run in (one, other):
        run.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"]))
    assert other.store.read("votes/0001-a.parquet") != one.store.read("votes/0001-a.parquet")  # other seconds
    one.write_votes("0002-b.parquet", votes_of_labels(["i0"], n=5000, continues="0001-a.parquet"))
    join_runs(one, other)
    assert other.vote_parts() == ["0001-a.parquet", "0002-b.parquet"]
    assert votes(other) == {("i0", "argmax"): 5000, ("i1", "argmax"): 1000}


def test_votes_go_on_from_a_part_that_came_behind_another_of_its_name(open_run):
    """An image could not be read in the run that grows, and was sampled and sampled on in the other."""
    one, other = open_run("one", ["i0"]), open_run("other", ["i0"])
    one.write_votes("0001-a.parquet", votes_of_labels(["i0"]))
    one.write_votes("0002-b.parquet", votes_of_labels(["i0"], n=3000, continues="0001-a.parquet"))
    other.write_votes("0001-a.parquet", votes_of_labels(["i0"], error="Unreadable"))
    join_runs(one, other)
    assert votes(other) == {("i0", "argmax"): 3000} == votes(one)
    (come,) = {*other.vote_parts()} - {"0001-a.parquet", "0002-b.parquet"}
    other.write_votes("0003-c.parquet", votes_of_labels(["i0"], n=4000, continues=come))  # as a sampler would go on
    assert votes(other) == {("i0", "argmax"): 4000}


def test_what_goes_on_from_votes_of_another_device_does_not_go_on_from_the_part_of_that_name(open_run):
    one, other = (open_run(place, ["i0", "i1"]) for place in ("one", "other"))
    for run, device in ((one, "gpu"), (other, "cpu")):
        run.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"], device=device))
    more = {"device": "gpu", "n": 5000}
    one.write_votes("0002-b.parquet", votes_of_labels(["i0"], continues="0001-a.parquet", **more))
    one.write_votes("0003-c.parquet", votes_of_labels(["i0"], continues="0002-b.parquet", **more))
    assert join_runs(one, other).parts == 0
    assert votes(other) == {("i0", "argmax"): 1000, ("i1", "argmax"): 1000} and other.progress().missing == 0


def test_of_two_parts_of_one_name_the_longer_stands(open_run):
    one, other = (open_run(place, ["i0"]) for place in ("one", "other"))
    one.write_votes("0001-a.parquet", votes_of_labels(["i0"], n=3000))
    other.write_votes("0001-a.parquet", votes_of_labels(["i0"]))
    assert join_runs(one, other).parts == 1 and votes(other) == {("i0", "argmax"): 3000}
    assert join_runs(one, other).parts == 0


def test_votes_that_contradict_each_other_are_refused_before_anything_is_written(open_run):
    one, other = (open_run(place, ["i0", "i1"]) for place in ("one", "other"))
    wrong = votes_of_labels(["i0"]).set_column(4, "estimation", histograms(np.array([[0, 1000, 0]])))
    one.write_votes("0001-a.parquet", wrong)
    other.write_votes("0001-b.parquet", votes_of_labels(["i0"]))
    before = contents(other)
    with pytest.raises(UserError, match=r"cannot be joined: image 'i0' has different votes in '0001-a.* '0001-b"):
        join_runs(one, other)
    assert contents(other) == before


def test_images_that_changed_between_the_two_are_refused(open_run):
    one, other = (open_run(place, ["i0", "i1"], version=place) for place in ("one", "other"))
    one.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"], device="gpu", sha="1"))
    other.write_votes("0001-b.parquet", votes_of_labels(["i1"], sha="2"))
    with pytest.raises(UserError, match=r"1 images changed between .* the first 'i1'"):
        join_runs(one, other)


def test_an_image_that_looks_different_is_listed_as_its_votes_were_drawn(open_run):
    one, other = (open_run(place, ["i0", "i1", "i2"], version=place) for place in ("one", "other"))
    one.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"]))
    other.write_votes("0001-b.parquet", votes_of_labels(["i1", "i2"]))
    join_runs(one, other)
    assert other.images().set_index("image_id")["version"].to_dict() == {"i0": "one", "i1": "other", "i2": "other"}
    after = contents(other)
    join_runs(one, other)
    assert contents(other) == after


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"sigma": 1.0}, "their sigma is '0.5' and '1.0'"),
        ({"class_names": ["a", "c", "b"]}, r"their class_names\[1\] is 'b' and 'c'"),
        ({"data": {"images": "2"}}, "their data is 'None' and"),
        ({"begun_anew": {"device": "cpu"}}, "their begun_anew is"),
        ({"schema_version": 2}, "is of schema_version 2 and can be read, but not joined"),
        ({"schema_version": 4}, "schema_version"),
    ],
)
def test_only_runs_of_one_identity_are_joined(open_run, facts, words):
    one, other = open_run("one", ["i0"]), open_run("other", ["i1"], **facts)
    with pytest.raises(UserError, match=words):
        join_runs(one, other)


def test_runs_of_a_folder_before_and_after_a_picture_came_are_to_be_reported_on_together(open_run):
    runs = [open_run(digest, ["i0"], data={"source": "imagefolder", "images": digest}) for digest in ("1", "2")]
    with pytest.raises(UserError, match=r"their data\.images is '1' and '2'.* an image more, or fewer, is other data"):
        join_runs(*runs)


def test_of_parts_that_differ_the_first_place_is_named(open_run):
    parts = [{"kind": "denoiser", "args": {}, "levels": [0.2, 0.3]}, {"kind": "classifier"}]
    one = open_run("one", ["i0"], components=parts)
    for place, (other, words) in {
        "levels": ([{**parts[0], "levels": [0.2, 0.5]}, parts[1]], r"components\[0\]\.levels\[1\] is '0.3' and '0.5'"),
        "none": ([{"kind": "denoiser", "args": {}}, parts[1]], r"components\[0\]\.levels is '\[0.2, 0.3\]' and 'None'"),
        "more": ([*parts, parts[1]], r"their components is "),
    }.items():
        with pytest.raises(UserError, match=words):
            join_runs(one, open_run(place, ["i1"], components=other))


def test_a_run_that_is_being_sampled_does_not_grow_and_none_is_joined_to_itself(open_run):
    one, other = open_run("one", ["i0"]), open_run("other", ["i1"])
    before = contents(other)
    with Ownership(other.store), pytest.raises(UserError, match=r"process \d+ on"):
        join_runs(one, other)
    assert contents(other) == before
    with Ownership(one.store):  # it is only read
        assert join_runs(one, other).images == 1
    with pytest.raises(UserError, match="joined to itself"):
        join_runs(one, one)


def test_a_part_that_is_damaged_where_it_is_to_go_is_written_over(open_run):
    one, other = (open_run(place, ["i0", "i1"]) for place in ("one", "other"))
    one.write_votes("0001-a.parquet", votes_of_labels(["i0", "i1"]))
    other.store.write("votes/0001-a.parquet", b"PAR1")
    with pytest.warns(UserWarning, match="0001-a.parquet"):
        assert join_runs(one, other).parts == 1
    assert contents(other)["votes/0001-a.parquet"] == contents(one)["votes/0001-a.parquet"]
    assert join_runs(one, other).parts == 0


def test_a_damaged_part_is_not_copied_and_said(open_run):
    one, other = open_run("one", ["i0", "i1"]), open_run("other", [])
    one.write_votes("0001-a.parquet", votes_of_labels(["i0"]))
    one.store.write("votes/0001-b.parquet", b"PAR1")
    with pytest.warns(UserWarning, match=r"one/.*0001-b.parquet cannot be read"):
        join_runs(one, other)
    assert other.vote_parts() == ["0001-a.parquet"] and other.num_images() == 2


def test_a_merge_that_was_interrupted_goes_on(open_run, monkeypatch):
    one, other = open_run("one", ["i0", "i1"]), open_run("other", ["i2"])
    for i in range(2):
        one.write_votes(f"0001-{i}.parquet", votes_of_labels([f"i{i}"]))
    write = Store.write

    def write_one(self, name, data):
        if name == "votes/0001-1.parquet":
            raise UserError("the network is away")
        write(self, name, data)

    with monkeypatch.context() as patched, pytest.raises(UserError, match="away"):
        patched.setattr(Store, "write", write_one)
        join_runs(one, other)
    assert other.num_images() == 3 and other.progress().missing >= 2  # as of a sampling that was interrupted
    join_runs(one, other)
    assert set(votes(other)) == {("i0", "argmax"), ("i1", "argmax")}


def test_all_that_determines_votes_is_of_the_identity(monkeypatch):
    class Anything:
        def __getattr__(self, name):
            return self

        def __call__(self, *_):
            return self

    monkeypatch.setattr(sampling, "device_kind", lambda name: name)
    assert set(sampling.identity(Anything(), Anything())) <= set(IDENTITY)
