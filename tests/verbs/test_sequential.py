"""Sequential runs: images stop when their statements are decided, and go on when there are more."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_sample import comparable, dense

from raycsr import UserError, load_certificates, load_votes
from raycsr.certification import Statements, looks
from raycsr.data.options import DataOptions
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import CHUNK, SamplingOptions
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs.cp import cp
from raycsr.verbs.merge import merge
from raycsr.verbs.report import report
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

N = 2048
SIGMA = 0.25
COSTS = ["seed:4", "pair:7/0"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A classifier that is right about many digits, and sure of few, so that there is something to decide."""
    trained = train(
        data=DataOptions("digits", split="train"),
        model=ModelOptions("cifar_resnet8", input_size=8),
        sigma=SIGMA,
        results=str(tmp_path_factory.mktemp("trained")),
        training=TrainingOptions(epochs=3, batch_size=64, lr=0.05),
        validation=ValidationOptions(every=3, images=20, sensitive=10, n0=8, n=64),
        threads=1,
    )
    return ModelOptions(trained.checkpoint)


@pytest.fixture
def sequential(job, model):
    """`sequential(radii, ...)` is a small sequential job."""

    def make(radii=(0.3,), *, n=N, **more):
        sampling = SamplingOptions(sigma=SIGMA, n0=32, n=n, radii=list(radii), precision="fp32", batch_size=64)
        return job(model=model, sampling=sampling, costs=COSTS, **{"limit": 40, **more})

    return make


def statements_of(run, radii, n=N):
    matrices = [run.costs(spec) for spec in COSTS]
    return Statements(matrices, radii, sigma=SIGMA, alpha=0.001, n=n)


def test_each_image_stops_at_the_first_look_that_decides_it(sequential):
    (outcome,) = sample(**sequential())
    votes, statements = load_votes(outcome.run.location), statements_of(outcome.run, [0.3])
    assert set(votes["sampling"]) == {"sequential"} and votes["n"].nunique() > 2
    assert votes["n"].isin(looks(N, CHUNK)).all()
    for _, row in votes.iterrows():
        decided = statements.decided([dense(row["selection"])], [dense(row["estimation"])], row["label"])
        assert decided == (row["decided"] == statements.digest)
        assert decided or row["n"] == N
    certificates = load_certificates(outcome.run.location, costs="seed:4")
    assert (certificates.set_index("image_id")["n"] == votes.set_index("image_id")["n"]).all()
    assert outcome.run.certificate_sets().popitem()[1]["bound"] == "e-2"
    assert outcome.run.finished()


def test_an_image_of_which_the_selection_votes_decide_all_draws_no_more(sequential):
    """They say that the answer is wrong, and no target's or a costly one: there is nothing left to state."""
    options = sequential([0.3], rules=["offset:3*seed:4"], limit=60)
    (outcome,) = sample(**options)
    votes = load_votes(outcome.run.location)
    answers = np.array([dense(row).argmax() for row in votes["selection"]])
    none = votes["n"] == 0
    assert 0 < none.sum() < 100 and (answers != votes["label"])[none].all()
    assert votes["error"].isna().all() and votes["decided"].notna().all() and (votes["n0"] == 32).all()
    assert sample(**options)[0].sampled == 0
    certificates = load_certificates(outcome.run.location, costs="seed:4")
    undrawn = certificates[certificates["n"] == 0]
    assert len(undrawn) == none.sum() and undrawn["abstain"].all() and not undrawn["error"].notna().any()
    assert (undrawn["standard_radius"] == 0).all() and (undrawn["multiclass_radius"] == 0).all()
    report(run=[outcome.run.location], radii=[0.3], out=str(Path(options["results"]) / "report"))
    (other,) = sample(**options | {"sampling": replace(options["sampling"], radii=[0.1, 0.3]), "costs": ["uniform"]})
    assert other.run.location == outcome.run.location  # other statements, of which some may be about them
    assert len(load_votes(other.run.location)) == len(votes)


def test_votes_are_a_beginning_of_those_of_a_fixed_n(sequential):
    (stopped,) = sample(**sequential(limit=8))
    options = sequential(limit=8)
    (whole,) = sample(**options | {"sampling": replace(options["sampling"], radii=None, n=CHUNK)})
    first = load_votes(stopped.run.location).set_index("image_id")
    for image_id, row in load_votes(whole.run.location).set_index("image_id").iterrows():
        assert (dense(first.loc[image_id, "selection"]) == dense(row["selection"])).all()
        if first.loc[image_id, "n"]:  # else the selection votes have decided all statements
            assert (dense(first.loc[image_id, "estimation"]) >= dense(row["estimation"])).all()


