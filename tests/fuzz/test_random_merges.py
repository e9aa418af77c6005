"""Runs that were sampled apart in random sessions: a merge loses no votes of either, and a second changes nothing.

pytest -m long tests/fuzz/test_random_merges.py
"""

import json
import random
import warnings

import pandas as pd
import pyarrow as pa
from fuzzing import blocks
from handmade import votes_of_labels

from raycsr.distributed.sampling.voter import part_name
from raycsr.results import SCHEMA_VERSION, Run
from raycsr.results.joining import join_runs
from raycsr.results.transfer import RunFiles
from raycsr.store import Store

IDS, RULES = [f"i{i}" for i in range(5)], ["argmax", "offset-1"]
MANIFEST = {"schema_version": SCHEMA_VERSION, "experiment": "e", "model": "m", "sigma": 0.5, "sampling": "sequential"}
MANIFEST |= {"num_classes": 3, "class_names": ["a", "b", "c"]}


def standing(run):
    """(image, rule) -> estimation samples; 0 where it is errored."""
    rows = run.votes().select(["image_id", "rule", "n"]).to_pylist()
    return {(row["image_id"], row["rule"]): row["n"] for row in rows}


def sample(run, rng, owner, errors):
    """A session of a driver: some images, one rule or both, in blocks of some size; some go on where they stopped."""
    rules, ids, size = RULES[: rng.randint(1, 2)], sorted(rng.sample(IDS, rng.randint(1, 5))), rng.choice([1, 2, 5])
    run.add_images(pd.DataFrame({"image_id": ids, "label": [IDS.index(i) % 3 for i in ids], "size": 1, "version": "v"}))
    run.add_rules({"id": rule, "kind": "offset", "spec": rule} for rule in rules[1:])
    rows = run.votes().to_pylist()
    drawn = {(row["image_id"], row["rule"]): row for row in rows if row["error"] is None}
    groups = {}
    for i in ids:
        if lacking := [rule for rule in rules if (i, rule) not in drawn]:
            groups.setdefault((*lacking, ""), []).append(i)
        for rule in rules:
            if (i, rule) in drawn and rng.random() < 0.4:
                groups.setdefault((rule, drawn[i, rule]["part"]), []).append(i)
    for (*missing, continues), images in groups.items():
        for block in [images[start : start + size] for start in range(0, len(images), size)]:
            more = 1000 * rng.randint(1, 2)
            tables = [
                votes_of_labels(
                    [i],
                    rule,
                    n=more + (drawn[i, rule]["n"] if continues else 0),
                    continues=continues or None,
                    error="Unreadable" if not continues and rng.random() < errors else None,
                )
                for rule in missing
                for i in block
            ]
            run.write_votes(part_name(owner, [*block, " ".join(missing), continues]), pa.concat_tables(tables))


@blocks(40, 530, 245)  # a fifth of a second each
def test_a_merge_loses_no_votes_and_a_second_changes_nothing(tmp_path, seeds):
    warnings.simplefilter("error")
    for seed in seeds:
        rng = random.Random(seed)
        errors, runs = rng.choice([0, 0, 0.3]), []
        for place in ("one", "other"):
            run = Run(Store(str(tmp_path / str(seed) / place)))
            run.store.create("manifest.json", json.dumps(MANIFEST).encode())
            for owner in range(1, rng.randint(2, 4)):
                sample(run, rng, owner, errors)
            runs.append(run)
        one, other = runs
        before = [standing(run) for run in runs]
        join_runs(one, other)
        merged, files = standing(other), {name: other.store.read(name) for name in RunFiles.of(other.store).stored}
        assert merged == {key: max(of.get(key, 0) for of in before) for key in {*before[0], *before[1]}}, seed
        join_runs(one, other)
        assert files == {name: other.store.read(name) for name in RunFiles.of(other.store).stored}, seed
