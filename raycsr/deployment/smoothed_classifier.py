"""The smoothed classifier g as an object: images in, what it says of them and what is certified out."""

import os
import secrets
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
import torch
from numpy.typing import ArrayLike
from torch import nn

from raycsr.certification import certify_counts, looks
from raycsr.certification.answers import Answer, as_answer
from raycsr.certification.predictions import Predictions, certify_unlabelled, shares_of
from raycsr.costs import CostMatrix, as_cost_matrix
from raycsr.deployment.folder import Deployed, load_folder, save_folder
from raycsr.deployment.images import Images, to_pixels
from raycsr.deployment.of_run import deployed_of_run
from raycsr.errors import UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier, warn_of_other_sigma, warn_of_random_weights
from raycsr.models.prepare import default_device, prepare_for_inference, refuse_batch_dependence, resolve_precision
from raycsr.models.rules import Rule, parse_rules
from raycsr.models.spec import ModelOptions, Preprocessing
from raycsr.smoothing.engine import Request, Sampler
from raycsr.smoothing.options import CHUNK

Device = torch.device | str | None


class DrawnVotes(NamedTuple):
    """Votes of N images, drawn for one call.

    Attributes:
        counts0: The selection votes; int64 (N, m).
        counts: The estimation votes; int64 (N, m).
        errors: For each image None, or why its votes are all zero.
        seconds: Seconds between an image's votes and those of the one that came before; float (N,).
    """

    counts0: np.ndarray
    counts: np.ndarray
    errors: list[str | None]
    seconds: np.ndarray


