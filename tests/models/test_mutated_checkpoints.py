"""Fuzzing: a mutated checkpoint is loaded for what it is or refused in a line; it never gives a traceback.

A case is its seed: `pytest -m long tests/models/test_mutated_checkpoints.py` runs 2,000, and a failure names its seeds.
"""

import argparse
import copy
import random
import traceback
import warnings

import numpy as np
import pytest
import safetensors.torch
import timm
import torch

from raycsr.errors import UserError
from raycsr.models.checkpoints import is_raycsr_checkpoint, load_training_state, save_checkpoint
from raycsr.models.int8 import Calibration
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import parse_rules
from raycsr.models.spec import ModelOptions

ARCH = "cifar_resnet8"
ODD_VALUES = [
    *(
        None,
        True,
        -1,
        0,
        3,
        2**63,
        0.5,
        -1.5,
        float("nan"),
        float("inf"),
        1e300,
        "",
        "resnet",
        "x" * 999,
        "a\nb",
        b"\0",
    ),
    *([], {}, (), [1], {"a": 1}, [0.5, 0.5, 0.5], (None,) * 3, {1: 2}, argparse.Namespace(), argparse.Namespace(a=[1])),
    *(np.float64("nan"), np.int8(1), np.bool_(False), torch.tensor(float("nan")), torch.tensor(1), torch.zeros(0)),
    *(torch.zeros(10, 64), torch.zeros(7, 64), torch.ones(3, 3, dtype=torch.bool), torch.zeros(2, dtype=torch.cfloat)),
    *(torch.nn.Parameter(torch.ones(10)), torch.zeros(3, device="meta"), torch.zeros(2, 2).to_sparse()),
]


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """What is mutated: file name -> contents; and the weights of all of them."""
    folder = tmp_path_factory.mktemp("originals")
    model = load_base_classifier(ModelOptions(ARCH, input_size=8))
    rules, names = ["offset:1=0.5", "expected_cost:2*uniform"], list("abcdefghij")
    model.rules = tuple(parse_rules(rules, num_classes=10, class_names=names))
    ours, info, left = folder / "ours.pt", {"sigma": 0.25, "history": [{"loss": 1.0}]}, {"optimizer": {"state": {}}}
    save_checkpoint(ours, model, class_names=names, training_info=info, training_state=left)
    in_int8 = copy.deepcopy(model)
    in_int8.calibration = Calibration(0.25, {"first": (0.1, 3), "second": (0.2, 127)})
    save_checkpoint(folder / "int8.pt", in_int8)
    state = model.network.state_dict()
    said = {"model": ARCH, "gp": None, "mean": [0.5] * 3, "std": [0.5] * 3, "img_size": 8, "model_kwargs": {}}
    theirs = timm.create_model("cifar_resnet20").state_dict()
    contents = {
        "ours.pt": torch.load(ours, weights_only=True),
        "int8.pt": torch.load(folder / "int8.pt", weights_only=True),
        "locuslab.pth.tar": {"arch": "cifar_resnet20", "state_dict": {f"1.module.{k}": v for k, v in theirs.items()}},
        "timm.pth.tar": {"arch": ARCH, "state_dict": state, "state_dict_ema": state, "metric": np.float64(81.5)}
        | {"args": argparse.Namespace(**said)},
        "net.pth": {"net": {f"module.{k}": v for k, v in state.items()}, "acc": 91.2, "epoch": 7},
        "bare.pth": dict(state),
        "bare.safetensors": dict(state),
    }
    return contents, model


def write(content, path, chance):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(content, path)
    else:  # a tenth as PyTorch before 1.6 wrote files, which have no checksums
        torch.save(content, path, _use_new_zipfile_serialization=chance.random() > 0.1)


