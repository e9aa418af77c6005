"""The actor that answers: blocks of decoded images in, committed parts of predictions out."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch

from raycsr.costs import CostMatrix
from raycsr.deployment.folder import Deployed
from raycsr.deployment.rows import Row, answered_rows
from raycsr.deployment.smoothed_classifier import SmoothedClassifier
from raycsr.distributed.pool import device_name, ending_with_its_gpu, worker_device
from raycsr.distributed.sampling.blocks import texts
from raycsr.distributed.sampling.deaths import Block, SharedDeaths, starting, survive
from raycsr.distributed.sampling.voter import part_name
from raycsr.models.base_classifier import BaseClassifier
from raycsr.results.predictions import PREDICTIONS, PredictionSet
from raycsr.store import Store


@dataclass(frozen=True)
class PredictorSpec:
    """What an actor answers with; small, so it travels to each of them.

    Attributes:
        folder: Location of the set of predictions.
        owner: Number of the driver that owns it; part of the parts' names.
        deployed: What decides about the answers.
        costs: The cost matrix; None where there is none.
        threads: Number of torch threads.
    """

    folder: str
    owner: int
    deployed: Deployed
    costs: CostMatrix | None
    threads: int


class Predictor:
    """Answers blocks of images and commits a part for each, before it returns the block."""

    def __init__(
        self, *, model: Callable[[], BaseClassifier], spec: PredictorSpec, deaths: SharedDeaths | None = None
    ) -> None:
        """Prepares the network on this worker's device.

        Args:
            model: Gives the base classifier; on a cluster from the object store.
            spec: All else.
            deaths: Deaths of the stream's processes; None where this process alone answers.
        """
        torch.set_num_threads(spec.threads)
        self._spec, self._deaths = spec, deaths
        self._set = PredictionSet(Store(spec.folder))
        with starting(deaths, spec.folder):
            device = worker_device(int8=spec.deployed.precision == "int8")
            self._classifier = SmoothedClassifier.deploy(model(), spec.deployed, device=device)

    def __call__(self, block: Block) -> Block:
        """Answers one block.

        Args:
            block: image_id, version, image (uint8, N H W 3), image_sha, error.

        Returns:
            image_id, error and samples: what the driver needs to report.
        """
        with ending_with_its_gpu(restarted=self._deaths is not None):
            return survive(self._deaths, "answered", block, self._predict, self._give_up)

    def _give_up(self, block: Block, why: str) -> Block:
        return self._predict({**block, "error": np.array([why], object)})

    def _predict(self, block: Block) -> Block:
        part = part_name(self._spec.owner, [*block["image_id"], *block["version"]])
        predictions = self._set.one(part)  # by a process that died behind its commit
        if predictions is None:
            predictions = self._table(block)
            self._set.write(part, predictions)
        return {
            "image_id": block["image_id"],
            "error": predictions["error"].to_numpy(zero_copy_only=False),
            "samples": (predictions["n0"].to_numpy() + predictions["n"].to_numpy()).astype(np.int64),
        }

    def _table(self, block: Block) -> pa.Table:
        errors = texts(block["error"])
        good = [i for i, error in enumerate(errors) if error is None]
        answered: dict[int, Row] = {}
        if good:
            pixels = torch.from_numpy(np.stack([block["image"][i] for i in good])).permute(0, 3, 1, 2)
            rows = answered_rows(self._classifier, self._classifier.draw(pixels), self._spec.costs)
            answered = dict(zip(good, rows, strict=True))
        device = device_name(self._classifier.device)
        columns = zip(block["image_id"], block["version"], texts(block["image_sha"]), errors, strict=True)
        nothing = {"n0": 0, "n": 0, "seconds": 0.0}
        return pa.Table.from_pylist(
            [
                {"image_id": image_id, "version": version, "image_sha": sha, "device": device, "error": error}
                | answered.get(i, nothing)
                for i, (image_id, version, sha, error) in enumerate(columns)
            ],
            schema=PREDICTIONS,
        )
