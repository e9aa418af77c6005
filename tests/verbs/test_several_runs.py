"""Several runs of one command: one pool of actors samples them all, and each is what it is alone."""

import os
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from raycsr import load_certificates, load_votes
from raycsr.distributed.sampling import run as run_module
from raycsr.distributed.sampling.stream import stream
from raycsr.distributed.sampling.voter import Voter
from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import ModelOptions
from raycsr.verbs.sample import sample

VOTED = ["image_id", "rule", "selection", "estimation", "n0", "n", "image_sha", "batch_size", "error"]


def voted(outcome):
    """The votes of a run: image and rule -> what was counted."""
    return load_votes(outcome.run.location)[VOTED].sort_values(["image_id", "rule"], ignore_index=True)


@pytest.fixture
def smaller(tmp_path):
    """A checkpoint of smaller pixels than the model beside it has, so that decoding differs, too."""
    path, options = str(tmp_path / "smaller.pt"), ModelOptions("cifar_resnet8", 10, init_seed=1, input_size=8)
    save_checkpoint(path, load_base_classifier(options), training_info={})
    return path


def test_runs_that_are_sampled_together_have_the_votes_that_each_has_alone(job, smaller, tmp_path):
    options = job(limit=5, costs=["uniform", "seed:4"], rules=["offset:0.5*pair:4/9"], further_models=[smaller])
    options["model"] = ModelOptions("cifar_resnet8", num_classes=10)
    options["sampling"] = replace(options["sampling"], sigma=[0.25, 0.5])
    together = sample(**options)
    assert len({outcome.run.location for outcome in together}) == 4 and all(one.run.finished() for one in together)
    alone = []
    for name in (options["model"].name, smaller):
        for sigma in (0.25, 0.5):
            further = {"further_models": None, "results": str(tmp_path / "alone")}
            sampling, model = replace(options["sampling"], sigma=sigma), replace(options["model"], name=name)
            alone += sample(**{**options, **further, "sampling": sampling, "model": model})
    for one, other in zip(together, alone, strict=True):
        assert one.run.run_id == other.run.run_id and one.sampled == other.sampled == 5
        pd.testing.assert_frame_equal(voted(one), voted(other))
        for costs in ("uniform", "seed:4"):
            assert len(load_certificates(one.run.location, costs=costs, rule="argmax")) == 5


def test_a_run_that_is_named_twice_is_sampled_once(job):
    options = job()
    options["sampling"] = replace(options["sampling"], sigma=[0.5, 0.25, 0.5])
    outcomes = sample(**options)
    assert [outcome.sampled for outcome in outcomes] == [12, 12, 0]
    assert outcomes[0].run.location == outcomes[2].run.location
    assert len(load_votes(outcomes[0].run.location)) == 12


def test_a_command_that_goes_on_samples_what_each_run_lacks(job):
    few, all_ = job(limit=4), job(limit=12)
    sample(**few)
    all_["sampling"] = replace(all_["sampling"], sigma=[0.5, 0.25])
    assert [outcome.sampled for outcome in sample(**all_)] == [8, 12]
    assert [outcome.sampled for outcome in sample(**all_)] == [0, 0]


def test_what_breaks_in_a_run_takes_nothing_from_the_one_before_it_and_all_are_given_free(job, monkeypatch):
    class Broken(Voter):
        def _count(self, block, missing, continues):
            if self.spec.draws.sigma == 0.25:
                raise UserError("the second run breaks")
            return super()._count(block, missing, continues)

    monkeypatch.setattr(run_module, "stream", lambda works: stream(works, Broken))
    options = job(costs=["uniform"])
    options["sampling"] = replace(options["sampling"], sigma=[0.5, 0.25])
    with pytest.raises(UserError, match="the second run breaks"):
        sample(**options)
    monkeypatch.undo()
    outcomes = sample(**options)  # nobody holds them any more
    assert [outcome.sampled for outcome in outcomes] == [0, 12] and outcomes[0].run.finished()


def test_logits_that_are_not_finite_stop_the_run_they_are_of(job, tmp_path):
    broken = load_base_classifier(ModelOptions("cifar_resnet8", 10, input_size=8))
    broken.network.fc.weight.data.fill_(1e38)
    save_checkpoint(str(tmp_path / "broken.pt"), broken, training_info={})
    with pytest.raises(UserError, match="all gave logits that are not finite"):
        sample(**job(further_models=[str(tmp_path / "broken.pt")]))
    (finished,) = Path(tmp_path).glob("results/default/runs/*/finished.json")
    assert finished.parent.joinpath("votes").is_dir()


@pytest.mark.ray
def test_one_pool_of_actors_samples_them_all(job, cluster, monkeypatch):
    """As many processes load a network as there are actors, not as many for each run."""

    class Told(Voter):
        def _count(self, block, missing, continues):
            with Path(self._run.location, "processes").open("a") as file:
                file.write(f"{os.getpid()}\n")
            return super()._count(block, missing, continues)

    monkeypatch.setattr(run_module, "stream", lambda works: stream(works, Told))
    options = job(actors=2, costs=["uniform"])
    options["sampling"] = replace(options["sampling"], sigma=[0.25, 0.5, 1.0])
    outcomes = sample(**options)
    assert all(one.sampled == 12 and one.run.finished() for one in outcomes)
    processes = [set(Path(one.run.location, "processes").read_text().split()) for one in outcomes]
    assert len(set.union(*processes)) == 2
    here = sample(**{**options, "pool": replace(options["pool"], actors=0), "experiment": "here"})
    for one, other in zip(outcomes, here, strict=True):
        pd.testing.assert_frame_equal(voted(one), voted(other))
