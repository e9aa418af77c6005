"""Sampling for several answers: each is certified as votes are committed, and votes may end sampling for it."""

from raycsr import load_votes
from raycsr.certification import Statements
from raycsr.results import sparse_votes
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs.sample import sample

OPTIONS = {"costs": ["seed:3,4,5"], "answers": ["argmax", "majority"], "alpha": 0.01}


def test_each_answer_has_its_certificates_and_says_when_an_image_is_done(job):
    sampling = SamplingOptions(sigma=0.5, n0=64, n=512, radii=[0.1], precision="fp32", batch_size=64)
    (outcome,) = sample(**job(limit=8, **OPTIONS) | {"sampling": sampling})
    run = outcome.run
    stored = run.certificate_sets()
    assert sorted(facts["answer"].id for facts in stored.values()) == ["argmax", "majority"]
    assert all(not run.uncertified(name) and len(run.certificates(name)) == 8 for name in stored)
    answers = [facts["answer"] for facts in stored.values()]
    answers.sort(key=lambda answer: answer.id)
    statements = Statements(
        [run.costs("seed:3,4,5")], [0.1], sigma=0.5, alpha=0.01, n=sampling.max_samples, answers=answers
    )
    table = run.votes()
    selection, estimation = (sparse_votes(table[name]).dense(10) for name in ("selection", "estimation"))
    for i, row in load_votes(run.location).iterrows():
        decided = statements.decided(selection[[i]], estimation[[i]], row["label"])
        assert decided == (row["decided"] == statements.digest) and (decided or row["n"] == sampling.max_samples)
    (again,) = sample(**job(limit=8, **OPTIONS) | {"sampling": sampling})
    assert again.sampled == 0
    (plain,) = sample(**job(limit=8, **{**OPTIONS, "answers": None}) | {"sampling": sampling})
    assert plain.run.location == run.location  # the same votes, of which the argmax asks less
