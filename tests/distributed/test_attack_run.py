"""Attacks of a run in this process: what an honest certificate withstands, what an inflated one does not."""

import io
import json
from dataclasses import dataclass, field, replace
from hashlib import sha256

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from raycsr import UserError, load_attacks
from raycsr.certification.answers import ARGMAX as PLAIN
from raycsr.certification.answers import as_answer
from raycsr.cli import main
from raycsr.costs import CostMatrix
from raycsr.data.images import frame
from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing, Source
from raycsr.distributed.attack import attacker
from raycsr.distributed.attack import run as attack_module
from raycsr.distributed.attack.arguments import AttackArguments
from raycsr.distributed.attack.attacker import Attacker
from raycsr.distributed.attack.job import AttackJob, wanted_attacks
from raycsr.distributed.attack.run import attack_run
from raycsr.distributed.options import PoolOptions
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.rules import ARGMAX
from raycsr.models.spec import Preprocessing
from raycsr.results import SCHEMA_VERSION, Run
from raycsr.results.attacks import AttackSet
from raycsr.store import Store

SIGMA, SIDE, CLASSES = 0.25, 5, ["left", "right", "never"]
HERE = PoolOptions(actors=0, threads_per_actor=1)


class HalfSpaces(nn.Module):
    """Class 0 on one side of a plane, 1 on the other: the true radius of an image is its distance to the plane."""

    def __init__(self):
        super().__init__()
        normal = torch.randn(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
        self.normal = nn.Parameter(normal / normal.norm())

    def forward(self, pixels):
        right = 10 * ((pixels - 0.5) * self.normal).flatten(1).sum(1)
        return torch.stack([-right, right, torch.full_like(right, -100)], dim=1)


@dataclass(frozen=True, eq=False)
class Pictures(Source):
    """Grey pictures at .15 to .5 from the plane, each labelled by its side."""

    options: DataOptions = field(default_factory=lambda: DataOptions("digits"))
    pixels: np.ndarray = field(default_factory=lambda: np.zeros((0, SIDE, SIDE, 3), np.uint8))

    __eq__, __hash__ = object.__eq__, object.__hash__

    def read_in_turns(self, image_ids):
        yield [self.pixels[int(one)] for one in image_ids]

    def list(self):
        return Listing(frame([str(i) for i in range(len(self.pixels))], self.sides, 12, "1"), CLASSES, {})

    @property
    def offsets(self):
        moved = torch.from_numpy(self.pixels).permute(0, 3, 1, 2).double() / 255 - 0.5
        return (moved * HalfSpaces().normal.detach().double()).flatten(1).sum(1).numpy()

    @property
    def sides(self):
        return (self.offsets > 0).astype(int)


def pictures(number):
    normal = HalfSpaces().normal.detach().permute(1, 2, 0).numpy()
    generator = np.random.default_rng(0)
    away = generator.choice([-1, 1], number) * generator.uniform(0.15, 0.5, number)
    values = 255 * (0.5 + away[:, None, None, None] * normal + generator.uniform(-0.02, 0.02, (number, *normal.shape)))
    return Pictures(pixels=np.rint(values).clip(0, 255).astype(np.uint8))


def base_classifier():
    shape = Preprocessing((SIDE, SIDE), "bilinear", 1.0, "center")
    of_network = {"arch": "half-spaces", "args": {}, "num_classes": 3, "preprocessing": shape, "class_names": CLASSES}
    return BaseClassifier(HalfSpaces(), mean=(0, 0, 0), std=(1, 1, 1), **of_network)


def job(folder, *, times_truth=1.0, number=40, answer=PLAIN, **aim):
    """An attack of certificates whose radius is the true one, or a multiple of it, by no votes at all."""
    source, model, matrix = pictures(number), base_classifier(), CostMatrix.uniform(3, class_names=CLASSES)
    run = Run(Store(str(folder)).at("default/runs/0000000000000000"))
    manifest = {"schema_version": SCHEMA_VERSION, "experiment": "default", "model": "half-spaces", "sigma": SIGMA}
    manifest |= {"num_classes": 3, "class_names": CLASSES, "precision": "fp32", "sampling": "fixed", "batch_size": 64}
    manifest |= {"preprocessing": model.preprocessing.to_dict(), "components": model.components}
    run.store.create("manifest.json", json.dumps(manifest).encode())
    radius = times_truth * np.abs(source.offsets)
    certificates = source.list().images.assign(
        rule="argmax", prediction=source.sides, abstain=False, standard_radius=radius, cost_sensitive_radius=radius,
        alpha=0.001, error=None,
    )  # fmt: skip
    asked = AttackArguments(run=run.location, costs="uniform", pool=HERE, steps=6, noises=4, n=600, **aim)
    wanted = wanted_attacks(certificates, asked, run.run_id)
    return AttackJob(run, manifest, asked, model, source, ARGMAX, answer, matrix, certificates, wanted)


def test_nothing_breaks_within_true_radii_and_nearly_all_beyond(tmp_path):
    within = attack_run(job(tmp_path))
    assert within.attacks["broken"].sum() == 0 and not within.broken_guarantee and not within.errors
    assert "0 of 40 certificates broken at 0.99 of their radii" in within.lines[0]
    beyond = attack_run(job(tmp_path, times=1.5))
    assert beyond.attacks["broken"].mean() > 0.95 and not beyond.broken_guarantee
    assert (beyond.attacks["wrong"] == beyond.attacks["broken"]).all()
    assert (beyond.attacks["target"] == 1 - beyond.attacks["label"]).all()  # never the class that is never answered


def test_an_answer_that_abstains_is_attacked_until_a_costly_class_is_said(tmp_path):
    """Above .9: sigma Phi^-1(.9) = .32 beyond the plane."""
    says = as_answer("threshold:0.9*uniform", 3)
    edge = attack_run(job(tmp_path, times=1.5, answer=says))
    assert not edge.attacks["broken"].any() and edge.attacks["wrong"].mean() > 0.95  # it abstains there
    beyond = attack_run(job(tmp_path, radii=[1.1], answer=says))
    assert beyond.attacks["broken"].mean() > 0.95
    rows = load_attacks(edge.run.location)
    assert set(rows["answer"]) == {"threshold:0.9*uniform"} and len(rows) == 80
    attack_run(job(tmp_path, times=1.5))
    assert load_attacks(edge.run.location).groupby("answer")["broken"].sum()["argmax"] > 35


def test_broken_pictures_of_some_images_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(attacker, "_KEPT", 20)  # of 40
    attacked = job(tmp_path, times=1.5)
    rows = attack_run(attacked).attacks
    kept = AttackSet(attacked.run.store, attacked.attacks.name).nearest(100)
    assert 5 <= len(kept) <= 35 and kept["distance"].is_monotonic_increasing
    assert len(AttackSet(attacked.run.store, attacked.attacks.name).nearest(2)) == 2
    first = kept.iloc[0]
    picture = np.asarray(Image.open(io.BytesIO(first["picture"])))
    assert sha256(picture.tobytes()).hexdigest()[:16] == first["picture_sha"]
    change = picture.astype(float) - attacked.source.pixels[int(first["image_id"])]
    assert np.sqrt((change**2).sum()) / 255 == pytest.approx(first["distance"])
    assert "picture" not in rows


def test_pictures_lie_within_their_radii_and_close_to_their_ends(tmp_path):
    rows = attack_run(job(tmp_path)).attacks
    assert (rows["distance"] <= rows["radius"]).all() and (rows["distance"] > 0.95 * rows["radius"]).all()
    assert (rows["radius"] == 0.99 * rows["certified"]).all()


def test_inflated_radii_are_found_and_end_with_status_1_and_one_line(tmp_path, monkeypatch, capsys):
    inflated = job(tmp_path, times_truth=1.3)
    monkeypatch.setattr("raycsr.distributed.attack.job.check", lambda *_: inflated)
    words = ["attack", "--run", inflated.run.location, "--costs", "uniform", "--pool.actors", "0"]
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert "of 40 certificates broken at 0.99" in said and "the guarantee of run 0000000000000000 does not hold" in said
    assert main(words) == 1  # it is as broken when nothing is left to attack


def test_a_broken_certificate_or_two_are_shown_with_their_probability(tmp_path):
    one = job(tmp_path)
    far = one.certificates["cost_sensitive_radius"].idxmax()
    one.certificates.loc[far, "cost_sensitive_radius"] *= 1.3
    found = attack_run(replace(one, wanted=wanted_attacks(one.certificates, one.asked, "run")))
    assert not found.broken_guarantee
    assert "1 of 40 certificates broken" in found.lines[0] and "probability 0.0393" in found.lines[0]  # 1 - .999^40


def test_named_radii_bound_the_robust_share_from_above(tmp_path):
    truth = np.abs(pictures(40).offsets)
    found = attack_run(job(tmp_path, times_truth=0.9, radii=[0.3, 0.45]))
    assert len(found.attacks) == 80 and found.attacks["certified"].isna().all()
    for radius, line in zip((0.3, 0.45), found.lines, strict=True):
        lower, robust = (0.9 * truth >= radius).mean(), (truth >= radius).mean()
        upper = 1 - found.attacks[found.attacks["radius"] == radius]["broken"].mean()
        assert lower < robust <= upper <= (truth + 0.08 >= radius).mean() < 1  # nearer, 600 votes cannot tell
        assert f"certified {lower:.3f}, not broken {upper:.3f}" in line and f"not wrong {upper:.3f}" in line


def test_what_stopped_midway_goes_on_to_the_same_attacks(tmp_path, monkeypatch):
    whole = attack_run(job(tmp_path / "whole", radii=[0.2, 0.4]))
    called, attacked = [], Attacker.__call__

    def dies_at_the_third_block(self, block):
        called.append(block)
        if len(called) == 3:
            raise KeyboardInterrupt
        return attacked(self, block)

    monkeypatch.setattr(Attacker, "__call__", dies_at_the_third_block)
    with pytest.raises(KeyboardInterrupt):
        attack_run(job(tmp_path / "parts", radii=[0.2, 0.4]))
    begun = load_attacks(str(tmp_path / "parts"))
    assert 0 < len(begun) < 80
    resumed = attack_run(job(tmp_path / "parts", radii=[0.2, 0.4]))
    left = sum(len(block["image_id"]) for block in called[3:])
    assert left == 40 - len(begun) // 2  # only what was missing
    pd.testing.assert_frame_equal(*(one.attacks.drop(columns=["seconds"]) for one in (resumed, whole)))


def test_more_images_and_radii_keep_what_is_there(tmp_path, monkeypatch):
    few = attack_run(job(tmp_path, images=10, radii=[0.2]))
    blocks = []
    attacked = Attacker.__call__
    monkeypatch.setattr(Attacker, "__call__", lambda self, block: blocks.append(block) or attacked(self, block))
    more = attack_run(job(tmp_path, images=20, radii=[0.2]))
    assert sum(len(block["image_id"]) for block in blocks) == 10
    assert set(few.attacks["image_id"]) < set(more.attacks["image_id"])
    attack_run(job(tmp_path, images=20, radii=[0.2, 0.3]))
    assert {one for block in blocks for one in block["radii"]} == {"0.2", "0.3"}


def test_a_finished_attack_makes_no_attacker(tmp_path, monkeypatch):
    attack_run(job(tmp_path))
    monkeypatch.setattr(attack_module, "Attacker", None)
    assert len(attack_run(job(tmp_path)).attacks) == 40


def test_an_image_that_cannot_be_read_is_an_error_of_its_own_and_is_tried_again(tmp_path, monkeypatch):
    one = job(tmp_path)
    good = one.source.pixels[3].copy()

    def read(self, image_ids):
        yield [FileNotFoundError("gone") if i == "3" else self.pixels[int(i)] for i in image_ids]

    with monkeypatch.context() as patched:
        patched.setattr(Pictures, "read_in_turns", read)
        found = attack_run(one)
    assert found.errors == {"3": "FileNotFoundError: gone"} and "of 39 certificates" in found.lines[0]
    assert load_attacks(one.run.location).set_index("image_id").loc["3", "distance"] is not None
    assert not attack_run(one).errors and len(load_attacks(one.run.location)) == 40
    assert sha256(good).hexdigest()[:16] == load_attacks(one.run.location).set_index("image_id").loc["3", "image_sha"]


def test_an_attack_is_read_back_with_what_it_was(tmp_path):
    one = job(tmp_path, images=5, radii=[0.3])
    attack_run(one)
    rows = load_attacks(one.run.location, costs="uniform")
    assert rows[["costs", "rule", "steps", "noises", "seed", "n"]].drop_duplicates().values.tolist() == [
        ["uniform", "argmax", 6, 4, 0, 600]
    ]
    assert len(load_attacks(one.run.location, costs="pair:left/right")) == 0
    assert (rows["target_votes"] + rows["rival_votes"] <= 600).all() and (rows["seconds"] > 0).all()


def test_out_of_memory_is_a_smaller_pass_and_of_one_image_says_what_to_lower(tmp_path, monkeypatch):
    passes, most = [], 1
    attacked = Attacker._attacked

    def little_memory(self, images, rows):
        passes.append(len(rows))
        if len(rows) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attacked(self, images, rows)

    monkeypatch.setattr(Attacker, "_attacked", little_memory)
    attack_run(job(tmp_path, radii=[0.2, 0.3], images=2))
    assert passes == [2, 1, 1] * 2
    most = 0
    with pytest.raises(UserError, match="4 noisy copies of an image at once; give fewer --noises"):
        attack_run(job(tmp_path, radii=[0.4], images=2))
