import io
import json
import os
import socket

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raycsr import (
    CostMatrix,
    UserError,
    certify_counts,
    certify_stored,
    collect_certificates,
    list_runs,
    load_certificates,
    load_votes,
)
from raycsr.reports import load_certified
from raycsr.results import (
    SCHEMA_VERSION,
    Ownership,
    Run,
    certificate_set,
    histograms,
    missing_images,
    resolve_run,
    votes_table,
)
from raycsr.results.counts import ImageCounts
from raycsr.store import Store

COUNTS0 = np.array([[9, 1, 0], [0, 10, 0], [2, 3, 5]])
COUNTS = np.array([[900, 90, 10], [0, 1000, 0], [300, 300, 400]])
LABELS = [0, 1, 2]


def part(ids, *, rows=None, errors=None, counts=COUNTS, device="cpu", **more):
    rows = list(range(len(ids))) if rows is None else rows
    errors = errors or [None] * len(ids)
    good = np.array([error is None for error in errors])
    return votes_table(
        {
            "image_id": ids,
            "label": [LABELS[row] for row in rows],
            "rule": ["argmax"] * len(ids),
            "selection": histograms(COUNTS0[rows] * good[:, None]),
            "estimation": histograms(counts[rows] * good[:, None]),
            "n0": 10 * good,
            "n": 1000 * good,
            "sampling": ["fixed"] * len(ids),
            "image_sha": ["0"] * len(ids),
            "device": [device] * len(ids),
            "batch_size": [64] * len(ids),
            "seconds": np.random.rand(len(ids)),
            "error": errors,
            **more,
        }
    )


@pytest.fixture
def run(store):
    run = Run(store.at("experiment/runs/0123456789abcdef"))
    manifest = {"experiment": "experiment", "model": "m", "sigma": 0.5, "n0": 10, "n": 1000, "precision": "fp32",
                "sampling": "fixed", "num_classes": 3, "class_names": ["a", "b", "c"],
                "schema_version": SCHEMA_VERSION, "preprocessing": {"input_size": [8, 8]}}  # fmt: skip
    run.store.create("manifest.json", json.dumps(manifest).encode())
    run.add_images(listing("x", "y", "z"))
    return run


def keys(*rows):
    """Keys of committed rows, as `Run.committed` gives them."""
    names = pa.schema([("image_id", pa.string()), ("rule", pa.string())])
    return pa.table({name: [row[i] for row in rows] for i, name in enumerate(names.names)}, schema=names)


def listing(*ids, size=1):
    return pd.DataFrame({"image_id": ids, "label": ["xyzw".index(i) % 3 for i in ids], "size": size, "version": "v"})


def test_stored_votes_certify_as_the_votes_in_hand(run):
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    run.write_votes("0001-b.parquet", part(["z"], rows=[2]))
    costs = run.costs("pair:a/b,b/c")
    name = run.certify("pair:a/b,b/c", costs, 0.01)
    stored = run.certificates(name)
    direct = certify_counts(
        COUNTS0, COUNTS, LABELS, costs=costs, sigma=0.5, sampling="fixed", alpha=0.01, image_ids=["x", "y", "z"]
    )
    for column in direct.columns.drop(["p_b_upper", "pairwise_radius", "target_radius"]):
        ours, theirs = (frame[column].astype(object).where(frame[column].notna(), None) for frame in (stored, direct))
        assert ours.tolist() == theirs.tolist(), column
    for column in ("p_b_upper", "pairwise_radius", "target_radius"):
        assert [list(row) for row in stored[column]] == [list(row) for row in direct[column]]


def test_certify_fills_in_what_is_missing_and_touches_nothing_else(run):
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    name = run.certify("uniform", run.costs("uniform"), 0.01)
    file = f"certificates/{name}/0001-a.parquet"
    run.store.write_table(file, run.store.read_table(file), {"note": "kept"})
    run.write_votes("0001-b.parquet", part(["z"], rows=[2]))
    assert run.certify("uniform", run.costs("uniform"), 0.01) == name
    assert run.store.read_table(file).schema.metadata[b"note"] == b"kept"
    assert run.store.exists(f"certificates/{name}/0001-b.parquet")


