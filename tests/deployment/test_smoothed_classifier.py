"""The smoothed classifier as an object: what it says, what it certifies, where it comes from and where it is kept."""

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from handmade import PLAIN, write_run
from torch import nn

import raycsr
from raycsr import CostMatrix, SmoothedClassifier, UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.loading import load_base_classifier
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.verbs.sample import sample

SIGMA = 0.25
GREY = torch.full((1, 3, 8, 8), 100, dtype=torch.uint8)


class Brighter(nn.Module):
    """A half-space: class 1 where the mean of all pixels is above a half; smoothed, its radius is the distance."""

    num_classes = 2

    def forward(self, pixels):
        mean = pixels.mean(dim=(1, 2, 3)) - 0.5
        return torch.stack([-mean, mean], dim=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A checkpoint of random weights, of classes with names."""
    network = load_base_classifier(ModelOptions("cifar_resnet8", num_classes=10, input_size=8))
    path = tmp_path_factory.mktemp("model") / "digits.pt"
    save_checkpoint(str(path), network, class_names=[f"digit {k}" for k in range(10)])
    return str(path)


@pytest.fixture(scope="module")
def run(model, tmp_path_factory, make_job):
    folder = tmp_path_factory.mktemp("runs")
    (outcome,) = sample(
        **make_job(folder, limit=3, model=ModelOptions(model), rules=["offset:0=1"])
        | {"data": raycsr.data.options.DataOptions("digits", limit=3, class_names=[f"digit {k}" for k in range(10)])}
    )
    return outcome.run.location


# What is said


def test_random_weights_and_a_denoiser_of_another_sigma_are_said():
    behind = ModelOptions("cifar_resnet8", 10, input_size=8, denoiser=DenoiserOptions("dncnn", sigma=0.5))
    with (
        pytest.warns(UserWarning, match="model 'cifar_resnet8' has random weights"),
        pytest.warns(UserWarning, match="denoiser 'dncnn' has random weights"),
        pytest.warns(UserWarning, match=r"'dncnn' of model 'cifar_resnet8' is made for sigma 0\.5 .* sampled at 0\.25"),
    ):
        SmoothedClassifier(behind, 0.25)


def test_an_image_is_answered_after_its_first_votes_and_one_at_the_border_is_not():
    clear, border = GREY, torch.cat([GREY[:, :, :4] + 27, GREY[:, :, 4:] + 28], dim=2)  # 127.5 on average
    said = SmoothedClassifier(Brighter(), SIGMA, n=640).predict(torch.cat([clear, border, clear + 100]))
    assert said["answer"].isna().tolist() == [False, True, False] and said["answer"][0] == 0 and said["answer"][2] == 1
    assert said["n"].tolist()[::2] == [64, 64] and 64 <= said["n"][1] <= 640
    assert said["shares"][0] == {0: 1.0} and sum(said["shares"][1].values()) == pytest.approx(1)
    assert said["error"].isna().all() and said["name"].tolist()[0] == "0"


def test_each_call_draws_noise_of_its_own():
    border = torch.full((4, 3, 1, 1), 127, dtype=torch.uint8)
    votes = SmoothedClassifier(Brighter(), SIGMA, n=64).draw(border)
    assert len({tuple(row) for row in votes.counts.tolist()}) > 1  # of four images that are one and the same
    again = SmoothedClassifier(Brighter(), SIGMA, n=64).draw(border)
    assert (votes.counts != again.counts).any()


def test_a_majority_is_not_what_argmax_asks_for():
    class Three(nn.Module):
        def forward(self, pixels):
            first = pixels[:, 0, 0, 0]  # a Gaussian of mean .5: shares of .16, .68, .16 at sigma .25
            return torch.stack([-first + 0.4, 0 * first + 0.05, first - 0.6], dim=1)

    image = torch.full((1, 3, 1, 1), 127, dtype=torch.uint8)
    shares = SmoothedClassifier(Three(), SIGMA, n=1024).certify(image)
    assert shares["prediction"][0] in (0, 1, 2)
    by_argmax = [SmoothedClassifier(Three(), SIGMA, answer="argmax").predict(image)["answer"][0] for _ in range(3)]
    by_majority = SmoothedClassifier(Three(), SIGMA, n=4096).predict(image)["answer"]
    assert by_majority.isna()[0] or by_majority[0] == by_argmax[0]


def test_logits_that_are_not_finite_are_an_error_of_their_image():
    class Broken(Brighter):
        def forward(self, pixels):
            return super().forward(pixels) / (pixels.mean(dim=(1, 2, 3), keepdim=False)[:, None] > 0.1)

    said = SmoothedClassifier(Broken(), 0.01).predict(torch.cat([0 * GREY, GREY]))
    assert said["answer"].isna().tolist() == [True, False] and "not finite" in said["error"][0]


def test_several_threads_use_one_object():
    g, said = SmoothedClassifier(Brighter(), SIGMA), {}

    def ask(k):
        said[k] = g.predict(GREY + 50 * (k % 2))["answer"][0]

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == {k: k % 2 for k in range(8)}


# What is certified


def test_radii_reach_almost_to_the_border_of_a_half_space_and_not_beyond():
    image = torch.full((1, 3, 8, 8), 150, dtype=torch.uint8)
    distance = (150 / 255 - 0.5) * np.sqrt(image.numel())  # in L2
    rows = SmoothedClassifier(Brighter(), 1.0, n=2000).certify(image, costs=CostMatrix.pairwise(2, {1: [0]}))
    assert rows["prediction"].tolist() == [1] and np.isnan(rows["radius_if"][0][0])
    assert 0.8 * distance < rows["radius_if"][0][1] < 1.1 * distance
    labelled = SmoothedClassifier(Brighter(), 1.0, n=2000).certify(image, costs="uniform", labels=[1])
    assert 0.8 * distance < labelled["cost_sensitive_radius"][0] < 1.1 * distance


def test_labels_without_costs_are_refused():
    with pytest.raises(UserError, match="costs"):
        SmoothedClassifier(Brighter(), SIGMA).certify(GREY, labels=[0])


# Where it comes from, and where it is kept


def test_a_run_gives_the_model_sigma_precision_and_rule_that_it_certified(run):
    g = SmoothedClassifier.from_run(run, rule="offset:0=1")
    assert (g.deployed.sigma, g.deployed.precision, g.deployed.rule.spec) == (0.5, "fp32", "offset:0=1")
    assert g.deployed.run == run.rsplit("/", 1)[1] and g.class_names[3] == "digit 3"
    said = g.predict(np.zeros((2, 8, 8, 3), np.uint8))
    assert all(name is None or name.startswith("digit ") for name in said["name"])


def test_other_weights_and_other_rules_than_those_of_the_run_are_refused(run, model):
    with pytest.raises(UserError, match="weights differ"):
        SmoothedClassifier.from_run(run, model=ModelOptions("cifar_resnet8", num_classes=10, input_size=8, init_seed=1))
    with pytest.raises(UserError, match="no rule 'offset:0=2'"):
        SmoothedClassifier.from_run(run, rule="offset:0=2")


def test_a_run_of_noise_that_was_not_exact_is_another_classifier(tmp_path):
    run = write_run(str(tmp_path), "digits0", {"argmax": PLAIN})  # as runs were that name no scheme
    with pytest.raises(UserError, match="noise scheme v1"):
        SmoothedClassifier.from_run(run.location)


def test_a_saved_folder_is_the_same_classifier_and_needs_no_ray(run, tmp_path):
    g = SmoothedClassifier.from_run(run, rule="offset:0=1", answer="argmax", n=1000, alpha_p=0.01)
    g.save(tmp_path / "g")
    loaded = SmoothedClassifier.load(tmp_path / "g")
    assert loaded.deployed == g.deployed and loaded.base_classifier.components == g.base_classifier.components
    code = f"""
import sys, raycsr, numpy as np
g = raycsr.SmoothedClassifier.load({str(tmp_path / "g")!r})
print(len(g.predict(np.zeros((1, 8, 8, 3), np.uint8))), "ray" in sys.modules)"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "False"], done.stderr


def test_a_folder_whose_weights_or_facts_are_others_is_refused(model, tmp_path):
    SmoothedClassifier(model, SIGMA).save(tmp_path)
    facts = (tmp_path / "classifier.json").read_text()
    other = ModelOptions("cifar_resnet8", num_classes=10, input_size=8, init_seed=1)
    save_checkpoint(str(tmp_path / "model.pt"), load_base_classifier(other))
    for text, fact in [
        (facts, "are not those"),
        (facts.replace("classifier/1", "classifier/2"), "classifier/2"),
        (facts.replace('"n0": 64', '"n0": "64"'), "n0"),
        (facts[:-3], "no JSON"),
        ("[]", "format"),
    ]:
        (tmp_path / "classifier.json").write_text(text)
        with pytest.raises(UserError, match=fact):
            SmoothedClassifier.load(tmp_path)
    with pytest.raises(UserError, match="no smoothed classifier"):
        SmoothedClassifier.load(tmp_path / "elsewhere")


def test_a_module_of_unknown_architecture_is_not_saved(tmp_path):
    with pytest.raises(UserError, match="Brighter"):
        SmoothedClassifier(Brighter(), SIGMA).save(tmp_path)


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"sigma": 0}, "sigma"),
        ({"n": 0}, "n=0"),
        ({"alpha": 2}, "alpha is 2"),
        ({"alpha_p": 0}, "alpha_p is 0"),
        ({"answer": "plurality"}, "plurality"),
        ({"rule": "offset:0.5,1*pair:0/1"}, "2 rules"),
    ],
)
def test_what_cannot_be_deployed_is_refused(model, options, fact):
    with pytest.raises(UserError, match=fact):
        SmoothedClassifier(model, **{"sigma": SIGMA, **options})
