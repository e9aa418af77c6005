"""What a user's own package adds: found by entry points, in this process and in Ray's."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch

from raycsr.costs import CostMatrix
from raycsr.costs.specs import cost_kinds
from raycsr.data.memory import read_pixels
from raycsr.data.options import DataOptions
from raycsr.data.sources import open_source, source_names
from raycsr.distributed.options import ObjectiveOptions, PoolOptions
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.decisions import Decisions
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import parse_rules, rule_of_dict
from raycsr.models.spec import DenoiserOptions, ModelOptions, Preprocessing
from raycsr.options import hints_of, read_words
from raycsr.options.help import full_help, options_of
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.objectives import OBJECTIVES, definition_of, objective_names, resolve_objective
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.verbs import function_of
from raycsr.verbs.certify import certify
from raycsr.verbs.sample import sample
from raycsr.verbs.train import train

# What a user writes: an objective, which gives the loss of each image, a source of images, a kind of costs, one of
# decision rules, and one of denoisers.
OBJECTIVE = """
from __future__ import annotations
import torch

def focal(model, images, labels, *, sigma: float, costs, progress, generator, gamma: float = 2.0,
          reduction: str = "mean") -> torch.Tensor:
    noise = sigma * torch.randn(images.shape, generator=generator, device=images.device)
    log_p = model(images + noise).float().log_softmax(dim=1).gather(1, labels[:, None]).squeeze(1)
    losses = -((1 - log_p.exp()) ** gamma) * log_p
    return losses.mean() if reduction == "mean" else losses
"""
SOURCE = """
from collections import Counter
import numpy as np
from raycsr.data.images import Found
from raycsr.data.kinds import SourceKind
from raycsr.data.images import frame

def listed(options):
    ids = [f"{angle}/{i}" for angle in ("flat", "steep") for i in range(60)]
    return Found(frame(ids, [0] * 60 + [1] * 60, 192, "1"), ["flat", "steep"], Counter())

def read(options, image_ids, room):
    return [pixels(*one.split("/")) for one in image_ids]

def pixels(angle, i):
    line = np.where(np.arange(8) % 2, 200 + int(i) % 50, 20).astype(np.uint8)
    image = np.repeat(line[:, None], 8, axis=1)
    return np.repeat((image if angle == "flat" else image.T)[:, :, None], 3, axis=2)

STRIPES = SourceKind(listed, read, "it makes its images", has_path=False)
"""
COSTS = """
import numpy as np
from raycsr.class_names import read_classes
from raycsr.costs import CostKind

def values(text, num_classes, class_names):
    ranks = read_classes(text, num_classes, class_names)
    found = np.zeros((num_classes, num_classes))
    for i, mild in enumerate(ranks):
        found[ranks[i:], mild] = range(len(ranks) - i)
    return found

UNDER = CostKind("under:mild,worse", values)
"""
RULE = """
from dataclasses import dataclass
from typing import ClassVar
from raycsr.class_names import read_classes
from raycsr.models.rules import Rule

@dataclass(frozen=True)
class Cautious(Rule):
    lead: float
    otherwise: int
    kind: ClassVar[str] = "cautious"
    forms: ClassVar[tuple] = ("cautious:0.5/cat",)

    @classmethod
    def parse(cls, spec, num_classes, class_names):
        lead, _, name = spec.partition(":")[2].partition("/")
        return [cls(float(lead), read_classes(name, num_classes, class_names)[0], spec=spec)]

    def decide(self, logits):
        first, second = logits.topk(2, -1).values.unbind(-1)
        return logits.argmax(-1).where(first - second >= self.lead, self.otherwise)
"""
DENOISER = """
from typing import ClassVar
from torch import nn
from raycsr.models.denoisers import Denoiser

