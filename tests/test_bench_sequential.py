"""The benchmark of sequential sampling: what it counts."""

import json

import numpy as np
import pandas as pd
import pytest

from jobs.bench_sequential import CLASSES, N0, certified, imagenet, on_paper, plot
from raycsr.results import SCHEMA_VERSION, Run, histograms, votes_table
from raycsr.smoothing.options import CHUNK
from raycsr.store import Store


@pytest.mark.parametrize(
    ("row", "least", "most"),
    [
        ("0\t8\t7\t1.5\t0\t0:01", N0, N0),  # a wrong answer certifies nothing, however sure
        # a tie is far from the .84 that the radius needs; where the selection votes have it wrong they end it
        ("0\t8\t-1\t0.0\t0\t0:01", N0, N0 + CHUNK),
    ],
)
def test_an_image_that_certifies_nothing_takes_one_look(tmp_path, row, least, most):
    table = tmp_path / "sigma_0.50.tsv"
    table.write_text(f"idx\tlabel\tpredict\tradius\tcorrect\ttime\n{row}\n")
    fixed, sequential = imagenet(str(table), 0.5, samples_per_second=100.0)
    assert least <= sequential["samples_an_image"] <= most
    assert sequential["hours"] == pytest.approx(50_000 * sequential["samples_an_image"] / 100 / 3600)
    assert fixed["ratio"] == 1


def test_a_statement_is_about_all_images_or_about_those_of_a_seed_class():
    # a cat that is surely a cat, a frog that is surely a frog, a frog that is taken for a cat
    votes = np.zeros((3, 10), int)
    votes[[0, 1, 2], [3, 6, 3]] = 1000
    about, made = certified(votes, votes, np.array([3, 6, 6]), "one radius, seed:cat", "sequential")
    # standard; multiclass; cost-sensitive under seed:cat
    assert about.tolist() == [[True, True, True], [True, True, False], [True, True, False]]
    assert made.tolist() == [[True, True, True], [True, True, False], [False, False, False]]


def test_a_stored_run_says_which_shares_there_are(tmp_path):
    """Images of which all votes agree take one look, or none where the answer is wrong."""
    results, ids = tmp_path / "results", [f"i{i}" for i in range(3)]
    run = Run(Store(results).at("cifar10/runs/0000000000000000"))
    facts = {
        "schema_version": SCHEMA_VERSION,
        "experiment": "cifar10",
        "model": "m",
        "sigma": 0.5,
        "n0": 100,
        "n": 1000,
    }
    facts |= {"sampling": "fixed", "precision": "fp32", "num_classes": 10, "class_names": CLASSES}
    run.store.create("manifest.json", json.dumps(facts).encode())
    run.add_images(pd.DataFrame({"image_id": ids, "label": [3, 6, 6], "size": 1, "version": "v"}))
    votes = np.zeros((3, 10), int)
    votes[[0, 1, 2], [3, 6, 3]] = 1000
    everywhere = {"rule": "argmax", "n0": 1000, "n": 1000, "sampling": "fixed", "device": "cpu", "batch_size": 64}
    everywhere |= {"image_sha": "0", "seconds": 0.1, "error": None}
    columns = {"image_id": ids, "label": [3, 6, 6], "selection": histograms(votes), "estimation": histograms(votes)}
    run.write_votes("a.parquet", votes_table(columns | {name: [one] * 3 for name, one in everywhere.items()}))
    rows, taken = on_paper(run.location, 3, 640)
    assert taken["one radius, seed:cat"].tolist() == [64, 64, 0]
    assert (rows[1]["statements"], rows[1]["certified"], rows[1]["lost"]) == (7, 5, 0)
    assert len(rows) == len(taken) == 5 and plot(taken, 640)