def test_a_set_is_named_by_values_alpha_and_bound_not_by_the_words_for_them():
    pair = CostMatrix.pairwise(3, {0: [1]})

    def digest(spec, alpha=0.01, sampling="fixed"):
        return certificate_set(spec, pair, alpha, sampling).rsplit("-", 1)[1]

    assert digest("pair:0/1") == digest("pair:a/b") == digest("my.csv")
    assert digest("pair:0/1") not in (digest("pair:0/1", alpha=0.05), digest("pair:0/1", sampling="sequential"))
    assert certificate_set("some/where/my.csv", pair, 0.01, "fixed").startswith("my-")


def test_doubles_count_once_and_the_first_part_by_name_wins(run):
    run.write_votes("0002-a.parquet", part(["x"], seconds=[2.0]))
    run.write_votes("0001-b.parquet", part(["x", "y"], seconds=[1.0, 1.0]))
    votes = load_votes(run.location)
    assert votes["image_id"].tolist() == ["x", "y"]
    assert votes["part"].tolist() == ["0001-b.parquet"] * 2


def test_doubles_that_disagree_are_refused_naming_both_parts(run):
    run.write_votes("0001-a.parquet", part(["x"]))
    run.write_votes("0002-b.parquet", part(["x"], counts=COUNTS[::-1]))
    with pytest.raises(UserError, match=r"'x' has different votes in '0001-a.parquet' and '0002-b.parquet'"):
        run.votes()


def test_two_drivers_may_have_asked_for_more_and_for_fewer_votes(run):
    run.write_votes("0002-b.parquet", part(["x"], decided=["radii .1, .2"]))
    of_fewer = {"n": [320], "decided": ["radius .1"]}
    run.write_votes("0001-a.parquet", part(["x"], counts=np.array([[300, 15, 5]]), **of_fewer))
    assert run.votes()["n"].to_pylist() == [1000]
    run.write_votes("0001-a.parquet", part(["x"], counts=np.array([[300, 5, 15]]), **of_fewer))  # 15 of 10 later
    with pytest.raises(UserError, match="different votes"):
        run.votes()


def test_doubles_counted_on_different_devices_may_differ(run):
    run.write_votes("0001-a.parquet", part(["x"]))
    run.write_votes("0002-b.parquet", part(["x"], counts=COUNTS[::-1], device="another"))
    assert run.votes()["part"].to_pylist() == ["0001-a.parquet"]


def test_a_row_that_worked_replaces_an_errored_one(run):
    run.write_votes("0001-a.parquet", part(["x", "y"], errors=["broken", None]))
    run.write_votes("0002-b.parquet", part(["x"]))
    assert run.votes()["error"].to_pylist() == [None, None]
    name = run.certify("uniform", run.costs("uniform"), 0.01)
    certificates = run.certificates(name)
    assert sorted(certificates["image_id"]) == ["x", "y"] and certificates["error"].isna().all()


def test_an_errored_row_is_kept_and_certifies_nothing(run):
    run.write_votes("0001-a.parquet", part(["x", "y"], errors=["broken", None]))
    certificates = load_certificates(run.location, costs="uniform", alpha=0.01)
    assert certificates["error"].tolist()[0] == "broken"
    assert certificates["standard_radius"].tolist()[0] == certificates["cost_sensitive_radius"].tolist()[0] == 0
    assert pd.isna(certificates["prediction"][0]) and certificates["prediction"][1] == 1


def test_certificates_are_made_on_the_fly_where_none_are_stored(run):
    run.write_votes("0001-a.parquet", part(["x", "y", "z"]))
    fresh = load_certificates(run.location, costs="seed:a", alpha=0.01)
    run.certify("seed:a", run.costs("seed:a"), 0.01)
    stored = load_certificates(run.location)
    pd.testing.assert_series_equal(fresh["cost_sensitive_radius"], stored["cost_sensitive_radius"])
    run.certify("uniform", run.costs("uniform"), 0.01)
    with pytest.raises(UserError, match=r"has 2 certificate sets \(seed-a-.*name one by costs="):
        load_certificates(run.location)


