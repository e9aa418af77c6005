"""No config, however broken, is answered by a traceback: the shipped ones with bytes or values replaced.

pytest -m long tests/fuzz/test_fuzzed_configs.py
"""

import copy
import warnings
from pathlib import Path

import pytest
import yaml
from fuzzing import answer, each_block, mutated, randomness

from raycsr.cli import command
from raycsr.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "jobs" / "configs").glob("*.yaml"))
DIGITS = yaml.safe_load((ROOT / "jobs" / "configs" / "digits.yaml").read_text())
DIGITS |= {"model": {"name": "cifar_resnet8", "num_classes": 10, "input_size": 8}, "rules": ["offset:1*seed:4"]}
# no remote places: their clients wait for minutes before they say that nobody is there
VALUES = [
    *(None, True, False, -1, 0, 1, 2, 3, 10**9, 10**25, 10**400, -0.5, 0.5, 1e300, float("nan"), float("inf"), "", "x"),
    *("null", "1e5", "seed:4", "uniform", "cat, dog", "ü\0", "a\nb", "9" * 5000, "../.."),
    *([], {}, [[]], [None], [1, 2], ["a", "b"], [0.25, 0.5], {"a": 1}, {"": 1}, {"name": "gaussian"}, [{"a": [1]}]),
]


def verb_of(text):
    return "sweep" if "\nspace:" in text else "train" if "\ntraining:" in text else "sample"


def with_values(options, rng):
    """Options with a few values or names replaced, anywhere in them."""
    options = copy.deepcopy(options)
    for _ in range(rng.choice([1, 1, 2, 3])):
        place = options
        while True:
            key = rng.choice(list(place)) if isinstance(place, dict) else rng.randrange(len(place))
            inner = place[key]
            if not isinstance(inner, dict | list) or not inner or rng.random() < 0.2:
                break
            place = inner
        if isinstance(place, dict) and rng.random() < 0.15:
            place[rng.choice(["x", "name", "n", "n0", "a.b", "config", "class_path", "__path__"])] = place.pop(key)
        else:
            place[key] = copy.deepcopy(rng.choice(VALUES))
        if not options:
            break
    return options


def refused(seed, tmp_path, content, verb, *words):
    (tmp_path / "job.yaml").write_bytes(content)
    config = ["--config", str(tmp_path / "job.yaml"), "--results", str(tmp_path / "results")]
    return isinstance(answer(seed, lambda: command(verb, [*words, *config])), UserError)


@each_block
def test_configs_of_broken_bytes(seeds, tmp_path):
    answers = []
    for seed in seeds:
        rng = randomness(seed)
        path = rng.choice(CONFIGS)
        answers.append(refused(seed, tmp_path, mutated(path.read_bytes(), rng), verb_of(path.read_text())))
    assert 0.5 * len(answers) < sum(answers) < len(answers)


@each_block
def test_configs_of_wrong_values(seeds, tmp_path):
    answers = []
    for seed in seeds:
        rng = randomness(seed)
        text = rng.choice(CONFIGS).read_text()
        content = yaml.safe_dump(with_values(yaml.safe_load(text), rng), allow_unicode=True).encode()
        answers.append(refused(seed, tmp_path, content, verb_of(text)))
    assert 0.5 * len(answers) < sum(answers) < len(answers)


@each_block
def test_what_a_config_asks_for_is_checked_without_a_traceback(seeds, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    warnings.simplefilter("ignore")
    for seed in seeds:
        (tmp_path / "job.yaml").write_text(yaml.safe_dump(with_values(DIGITS, randomness(seed))))
        words = ["sample", "--config", "job.yaml", "--results", str(tmp_path / "results")]
        answer(seed, lambda words=words: command("validate", words)())


def broken_word(word, rng):
    return mutated(word.encode(), rng).decode("utf-8", "surrogateescape")  # as Python reads a shell's bytes


@each_block
def test_command_lines_of_broken_words(seeds, tmp_path):
    words = ["--sampling.n", "77", "--costs", "seed:1,2", "pair:3/4", "--sampling.radii", "0.25,0.5", "--alpha=0.01"]
    words += ["--data.source", "digits", "--model.name", "m", "--model.args", "{a: 1}", "--data.classes", '"a, b",3']
    for seed in seeds:
        rng = randomness(seed)
        broken = [broken_word(word, rng) if rng.random() < 0.2 else word for word in words]
        if rng.random() < 0.3:
            rng.shuffle(broken)
        answer(seed, lambda broken=broken: command("sample", [*broken, "--results", str(tmp_path)]), SystemExit)


def test_a_traceback_would_be_seen():
    with pytest.raises(AssertionError, match="case 7 is a traceback: KeyError"):
        answer(7, lambda: {}["absent"])