class Blur(Denoiser):
    archs: ClassVar[dict] = {"blur": {"width": 3}}

    @classmethod
    def build(cls, width):
        made = nn.Conv2d(3, 3, width, padding=width // 2, groups=3, bias=False)
        nn.init.constant_(made.weight, 1 / width**2)
        return made

    def forward(self, pixels):
        return self.network(self.in_its_dtype(pixels)).float()
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Writes a package of one module onto the path: its name, its source text, and its entry points."""
    path = tmp_path / "site"
    path.mkdir()
    monkeypatch.syspath_prepend(path)
    modules = []

    def written(name, text, metadata=True, **groups):
        (path / f"{name}.py").write_text(text)
        info = path / f"{name}-1.0.dist-info"
        info.mkdir()
        if metadata:
            (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        lines = [line for group, entries in groups.items() for line in (f"[raycsr.{group}]", *entries)]
        (info / "entry_points.txt").write_text("\n".join(lines))
        modules.append(name)
        return path

    yield written
    for name in modules:
        sys.modules.pop(name, None)


@pytest.fixture
def acme(install):
    return install(
        "acme",
        OBJECTIVE + SOURCE + COSTS + RULE + DENOISER,
        metadata=False,
        objectives=["focal = acme:focal"],
        sources=["stripes = acme:STRIPES"],
        costs=["under = acme:UNDER"],
        rules=["cautious = acme:Cautious"],
        denoisers=["blur = acme:Blur"],
    )


def options(results, objective, **change):
    return {
        "data": DataOptions("stripes"),
        "model": ModelOptions("cifar_resnet8", input_size=8),
        "sigma": 0.25,
        "costs": "seed:flat",
        "objective": objective,
        "training": TrainingOptions(epochs=1, batch_size=32, lr=0.01),
        "validation": ValidationOptions(images=10, sensitive=5, n0=8, n=64),
        "results": str(results),
        **change,
    }


@pytest.mark.parametrize("name", ["focal", "focal_cs"])
def test_an_objective_and_a_source_of_a_package_train(acme, tmp_path, name):
    found = train(**options(tmp_path, ObjectiveOptions(name, {"gamma": 1.5})))
    info = load_base_classifier(found.checkpoint).training_info
    assert (info["objective"], info["objective_args"]) == (name, {"gamma": 1.5})
    assert info["data"]["source"] == "stripes" and [one["num_images"] for one in info["trained_on"]] == [120]
    assert np.isfinite(info["history"][0]["loss"])


def test_images_of_a_source_of_a_package_are_listed_and_decoded(acme):
    source = open_source(DataOptions("stripes", classes=["steep"], limit=3))
    listing = source.list()
    assert listing.images["image_id"].tolist() == ["steep/0", "steep/1", "steep/2"]
    assert listing.class_names == ["flat", "steep"] and listing.identity["source"] == "stripes"
    pixels = read_pixels(source, listing.images, Preprocessing((8, 8), "bilinear", 1.0, "center"))
    assert pixels.images[1, 0, :, 0].tolist() == [20, 201] * 4
    with pytest.raises(UserError, match="source stripes has no path"):
        open_source(DataOptions("stripes", path="/data"))
    with pytest.raises(UserError, match="stripes.* has no splits"):
        open_source(DataOptions("stripes", split="test"))


def test_the_reweighted_one_has_the_weight_and_the_options_of_the_packages_objective(acme):
    costs = CostMatrix.seedwise(2, [0])
    found = resolve_objective("focal_cs", {"weight": 3.0, "gamma": 0.0}, costs=costs)
    probabilities = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    loss = found(
        lambda _: probabilities.log(),
        torch.zeros(2, 3, 1, 1),
        torch.tensor([0, 1]),
        sigma=0.0,
        costs=torch.tensor(costs.values, dtype=torch.float32),
        progress=0.0,
        generator=torch.Generator(),
    )
    ce = -probabilities.log().diagonal()
    assert loss.item() == pytest.approx((ce.mean() + 3 * ce[0]).item())
    with pytest.raises(UserError, match="focal has no hyper-parameter 'weight'; it has gamma"):
        resolve_objective("focal", {"weight": 3.0}, costs=costs)
    with pytest.raises(UserError, match="gamma of focal is 'much'; give a finite number"):
        resolve_objective("focal", {"gamma": "much"}, costs=costs)


def test_an_unknown_name_is_answered_with_all_there_are(acme):
    with pytest.raises(UserError, match="unknown objective 'focl_cs': did you mean focal_cs"):
        resolve_objective("focl_cs", costs=None)
    with pytest.raises(UserError, match="unknown objective 'zzz': choose from gaussian, .*, focal, focal_cs$"):
        resolve_objective("zzz", costs=None)
    with pytest.raises(UserError, match="unknown source 'strips': did you mean stripes"):
        open_source(DataOptions("strips"))
    with pytest.raises(UserError, match="unknown source 'zzz': choose from digits, .*, stripes$"):
        open_source(DataOptions("zzz"))


def test_without_packages_there_are_raycsrs_own():
    assert objective_names() == list(OBJECTIVES)
    assert Counter(source_names()) == Counter(["digits", "cifar10", "imagefolder", "csv", "parquet", "webdataset"])


def behind(denoiser, **options):
    return ModelOptions("cifar_resnet8", input_size=8, denoiser=DenoiserOptions(denoiser, **options))


def help_of(verb):
    """All help of a verb, in one line."""
    return " ".join(full_help(f"raycsr {verb}", function_of(verb), options_of(function_of(verb)), "").split())


def test_help_names_what_there_is():
    text = help_of("train")
    for name in [*OBJECTIVES, *source_names()]:
        assert name in text


BROKEN = {
    "import nothing_of_that_name": "ModuleNotFoundError: No module named 'nothing_of_that_name'",
    "1 +": "SyntaxError",
    "raise KeyError('at home')": "KeyError: 'at home'",
    "": "AttributeError",
}


@pytest.mark.parametrize("text", BROKEN)
def test_a_broken_package_is_named_and_breaks_no_other_name(acme, install, text):
    install(
        "broken",
        text,
        objectives=["sharp = broken:sharp"],
        sources=["dots = broken:DOTS"],
        costs=["over = broken:OVER"],
        rules=["bold = broken:Bold"],
        denoisers=["sieve = broken:Sieve"],
    )
    for what, find in (
        ("objective 'sharp'", lambda: resolve_objective("sharp", costs=None)),
        ("source 'dots'", lambda: open_source(DataOptions("dots"))),
        ("cost spec 'over'", lambda: CostMatrix.from_spec("over:0", 2)),
        ("kind of rule 'bold'", lambda: parse_rules(["bold:1"], num_classes=2)),
        ("kind of denoiser 'sieve'", lambda: load_base_classifier(behind("sieve"))),
    ):
        with pytest.raises(UserError) as error:
            find()
        message = str(error.value)
        assert message.startswith(f"{what} of package broken cannot be imported ({BROKEN[text]}")
        assert "\n" not in message and "uninstall" in message
    assert resolve_objective("focal", costs=None) and resolve_objective("gaussian", costs=None)
    assert len(open_source(DataOptions("stripes")).list().images) == 120
    with pytest.raises(UserError, match="choose from gaussian, .*, focal, sharp, focal_cs$"):
        resolve_objective("zzz", costs=None)
    TrainConfig(data=DataOptions("dots"), model=ModelOptions("cifar_resnet8"), sigma=0.25)  # said where it is opened


def test_a_package_that_is_installed_or_goes_after_the_first_look_is_seen(install):
    costs = {"costs": ["under = later:UNDER"]}
    assert "under" not in cost_kinds()
    path = install("later", COSTS, **costs)
    assert "under" in cost_kinds()
    shutil.rmtree(path / "later-1.0.dist-info")
    assert "under" not in cost_kinds()


def test_a_file_of_entry_points_that_cannot_be_parsed_is_named(install):
    install("torn", "", objectives=["no equals sign"])
    with pytest.raises(UserError, match="package torn"):
        resolve_objective("focal", costs=None)


@pytest.mark.parametrize("name", ["gaussian", "gaussian_cs", "margin_cs"])
def test_a_name_that_is_raycsrs_own_is_refused(install, name):
    install("acme", OBJECTIVE, objectives=[f"{name} = acme:focal"])
    with pytest.raises(UserError, match=f"objective '{name}' of package acme has the name of one of raycsr's own"):
        resolve_objective(name, costs=None)
    assert resolve_objective("smoothmix", costs=None)


def test_a_source_that_has_the_name_of_one_of_raycsrs_own_is_refused(install):
    install("acme", SOURCE, sources=["digits = acme:STRIPES"])
    with pytest.raises(UserError, match="source 'digits' of package acme has the name of one of raycsr's own"):
        open_source(DataOptions("digits"))


def test_two_packages_with_one_name_are_refused(acme, install):
    install("other", OBJECTIVE, objectives=["focal = other:focal"])
    with pytest.raises(UserError, match="objective 'focal' of package .* and .* is there several times"):
        resolve_objective("focal", costs=None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("found = {}", "no raycsr.training.objectives.Objective"),
        ("def found(model, images, labels): ...", "unexpected keyword argument"),
        ("def found(a, b, c, *, sigma, costs, progress, generator, k): ...", "missing a required argument: 'k'"),
        (
            "def found(a, b, c, *, sigma, costs, progress, generator, weight=1.0, reduction='mean'): ...",
            "a hyper-parameter weight",
        ),
        ("def found(a: 'Nowhere', b, c, *, sigma, costs, progress, generator): ...", "Nowhere"),
        (f"{OBJECTIVE}found = focal\nfound.definition = print", "definition is <built-in function print>"),
    ],
)
def test_what_is_no_objective_is_refused_before_it_trains(install, text, why):
    install("acme", text, objectives=["sharp = acme:found"])
    with pytest.raises(UserError, match=f"objective 'sharp' of package acme cannot be used: .*{why}"):
        resolve_objective("sharp", costs=None)


def test_another_loss_of_a_package_is_another_loss_reweighted(install):
    """What was begun under either does not go on; without a definition they are those of before."""
    install("one", OBJECTIVE, objectives=["early = one:focal"])
    install("two", f"{OBJECTIVE}focal.definition = 2", objectives=["late = two:focal"])
    assert [definition_of(name) for name in ("early", "early_cs", "late", "late_cs")] == [1, 2, 2, 3]


def test_what_is_no_source_is_refused(install):
    install("acme", "def found(options): ...", sources=["dots = acme:found"])
    with pytest.raises(UserError, match="source 'dots' of package acme cannot be used: it is of type function"):
        open_source(DataOptions("dots"))


def test_costs_of_a_package_are_read_shown_and_certified(acme):
    costs = CostMatrix.from_spec("under:cat,bird,dog", 3, ["cat", "dog", "bird"])
    assert costs.values.tolist() == [[0, 0, 0], [2, 0, 1], [1, 0, 0]]
    assert costs.class_names == ("cat", "dog", "bird")
    text = help_of("train")
    assert "Forms: uniform, seed:cat,dog, pair:cat/dog,3/8, groups:superclasses.csv, under:mild,worse or a path" in text
    with pytest.raises(UserError, match="costs 'undr:cat' not understood; did you mean under:mild,worse"):
        CostMatrix.from_spec("undr:cat", 3)
    with pytest.raises(UserError, match=r"costs 'under:cat,cow': unknown class 'cow'"):
        CostMatrix.from_spec("under:cat,cow", 2, ["cat", "dog"])
    with pytest.raises(UserError, match="a comma separates classes"):
        read_words(["--costs", "seed:1,under:0"], hints_of(certify))
    assert read_words(["--costs", "under:0,1"], hints_of(certify)) == {"costs": ["under:0,1"]}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("values = {}", "it is of type dict, no raycsr.costs.CostKind"),
        ("from raycsr.costs import CostKind\nvalues = CostKind('v:0', lambda *_: [[0, 1], [1, 0]])", "of 2 classes"),
        ("from raycsr.costs import CostKind\nvalues = CostKind('v:0', lambda *_: [[0, -1], [1, 0]])", "negative"),
    ],
)
def test_what_is_no_costs_is_refused(install, text, why):
    install("acme", text, costs=["v = acme:values"])
    with pytest.raises(UserError, match=f"'v.*{why}"):
        CostMatrix.from_spec("v:0", 3)


def test_costs_that_have_the_name_of_raycsrs_own_are_refused(install):
    install("acme", COSTS, costs=["seed = acme:UNDER"])
    with pytest.raises(UserError, match="cost spec 'seed' of package acme has the name of one of raycsr's own"):
        CostMatrix.from_spec("seed:0", 2)


def test_a_rule_of_a_package_decides_beside_others_and_is_stored(acme):
    cautious, offset = parse_rules(["cautious:0.5/cat", "offset:dog=-1"], num_classes=2, class_names=["cat", "dog"])
    logits = torch.tensor([[0.0, 0.4], [0.0, 0.6], [0.0, 2.0]])
    assert cautious(logits).tolist() == [0, 1, 1]
    assert Decisions([offset, cautious], "cpu")(logits).tolist() == [[0, 0], [0, 1], [1, 1]]
    back = rule_of_dict(json.loads(json.dumps(cautious.to_dict())))
    assert back == cautious and (back.id, back.spec) == (cautious.id, "cautious:0.5/cat")
    assert cautious.id.startswith("cautious-") and cautious.id != replace(cautious, lead=0.6).id
    assert "cautious:0.5/cat, or tuned" in help_of("sample")
    with pytest.raises(UserError, match="rule 'cautios:1/cat' not understood: did you mean cautious:0.5/cat"):
        parse_rules(["cautios:1/cat"], num_classes=2)
    with pytest.raises(UserError, match="rule 'cautious' not understood"):
        parse_rules(["cautious"], num_classes=2)


def test_a_rule_of_a_package_is_sampled_into_a_run(acme, tmp_path):
    (outcome,) = sample(
        data=DataOptions("stripes", limit=4),
        model=ModelOptions("cifar_resnet8", input_size=8, num_classes=2),
        sampling=SamplingOptions(sigma=0.25, n0=8, n=64),
        pool=PoolOptions(actors=0),
        rules=["cautious:1e9/steep"],
        costs=["under:flat,steep"],
        results=str(tmp_path),
    )
    (rule,) = [rule for rule in outcome.run.rules().values() if rule.id != "argmax"]
    assert (rule.kind, rule.spec) == ("cautious", "cautious:1e9/steep")
    certificates = outcome.run.certificates(*outcome.run.certificate_sets())
    assert certificates[certificates["rule"] == rule.id]["prediction"].tolist() == [1] * 4


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("(Rule)", ""), "no subclass of raycsr.models.rules.Rule"),
        (("@dataclass(frozen=True)", ""), "it lacks @dataclass"),
        (("def decide", "def conclude"), "it lacks decide"),
        (("forms", "examples"), "it lacks forms"),
        (('"cautious"', '"bold"'), "calls itself 'bold'"),
    ],
)
def test_what_is_no_rule_is_refused(install, change, why):
    install("acme", RULE.replace(*change), rules=["cautious = acme:Cautious"])
    with pytest.raises(UserError, match=f"kind of rule 'cautious'.* {why}"):
        parse_rules(["cautious:1/0"], num_classes=2)


@pytest.mark.parametrize("name", ["argmax", "offset", "tuned"])
def test_a_rule_that_has_the_name_of_one_of_raycsrs_own_is_refused(install, name):
    install("acme", RULE, rules=[f"{name} = acme:Cautious"])
    with pytest.raises(UserError, match=f"kind of rule '{name}' of package acme has the name of one of raycsr's own"):
        parse_rules([f"{name}:1/0"], num_classes=2)


def test_a_source_that_lists_an_image_twice_is_refused(install):
    install("acme", SOURCE.replace("/{i}", "/{i // 2}"), sources=["stripes = acme:STRIPES"])
    with pytest.raises(UserError, match="source stripes lists image 'flat/0' twice"):
        open_source(DataOptions("stripes")).list()


ON_RAY = """
import json, sys
from raycsr.data.options import DataOptions
from raycsr.models.spec import ModelOptions
from raycsr.distributed.options import (ObjectiveOptions)
from raycsr.distributed.options import (PoolOptions)
from raycsr.verbs.sample import sample
from raycsr.distributed.options import SearchOptions
from raycsr.verbs.sweep import sweep
from raycsr.smoothing.options import SamplingOptions
from raycsr.training.options import (TrainingOptions)
from raycsr.training.options import (ValidationOptions)

found = sweep(
    data=DataOptions("stripes"), model=ModelOptions("cifar_resnet8", input_size=8), sigma=0.25, costs="seed:flat",
    space={"objective.name": {"grid": ["focal_cs"]}}, training=TrainingOptions(epochs=1, batch_size=32, lr=0.01),
    validation=ValidationOptions(images=10, sensitive=5, n0=8, n=64),
    search=SearchOptions(cpus_per_trial=0.5), results=sys.argv[1],
)
(outcome,) = sample(
    data=DataOptions("stripes", limit=8), model=ModelOptions(found.best[0.25, "seed:flat"]),
    sampling=SamplingOptions(sigma=0.25, n0=8, n=64, precision="fp32"),
    pool=PoolOptions(actors=1, cpus_per_actor=0.5), results=sys.argv[1],
    rules=["cautious:0.5/flat"], costs=["under:flat,steep"],
)
rules = [rule.spec for rule in outcome.run.rules().values()]
print(json.dumps([found.failures, outcome.errors, outcome.run.num_images(), rules]))
"""


@pytest.mark.ray
def test_actors_and_trials_find_them_as_well(acme, tmp_path):
    """Where they are installed, or as here on the path of the cluster's processes."""
    path = os.pathsep.join([str(acme), os.environ.get("PYTHONPATH", ""), os.getcwd()])
    done = subprocess.run(
        [sys.executable, "-c", ON_RAY, str(tmp_path / "results")],
        capture_output=True,
        text=True,
        timeout=400,
        env=os.environ | {"PYTHONPATH": path, "RAY_ADDRESS": "local"},
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == '[{}, {}, 8, ["argmax", "cautious:0.5/flat"]]'


def test_a_denoiser_of_a_package_stands_in_front_of_a_classifier_and_comes_with_its_checkpoint(acme, tmp_path):
    model = load_base_classifier(behind("blur", args={"width": 5}))
    pixels = torch.rand(2, 3, 8, 8)
    inner = pixels[:, :, 1:6, 2:7].mean(dim=(2, 3))
    torch.testing.assert_close(model(pixels, part="denoisers")[:, :, 3, 4], inner)
    save_checkpoint(tmp_path / "m.pt", model)
    assert load_base_classifier(str(tmp_path / "m.pt")).components == model.components
    with pytest.raises(UserError, match="'blurr' .*did you mean blur"):
        load_base_classifier(behind("blurr"))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("(Denoiser)", ""), "no subclass of raycsr.models.denoisers.Denoiser"),
        (("def forward", "def backward"), "it lacks forward"),
        (("    archs", "    takes_levels = True\n    archs"), "takes_levels is true and needs_sigma is not"),
        (('"blur"', '"cifar_dncnn"'), "'cifar_dncnn' has the name of one of raycsr's own"),
    ],
)
def test_what_is_no_denoiser_is_refused(install, change, why):
    install("acme", DENOISER.replace(*change), denoisers=["blur = acme:Blur"])
    with pytest.raises(UserError, match=f"kind of denoiser 'blur'.* {why}"):
        load_base_classifier(behind("blur"))
    assert load_base_classifier(behind("dncnn")).denoisers[0].arch == "dncnn"