def test_an_unreadable_part_is_named_and_counts_for_nothing(run):
    run.write_votes("0001-a.parquet", part(["x"]))
    run.store.write("votes/0001-b.parquet", b"PAR1 cut off")
    with pytest.warns(UserWarning, match=r"votes/0001-b.parquet cannot be read and counts for nothing; delete it"):
        assert run.committed()["image_id"].to_pylist() == ["x"]
    with pytest.warns(UserWarning, match="0001-b.parquet"):
        assert run.votes()["image_id"].to_pylist() == ["x"]
    with pytest.warns(UserWarning, match="0001-b.parquet"):
        name = run.certify("uniform", run.costs("uniform"), 0.01)
    assert run.store.names(f"certificates/{name}") == ["0001-a.parquet", "costs.json"]


def test_a_part_that_is_damaged_in_the_middle_is_unreadable_too(run):
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    data = bytearray(run.store.read("votes/0001-a.parquet"))
    data[4:200] = bytes(196)
    run.store.write("votes/0001-a.parquet", bytes(data))
    with pytest.warns(UserWarning, match="0001-a.parquet cannot be read"):
        assert len(run.committed()) == 0


def test_a_listing_that_grows_is_unfinished_again(run):
    assert not run.finished()
    run.finish(num_images=3)
    assert run.finished()
    run.add_images(listing("w"))
    assert not run.finished()


def test_votes_that_do_not_add_up_to_their_samples_are_refused_naming_the_part(run):
    run.write_votes("0001-a.parquet", part(["z"], rows=[2]))
    run.write_votes("0001-b.parquet", part(["x", "y"], n=[1000, 999]))
    with pytest.raises(UserError, match=r"votes/0001-b.parquet: the votes of image 'y' do not add up to its samples"):
        run.certify("uniform", run.costs("uniform"), 0.01)
    (name,) = run.certificate_sets()
    assert run.uncertified(name) == ["0001-b.parquet"]  # what is certified stays
    with pytest.raises(UserError, match=r"votes/0001-b.parquet: the votes of image 'y'"):
        run.certificates(name)


def test_missing_is_the_listing_less_committed_keys():
    images = listing("x", "y", "z")
    assert missing_images(images, keys(), ["argmax"])["image_id"].tolist() == ["x", "y", "z"]
    committed = keys(("x", "argmax"), ("y", "argmax"), ("x", "offset"))
    assert missing_images(images, committed, ["argmax"])["image_id"].tolist() == ["z"]
    assert missing_images(images, committed, ["argmax", "offset"])["image_id"].tolist() == ["y", "z"]


def test_a_run_grows_and_refuses_images_that_changed(run):
    assert run.add_images(listing("x", "y", "z", "w"))["image_id"].tolist() == ["x", "y", "z", "w"]
    assert run.add_images(listing("y"))["image_id"].tolist() == ["x", "y", "z", "w"]
    with pytest.raises(UserError, match=r"2 images changed in the source .* the first 'y'"):
        run.add_images(listing("x", "y", "z").assign(label=[0, 2, 1]))
    run.write_votes("0001-a.parquet", part(["x", "y"], errors=[None, "Unreadable"]))
    for changed in ({"size": 2}, {"version": "w"}):
        with pytest.raises(UserError, match=r"1 images changed in the source .* the first 'x'"):
            run.add_images(listing("x", "y", "z").assign(**changed))
    run.add_images(listing("y", "z", size=2))  # which have no votes
    assert run.images().set_index("image_id")["size"].to_dict() == {"x": 1, "y": 2, "z": 2, "w": 1}


