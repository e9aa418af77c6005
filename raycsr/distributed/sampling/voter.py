"""The actor that samples: blocks of decoded images in, committed votes parts out."""

import gc
import socket
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pyarrow as pa
import torch

from raycsr.certification import Statements, looks
from raycsr.certification.answers import ARGMAX, Answer
from raycsr.certification.votes import SparseVotes
from raycsr.costs import CostMatrix
from raycsr.data.decode import OTHER_PIXELS
from raycsr.distributed.pool import device_kind, device_name, ending_with_its_gpu, worker_device
from raycsr.distributed.sampling.blocks import texts
from raycsr.distributed.sampling.company import Company
from raycsr.distributed.sampling.deaths import SharedDeaths, starting, survive
from raycsr.distributed.sampling.prometheus import Metrics
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.prepare import Precision, prepare_for_inference
from raycsr.models.rules import Rule
from raycsr.results import CertificateSet, Run, certificate_set, certify_table, histograms, sparse_votes, votes_table
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.feeder import Feeder
from raycsr.smoothing.lattice import lattice_table
from raycsr.smoothing.options import CHUNK, Draws
from raycsr.store import Store


@dataclass(frozen=True)
class VoterSpec:
    """All that an actor is told about a run, by the driver that checked and opened it.

    Attributes:
        model: Function that returns the base classifier; on a cluster from the object store.
        network: Number of that base classifier among those of the stream's runs, which may share it.
        precision: Precision, as the probe resolved it.
        compile: Whether the network is compiled.
        threads: Number of torch threads.
        run: Location of the run.
        owner: Number of the driver that owns the run; part of the parts' names.
        draws: Numbers of noisy copies of an image.
        design: Sampling design of the votes.
        rules: Decision rules to count votes under.
        costs: Spec -> cost matrix to certify under at once.
        statements: Statements whose decision ends the sampling of an image; None where n alone does.
        alpha: Failure probability of an image's certificate.
        answers: What the smoothed classifier says, given shares; each is certified.
    """

    model: Callable[[], BaseClassifier]
    network: int
    precision: Precision
    compile: bool
    threads: int
    run: str
    owner: int
    draws: Draws
    design: str
    rules: tuple[Rule, ...]
    costs: dict[str, CostMatrix]
    statements: Statements | None
    alpha: float
    answers: tuple[Answer, ...] = (ARGMAX,)