def test_more_radii_go_on_where_each_image_stopped_to_the_votes_of_having_asked_at_once(sequential, tmp_path, capsys):
    (first,) = sample(**sequential([0.3]))
    before = load_votes(first.run.location).set_index("image_id").sort_index()
    (second,) = sample(**sequential([0.3, 0.45]))
    assert second.run.location == first.run.location and 0 < second.sampled < 40
    (again,) = sample(**sequential([0.3, 0.45]))
    assert again.sampled == 0 and "all sampled" in capsys.readouterr().out.rsplit("run ", 1)[1]
    after = load_votes(first.run.location).set_index("image_id").sort_index()
    assert (after["n"] >= before["n"]).all() and (after["n"] > before["n"]).sum() == second.sampled
    (at_once,) = sample(**sequential([0.3, 0.45], results=str(tmp_path / "at once")))
    expected = load_votes(at_once.run.location)
    assert comparable(after.reset_index()) == comparable(expected)
    ours, theirs = (load_certificates(run.location, costs="seed:4") for run in (second.run, at_once.run))
    columns = ["image_id", "prediction", "standard_radius", "cost_sensitive_radius", "n"]
    ours, theirs = (one[columns].sort_values("image_id", ignore_index=True) for one in (ours, theirs))
    assert ours.equals(theirs)


def test_a_run_that_stopped_before_its_multiclass_radii_were_known_goes_on_until_they_are(sequential):
    """As it may by majority, and did before they were among the statements."""
    far = {"radii": (0.5,), "limit": 100}  # where a dozen images or so are left, whatever CPU trained the model
    (first,) = sample(**sequential(**far, answers=["majority"]))
    (second,) = sample(**sequential(**far))
    assert second.run.location == first.run.location and 0 < second.sampled < 100
    votes, statements = load_votes(second.run.location), statements_of(second.run, [0.5])
    for _, row in votes.iterrows():
        assert row["n"] == N or statements.decided([dense(row["selection"])], [dense(row["estimation"])], row["label"])


@pytest.mark.ray
def test_a_larger_n_goes_on_with_images_that_it_may_decide(cluster, sequential, tmp_path):
    (small,) = sample(**sequential(n=100))  # two chunks
    votes = load_votes(small.run.location)
    assert votes["n"].max() == 128
    statements = statements_of(small.run, [0.3])  # an image that 128 samples cannot certify may be by 2048
    rows = zip(votes["selection"], votes["estimation"], votes["label"], strict=True)
    left = sum(not statements.decided([dense(first)], [dense(second)], label) for first, second, label in rows)
    (large,) = sample(**sequential(n=N, actors=2))
    assert large.run.location == small.run.location and large.sampled == left > 0
    (at_once,) = sample(**sequential(results=str(tmp_path / "at once")))
    assert comparable(load_votes(large.run.location)) == comparable(load_votes(at_once.run.location))


def test_a_rule_that_is_added_is_sampled_until_its_own_statements_are_decided(sequential):
    rule = "offset:1*seed:4"
    (first,) = sample(**sequential())
    before = load_votes(first.run.location, rule="argmax")
    (second,) = sample(**sequential(rules=[rule]))
    votes = load_votes(second.run.location)
    assert comparable(votes[votes["rule"] == "argmax"]) == comparable(before)
    assert len(votes[votes["rule"] != "argmax"]) == 40 and votes["decided"].notna().sum() > 40


def test_an_image_that_cannot_go_on_is_named_keeps_its_votes_and_is_tried_again_if_asked(job, photographs):
    def options(radii):
        sampling = SamplingOptions(sigma=0.02, n0=32, n=N, radii=radii, precision="fp32", batch_size=64)
        return job(**photographs, sampling=sampling)

    (first,) = sample(**options([0.024]))
    votes = load_votes(first.run.location)
    files = sorted(Path(photographs["data"].path).glob("*/*.png"))
    pixels, times = {file: file.read_bytes() for file in files}, {file: file.stat().st_mtime_ns for file in files}

    def put(file, data):
        """Of the same length and time: the listing does not tell."""
        file.write_bytes(data)
        os.utime(file, ns=(times[file], times[file]))

    for file in files:
        put(file, b"\0" * len(pixels[file]))
    (broken,) = sample(**options([0.04]))
    stuck = {image_id for image_id in broken.errors if image_id not in first.errors}
    assert stuck and broken.sampled == len(stuck) and broken.run.location == first.run.location
    assert comparable(load_votes(broken.run.location)) == comparable(votes)
    (again,) = sample(**options([0.04]))
    assert again.sampled == 0 and again.errors == broken.errors

    for file in files:
        put(file, pixels[file])
    (mended,) = sample(**options([0.04]), retry_errors=True)
    assert mended.errors.keys() == first.errors.keys()
    before, after = (some.set_index("image_id")["n"][list(stuck)] for some in (votes, load_votes(mended.run.location)))
    assert (after > before).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n": 32}, "n=32 is below the first look at 64 samples"),
        ({"radii": [0.3, 9.0]}, "never radius 9; leave it out of sampling.radii, or raise sampling.n"),
        ({"radii": []}, r"radii to decide are \[\]"),
        ({"radii": [0.0]}, r"radii to decide are \[0.0\]; give positive numbers"),
    ],
)
def test_what_cannot_be_decided_is_refused(sequential, change, message):
    options = sequential()
    options["sampling"] = replace(options["sampling"], **change)
    with pytest.raises(UserError, match=message):
        sample(**options)
    assert np.isfinite(options["sampling"].sigma)