def test_images_that_were_copied_are_taken_where_their_pixels_are_those_that_were_sampled(run):
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    asked = []
    run.add_images(listing("x", "y", "z").assign(version="copied"), lambda sampled: asked.append(sampled) or [])
    assert asked[0].to_dict("list") == {"image_id": ["x", "y"], "image_sha": ["0", "0"]}
    assert set(run.images()["version"]) == {"copied"}
    run.add_images(listing("x", "y", "z").assign(version="copied"), asked.append)
    assert len(asked) == 1  # nothing differs any more
    with pytest.raises(UserError, match=r"1 images changed in the source .* the first 'y'; put back what they were"):
        run.add_images(listing("x", "y", "z"), lambda sampled: ["y"])
    assert set(run.images()["version"]) == {"copied"}


def test_runs_are_found_by_folder_prefix_and_results(run, store):
    experiment = f"{store.location}/experiment"
    for words in (run.location, f"{run.location[:-8]}", store.location, experiment, f"{experiment}/runs"):
        assert resolve_run(words).location == run.location
    row = list_runs(store.location).iloc[0]
    assert (row["run_id"], row["num_images"], row["finished"], row["sigma"]) == ("0123456789abcdef", 3, False, 0.5)
    with pytest.raises(UserError, match="no run at"):
        resolve_run(f"{store.location}/experiment/runs/ff")
    other = Run(Store(f"{store.location}/experiment/runs/0123ffff"))
    other.store.create("manifest.json", run.store.read("manifest.json"))
    with pytest.raises(UserError, match="means 2 runs"):
        resolve_run(f"{store.location}/experiment/runs/0123")
    assert list_runs(f"{experiment}/runs")["location"].tolist() == [run.location, other.location]


def test_listing_runs_reads_no_part(run, store):
    run.store.write("votes/0001-a.parquet", b"never read")
    with Ownership(run.store):
        row = list_runs(store.location).iloc[0]
    assert (row["state"], row["owner"]) == ("running", f"process {os.getpid()} on {socket.gethostname()}")
    assert list_runs(store.location)["state"].tolist() == ["stopped"]


OFFSET = {"id": "offset-1", "kind": "offset", "spec": "offset:1*pair:a/b", "offsets": [0.0, -1.0, 0.0]}


def test_a_run_has_argmax_and_the_rules_that_were_added(run):
    assert list(run.rules()) == ["argmax"]
    costly = {"id": "expected_cost-1", "kind": "expected_cost", "spec": "expected_cost:2*seed:a"}
    run.add_rules([OFFSET, costly])
    run.add_rules([OFFSET | {"spec": "other words for the same"}])
    assert [rule.spec for rule in run.rules().values()] == ["argmax", "expected_cost:2*seed:a", "offset:1*pair:a/b"]
    assert run.rules()["offset-1"].kind == "offset"


def test_a_rule_is_meant_by_its_id_or_its_words(run):
    run.add_rules([OFFSET])
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    run.write_votes("0002-a.parquet", part(["x", "x"], rule=["offset-1", "argmax"], rows=[1, 0]))
    assert load_votes(run.location)["rule"].tolist() == ["argmax", "argmax", "offset-1"]
    for words in ("offset-1", "offset:1*pair:a/b"):
        assert load_votes(run.location, words)["image_id"].tolist() == ["x"]
        assert load_certificates(run.location, costs="seed:a", rule=words)["rule"].tolist() == ["offset-1"]
    with pytest.raises(UserError, match=r"has no rule 'offset:2\*pair:a/b': did you mean offset:1\*pair:a/b"):
        load_votes(run.location, "offset:2*pair:a/b")
    run.add_rules([OFFSET | {"id": "offset-2"}])  # a .csv of that name has changed since, say
    with pytest.raises(UserError, match=r"has 2 rules 'offset:1\*pair:a/b'; name one by its id: offset-1, offset-2"):
        load_certificates(run.location, costs="seed:a", rule="offset:1*pair:a/b")