class SmoothedClassifier:
    """What was certified, deployed: each call draws votes of its own, and says what they prove, or abstains.

    An image's answer is that of the smoothed classifier but for alpha_p (`raycsr.certification.predictions` has the
    proof), so that within a certified radius a costly class is said with probability alpha + alpha_p a call at most,
    and in K calls alpha + K alpha_p. Whoever chooses the image can have it abstain. Sampling ends as soon as there is a
    proof: of most images after n0 + 64 samples.

    Noise is drawn from the operating system's entropy, anew for each image of each call: noise that an attacker knows
    can be overfitted. Several threads may use one object.

    Attributes:
        deployed: What decides about its answers, beside the network.
        preprocessing: How images become the pixels that it takes; None where the network does not say.
        device: Device of the network.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
        >>> bright = SmoothedClassifier(network, 0.25)  # any torch module, or the name of a model
        >>> said = bright.predict(torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8))
        >>> list(said)
        ['answer', 'name', 'shares', 'n', 'error']
    """

    def __init__(
        self,
        model: str | ModelOptions | nn.Module,
        sigma: float,
        *,
        rule: Rule | str = "argmax",
        answer: Answer | str = "majority",
        n0: int = 64,
        n: int = 10_000,
        alpha: float = 0.001,
        alpha_p: float = 0.001,
        device: Device = None,
    ) -> None:
        """Prepares a network for answers.

        Args:
            model: Name of a model or of a checkpoint, as `load_base_classifier` takes it; or a torch module, pixels in
                [0, 1] -> logits, which is used as it is where it is no base classifier.
            sigma: Standard deviation of the noise, in [0, 1] pixel units.
            rule: Decision rule, logits -> class.
            answer: What is answered by the vote shares: `argmax`, `majority`, or `threshold:...`.
            n0: Number of selection samples of an image.
            n: Largest number of estimation samples of an image; at n without a proof it abstains.
            alpha: Failure probability of one statement of `certify` about an image.
            alpha_p: Probability, at most, with which a call of `predict` says what the smoothed classifier does not
                answer.
            device: Device; by default that of a module, else a GPU where there is one.

        Raises:
            UserError: naming what cannot be deployed.
        """
        network = model if isinstance(model, nn.Module) else load_base_classifier(model)
        if isinstance(network, BaseClassifier) and not isinstance(model, nn.Module):
            named = ModelOptions(model) if isinstance(model, str) else model
            warn_of_random_weights(named)
            warn_of_other_sigma(network, named.name, float(sigma))
        where = _device(device, network, of_module=isinstance(model, nn.Module))
        deployed = Deployed(
            sigma=float(sigma),
            rule=rule if isinstance(rule, Rule) else one_rule(rule, *_classes(network), getattr(network, "rules", ())),
            answer=as_answer(answer, *_classes(network)),
            n0=n0,
            n=n,
            alpha=alpha,
            alpha_p=alpha_p,
            precision=resolve_precision("auto", where, network) if isinstance(network, BaseClassifier) else "fp32",
            class_names=_classes(network)[1],
        )
        self._open(network, deployed, where)

    def _open(self, network: nn.Module, deployed: Deployed, device: torch.device) -> None:
        self.base_classifier, self.deployed, self.device = network, deployed, device
        self.preprocessing: Preprocessing | None = None
        self._decides: Predictions | None = None
        if isinstance(network, BaseClassifier):
            self.preprocessing = network.preprocessing
            precision = resolve_precision(deployed.precision, device, network)
            prepared: nn.Module = prepare_for_inference(
                network, precision=precision, device=device, compile=deployed.compile
            )
            self._predictions(network.num_classes)  # refuses what is not understood, before an image comes
        else:
            prepared = network.eval().to(device)
        self._network, self._lock, self._checked = prepared, threading.Lock(), self.preprocessing is not None
        self._sequential, self._fixed = self._sampler(True), self._sampler(False)

    @classmethod
    def deploy(cls, network: BaseClassifier, deployed: Deployed, *, device: Device = None) -> Self:
        """Deploys a base classifier by what else decides about its answers; device as in the constructor."""
        self = cls.__new__(cls)
        self._open(network, deployed, _device(device, network))
        return self

    @classmethod
    def from_run(
        cls,
        run: str | os.PathLike[str],
        *,
        rule: str = "argmax",
        answer: Answer | str = "majority",
        model: str | ModelOptions | None = None,
        n0: int = 64,
        n: int = 10_000,
        alpha: float = 0.001,
        alpha_p: float = 0.001,
        device: Device = None,
    ) -> Self:
        """Deploys what a run certified: its model, sigma, precision and preprocessing, under one of its rules.

        Args:
            run: The run: its folder, s3://bucket/prefix, or a unique prefix of it.
            rule: Decision rule of the run, as it was written or by its id.
            answer: What is answered by the vote shares; certificates of a run hold for each answer of their own.
            model: The base classifier; by default the one that the run's manifest names. The weights must be those that
                were certified, by their hash.
            n0: As in the constructor, and so are n, alpha, alpha_p and device.
            n: Largest number of estimation samples of an image.
            alpha: Failure probability of one statement of `certify`.
            alpha_p: Failure probability of what a call of `predict` says.
            device: Device.

        Raises:
            UserError: the model is not that of the run or cannot be loaded, the run has no such rule, or its votes are
                of another noise scheme, and so of another smoothed classifier.
        """
        network, deployed = deployed_of_run(
            run, rule=rule, answer=answer, model=model, n0=n0, n=n, alpha=alpha, alpha_p=alpha_p
        )
        return cls.deploy(network, deployed, device=device)

    @classmethod
    def load(cls, folder: str | os.PathLike[str], *, device: Device = None) -> Self:
        """Loads what `save` wrote; it needs neither Ray nor the results.

        Args:
            folder: Folder, local or s3://bucket/prefix.
            device: Device; by default a GPU where there is one.

        Raises:
            UserError: there is none, or its weights are not those that were saved.
        """
        return cls.deploy(*load_folder(folder), device=device)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Writes one folder that `load` takes: the weights and all that decides about answers.

        Raises:
            UserError: it cannot be written, or the network is a torch module that does not say its architecture.
        """
        if not isinstance(self.base_classifier, BaseClassifier):
            raise UserError(
                f"a {type(self.base_classifier).__name__} does not say its architecture, so it cannot be saved; give "
                "SmoothedClassifier the name of a model, or a checkpoint"
            )
        save_folder(folder, self.base_classifier, self.deployed)

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where known."""
        return self.deployed.class_names

    def predict(self, images: Images) -> pd.DataFrame:
        """Says what votes prove of images.

        Args:
            images: Files, PIL images, arrays, or a batch: see `raycsr.deployment.images.to_pixels`.

        Returns:
            One row an image, in order: answer (a class, NA where it abstains), name (of that class, where names are
            known), shares (of the classes with most votes, which are estimates: class -> share), n (estimation
            samples) and error (why an image has no votes, as where its logits are not finite: it abstains).

        Raises:
            UserError: naming the first image that is none, before any is sampled.
        """
        return self.answers_of(self.draw(to_pixels(images, self.preprocessing)))

    def certify(
        self, images: Images, *, costs: CostMatrix | str | None = None, labels: ArrayLike | None = None
    ) -> pd.DataFrame:
        """Certifies images under the answer that is deployed, by n0 + n fresh samples of each, n fixed.

        Args:
            images: As for `predict`.
            costs: Cost matrix, or how a command line writes it.
            labels: The true classes, where they are known; int (N,).

        Returns:
            With costs and labels the columns of `raycsr.certify_counts`. Else those of
            `raycsr.certification.predictions.certify_unlabelled`: with costs the radius for each class that may be the
            true one.

        Raises:
            UserError: naming what cannot be certified.
        """
        pixels = to_pixels(images, self.preprocessing)
        if labels is not None and costs is None:
            raise UserError("labels are given and no costs; give costs too, such as 'uniform', or leave labels out")
        votes = self._count(pixels, self._fixed)
        facts: dict[str, Any] = {
            "sigma": self.deployed.sigma,
            "sampling": "fixed",
            "alpha": self.deployed.alpha,
            "answer": self.deployed.answer,
            "errors": votes.errors,
        }
        if labels is None:
            return certify_unlabelled(votes.counts0, votes.counts, costs=self.costs(costs), **facts)
        matrix = self.costs(costs)
        assert matrix is not None
        return certify_counts(votes.counts0, votes.counts, labels, costs=matrix, **facts)

    def costs(self, costs: CostMatrix | str | None) -> CostMatrix | None:
        """A cost matrix, or one that is written with the names of the classes."""
        num_classes, _ = _classes(self.base_classifier)
        if isinstance(costs, str) and num_classes is not None:
            return CostMatrix.from_spec(costs, num_classes, self.class_names)
        return None if costs is None else as_cost_matrix(costs, num_classes)

    def draw(self, pixels: torch.Tensor) -> DrawnVotes:
        """Draws votes of images until each has its answer, or n.

        Args:
            pixels: uint8 (N, 3, H, W).
        """
        return self._count(pixels, self._sequential)

    def answers_of(self, votes: DrawnVotes) -> pd.DataFrame:
        """What is said by votes that `draw` gave; the columns of `predict`."""
        m = votes.counts.shape[1]
        said = self._predictions(m).answers(votes.counts0, votes.counts)
        abstains = said < 0
        names = self.class_names or [str(k) for k in range(m)]
        return pd.DataFrame(
            {
                "answer": pd.arrays.IntegerArray(np.where(abstains, 0, said), abstains),
                "name": pd.Series([None if k < 0 else names[k] for k in said.tolist()], dtype=object),
                "shares": shares_of(votes.counts),
                "n": votes.counts.sum(axis=1),
                "error": pd.Series(votes.errors, dtype=object),
            }
        )

    def claim(self) -> str:
        """What may be claimed of the answers, in one line."""
        return self.deployed.claim(None if self.preprocessing is None else self.preprocessing.input_size)

    def _sampler(self, sequential: bool) -> Sampler:
        """What draws the votes: until they prove the answer, or n of them."""
        checks = looks(self.deployed.n, CHUNK)[1:] if sequential and self.deployed.n > CHUNK else ()
        return Sampler(
            self._network,
            self.deployed.draws(),
            rules=[self.deployed.rule],
            device=self.device,
            checks=checks,
            enough=self._enough if sequential else None,
        )

    def _enough(self, counts0: np.ndarray, counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
        return self._predictions(counts.shape[1]).are_decided(counts0, counts)

    def _predictions(self, num_classes: int) -> Predictions:
        """What decides about answers, made once: it is asked at every look at an image."""
        if self._decides is None:
            taus = self.deployed.answer.of_classes(num_classes)
            self._decides = Predictions(taus, alpha_p=self.deployed.alpha_p, n=self.deployed.n)
        return self._decides

    def _count(self, pixels: torch.Tensor, sampler: Sampler) -> DrawnVotes:
        """Votes of noise that no other call has: 128 bits of the operating system's entropy name it."""
        with self._lock:
            if not self._checked:
                refuse_batch_dependence(self._network, tuple(pixels.shape[1:]), self.device)
                self._checked = True
            requests = (Request(image, secrets.token_hex(16)) for image in pixels)
            seconds, start, counted = np.zeros(len(pixels)), time.perf_counter(), []
            for one in sampler.sample(requests):
                counted.append(one)
                seconds[one.position], start = time.perf_counter() - start, time.perf_counter()
        counted.sort(key=lambda one: one.position)
        return DrawnVotes(
            np.stack([one.counts0[0] for one in counted]),
            np.stack([one.counts[0] for one in counted]),
            [one.error for one in counted],
            seconds,
        )


def _device(device: Device, network: nn.Module, *, of_module: bool = False) -> torch.device:
    """The device that is named, or where the network is, or a GPU where there is one that computes it."""
    if device is not None:
        return torch.device(device)
    if of_module:
        parameter = next(network.parameters(), None)
        return torch.device("cpu") if parameter is None else parameter.device
    return default_device(int8=isinstance(network, BaseClassifier) and network.calibration is not None)


def _classes(network: nn.Module) -> tuple[int | None, tuple[str, ...] | None]:
    """The number of a network's classes, and their names, as far as it says them."""
    return getattr(network, "num_classes", None), getattr(network, "class_names", None)


def one_rule(spec: str, num_classes: int | None, names: Sequence[str] | None, stored: Sequence[Rule]) -> Rule:
    """The one rule that a text means, of classes and of a checkpoint's rules as `parse_rules` takes them.

    Raises:
        UserError: it means none, or several.
    """
    rules = parse_rules([spec], num_classes=num_classes, class_names=names, stored=stored)
    if len(rules) != 1:
        raise UserError(
            f"rule {spec!r} means {len(rules)} rules ({', '.join(one.spec for one in rules)}); what is deployed has one"
        )
    return rules[0]