class Voter:
    """Samples blocks of a run's images and commits a votes part for each, before it returns the block.

    With costs, the part's certificates are committed right behind it, so they appear while sampling goes on. Several
    threads may sample a block each: they share one engine, and each commits its own.
    """

    def __init__(
        self, spec: VoterSpec, deaths: SharedDeaths | None = None, network: BaseClassifier | None = None
    ) -> None:
        """Prepares the network on this worker's device.

        Args:
            spec: Facts about the run.
            deaths: Deaths of the stream's processes; None where this process alone samples.
            network: Network of the run, where it is prepared already.
        """
        torch.set_num_threads(spec.threads)
        self.spec = spec
        self._run = Run(Store(spec.run))
        if not self._run.store.exists("manifest.json"):
            node = socket.gethostname()
            raise UserError(f"node {node} does not see {spec.run}; give --results s3://, or a shared folder")
        self._device = worker_device(int8=spec.precision == "int8")
        self._device_name = device_name(self._device)
        self._batch_size = spec.draws.batch_size  # of images that are new; less, once memory ran out
        self._refuse_other_noise(spec.draws.sigma)
        with starting(deaths, spec.run):
            self.network = network or prepare_for_inference(
                spec.model(), precision=spec.precision, device=self._device, compile=spec.compile
            )
            sampler = self._open_sampler()
        self._rules, self._feeder = sampler.rules, Feeder(sampler)
        self._num_classes = self.network.num_classes
        self._metrics = Metrics(self._run.run_id)
        self._sets: list[tuple[CertificateSet, CostMatrix, Answer]] = []
        for name, matrix in spec.costs.items():
            for answer in spec.answers:
                of_set = certificate_set(name, matrix, spec.alpha, spec.design, answer=answer)
                self._sets.append((CertificateSet(self._run.store, of_set, spec.draws.sigma), matrix, answer))

    def _refuse_other_noise(self, sigma: float) -> None:
        """Refuses a node whose noise would not be the run's: the table is worked out wherever it is needed."""
        here, of_run = lattice_table(sigma).digest, self._run.manifest().get("noise", {}).get("table")
        if here != of_run:
            raise UserError(
                f"the noise table of sigma {sigma:g} is {here} on node {socket.gethostname()} and {of_run} in "
                f"{self._run.location}; give the node the mpmath and the raycsr of the others"
            )

    def _open_sampler(self) -> Sampler:
        spec = self.spec
        return Sampler(
            self.network,
            spec.draws,
            rules=spec.rules,
            device=self._device,
            checks=looks(spec.draws.n, CHUNK) if spec.statements is not None else (),
            enough=None if spec.statements is None else spec.statements.rows_are_decided,
        )

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples one block.

        Args:
            block: image_id, label, rules, continues, batch_size, image (uint8, N H W 3), image_sha, error. The same for
                all: `rules`, the ids of the rules whose votes are missing; `continues`, the part that has the votes
                which these images had before; `batch_size`, of the passes that drew those, 0 where there are none.

        Returns:
            image_id, error, samples, batch_size, halved (whether memory ran out): what the driver needs to report.
        """
        torch.set_num_threads(self.spec.threads)  # each thread has a number of its own
        rules, continues, batch_size = block["rules"][0], block["continues"][0], self._batch_size_of(block)
        part = part_name(self.spec.owner, [*block["image_id"], rules, continues])
        if self._run.store.exists(f"votes/{part}"):  # by a process that died behind its commit, or at an image after it
            votes, samples = self._run.store.read_table(f"votes/{part}"), np.zeros(len(block["image_id"]), np.int64)
            least = batch_size
        else:
            votes, samples = self._count(block, rules.split(), continues)
            least = min(votes["batch_size"].to_pylist())
        if least < batch_size:  # memory ran out
            self._batch_size = min(self._batch_size, least)
        self._commit(part, votes)
        first = votes.slice(0, len(block["image_id"]))  # one rule's rows
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
            "batch_size": np.full(len(first), least),
            "halved": np.full(len(first), least < batch_size),
        }

    def _batch_size_of(self, block: dict[str, np.ndarray]) -> int:
        """Number of rows of the passes for a block, as long as there is memory for them."""
        return int(block["batch_size"][0]) or self._batch_size

    def _count(self, block: dict[str, np.ndarray], missing: list[str], continues: str) -> tuple[pa.Table, np.ndarray]:
        """The votes of a block, and the samples that were drawn for each of its images now."""
        rules, images, batch_size = self._rules, len(block["image_id"]), self._batch_size_of(block)
        wanted = [r for r, rule in enumerate(rules) if rule.id in missing]
        none = SparseVotes.from_dense(np.zeros((len(wanted), 1), np.int64))
        counts = [(none, none)] * images  # of the wanted rules
        errors, seconds, drawn = texts(block["error"]), np.zeros(images), np.zeros(images, np.int64)
        batch_sizes = np.full(images, batch_size, np.int32)
        before = self._before(block, continues, wanted, errors) if continues else None
        rows = [i for i in range(images) if errors[i] is None]

        def request(i: int) -> Request:
            pixels = torch.from_numpy(block["image"][i].copy()).permute(2, 0, 1)
            counts0, so_far = (None, None) if before is None else before(i)
            of_passes = None if before is None else int(block["batch_size"][i])
            return Request(
                pixels, str(block["image_id"][i]), int(block["label"][i]), counts0, so_far, of_passes, wanted
            )

        with self._feeder.counting(map(request, rows), len(rows), batch_size) as done:
            for counted, took in done:
                i = rows[counted.position]
                of_image = counted.counts0[wanted], counted.counts[wanted]
                counts[i] = SparseVotes.from_dense(of_image[0]), SparseVotes.from_dense(of_image[1])
                drawn[i], batch_sizes[i], seconds[i] = counted.drawn, counted.batch_size, took
                errors[i] = counted.error
                self._metrics.show(counted.drawn, took, counted.batch_size)
        by_image = tuple(SparseVotes.joined(of_kind) for of_kind in zip(*counts, strict=True))
        decided = self._decided(by_image, block["label"], np.array([error is None for error in errors]))
        parts = []
        for k, r in enumerate(wanted):  # an image may have the votes of others already
            selection, estimation = (votes.take(np.arange(images) * len(wanted) + k) for votes in by_image)
            columns = {
                "image_id": block["image_id"].tolist(),
                "label": block["label"],
                "rule": [rules[r].id] * images,
                "selection": histograms(selection),
                "estimation": histograms(estimation),
                "n0": selection.totals(),
                "n": estimation.totals(),
                "sampling": [self.spec.design] * images,
                "decided": decided,
                "continues": [continues or None] * images,
                "image_sha": texts(block["image_sha"]),
                "device": [self._device_name] * images,
                "batch_size": batch_sizes,
                "seconds": seconds,
                "error": errors,
            }
            parts.append(votes_table(columns))
        return pa.concat_tables(parts), drawn

    def _before(
        self, block: dict[str, np.ndarray], part: str, wanted: list[int], errors: list[str | None]
    ) -> Callable[[int], tuple[np.ndarray, np.ndarray]]:
        """The votes that images had before: the number of an image -> both kinds, (rules, m) each, 0 of other rules.

        An image that cannot go on has an error after it: its pixels changed, its votes are not there, or were drawn on
        another kind of device, which rounds logits in another way.
        """
        table = self._run.store.read_table(f"votes/{part}")
        place = {image_id: i for i, image_id in enumerate(block["image_id"])}
        rules = {self._rules[r].id: k for k, r in enumerate(wanted)}
        found = np.full((len(wanted), len(block["image_id"])), -1)  # rows of the table
        here = device_kind(self._device_name)
        for row, (image_id, rule, sha, device) in enumerate(
            zip(*(table[name].to_pylist() for name in ("image_id", "rule", "image_sha", "device")), strict=True)
        ):
            i, k = place.get(image_id), rules.get(rule)
            if i is None or k is None:
                continue
            found[k, i] = row
            if errors[i] is None and block["image_sha"][i] != sha:
                errors[i] = OTHER_PIXELS
            if errors[i] is None and device_kind(device) != here:
                errors[i] = f"its votes were drawn on {device_kind(device)!r}, and this is {here!r}"
        for lacking in np.flatnonzero((found < 0).any(axis=0)).tolist():
            errors[lacking] = errors[lacking] or f"its votes from before are not in {part}"
        votes = [sparse_votes(table[name]) for name in ("selection", "estimation")]

        def of_image(i: int) -> tuple[np.ndarray, np.ndarray]:
            counts = np.zeros((2, len(self._rules), self._num_classes), np.int64)
            for kind, of_kind in enumerate(votes):
                counts[kind, wanted] = of_kind.take(found[:, i]).dense(self._num_classes)
            return counts[0], counts[1]

        return of_image

    def _decided(self, votes: tuple[SparseVotes, ...], labels: np.ndarray, counted: np.ndarray) -> list[str | None]:
        """The statements' digest for each image whose sampling they ended, by its votes under the wanted rules.

        Args:
            votes: Selection votes of the first image under each wanted rule, then of the next; and estimation votes.
            labels: Classes of the images, int (N,).
            counted: Images whose votes are whole, bool (N,).
        """
        statements = self.spec.statements
        if statements is None or not counted.any():
            return [None] * len(labels)
        wanted = len(votes[0]) // len(labels)
        rows = np.flatnonzero(np.repeat(counted, wanted))
        decided, (selection, estimation) = counted.copy(), (of_kind.take(rows) for of_kind in votes)
        tallies = statements.tally(selection, estimation, np.repeat(labels, wanted)[rows], self._num_classes)
        decided[counted] = statements.are_decided(tallies).reshape(-1, wanted).all(axis=1)
        return [statements.digest if one else None for one in decided]

    def _commit(self, part: str, votes: pa.Table) -> None:
        digest = self._run.write_votes(part, votes)
        sigma, alpha = self.spec.draws.sigma, self.spec.alpha
        for certificates, matrix, answer in self._sets:
            certificates.write(part, certify_table(votes, matrix, sigma, alpha, answer=answer), digest)


class Voters:
    """The actor: it samples blocks of several runs, and has the voter of one run at a time.

    It may be called by several threads at once: blocks of one run keep company, and those of another wait.
    """

    def __init__(
        self,
        specs: Sequence[VoterSpec],
        deaths: SharedDeaths | None = None,
        voter: type[Voter] = Voter,
        at_once: int = 1,
    ) -> None:
        """Loads nothing yet: the first block says which run it is of.

        Args:
            specs: Facts about each run.
            deaths: Deaths of the stream's processes, as `Voter` takes them.
            voter: Class of what samples the blocks of a run.
            at_once: Number of blocks that this process may be given at once.
        """
        self._specs, self._deaths, self._make = specs, deaths, voter
        self._company = Company() if at_once > 1 else None
        self._begins = threading.Lock()  # of the voter
        self._voter: Voter | None = None

    def __call__(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Samples one block, as `Voter.__call__` does; `run` is the number of its run, in the result as well."""
        with ending_with_its_gpu(restarted=self._deaths is not None):
            done = survive(self._deaths, "sampled", block, self._sample, self._give_up, self._company)
        return {**done, "run": block["run"]}

    def _give_up(self, block: dict[str, np.ndarray], why: str) -> dict[str, np.ndarray]:
        return self._sample({**block, "error": np.array([why], object)})

    def _sample(self, block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return self._voter_of(self._specs[int(block["run"][0])])(block)

    def _voter_of(self, spec: VoterSpec) -> Voter:
        with self._begins:
            if self._voter is None or self._voter.spec is not spec:
                before, self._voter = self._voter, None
                network = before.network if before is not None and before.spec.network == spec.network else None
                del before  # a device may hold one network, and not two
                gc.collect()  # one that is compiled holds itself
                self._voter = self._make(spec, self._deaths, network)
            return self._voter


def part_name(owner: int, what: list[str]) -> str:
    """Names a part by its owner and by what it is about: images, rules, the part that it continues.

    An actor that is restarted in the middle writes the same part over; a later driver that samples errored
    images again never writes over a part whose certificates exist.
    """
    return f"{owner:04d}-{sha256(chr(0).join(what).encode()).hexdigest()[:16]}.parquet"