def mutated_content(content, chance):
    """A deep copy with one to three places changed."""
    content = copy.deepcopy(content)
    for _ in range(chance.randint(1, 3)):
        place = content
        for _ in range(chance.randint(0, 4)):  # down to somewhere
            entries = vars(place) if isinstance(place, argparse.Namespace) else place
            if not isinstance(entries, dict) or not entries:
                break
            inner = entries[chance.choice(sorted(entries, key=str))]
            if not isinstance(inner, dict | argparse.Namespace) or not inner:
                break
            place = inner
        entries = vars(place) if isinstance(place, argparse.Namespace) else place
        key = chance.choice(sorted(entries, key=str)) if entries else "a"
        kind = chance.choice(["delete", "odd", "odd", "odd", "rename", "add", "damage"])
        if kind == "delete":
            entries.pop(key, None)
        elif kind == "rename":
            entries[chance.choice(["", "module.", "1.", "\n"]) + str(key)] = entries.pop(key, None)
        elif kind == "damage" and isinstance(entries.get(key), torch.Tensor) and entries[key].numel():
            entries[key].view(-1)[0] = chance.choice(
                [7, 0] if not entries[key].is_floating_point() else [torch.nan, 3e38]
            )
        else:
            entries[key if kind == "odd" else chance.choice(["arch", "args", "ema", "new", 3])] = chance.choice(
                ODD_VALUES
            )
    return content


def mutated_bytes(data, chance):
    """The bytes of a file with a part changed, moved, lost or added."""
    start = chance.choice([chance.randrange(len(data)), chance.randrange(min(len(data), 2000)),
                           len(data) - 1 - chance.randrange(min(len(data), 3000))])  # fmt: skip
    end = min(start + chance.choice([1, 1, 8, 300, len(data)]), len(data))
    new = {
        "flip": bytes(byte ^ 1 << chance.randrange(8) for byte in data[start:end][:64]) + data[start:end][64:],
        "lose": b"",
        "double": data[start:end] * 2,
        "zero": bytes(end - start),
    }
    return data[:start] + new[chance.choice(sorted(new))] + data[end:]


def outcome(seed, originals, folder):
    """Mutates and loads as the seed says; returns what is wrong with what came of it, or None."""
    chance = random.Random(seed)
    contents, model = originals
    name = chance.choice(sorted(contents))
    path = folder / name
    of_bytes = chance.random() < 0.4
    try:
        write(contents[name] if of_bytes else mutated_content(contents[name], chance), path, chance)
    except Exception:  # not even torch.save or safetensors writes this
        return None
    data = path.read_bytes()
    checked = data.startswith(b"PK")
    if of_bytes:
        path.write_bytes(mutated_bytes(data, chance))
    options = ModelOptions(str(path), ema=chance.random() < 0.2)
    if name.startswith(("net", "bare")) or chance.random() < 0.3:
        options = ModelOptions(ARCH, pretrained=str(path), ema=chance.random() < 0.2, input_size=8)
    try:
        loaded = load_base_classifier(options, new_head=chance.random() < 0.3, num_classes=chance.choice([None, 10, 7]))
        if is_raycsr_checkpoint(path):
            load_training_state(path)
    except UserError as refused:
        return f"a message of several lines: {refused}" if "\n" in str(refused) or not str(refused) else None
    except Exception:
        return traceback.format_exc()
    state, theirs = loaded.network.state_dict(), model.network.state_dict()
    if not all(tensor.isfinite().all() for tensor in state.values()):
        return "weights that are not finite were loaded"
    of_file = of_bytes and checked and loaded.arch == ARCH and loaded.num_classes == 10
    if of_file and not all(torch.equal(state[name], theirs[name]) for name in theirs):
        return "damage that its checksums show was loaded"
    return None


@pytest.mark.parametrize("seeds", [range(40), pytest.param(range(2_000), marks=pytest.mark.long)], ids=len)
def test_a_mutated_checkpoint_gives_no_traceback(seeds, originals, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # new heads, EMA weights, sparse tensors
        wrong = {seed: why for seed in seeds if (why := outcome(seed, originals, tmp_path))}
    shown = "\n".join(f"seed {seed}: {why}" for seed, why in list(wrong.items())[:5])
    assert not wrong, f"{len(wrong)} of {len(seeds)} mutated checkpoints: {sorted(wrong)}\n{shown}"