def test_a_top_up_of_two_rules_ends_with_the_votes_of_having_asked_at_once(sequential, tmp_path):
    """Where argmax is decided and the rule is not, the rule goes on alone: no chunk of noise votes twice."""
    rules = ["offset:1*seed:4"]
    (first,) = sample(**sequential([0.2], rules=rules))
    (second,) = sample(**sequential([0.2, 0.3], rules=rules))
    (third,) = sample(**sequential([0.2, 0.3, 0.45], rules=rules))
    rows = third.run.votes().to_pandas().pivot(index="image_id", columns="rule", values="part")
    assert (rows["argmax"] != rows.drop(columns="argmax").iloc[:, 0]).any()  # some went on alone
    (at_once,) = sample(**sequential([0.2, 0.3, 0.45], rules=rules, results=str(tmp_path / "at once")))
    ours, theirs = (load_votes(run.location).set_index(["rule", "image_id"]) for run in (third.run, at_once.run))
    assert second.run.location == first.run.location == third.run.location and set(ours.index) == set(theirs.index)
    for key, row in ours.iterrows():  # asked at once, rules of an image stop together
        mine, whole = dense(row["estimation"]), dense(theirs.loc[key, "estimation"])
        assert mine.sum() == row["n"] <= theirs.loc[key, "n"] and (mine <= whole).all()
        assert row["n"] < theirs.loc[key, "n"] or (mine == whole).all()


def test_images_go_on_where_they_were_begun_alone(sequential, monkeypatch):
    (first,) = sample(**sequential([0.3]))
    more = sequential([0.3, 0.45])
    with pytest.raises(UserError, match=r"begun in batches of 64.*batches of 128.*begin_anew"):
        sample(**more | {"sampling": replace(more["sampling"], batch_size=128)})
    monkeypatch.setattr("raycsr.distributed.pool._cpu_model", lambda: "another processor")  # of the driver's own probe
    with pytest.raises(UserError, match=r"go on on such a device alone, and this one is 'cpu another proc.*begin_anew"):
        sample(**more)
    (same,) = sample(**sequential([0.3]))  # nothing goes on
    assert same.sampled == 0
    (anew,) = sample(**more | {"data": replace(more["data"], limit=2)}, begin_anew=True)
    assert anew.run.location != first.run.location and anew.sampled == 2
    (again,) = sample(**more | {"data": replace(more["data"], limit=2)}, begin_anew=True)
    assert again.run.location == anew.run.location and again.sampled == 0


def test_a_run_of_an_earlier_schema_is_read_and_not_gone_on_with(sequential):
    (first,) = sample(**sequential([0.3], limit=2))
    old = first.run.manifest() | {"schema_version": 2}
    first.run.store.write("manifest.json", json.dumps(old).encode())
    assert len(load_votes(first.run.location)) == 2
    with pytest.raises(UserError, match=r"schema_version 2 .*begin_anew"):
        sample(**sequential([0.3], limit=4))
    (anew,) = sample(**sequential([0.3], limit=2), begin_anew=True)
    assert anew.run.location != first.run.location


def test_a_copy_that_was_sampled_on_elsewhere_comes_home_and_goes_on(sequential, tmp_path):
    (home,) = sample(**sequential([0.3], limit=20))
    (there,) = cp(run=[home.run.location], results=str(tmp_path / "there"))
    (on,) = sample(**sequential([0.3, 0.45], limit=30, results=str(tmp_path / "there")))
    assert on.run.location == there
    (apart,) = sample(**sequential([0.45], limit=25, results=str(tmp_path / "apart")))  # first and last of it twice
    merge(run=[there, apart.run.location], into=home.run.location)
    (after,) = sample(**sequential([0.3, 0.45], limit=30))
    assert after.run.location == home.run.location and after.run.finished()
    (at_once,) = sample(**sequential([0.3, 0.45], limit=30, results=str(tmp_path / "at once")))
    ours, theirs = (load_votes(run.location).set_index("image_id").sort_index() for run in (after.run, at_once.run))
    assert (ours["n"] >= theirs["n"]).all()  # more where another order of questions drew more
    (again,) = sample(**sequential([0.3, 0.45], limit=30))
    assert again.sampled == 0
