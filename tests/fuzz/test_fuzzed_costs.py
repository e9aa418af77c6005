"""No cost file and no spec, however broken, is answered by a traceback, and what is read is a cost matrix.

pytest -m long tests/fuzz/test_fuzzed_costs.py
"""

import io

import numpy as np
import pytest
from fuzzing import answer, each_block, mutated, randomness

from raycsr.costs import CostMatrix
from raycsr.models.rules import parse_rules

ANIMALS = ["bird", "cat", "dog"]
TABLE = ",bird,cat,dog\nbird,,1,0\ncat,0,,2.5\ndog,10,0,\n"
NUMBERS = [[0, 1, 0], [0, 0, 2.5], [10, 0, 0]]


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


FILES = {
    "names.csv": TABLE.encode(),
    "german.csv": TABLE.replace(",", ";").replace(".", ",").encode("cp1252"),
    "tabs.tsv": TABLE.replace(",", "\t").encode("utf-16"),
    "plain.csv": b"0,1,0\n0,0,2.5\n10,0,0\n",
    "index.csv": b",bird,cat,dog\n0,0,1,0\n1,0,0,2.5\n2,10,0,0\n",
    "floats.npy": array(np.array(NUMBERS)),
    "halves.npy": array(np.array(NUMBERS, dtype=np.float16)),
}
SPECS = ["uniform", "seed:cat,dog", "seed:1, 2", "pair:cat/dog,0/1,cat/bird", "seed:bird", "pair:2/0", "costs.csv"]
RULES = [
    "argmax",
    "offset:1.5*pair:cat/dog",
    "offset:cat=1.5,dog=-0.5",
    "expected_cost:2*seed:cat",
    "offset:0.5,1*seed:1",
]


@pytest.mark.parametrize("name", FILES)
def test_the_files_are_good_before_they_are_broken(name, tmp_path):
    (tmp_path / name).write_bytes(FILES[name])
    assert CostMatrix.from_spec(str(tmp_path / name), 3, ANIMALS).values.tolist() == NUMBERS


def is_matrix(found):
    return isinstance(found, CostMatrix) and found.values.shape == (3, 3) and np.isfinite(found.values).all()


@each_block
def test_broken_cost_files(seeds, tmp_path):
    read = 0
    for seed in seeds:
        rng = randomness(seed)
        name = rng.choice(list(FILES))
        path = tmp_path / f"{seed}-{name}"
        path.write_bytes(mutated(FILES[name], rng))
        classes = rng.choice([ANIMALS, None])
        found = answer(seed, lambda path=path, classes=classes: CostMatrix.from_spec(str(path), 3, classes))
        read += is_matrix(found)
        assert is_matrix(found) or not isinstance(found, CostMatrix)
    assert 0 < read < len(seeds)


@each_block
def test_broken_cost_specs(seeds, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for seed in seeds:
        rng = randomness(seed)
        spec = mutated(rng.choice(SPECS).encode(), rng).decode("utf-8", "replace")
        found = answer(seed, lambda spec=spec: CostMatrix.from_spec(spec, 3, ANIMALS))
        assert is_matrix(found) or not isinstance(found, CostMatrix)


@each_block
def test_broken_rules(seeds, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for seed in seeds:
        rng = randomness(seed)
        rule = mutated(rng.choice(RULES).encode(), rng).decode("utf-8", "replace")
        answer(seed, lambda rule=rule: parse_rules([rule], num_classes=3, class_names=ANIMALS))