def test_doubles_are_told_apart_by_rule(run):
    run.write_votes("0001-a.parquet", part(["x", "x"], rule=["argmax", "offset-1"], rows=[0, 1]))
    run.write_votes("0002-a.parquet", part(["x", "y"], rule=["offset-1", "offset-1"], rows=[1, 1]))
    votes = load_votes(run.location)
    assert votes[["image_id", "rule", "part"]].to_numpy().tolist() == [
        ["x", "argmax", "0001-a.parquet"], ["x", "offset-1", "0001-a.parquet"], ["y", "offset-1", "0002-a.parquet"],
    ]  # fmt: skip
    run.write_votes("0003-a.parquet", part(["x"], rule=["offset-1"], rows=[0]))
    with pytest.raises(UserError, match="different votes"):
        run.votes("offset-1")
    assert len(run.votes("argmax")) == 1


def test_a_new_rule_makes_a_run_unfinished(run):
    run.finish(num_images=3)
    assert run.finished()
    run.add_rules([OFFSET])
    assert not run.finished()
    run.finish(num_images=3)
    assert run.finished()
    run.store.write("finished.json", b'{"num_images": 3}')  # as it was before there were rules
    assert not run.finished()


def test_missing_images_say_which_rules_they_lack():
    committed = keys(("x", "argmax"), ("y", "argmax"), ("x", "offset-1"))
    lacking = missing_images(listing("x", "y", "z"), committed, ["argmax", "offset-1"])
    assert lacking[["image_id", "rules"]].to_numpy().tolist() == [["y", "offset-1"], ["z", "argmax offset-1"]]


RULES = ["argmax", "offset-1", "offset-2"]


@given(
    listed=st.lists(st.sampled_from("xyzw"), unique=True),
    committed=st.lists(st.tuples(st.sampled_from("xyzw"), st.sampled_from(RULES))),
    wanted=st.lists(st.sampled_from(RULES), unique=True),
)
def test_missing_images_are_those_of_a_plain_loop(listed, committed, wanted):
    images = listing(*listed)
    lacking = {i: [rule for rule in wanted if (i, rule) not in committed] for i in listed}
    missing = missing_images(images, keys(*committed), wanted)
    expected = [(i, " ".join(rules)) for i, rules in lacking.items() if rules]
    assert list(zip(missing["image_id"], missing["rules"], strict=True)) == expected
    assert missing["label"].tolist() == ["xyzw".index(i) % 3 for i, _ in expected]


def test_progress_counts_each_image_once(run):
    assert run.progress() == (3, 0, 3, 0)
    run.write_votes("0001-a.parquet", part(["x", "y"], errors=[None, "broken"]))
    assert run.progress() == ImageCounts(images=3, done=1, missing=1, errored=1)
    run.add_rules([OFFSET])  # now x and y lack its row
    run.write_votes("0002-a.parquet", part(["y"], rule=["offset-1"]))
    assert run.progress() == ImageCounts(images=3, done=0, missing=2, errored=1)


def test_votes_that_go_on_from_a_part_that_is_gone_are_none(run):
    run.write_votes("0002-b.parquet", topped_up("argmax"))
    assert len(run.votes()) == 0
    assert run.progress() == ImageCounts(images=3, done=0, missing=3, errored=0)


def test_the_progress_of_a_finished_run_is_its_note(run):
    run.store.write("votes/0001-a.parquet", b"never read")
    run.finish(num_images=3, num_errors=1)
    assert run.progress() == ImageCounts(images=3, done=2, missing=0, errored=1)


def test_a_run_that_never_listed_its_images_has_none(store):
    run = Run(store.at("experiment/runs/0123456789abcdef"))
    assert run.num_images() == 0 and not run.finished()
    assert run.progress() == (0, 0, 0, 0)


