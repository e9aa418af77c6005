"""The actor that samples: blocks of decoded images in, committed votes parts out."""

import socket
import time
from hashlib import sha256

import numpy as np
import pyarrow as pa
import ray
import torch

from raycsr.costs import CostMatrix
from raycsr.errors import UserError
from raycsr.models import BaseClassifier, Precision, Rule, prepare_for_inference
from raycsr.pipelines.metrics import Metrics
from raycsr.pipelines.pool import device_name, worker_device
from raycsr.results import PATIENCE, Run, Store, certificate_set, certify_table, histograms, votes_table
from raycsr.smoothing import NOT_FINITE, Sampler, SamplingOptions


class Voter:
    """Samples blocks of images and commits a votes part for each, before it returns the block.

    With costs, the part's certificates are committed right behind it, so they appear while sampling goes on.
    """

    def __init__(
        self,
        *,
        model: ray.ObjectRef,
        sigma: float,
        sampling: SamplingOptions,
        precision: Precision,
        rules: tuple[Rule, ...],
        threads: int,
        run: str,
        owner: int,
        costs: dict[str, CostMatrix],
        alpha: float,
    ) -> None:
        """Prepares the network on this worker's device.

        Args:
            model: the base classifier, in the object store.
            sigma: the run's noise level.
            sampling: n0, n, seed, batch size and compilation.
            precision: as resolved by the probe.
            rules: decision rules to count votes for.
            threads: torch threads.
            run: location of the run.
            owner: number of the driver that owns the run; part of the parts' names.
            costs: spec -> matrix to certify under at once.
            alpha: failure probability of an image's certificate.
        """
        torch.set_num_threads(threads)
        self._run = Run(Store(run, PATIENCE))
        if not self._run.store.exists("manifest.json"):
            raise UserError(f"node {socket.gethostname()} does not see {run}; give --results s3://, or a shared folder")
        base_classifier = ray.get(model)
        self._device = worker_device()
        self._device_name = device_name(self._device)
        self._sampler = self._open_sampler(base_classifier, sigma, sampling, precision, rules)
        self._num_classes = base_classifier.num_classes
        self._metrics = Metrics(self._run.run_id)
        self._owner = owner
        self._sets = {certificate_set(spec, matrix, alpha, "fixed"): matrix for spec, matrix in costs.items()}
        self._sigma, self._alpha = sigma, alpha

    def _open_sampler(
        self,
        base_classifier: BaseClassifier,
        sigma: float,
        sampling: SamplingOptions,
        precision: Precision,
        rules: tuple[Rule, ...],
    ) -> Sampler:
        network = prepare_for_inference(
            base_classifier, precision=precision, device=self._device, compile=sampling.compile
        )
        return Sampler(
            network,
            sigma=sigma,
            n0=sampling.n0,
            n=sampling.n,
            seed=sampling.seed,
            batch_size=sampling.batch_size,
            rules=rules,
            device=self._device,
        )

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples one block.

        Args:
            block: image_id, label, rules, image (uint8, N H W 3), image_sha, error. `rules` is the same text for
                all: the ids of the rules whose votes are missing.

        Returns:
            image_id, error, samples, batch_size: what the driver needs to report.
        """
        votes = self._count(block)
        self._commit(votes)
        first = votes.slice(0, len(block["image_id"]))  # one rule's rows
        samples = first["n0"].to_numpy() + first["n"].to_numpy()
        self._metrics.add_block(
            images=len(first),
            errored=len(first) - first["error"].null_count,
            samples=int(samples.sum()),
            retries=self._run.store.retries,
        )
        return {
            "image_id": np.asarray(first["image_id"].to_pylist(), object),
            "error": np.asarray(first["error"].to_pylist(), object),
            "samples": samples.astype(np.int64),
            "batch_size": np.full(len(first), self._sampler.batch_size),
        }

    def _count(self, block: dict[str, np.ndarray]) -> pa.Table:
        rules, images, missing = self._sampler.rules, len(block["image_id"]), block["rules"][0].split()
        counts = np.zeros((2, len(rules), images, self._num_classes), np.int64)
        errors, seconds = _texts(block["error"]), np.zeros(images)
        batch_sizes = np.zeros(images, np.int32)
        for i, image_id in enumerate(block["image_id"]):
            if errors[i] is None:
                start = time.perf_counter()
                pixels = torch.from_numpy(block["image"][i].copy()).permute(2, 0, 1)
                try:
                    counts[0, :, i], counts[1, :, i] = self._sampler.count(pixels, str(image_id))
                except FloatingPointError:
                    errors[i] = NOT_FINITE
                seconds[i] = time.perf_counter() - start
                self._metrics.show(self._sampler.n0 + self._sampler.n, seconds[i], self._sampler.batch_size)
            batch_sizes[i] = self._sampler.batch_size
        counted = np.array([error is None for error in errors])
        parts = [
            votes_table(
                {
                    "image_id": block["image_id"].tolist(),
                    "label": block["label"],
                    "rule": [rule.id] * images,
                    "selection": histograms(counts[0, r]),
                    "estimation": histograms(counts[1, r]),
                    "n0": np.where(counted, self._sampler.n0, 0),
                    "n": np.where(counted, self._sampler.n, 0),
                    "sampling": ["fixed"] * images,
                    "image_sha": _texts(block["image_sha"]),
                    "device": [self._device_name] * images,
                    "batch_size": batch_sizes,
                    "seconds": seconds,
                    "error": errors,
                }
            )
            for r, rule in enumerate(rules)
            if rule.id in missing  # an image may have the votes of others already
        ]
        return pa.concat_tables(parts)

    def _commit(self, votes: pa.Table) -> None:
        part = part_name(self._owner, votes["image_id"].to_pylist())
        self._run.write_votes(part, votes)
        for name, matrix in self._sets.items():
            certificates = certify_table(votes, matrix, self._sigma, self._alpha)
            self._run.write_certificates(name, part, certificates)


def _texts(column: np.ndarray) -> list[str | None]:
    """A column of strings; Ray Data gives NaN for null where a whole block of them is."""
    return [text if isinstance(text, str) else None for text in column]


def part_name(owner: int, image_ids: list[str]) -> str:
    """Names a part by its owner and its images.

    An actor that is restarted in the middle writes the same part over; a later driver that samples errored
    images again never writes over a part whose certificates exist.
    """
    return f"{owner:04d}-{sha256(chr(0).join(image_ids).encode()).hexdigest()[:16]}.parquet"
