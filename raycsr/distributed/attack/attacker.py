"""The actor that attacks: blocks of decoded images in, committed parts of attacks out."""

import hashlib
import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from raycsr.certification import Answer
from raycsr.certification.attacks import verdicts
from raycsr.costs import CostMatrix
from raycsr.distributed.attack.job import AttackJob
from raycsr.distributed.pool import device_name, ending_with_its_gpu, worker_device
from raycsr.distributed.sampling.deaths import SharedDeaths, starting, survive
from raycsr.distributed.sampling.voter import part_name
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import prepare_for_inference
from raycsr.models.rules import Rule
from raycsr.results.attacks import AttackSet
from raycsr.results.schema import ATTACKS
from raycsr.smoothing.attack import attack_images, distances
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.forward_pass import is_out_of_memory
from raycsr.smoothing.options import CHUNK, AttackOptions, Draws
from raycsr.store import Store

_KEPT = 64  # images, about, whose broken pictures are kept for people to see: all would take gigabytes
_ROWS = 256  # noisy copies that gradients go through at once, or one image's where it has more


@dataclass(frozen=True)
class AttackerSpec:
    """What an actor attacks with; small, so it travels to each of them.

    Attributes:
        run: Location of the run.
        name: Name of the set of attacks.
        owner: Number of the driver that owns the run; part of the parts' names.
        manifest: Facts of the run's manifest: sigma, precision, compile and batch_size.
        rule: The decision rule whose smoothed classifier is attacked.
        answer: What that smoothed classifier says, given shares.
        costs: The cost matrix; what is costly to answer for a label is sought.
        options: The budget.
        threads: Torch threads.
        kept: Share of the images whose broken pictures are kept.
    """

    run: str
    name: str
    owner: int
    manifest: dict[str, Any]
    rule: Rule
    answer: Answer
    costs: CostMatrix
    options: AttackOptions
    threads: int
    kept: float

    @classmethod
    def of(cls, job: AttackJob, *, owner: int, threads: int) -> "AttackerSpec":
        """What the actors of a job get."""
        run, name, costs = job.run.location, job.attacks.name, job.matrix
        kept = _KEPT / max(1, job.wanted["image_id"].nunique())
        return cls(run, name, owner, job.manifest, job.rule, job.answer, costs, job.asked.options, threads, kept)


