"""Runs that no engine sampled: six images of three classes, two each of a, b and c, and votes written by hand."""

import json

import numpy as np
import pandas as pd
from PIL import Image

from raycsr.data.decode import decode_images
from raycsr.models.spec import Preprocessing
from raycsr.results import SCHEMA_VERSION, Run, histograms, votes_table
from raycsr.store import Store

LABELS = [0, 0, 1, 1, 2, 2]
IDS = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "c/0.png", "c/1.png"]
OFFSETS = {f"offset:{strength:g}*pair:a/b": f"offset-{i:010d}" for i, strength in enumerate([0.5, 1, 1.5, 2, 4], 1)}
SURE = {0: [1000, 0, 0], 1: [0, 1000, 0], 2: [0, 0, 1000]}  # votes that certify 0.5 * Phi^-1(L), over 1.2
PREPROCESSING = Preprocessing((8, 8), "bilinear", 1.0, "center")

# Answers to the six images, for costs pair:a/b.
PLAIN = [0, 1, 1, 1, 2, 2]  # one a is taken for a b: accuracy 5/6, rob_cs 1/2
NO_B = [0, 0, 1, 0, 2, 2]  # one b for an a: accuracy 5/6, rob_cs 1
NEVER_B = [0, 0, 0, 0, 2, 2]  # accuracy 4/6, rob_cs 1: dominated


def write_run(
    results,
    model,
    answers,
    *,
    experiment="hand",
    sigma=0.5,
    certify_under=("pair:a/b",),
    skip=(),
    photographs=None,
    class_names=("a", "b", "c"),
    times=1,
    **manifest,
):
    """Writes {rule: answers to the six images}, on which all votes agree, so all radii of a run are alike.

    With `times` there are as many images of each kind, `a/0.png`, then `a/0.png.1`, and so on.
    """
    folder = Store(results).at(experiment)
    run = Run(folder.at(f"runs/{len(folder.names('runs')):016d}"))
    facts = {
        "schema_version": SCHEMA_VERSION,
        "experiment": experiment,
        "model": model,
        "sigma": sigma,
        "n0": 1000,
        "n": 1000,
    }
    facts |= {"sampling": "fixed", "precision": "fp32", "num_classes": 3, "class_names": class_names}
    facts |= {"preprocessing": PREPROCESSING.to_dict()}
    facts["config"] = {"data": {"source": "imagefolder", "path": str(photographs)}}
    run.store.create("manifest.json", json.dumps({**facts, **manifest}).encode())
    ids = [f"{name}.{time}" if time else name for time in range(times) for name in IDS]
    run.add_images(pd.DataFrame({"image_id": ids, "label": LABELS * times, "size": 1, "version": "v"}))
    run.add_rules({"id": OFFSETS[rule], "kind": "offset", "spec": rule} for rule in answers if rule != "argmax")
    shas = image_shas(photographs) if photographs else ["0"] * len(IDS)
    for rule, classes in answers.items():
        rows = [i for i, name in enumerate(ids) if (rule, name) not in skip]
        table = votes(OFFSETS.get(rule, rule), ids, rows, classes, shas)
        run.write_votes(f"{OFFSETS.get(rule, rule)}.parquet", table)
    for spec in certify_under:
        run.certify(spec, run.costs(spec), 0.01)
    return run


def votes(rule_id, ids, rows, classes, shas):
    counts = np.array([SURE[classes[i % 6]] for i in rows])
    columns = {"rule": rule_id, "n0": 1000, "n": 1000, "sampling": "fixed", "device": "cpu"}
    columns |= {"batch_size": 64, "seconds": 0.1, "error": None}
    return votes_table(
        {
            "image_id": [ids[i] for i in rows],
            "label": [LABELS[i % 6] for i in rows],
            "selection": histograms(counts),
            "estimation": histograms(counts),
            "image_sha": [shas[i % 6] for i in rows],
            **{name: [value] * len(rows) for name, value in columns.items()},
        }
    )


def votes_of_labels(ids, rule="argmax", *, n=1000, device="cpu", sha="0", continues=None, error=None):
    """Rows of images i0, i1, ..., of class 0, 1, 2, 0, ...: all of n votes, and of 10 before, are right."""
    labels = np.array([int(one[1:]) % 3 for one in ids])
    right = np.eye(3, dtype=int)[labels] * (error is None)
    everywhere = {"rule": rule, "sampling": "fixed", "continues": continues, "image_sha": sha, "device": device}
    everywhere |= {"batch_size": 64, "error": error}
    return votes_table(
        {
            "image_id": ids,
            "label": labels,
            "selection": histograms(10 * right),
            "estimation": histograms(n * right),
            "n0": 10 * right.sum(axis=1),
            "n": n * right.sum(axis=1),
            "seconds": np.random.rand(len(ids)),
            **{name: [value] * len(ids) for name, value in everywhere.items()},
        }
    )


def write_photographs(folder):
    """An ImageFolder of the six images, grey, each brighter than the one before; returns the folder."""
    for i, name in enumerate(IDS):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (40 * i,) * 3).save(folder / name)
    return folder


def image_shas(photographs):
    return list(decode_images([(photographs / name).read_bytes() for name in IDS], PREPROCESSING)["image_sha"])


def write_sweep(results, experiment, name, trials):
    """Writes trials.parquet of a sweep: (costs, accuracy, rob_cs) of trials t0, t1, ... that finished."""
    rows = [
        {"trial": f"t{i}", "state": "finished", "error": None, "sigma": 0.5, "costs": costs, "objective": "gaussian"}
        | {"model": "cifar_resnet8", "point": json.dumps({"training.lr": 0.1 * (i + 1)}), "epoch": 8}
        | {"accuracy": accuracy, "rob_cs": rob_cs, "rob_cost": 1 - rob_cs, "checkpoint": None}
        for i, (costs, accuracy, rob_cs) in enumerate(trials)
    ]
    store = Store(results).at(f"{experiment}/sweeps/{name}")
    store.write("trials.parquet", pd.DataFrame(rows).to_parquet())
