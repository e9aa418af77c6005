"""Two workers (gloo, on CPUs) that train together, beside one that has the same batches to itself."""

from functools import partial
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import multiprocessing, nn

from raycsr.costs import CostMatrix
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.spec import Preprocessing
from raycsr.training.batches import InMemoryBatches
from raycsr.training.loop import Trainer
from raycsr.training.objectives import OBJECTIVES, Shares, easy, gaussian
from raycsr.training.options import TrainingOptions, ValidationOptions
from raycsr.training.ranks import averaged, gathered, num_workers, rank, shard
from raycsr.training.validation import certified_metrics

COSTS = CostMatrix.seedwise(3, [0])
IMAGES = np.random.default_rng(0).integers(0, 256, (24, 4, 4, 3), dtype=np.uint8)
LABELS = np.arange(24) % 5 % 3  # seed images are not spread evenly over the workers' shares


class Broken(Exception):
    pass


def trainer(objective, sigma, batch_norm, missing=(), **options):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4) if batch_norm else nn.Identity()
    network = nn.Sequential(nn.Conv2d(3, 4, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    preprocessing = Preprocessing((4, 4), "bilinear", 1.0, "center")
    model = BaseClassifier(
        network, arch="tiny", args={}, num_classes=3, preprocessing=preprocessing, mean=(0.5,) * 3, std=(0.5,) * 3
    )
    return Trainer(
        model,
        InMemoryBatches(
            IMAGES,
            LABELS,
            batch_size=8,
            generator=torch.Generator().manual_seed(1),
            subset=np.where(np.isin(np.arange(24), missing), -1, np.arange(24)),
        ),
        objective=objective,
        sigma=sigma,
        generator=torch.Generator().manual_seed(2 + rank()),
        costs=torch.tensor(COSTS.values, dtype=torch.float32),
        options=TrainingOptions(**{"epochs": 3, "batch_size": 8, "lr": 0.1, "precision": "fp32", **options}),
    )


def trained(*arguments, **options):
    """Losses and weights of a training; batch statistics are among the weights."""
    made, losses = trainer(*arguments, **options), []
    made.run(lambda epoch: losses.append(epoch.loss))
    return losses, {name: weight.clone() for name, weight in made.model.state_dict().items()}


def continued(*arguments):
    """The same, stopped after the first epoch and gone on with by a second trainer."""
    first, state = trainer(*arguments), {}

    def stop(epoch):
        state.update(first.state_dict(), weights={k: v.clone() for k, v in first.model.state_dict().items()})
        raise Broken

    with pytest.raises(Broken):
        first.run(stop)
    second = trainer(*arguments)
    second._model.load_state_dict(state["weights"])
    second.load_state_dict(state)
    second.run()
    return len(state["random"]), second.model.state_dict()


def judged():
    return certified_metrics(
        trainer(gaussian, 0.25, True).model,
        IMAGES,
        LABELS,
        9,
        costs=COSTS,
        sigma=0.25,
        options=ValidationOptions(n0=8, n=64, radius=0.01),
    )


def precisions(can_bf16):
    """What auto is for workers of which only the first has bf16 arithmetic, and a precision that was named."""
    with patch("torch.cpu.get_capabilities", lambda: {"avx512_bf16": can_bf16}):
        return [trainer(gaussian, 0.25, True, precision=precision).precision for precision in ("auto", "bf16")]


SHARES = Shares("run", [str(i) for i in range(24)], np.eye(3, dtype=np.float32)[np.where(np.arange(24) % 7, LABELS, 0)])

CASES = {
    "gaussian": (gaussian, 0.0, False),
    "gaussian_cs": (OBJECTIVES["gaussian_cs"], 0.0, False),
    "smoothmix_cs": (OBJECTIVES["smoothmix_cs"], 0.25, True),
    # of images 1, 4 and 9 to 13, which cannot be decoded, one worker has more than the other
    "gaussian, unequal": (gaussian, 0.0, False, (1, 4, 9, 10, 11, 12, 13)),
    "gaussian, nothing": (gaussian, 0.0, False, (21, 11, 1, 15)),  # all that the second worker has of the second batch
    "gaussian_cs, unequal": (OBJECTIVES["gaussian_cs"], 0.0, False, (1, 4, 9, 10, 11, 12, 13)),
    "easy, unequal": (partial(easy, votes=SHARES, k=1, steps=0, start=0), 0.0, False, (1, 4, 9, 10, 11, 12, 13)),
}


def work(number, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    found = {
        "basics": (
            num_workers(),
            rank(),
            list(range(5))[shard()],
            gathered(rank() * 10),
            averaged(torch.tensor(4.0 * rank())),
        ),
        "metrics": judged(),
        "precisions": precisions(can_bf16=number == 0),
        "averaged": trained(gaussian, 0.25, True, ema=0.5)[1],
        "continued": continued(*CASES["smoothmix_cs"]),
        **{name: trained(*case) for name, case in CASES.items()},
    }
    torch.save(found, f"{folder}/{number}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What each of two workers found."""
    folder = tmp_path_factory.mktemp("workers")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(2)]


def test_each_has_its_share_and_sees_what_all_have(two):
    assert two[0]["basics"] == (2, 0, [0, 2, 4], [0, 10], 2.0)
    assert two[1]["basics"] == (2, 1, [1, 3], [0, 10], 2.0)


def test_all_workers_compute_in_one_precision(two):
    assert [one["precisions"] for one in two] == [["fp32", "bf16"]] * 2
    assert precisions(can_bf16=True) == ["bf16", "bf16"]


def test_one_worker_has_everything():
    assert (num_workers(), rank(), list(range(3))[shard()], gathered("a")) == (1, 0, [0, 1, 2], ["a"])
    assert averaged(torch.tensor(3.0)) == 3


@pytest.mark.parametrize(
    "name",
    ["gaussian", "gaussian_cs", "gaussian, unequal", "gaussian, nothing", "gaussian_cs, unequal", "easy, unequal"],
)
def test_losses_and_weights_are_those_of_one_worker_with_the_whole_batch(two, name):
    losses, weights = trained(*CASES[name])
    for found, learned in (one[name] for one in two):
        assert found == pytest.approx(losses, rel=1e-5)
        torch.testing.assert_close(learned, weights)


@pytest.mark.parametrize("name", [*CASES, "averaged"])
def test_weights_and_batch_statistics_stay_the_same_on_all_workers(two, name):
    one, other = (found[name][1] if name in CASES else found[name] for found in two)
    torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_training_that_is_continued_is_the_undisturbed_one(two):
    for found in two:
        random_states, weights = found["continued"]
        assert random_states == 2
        torch.testing.assert_close(weights, found["smoothmix_cs"][1], rtol=0, atol=0)


def test_workers_draw_noise_of_their_own(two):
    losses, _ = trained(*CASES["smoothmix_cs"])
    assert two[0]["smoothmix_cs"][0] != pytest.approx(losses, rel=1e-5)


def test_metrics_are_those_of_one_worker(two):
    expected = judged()
    for found in two:
        assert {k: v for k, v in found["metrics"].items() if v == v} == {k: v for k, v in expected.items() if v == v}