def test_certificates_of_several_rules_miss_an_image_that_lacks_one(run):
    run.write_votes("0001-a.parquet", part(["x", "y", "x"], rule=["argmax", "argmax", "offset-1"], rows=[0, 1, 0]))
    name = run.certify("uniform", run.costs("uniform"), 0.01)
    assert run.missing(run.certificates(name)) == ["y", "z"]
    assert run.missing(run.certificates(name, "argmax")) == ["z"]
    assert run.missing(run.certificates(name, "offset-1")) == ["y", "z"]
    assert run.missing(run.certificates(name, "offset-2")) == ["x", "y", "z"]


def topped_up(rule, *, with_argmax=False):
    """A part that goes on with x and y from the part a, under one rule or under argmax as well."""
    rules = [rule, "argmax"] if with_argmax else [rule]
    rows = [
        part(["x", "y"], rule=[name] * 2, continues=["0001-a.parquet"] * 2, sampling=["sequential"] * 2)
        for name in rules
    ]
    return pa.concat_tables(rows)


def with_manifest(run, **facts):
    run.store.write("manifest.json", json.dumps(run.manifest() | facts).encode())


READERS = {
    "load_votes": lambda run: load_votes(run.location),
    "load_certificates, made from votes": lambda run: load_certificates(run.location, costs="uniform"),
    "load_certificates, stored": lambda run: load_certificates(run.location, costs="seed:a"),
    "certify": lambda run: run.certify("seed:b", run.costs("seed:b"), 0.001),
    "collect_certificates": lambda run: collect_certificates(run.location),
    "report": lambda run: load_certified([run.location], allow_missing=True),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_votes_that_an_earlier_version_counted_twice_are_refused_by_every_reader(run, read):
    with_manifest(run, sampling="sequential")
    run.write_votes("0001-a.parquet", part(["x", "y"], sampling=["sequential"] * 2))
    run.write_votes("0002-b.parquet", topped_up("offset-1"))
    run.certify("seed:a", run.costs("seed:a"), 0.001)
    read(run)  # as the present version writes them they are right
    with_manifest(run, schema_version=2)
    with pytest.raises(UserError, match=r"0002-b.parquet .*'x' under rule 'offset-1'.*begin_anew"):
        read(run)


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_other_votes_of_that_version_are_read(run, read):
    with_manifest(run, sampling="sequential")
    run.write_votes("0001-a.parquet", part(["x", "y"], sampling=["sequential"] * 2))
    run.write_votes("0002-b.parquet", topped_up("offset-1", with_argmax=True))
    run.certify("seed:a", run.costs("seed:a"), 0.001)
    with_manifest(run, schema_version=2)
    read(run)


def test_stored_votes_carry_all_that_certifies_them(run):
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    votes, costs = load_votes(run.location), run.costs("pair:a/b")
    ours = certify_stored(votes[votes["image_id"] == "y"], costs, alpha=0.01)
    theirs = certify_counts(
        COUNTS0[1:2], COUNTS[1:2], [1], costs=costs, sigma=0.5, sampling="fixed", alpha=0.01, image_ids=["y"]
    )
    assert ours["standard_radius"].tolist() == theirs["standard_radius"].tolist()
    sequential = certify_stored(votes.assign(sampling="sequential"), costs, alpha=0.01)
    assert (sequential["standard_radius"] < certify_stored(votes, costs, alpha=0.01)["standard_radius"]).all()


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda votes: votes.drop(columns="sampling"), "'sampling'"),
        (lambda votes: votes.assign(sigma=[0.25, 0.5]), "0.25 and 0.5"),
        (lambda votes: votes.assign(sampling=["fixed", "sequential"]), "'fixed' and 'sequential'"),
        (lambda votes: votes.assign(sampling=["fixed", None]), "'fixed' and None"),
        (lambda votes: pd.read_csv(io.StringIO(votes.to_csv())), "column selection.*Parquet"),
    ],
)
def test_votes_that_do_not_say_how_they_were_drawn_are_refused(run, change, fact):
    run.write_votes("0001-a.parquet", part(["x", "y"]))
    with pytest.raises(UserError, match=fact):
        certify_stored(change(load_votes(run.location)), run.costs("pair:a/b"))
