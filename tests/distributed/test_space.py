import json
from dataclasses import asdict, replace

import pytest

from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions
from raycsr.distributed.search.space import at_point, corner_points, first_difference, param_space, with_later_options
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.errors import UserError
from raycsr.models.spec import DenoiserOptions, ModelOptions

BASE = TrainConfig(data=DataOptions("digits", split="train"), model=ModelOptions("cifar_resnet8"), sigma=0.25)


def test_the_corners_hold_every_choice_and_both_ends_of_every_range():
    space = {"sigma": {"grid": [0.25, 0.5]}, "training.lr": {"log_uniform": [0.01, 1.0]}, "seed": {"choice": [7]}}
    assert corner_points(space) == [
        {"sigma": sigma, "training.lr": lr, "seed": 7} for sigma in (0.25, 0.5) for lr in (0.01, 1.0)
    ]
    tuned = param_space(space)
    assert tuned["sigma"] == {"grid_search": [0.25, 0.5]}
    assert all(0.01 <= tuned["training.lr"].sample() <= 1.0 for _ in range(20)) and tuned["seed"].sample() == 7


def test_a_range_of_an_option_that_takes_whole_numbers_is_wrong_at_its_corners():
    for key in ("training.batch_size", "training.epochs", "model.init_seed"):
        for kind in ("uniform", "log_uniform"):
            (point, _) = corner_points({key: {kind: [16, 64]}})
            with pytest.raises(UserError, match=f"{key} is 16.0; give a whole number"):
                at_point(BASE, point)
    assert all(at_point(BASE, point) for point in corner_points({"training.lr": {"uniform": [1, 2]}}))


def test_when_trials_are_judged_may_differ_and_a_group_may_stand_before_its_options():
    assert at_point(BASE, {"validation.every": 2}).validation.every == 2
    point = {"objective": {"name": "macer"}, "objective.args.k": 4}
    assert at_point(BASE, point).objective == ObjectiveOptions("macer", {"k": 4})


def test_a_point_replaces_options_and_whole_groups_of_them():
    point = {"sigma": 1, "objective": {"name": "margin_cs", "args": {"k": 4}}, "training.epochs": 3}
    config = at_point(BASE, point)
    assert config.sigma == 1.0 and config.objective == ObjectiveOptions("margin_cs", {"k": 4})
    assert config.training.epochs == 3 and config.training.lr == BASE.training.lr
    assert config.data == BASE.data and at_point(BASE, {}) == BASE
    assert at_point(BASE, {"objective.args.lam": 2.0}).objective.args == {"lam": 2.0}


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ({"training.lrr": 0.1}, "'training.lrr', which is no option of a training: did you mean training.lr"),
        ({"sigmas": 0.1}, "'sigmas'.*did you mean sigma"),
        ({"data.limit": 3}, "data.limit"),
        ({"training.epochs": "many"}, "space at .*training.epochs.*many"),
        (
            {"validation.radius": 0.1},
            "'validation.radius', by which trials are judged: .*option of the sweep, validation.radius",
        ),
        ({"validation": {"n": 64}}, "'validation', by which trials are judged"),
        ({"objective.args.k": 4, "objective": {"name": "macer"}}, "'objective', which replaces 'objective.args.k'"),
    ],
)
def test_mistakes_in_a_point(point, message):
    with pytest.raises(UserError, match=message) as caught:
        at_point(BASE, point)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("domain", "message"),
    [
        ({"gird": [1]}, r"space.seed is \{'gird': \[1\]\}: give one of grid: \[...\]"),
        ([1, 2], "give one of grid"),
        ({"grid": []}, "has no list of values"),
        ({"grid": 3}, "has no list of values"),
        ({"uniform": [1, 0]}, r"needs uniform: \[low, high\], got \[1, 0\]"),
        ({"log_uniform": [0.0, 1.0]}, "needs positive bounds"),
    ],
)
def test_mistakes_in_a_domain(domain, message):
    with pytest.raises(UserError, match=message):
        corner_points({"seed": domain})


def test_levels_are_swept_for_one_denoiser_and_denoisers_as_a_whole():
    behind = replace(BASE, model=replace(BASE.model, denoiser=DenoiserOptions("drunet", sigma=0.25)))
    for value in ([0.2, 0.25], None):
        assert at_point(behind, {"model.denoiser.levels": value}).model.denoisers[0].levels == value
    named = at_point(BASE, {"model.denoiser": {"name": "d.pt", "levels": [0.25]}}).model.denoisers
    assert named == (DenoiserOptions("d.pt", levels=[0.25]),)
    assert at_point(behind, {"model.denoiser": None}).model.denoisers == ()
    for denoiser, words in ((None, "is not there"), ([DenoiserOptions("dncnn")], "is a list")):
        config = replace(BASE, model=replace(BASE.model, denoiser=denoiser))
        with pytest.raises(UserError, match=rf"model\.denoiser {words}: give one.*model\.denoiser: {{grid: \[{{name"):
            at_point(config, {"model.denoiser.levels": [0.25]})


def test_the_first_difference_of_two_sweeps():
    before = {"config": {"training": {"lr": 0.1, "epochs": 3}}, "space": {"sigma": {"grid": [0.25]}}}
    assert first_difference(before, before) is None
    now = {"config": {"training": {"lr": 0.2, "epochs": 3}}, "space": {"sigma": {"grid": [0.25]}}}
    assert first_difference(before, now) == "config.training.lr = 0.1, now it is 0.2"
    now = {"config": before["config"], "space": {"sigma": {"grid": [0.25, 0.5]}}}
    assert first_difference(before, now) == "space.sigma.grid = [0.25], now it is [0.25, 0.5]"


def test_what_was_stored_before_an_option_was_added_had_its_default():
    now = json.loads(json.dumps(asdict(BASE)))
    stored = json.loads(json.dumps(asdict(BASE)))
    for group, name in (("training", "nesterov"), ("training", "milestones")):
        del stored[group][name]
    del stored["augmentation"], stored["stream"]
    assert first_difference(with_later_options(stored, BASE), now) is None
    plain = replace(BASE, training=replace(BASE.training, nesterov=False))
    named = json.loads(json.dumps(asdict(plain)))
    assert first_difference(with_later_options(stored, plain), named) == "training.nesterov = True, now it is False"
    behind = replace(BASE, model=replace(BASE.model, denoiser=[DenoiserOptions("dncnn"), DenoiserOptions("drunet")]))
    now = json.loads(json.dumps(asdict(behind)))
    stored = json.loads(json.dumps(now))
    for one in stored["model"]["denoiser"]:  # a list
        del one["levels"]
    assert first_difference(with_later_options(stored, behind), now) is None
