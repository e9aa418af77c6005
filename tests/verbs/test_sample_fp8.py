"""`sampling.precision fp8`: a transformer whose products are of 8 bits is a base classifier with runs of its own."""

from functools import partial

import numpy as np
import pytest
import torch
from learning import learn_digits

from raycsr import SmoothedClassifier, count_votes, load_attacks, load_certificates, load_predictions, load_votes
from raycsr.cli import main
from raycsr.data.packaged import digits_arrays
from raycsr.errors import UserError
from raycsr.models.checkpoints import save_checkpoint
from raycsr.models.fp8 import refuse_device
from raycsr.models.loading import load_base_classifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.verbs.sample import sample

try:
    refuse_device("cpu")
except UserError as error:
    pytest.skip(str(error), allow_module_level=True)

SMALL = {"patch_size": 2, "embed_dim": 64, "depth": 2, "num_heads": 4}
FIXED = {"sigma": 0.25, "n0": 32, "n": 256, "batch_size": 32}


@pytest.fixture(scope="module")
def transformer(tmp_path_factory):
    """A checkpoint of a transformer that is right about most digits under noise."""
    model = load_base_classifier(ModelOptions("vit_tiny_patch16_224", 10, input_size=8, args=SMALL))
    learn_digits(model, partial(torch.optim.AdamW, lr=2e-3), sigma=0.25, epochs=8)
    path = str(tmp_path_factory.mktemp("model") / "transformer.pt")
    save_checkpoint(path, model, training_info={"objective": "gaussian", "sigma": 0.25})
    return path


@pytest.fixture(scope="module")
def runs(transformer, make_job, tmp_path_factory):
    """Runs of 20 digits in fp32 and in fp8, and the folder that they are in."""
    folder = tmp_path_factory.mktemp("runs")
    found = []
    for precision in ("fp32", "fp8"):
        job = make_job(folder, limit=20, model=ModelOptions(transformer), rules=["offset:4=0.5"], costs=["uniform"])
        (outcome,) = sample(**job | {"sampling": SamplingOptions(precision=precision, **FIXED)})
        found.append(outcome.run)
    return found


def test_it_is_another_run_of_about_the_same_certificates(runs):
    exact, rough = (load_certificates(run.location, costs="uniform") for run in runs)
    assert runs[0].run_id != runs[1].run_id and runs[1].manifest()["precision"] == "fp8"
    assert runs[0].manifest()["components"] == runs[1].manifest()["components"]
    assert (exact["multiclass_radius"] > 0).mean() > 0.6, "or nothing is shown"
    assert abs(exact["multiclass_radius"].mean() - rough["multiclass_radius"].mean()) < 0.02


def test_its_votes_are_those_of_the_network_in_fp8(runs, transformer):
    """Of all 20 images, once more in one call from Python."""
    rows = load_votes(runs[1].location, rule="argmax")
    numbers = [int(image_id.split("#")[1]) for image_id in rows["image_id"]]  # test#0, test#1, ...
    pixels = torch.from_numpy(digits_arrays("test")[0][numbers]).permute(0, 3, 1, 2)
    stored = np.zeros((len(rows), 10), np.int64)
    for i, pairs in enumerate(rows["estimation"]):
        for pair in pairs:
            stored[i, pair["class"]] = pair["count"]
    counted = {}
    for precision in ("fp8", "bf16"):
        network = prepare_for_inference(load_base_classifier(transformer), precision=precision, device="cpu")
        counted[precision] = count_votes(network, pixels, image_ids=rows["image_id"], seed=0, **FIXED).counts[:, 0]
    assert (stored == counted["fp8"]).all()
    assert (stored != counted["bf16"]).any()


def test_what_stands_on_it_says_and_computes_fp8(runs, tmp_path, capsys):
    words = [word for run in runs for word in ("--run", run.location)]
    assert main(["report", *words, "--out", str(tmp_path / "report")]) == 0
    said = capsys.readouterr().out
    assert "fp8" in said and "fp32" in said
    assert main(["merge", "--run", runs[0].location, "--into", runs[1].location]) == 2
    assert "precision" in capsys.readouterr().err
    deployed = SmoothedClassifier.from_run(runs[1].location, n=256)
    deployed.save(tmp_path / "deployed")
    for one in (deployed, SmoothedClassifier.load(tmp_path / "deployed")):
        assert one.deployed.precision == "fp8" and one._network.precision == "fp8"
    here = ["--run", runs[1].location, "--pool.actors", "0", "--n", "64"]
    assert main(["predict", *here, "--data.source", "digits", "--data.limit", "2", "--results", str(tmp_path)]) == 0
    assert len(load_predictions(tmp_path)) == 2
    assert main(["attack", *here, "--costs", "uniform", "--images", "2", "--steps", "2", "--noises", "4"]) == 0
    assert load_attacks(runs[1].location)["image_id"].nunique() == 2


def test_a_network_without_linear_layers_is_refused(tmp_path, capsys):
    words = ["--data.source", "digits", "--results", str(tmp_path)]
    for verb in ("sample", "validate sample", "predict"):
        chosen = "--precision" if verb == "predict" else "--sampling.precision"
        asked = [*verb.split(), "--model.name", "cifar_resnet8", "--model.num_classes", "10", chosen, "fp8"]
        assert main([*asked, *words, *(["--sigma", ".5"] if verb == "predict" else [])]) == 2
        line = capsys.readouterr().err.strip().splitlines()[-1]
        assert "fp8" in line and "cifar_resnet8" in line and "bf16" in line
