"""Decision rules through the pipeline: a new rule on an old run is missing rows, and only those are sampled."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image
from test_sample import comparable

from raycsr import UserError, load_certificates, load_votes
from raycsr.data.options import DataOptions
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import parse_rules
from raycsr.models.spec import ModelOptions
from raycsr.options import hints_of, read_words
from raycsr.results import Run
from raycsr.verbs.evaluate import evaluate
from raycsr.verbs.sample import sample

OFFSET, WEIGHED = "offset:0.5*pair:4/9", "expected_cost:2*seed:4"
OFFSET_ID, WEIGHED_ID = (parse_rules([spec], num_classes=10)[0].id for spec in (OFFSET, WEIGHED))


def rows(run: Run, rule=None):
    return comparable(load_votes(run.location, rule).sort_values(["rule", "image_id"], kind="stable"))


def parts(run: Run):
    return {name: run.store.read(f"votes/{name}") for name in run.vote_parts()}


@pytest.fixture
def two_rules(job, capsys):
    (outcome,) = sample(**job(limit=4), rules=[OFFSET], costs=["seed:4"])
    return outcome


def test_a_run_names_its_rules_and_stores_what_they_are(two_rules, capsys):
    run = two_rules.run
    assert [(rule.id, rule.kind, rule.spec) for rule in run.rules().values()] == [
        ("argmax", "argmax", "argmax"),
        (OFFSET_ID, "offset", OFFSET),
    ]
    stored = json.loads(run.store.read(f"rules/{OFFSET_ID}.json"))
    assert stored["offsets"] == [-0.5 * (k == 9) for k in range(10)] and stored["spec"] == OFFSET
    votes = load_votes(run.location)
    assert votes.groupby("rule").size().to_dict() == {"argmax": 4, OFFSET_ID: 4}
    assert load_votes(run.location, OFFSET)["rule"].unique().tolist() == [OFFSET_ID]
    assert len(load_certificates(run.location, costs="seed:4", rule=OFFSET_ID)) == 4
    assert run.finished()


def test_a_third_rule_samples_only_its_own_rows_and_as_if_it_had_been_there_from_the_start(
    job, two_rules, tmp_path, capsys
):
    before = parts(two_rules.run)
    (grown,) = sample(**job(limit=6), rules=[WEIGHED], costs=["seed:4"])
    assert grown.run.location == two_rules.run.location
    assert grown.sampled == 6  # four images lack the new rule, two lack argmax too
    assert "rules     argmax, expected_cost:2*seed:4" in capsys.readouterr().out
    assert {name: data for name, data in parts(grown.run).items() if name in before} == before
    assert load_votes(grown.run.location).groupby("rule").size().to_dict() == {
        "argmax": 6, OFFSET_ID: 4, WEIGHED_ID: 6,
    }  # fmt: skip
    assert not grown.run.finished()  # two images lack the offset still

    (complete,) = sample(**job(limit=6), rules=[OFFSET, WEIGHED], costs=["seed:4"])
    assert complete.sampled == 2 and complete.run.finished()
    (nothing,) = sample(**job(limit=6), rules=[OFFSET])
    assert nothing.sampled == 0

    (at_once,) = sample(**job(limit=6, results=str(tmp_path / "at once")), rules=[OFFSET, WEIGHED])
    assert at_once.run.run_id == complete.run.run_id
    assert rows(at_once.run) == rows(complete.run)
    (name,) = complete.run.certificate_sets()
    for rule in complete.run.rules():
        certificates = complete.run.certificates(name, rule)
        assert len(certificates) == 6 and complete.run.missing(certificates) == []
    (plain,) = sample(**job(limit=6, results=str(tmp_path / "argmax alone")))
    assert plain.run.run_id == complete.run.run_id
    assert rows(plain.run) == rows(complete.run, "argmax")


def test_errors_are_retried_for_every_rule(job, photographs):
    options = job(**photographs)
    rules = ["offset:0.5*pair:cat/dog"]
    (outcome,) = sample(**options, rules=rules)
    assert outcome.run.finished() and list(outcome.errors) == ["dog/1.png"]
    (again,) = sample(**options, rules=rules, retry_errors=True)
    assert (again.sampled, list(again.errors)) == (1, ["dog/1.png"])
    assert len(load_votes(again.run.location)) == 12


def test_tuned_rules_of_a_checkpoint_are_evaluated(job, tmp_path):
    model = load_base_classifier(job()["model"])
    path = tmp_path / "tuned.pt"
    save_checkpoint(path, model)
    options = job(limit=3, model=ModelOptions(name=str(path)), costs=["pair:4/9"])
    with pytest.raises(UserError, match="checkpoint holds none; `raycsr tune-rule"):
        evaluate(**options, rules=["tuned"])
    assert not Path(options["results"]).exists()
    model.rules = tuple(parse_rules([OFFSET], num_classes=10))
    save_checkpoint(path, model)
    (outcome,) = evaluate(**options, rules=["tuned"], out=str(tmp_path / "out")).outcomes
    assert list(outcome.run.rules()) == ["argmax", OFFSET_ID]
    assert OFFSET in (tmp_path / "out" / "report.md").read_text()


def test_rules_may_be_repeated_on_the_command_line():
    words = ["--rules", "tuned", "--rules", "offset:0.5,1*pair:4/9"]
    assert read_words(words, hints_of(sample)) == {"rules": ["tuned", "offset:0.5,1*pair:4/9"]}


@pytest.mark.parametrize(
    ("rules", "message"),
    [(["argmx"], "did you mean argmax"), (["offset:1*seed:44"], "class 44 is not one of the 10 classes")],
)
def test_a_wrong_rule_is_refused_before_anything_is_written(job, rules, message):
    options = job()
    with pytest.raises(UserError, match=message):
        sample(**options, rules=rules)
    assert not Path(options["results"]).exists()


def test_a_rule_gets_no_votes_from_other_pixels_than_those_that_argmax_has(job, tmp_path):
    for i in range(3):
        path = tmp_path / "photos" / "ab"[i % 2] / f"{i}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i,) * 3).save(path)
    model = ModelOptions(name="cifar_resnet8", num_classes=2, input_size=8)
    options = job(data=DataOptions(source="imagefolder", path=str(tmp_path / "photos")), model=model)
    sample(**options)
    times = (tmp_path / "photos" / "a" / "0.bmp").stat()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "photos" / "a" / "0.bmp")
    os.utime(tmp_path / "photos" / "a" / "0.bmp", ns=(times.st_atime_ns, times.st_mtime_ns))  # as some copies keep it
    (outcome,) = sample(**options, rules=["offset:0.5*pair:a/b"])
    assert outcome.errors == {"a/0.bmp": "the image's pixels changed since its votes were drawn"}
    votes = load_votes(outcome.run.location).query("error.isna()")
    assert votes.groupby("image_id").size().to_dict() == {"a/0.bmp": 1, "a/2.bmp": 2, "b/1.bmp": 2}