class Attacker:
    """Attacks blocks of images and commits a part for each, before it returns the block.

    Pictures are sought by gradients of the network in float32, and judged by votes of the network as the run has it.
    """

    def __init__(
        self,
        *,
        model: Callable[[], BaseClassifier],
        spec: AttackerSpec,
        deaths: SharedDeaths | None = None,
        device: torch.device | None = None,
    ) -> None:
        """Prepares the network on this worker's device.

        Args:
            model: Gives the base classifier; on a cluster from the object store.
            spec: All else.
            deaths: Deaths of the stream's processes; None where this process alone attacks.
            device: Device; by default that of this worker.
        """
        torch.set_num_threads(spec.threads)
        self._spec, self._deaths = spec, deaths
        self._set = AttackSet(Store(spec.run), spec.name)
        self._device = device or worker_device(int8=spec.manifest.get("precision") == "int8")
        with starting(deaths, spec.run):
            base_classifier = model()
            self._network = base_classifier.to(self._device).eval().requires_grad_(False)
            self._sampler = self._open_sampler(base_classifier)

    def _open_sampler(self, base_classifier: BaseClassifier) -> Sampler:
        manifest, options = self._spec.manifest, self._spec.options
        prepared = prepare_for_inference(
            base_classifier,
            precision=manifest.get("precision", "fp32"),
            device=self._device,
            compile=manifest.get("compile", False),
        )
        return Sampler(
            prepared,
            Draws(manifest["sigma"], CHUNK, options.n, options.seed, manifest.get("batch_size") or CHUNK),
            rules=[self._spec.rule],
            device=self._device,
            purpose="pilot",  # noise that no certificate stands on; a picture's name gives it its own
        )

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Attacks one block.

        Args:
            block: image_id, label, radii (of each image, with a space between), certified (the certificate's radius
                that they are of, NaN where they were named), alpha (of it), image (uint8, N H W 3), image_sha, error.

        Returns:
            image_id, error and broken (radii at which a picture is proven to break): what the driver needs to report.
        """
        with ending_with_its_gpu(restarted=self._deaths is not None):
            return survive(self._deaths, "attacked", block, self._attack, self._give_up)

    def _give_up(self, block: dict[str, np.ndarray], why: str) -> dict[str, np.ndarray]:
        return self._attack({**block, "error": np.array([why], object)})

    def _attack(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        named = [f"{image_id} {radii}" for image_id, radii in zip(block["image_id"], block["radii"], strict=True)]
        part = part_name(self._spec.owner, named)
        attacks = self._set.one(part) if self._set.exists(part) else None  # by a process that died behind its commit
        if attacks is None:
            images = [{name: column[i] for name, column in block.items()} for i in range(len(named))]
            attacks = pa.Table.from_pylist(self.rows(images), schema=ATTACKS)
            self._set.write(part, attacks)
        rows = attacks.select(["image_id", "error", "broken"]).to_pandas().groupby("image_id", sort=False)
        return {
            "image_id": block["image_id"],
            "error": rows["error"].first().reindex(block["image_id"]).to_numpy(object),
            "broken": rows["broken"].sum().reindex(block["image_id"]).to_numpy(np.int64),
        }

    def rows(self, images: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The attacks of some images, each of which is a row of a block: a row of the part for each radius."""
        rows: list[dict[str, Any]] = []
        pixels: list[torch.Tensor] = []  # of the rows that have no error, C H W
        for image in images:
            of_image = [self._row(image, float(radius)) for radius in str(image["radii"]).split()]
            rows += of_image
            if of_image[0]["error"] is None:
                shared = torch.from_numpy(np.array(image["image"])).permute(2, 0, 1).to(self._device)
                pixels += [shared] * len(of_image)
        good = [row for row in rows if row["error"] is None]
        together = max(1, _ROWS // self._spec.options.noises)
        for start in range(0, len(good), together):
            some = slice(start, start + together)
            began = time.perf_counter()
            originals = torch.stack(pixels[some])
            pictures = self._seek(originals, good[some])
            self._judge(originals, pictures, good[some])
            for row, picture in zip(good[some], pictures, strict=True):
                row["seconds"] = (time.perf_counter() - began) / len(originals)
                if row["broken"] and _drawn(row["image_id"]) < self._spec.kept:
                    row["picture"] = _png(picture)
        return rows

    def _row(self, image: dict[str, Any], radius: float) -> dict[str, Any]:
        """What is known of an attack before it."""
        error = image["error"] if isinstance(image["error"], str) else None  # Ray Data gives NaN for null
        certified = not np.isnan(image["certified"])
        return {
            "image_id": str(image["image_id"]),
            "label": int(image["label"]),
            "radius": radius,
            "certified": float(image["certified"]) if certified else None,
            "alpha": float(image["alpha"]) if certified else None,
            "n": 0,
            "broken": False,
            "wrong": False,
            "image_sha": image["image_sha"] if error is None else None,
            "device": device_name(self._device),
            "seconds": 0.0,
            "error": error,
        }

    def _seek(self, images: torch.Tensor, rows: list[dict[str, Any]]) -> torch.Tensor:
        """A picture for each image and its row, uint8 (N, C, H, W) both."""
        try:
            return self._attacked(images, rows)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if len(rows) == 1:
                raise UserError(
                    f"out of memory: an attack takes gradients through {self._spec.options.noises} noisy copies of an "
                    "image at once; give fewer --noises"
                ) from error
        halves = (slice(0, len(rows) // 2), slice(len(rows) // 2, len(rows)))
        return torch.cat([self._seek(images[half], rows[half]) for half in halves])

    def _attacked(self, images: torch.Tensor, rows: list[dict[str, Any]]) -> torch.Tensor:
        options = self._spec.options
        return attack_images(
            self._network,
            images,
            torch.from_numpy(self._spec.costs.rows([row["label"] for row in rows]) > 0).to(self._device),
            [row["radius"] for row in rows],
            sigma=self._spec.manifest["sigma"],
            options=options,
            generators=[_generator(options.seed, row, self._device) for row in rows],
            taus=self._spec.answer.thresholds,
        )

    def _judge(self, images: torch.Tensor, pictures: torch.Tensor, rows: list[dict[str, Any]]) -> None:
        """Completes rows by the verdicts of fresh votes on their pictures, uint8 (N, C, H, W) as their images."""
        requests = (Request(picture, _name_of_noise(row)) for picture, row in zip(pictures, rows, strict=True))
        counted = sorted(self._sampler.sample(requests), key=lambda one: one.position)
        counts0 = np.stack([one.counts0[0] for one in counted])  # (N, m)
        counts = np.stack([one.counts[0] for one in counted])  # (N, m)
        labels = np.array([row["label"] for row in rows])
        costly = verdicts(counts0, counts, self._spec.costs.rows(labels) > 0, self._spec.answer)
        wrong = verdicts(counts0, counts, labels[:, None] != np.arange(counts.shape[1]))
        away = distances(images, pictures)
        for i, row in enumerate(rows):
            row |= {
                "distance": float(away[i]),
                "target": int(costly.target[i]),
                "target_votes": int(costly.target_votes[i]),
                "rival": int(costly.rival[i]),
                "rival_votes": int(costly.rival_votes[i]),
                "n": int(counts[i].sum()),
                "broken": bool(costly.proven[i]),
                "wrong": bool(wrong.proven[i]),
                "picture_sha": _sha(pictures[i]),
                "error": counted[i].error,
            }


def _generator(seed: int, row: dict[str, Any], device: torch.device) -> torch.Generator:
    """The noise of an attack's gradients, which depends on the seed, the image and the radius alone."""
    message = json.dumps([seed, row["image_id"], "attack", row["radius"]]).encode()
    found = torch.Generator(device)
    return found.manual_seed(int.from_bytes(hashlib.blake2b(message, digest_size=8).digest(), "little"))


def _name_of_noise(row: dict[str, Any]) -> str:
    """What the noise of a picture's votes depends on beside the seed; JSON, so that no two pictures share it."""
    return json.dumps([row["image_id"], "attacked", row["radius"]])


def _drawn(image_id: str) -> float:
    """A number in [0, 1) that depends on the image alone: which images are kept hangs on no block or actor."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=8).digest(), "little") / 2**64


def _png(picture: torch.Tensor) -> bytes:
    """A picture, uint8 (C, H, W), as a file that loses nothing."""
    buffer = io.BytesIO()
    Image.fromarray(picture.permute(1, 2, 0).contiguous().cpu().numpy()).save(buffer, "PNG")
    return buffer.getvalue()


def _sha(picture: torch.Tensor) -> str:
    """The digest of a picture, uint8 (C, H, W), as that of decoded images is taken."""
    return hashlib.sha256(picture.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()).hexdigest()[:16]
