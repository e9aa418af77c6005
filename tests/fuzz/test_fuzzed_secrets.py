"""No secret in an option comes out anywhere: no message, no warning, no plan and no file has it.

pytest -m long tests/fuzz/test_fuzzed_secrets.py
"""

import copy
import string
from pathlib import Path

import pytest
import yaml
from fuzzing import answer, each_block, randomness

from raycsr.cli import main
from raycsr.data.options import DataOptions
from raycsr.distributed.options import ObjectiveOptions, PoolOptions, TrackingOptions
from raycsr.distributed.sampling.arguments import SampleArguments
from raycsr.distributed.sampling.job import check
from raycsr.distributed.search.tracking import trackers
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.distributed.training.plan import prepare
from raycsr.models.spec import ModelOptions
from raycsr.smoothing.options import SamplingOptions
from raycsr.store import Store

LETTERS = string.ascii_letters + string.digits
FORMS = [
    "s3://AKIAIOSFODNN7EXAMPLE:{}@bucket/prefix",
    "s3://key:{}@bucket",
    "https://user:{}@host/model.pt",
    "http://{}@host:5000",
    "postgresql://me:{}@host:5432/db",
    "https://host/a?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Signature={}",
    "https://host/a?AWSAccessKeyId={}&Expires=1",
    "s3://bucket/x?secret_key={}",
    "https://host/x.tar?token={}&a=1",
    "s3://anonymous@key:{}@bucket/y",
]
OPTIONS = {
    "data": {"source": "digits", "limit": 20},
    "model": {"name": "cifar_resnet8", "num_classes": 10, "input_size": 8},
    "sampling": {"sigma": 0.5, "n0": 32, "n": 128},
    "pool": {"actors": 1},
    "costs": ["uniform"],
    "rules": ["offset:1*seed:4"],
    "further_models": ["cifar_resnet20"],
    "experiment": "default",
}
OF_TRAINING = {
    "data": {"source": "digits", "split": "train", "limit": 100},
    "model": {"name": "cifar_resnet8", "input_size": 8},
    "sigma": 0.25,
    "costs": "uniform",
    "objective": {"name": "gaussian", "args": {}},
    "training": {"epochs": 1},
    "name": "one",
    "experiment": "default",
}


def secret(rng):
    """As passwords in locations are: slashes, plus signs and colons among letters."""
    middle = "".join(rng.choice(LETTERS + "/+=:@%!,") for _ in range(rng.randrange(20)))
    return rng.choice(LETTERS) + middle.replace("@", "@" if rng.random() < 0.3 else "x") + "Zq9Zq9Zq9"


def with_secret(options, text, rng):
    """The options with the text in the place of one value, a name of an option or of an argument, or beside a word."""
    options = copy.deepcopy(options)
    place = options
    while True:
        key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
        if not isinstance(place[key], dict | list) or not place[key]:
            break
        place = place[key]
    whole = rng.random() < 0.7
    place[key] = text if whole else f"{place[key]}:{text}"
    if isinstance(place, dict) and rng.random() < 0.1:
        place[text] = place.pop(key)
    return options


def as_word(value):
    """A value as a command line writes it."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n")


def written(folder):
    """All that stands in files below a folder, and their names."""
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return " ".join(f"{path} {path.read_bytes().decode('latin-1')}" for path in files)


@each_block
def test_commands_repeat_no_secret(seeds, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    for seed in seeds:
        rng = randomness(seed)
        verb, options = rng.choice([("sample", OPTIONS), ("train", OF_TRAINING), ("validate", OPTIONS)])
        text = rng.choice(FORMS).format(secret(rng))
        options = with_secret(options, text, rng)
        words = [verb, *(["sample"] if verb == "validate" else []), "--results", "results"]
        if rng.random() < 0.5:
            Path("job.yaml").write_text(yaml.safe_dump(options, width=10_000))
            words += ["--config", "job.yaml"]
        else:
            words += [f"--{name}={as_word(value)}" for name, value in options.items()]
        assert main(words) == 2, f"case {seed}: {words}"
        Path("job.yaml").unlink(missing_ok=True)
        said = "".join(capfd.readouterr())
        assert "Zq9" not in said + written(tmp_path), f"case {seed}: {said}"


def library_calls(text, folder):
    """What a program may call with such a text, each of which may refuse it."""
    digits, network = DataOptions("digits", limit=20), ModelOptions("cifar_resnet8", 10, input_size=8)
    sampling = SamplingOptions(sigma=0.5, n0=32, n=128)

    def sampled(data=digits, model=network, costs=("uniform",), experiment="default", results=folder, rules=()):
        asked = {"data": data, "model": model, "sampling": sampling, "costs": list(costs), "rules": list(rules)}
        return lambda: check(SampleArguments(**asked, pool=PoolOptions(), experiment=experiment, results=results))

    for source in ("imagefolder", "parquet", "csv", "webdataset", "cifar10", text):
        yield sampled(data=DataOptions(source, text))
    yield sampled(data=DataOptions("digits", class_names=text))
    yield sampled(data=DataOptions("csv", folder, image_roots=[text]))
    yield sampled(model=ModelOptions(text))
    yield sampled(model=ModelOptions("cifar_resnet8", 10, pretrained=text))
    yield sampled(costs=[text])
    yield sampled(costs=[f"seed:{text}"])
    yield sampled(rules=[f"offset:1*{text}"])
    yield sampled(results=text)
    yield lambda: Store(folder).at(text)
    yield lambda: trackers(TrackingOptions(mlflow=text), "sweep")
    yield lambda: trackers(TrackingOptions(wandb=text), "sweep")
    yield lambda: prepare(TrainConfig(data=digits, model=ModelOptions(text), sigma=0.25))
    yield lambda: prepare(TrainConfig(data=digits, model=network, sigma=0.25, objective=ObjectiveOptions(text)))


@each_block
def test_programs_are_told_no_secret(seeds, tmp_path, monkeypatch, recwarn):
    monkeypatch.chdir(tmp_path)
    for seed in seeds:
        rng = randomness(seed)
        text = rng.choice(FORMS).format(secret(rng))
        calls = list(library_calls(text, str(tmp_path / "results")))
        said = str(answer(seed, rng.choice(calls)))
        assert "Zq9" not in said + written(tmp_path), f"case {seed}: {text}: {said}"
    assert not [one for one in recwarn if "Zq9" in str(one.message)]


@pytest.mark.parametrize("form", FORMS)
def test_the_forms_are_what_the_fuzzer_says(form):
    assert form.format("x").count("x") >= 1
