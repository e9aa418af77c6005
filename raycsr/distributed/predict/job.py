"""Answers that are asked for: what is checked before they are drawn, and what their set is called."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from raycsr.certification.answers import as_answer
from raycsr.certification.predictions import Predictions
from raycsr.costs import CostMatrix
from raycsr.data.options import DataOptions
from raycsr.data.sources import Listing, Source, open_source
from raycsr.deployment.folder import Deployed
from raycsr.deployment.of_run import deployed_of_run
from raycsr.deployment.smoothed_classifier import SmoothedClassifier, one_rule
from raycsr.distributed.cluster import check_location
from raycsr.distributed.pool import Probe, refuse_gpus, worker_device
from raycsr.distributed.predict.arguments import PredictArguments
from raycsr.errors import UserError, first_of, shown
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier, warn_of_other_sigma, warn_of_random_weights
from raycsr.models.prepare import check_precision, resolve_precision
from raycsr.models.spec import ModelOptions
from raycsr.results import SCHEMA_VERSION
from raycsr.results.predictions import PredictionSet, check_table
from raycsr.smoothing.options import CHUNK, NOISE_SCHEME, SamplingOptions

_SHOWN = 6  # names of classes in a message


@dataclass(frozen=True)
class Asked:
    """A smoothed classifier that is asked, checked without the cluster.

    Attributes:
        arguments: Options of the user.
        name: Name of the model or of the run.
        base_classifier: The base classifier.
        deployed: What else decides about the answers; its precision may still be `auto`.
        costs: The cost matrix; None where there is none.
    """

    arguments: PredictArguments
    name: str
    base_classifier: BaseClassifier
    deployed: Deployed
    costs: CostMatrix | None

    @property
    def sampling(self) -> SamplingOptions:
        """What a probe of a worker asks about."""
        return SamplingOptions(
            sigma=self.deployed.sigma,
            n0=self.deployed.n0,
            n=self.deployed.n,
            batch_size=self.arguments.batch_size,
            compile=self.deployed.compile if self.deployed.run else None,
            precision=self.deployed.precision,  # type: ignore[arg-type]  # a manifest's, or that of the options
        )

    def on(self, found: Probe) -> Deployed:
        """What is deployed on such workers."""
        return replace(self.deployed, precision=found.precision, compile=found.compile, batch_size=found.batch_size)

    def classifier_here(self) -> SmoothedClassifier:
        """The smoothed classifier in this process, for an image that is worth no search for the fastest batch."""
        deployed, batch_size = self.deployed, self.arguments.batch_size or CHUNK
        device = worker_device(int8=self.base_classifier.calibration is not None)
        precision = resolve_precision(deployed.precision, device, self.base_classifier)
        here = replace(deployed, precision=precision, batch_size=batch_size)
        return SmoothedClassifier.deploy(self.base_classifier, here, device=device)


@dataclass(frozen=True)
class PredictJob:
    """Images and what is asked about them.

    Attributes:
        asked: Smoothed classifier that is asked.
        source: Source of the images.
        listing: Listing of the images.
        results: Folder for the results.
    """

    asked: Asked
    source: Source
    listing: Listing
    results: str

    def set_of(self, found: Probe) -> PredictionSet:
        """The set of these answers, where what it is of is noted."""
        asked, deployed = self.asked, self.asked.on(found)
        facts: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "model": asked.name,
            "components": asked.base_classifier.components,
            "preprocessing": asked.base_classifier.preprocessing.to_dict(),
            "class_names": list(deployed.class_names or ()),
            "sigma": deployed.sigma,
            "noise_scheme": NOISE_SCHEME,
            "precision": deployed.precision,
            "compile": deployed.compile,
            "rule": deployed.rule.to_dict(),
            "answer": deployed.answer.to_dict(),
            "n0": deployed.n0,
            "n": deployed.n,
            "alpha": deployed.alpha,
            "alpha_p": deployed.alpha_p,
            "run": deployed.run,
            "costs": None if asked.costs is None else [asked.arguments.costs, asked.costs.digest],
            "data": self.listing.identity,
        }
        predictions = PredictionSet.of(self.results, asked.arguments.experiment, facts)
        predictions.note(facts)
        return predictions


def check_job(arguments: PredictArguments) -> PredictJob:
    """Checks all that can be checked of images without the cluster.

    Raises:
        UserError: naming what is wrong.
    """
    if arguments.data is None or arguments.results is None:
        lacks = "data" if arguments.data is None else "results"
        raise UserError(
            f"--{lacks} is missing: give --data.source and --data.path, and --results; or --image for one image, whose "
            "answer is printed"
        )
    check_location(arguments.results)
    if arguments.out is not None:
        check_table(arguments.out)
    source = open_source(arguments.data, labelled=False)
    listing = source.list()
    asked = check_asked(arguments, listing.class_names)
    refuse_gpus(arguments.pool, asked.base_classifier)
    return PredictJob(asked, source, listing, arguments.results)


def check_asked(arguments: PredictArguments, class_names: Sequence[str] = ()) -> Asked:
    """Checks the smoothed classifier that is asked.

    Args:
        arguments: Options of the user.
        class_names: Names of the classes that the user gives, where any.

    Raises:
        UserError: naming what is wrong.
    """
    if arguments.run is None:
        name, base_classifier, deployed = _of_model(arguments, class_names)
    else:
        for option, value, default in (("sigma", arguments.sigma, None), ("precision", arguments.precision, "auto")):
            if value != default:
                raise UserError(f"{option} is {value} and the run has its own: leave it out, or leave out --run")
        base_classifier, deployed = deployed_of_run(
            arguments.run,
            rule=arguments.rule,
            answer=arguments.answer,
            model=arguments.model,
            n0=arguments.n0,
            n=arguments.n,
            alpha=arguments.alpha,
            alpha_p=arguments.alpha_p,
        )
        name = f"run {deployed.run}"
    names = deployed.class_names
    if class_names and names and list(class_names) != list(names):
        raise UserError(
            f"data.class_names are {first_of(list(map(shown, class_names)), _SHOWN)} and those of {name} are "
            f"{first_of(list(map(shown, names)), _SHOWN)}: leave data.class_names out"
        )
    num_classes = base_classifier.num_classes
    Predictions(deployed.answer.of_classes(num_classes), alpha_p=deployed.alpha_p, n=deployed.n)
    costs = None if arguments.costs is None else CostMatrix.from_spec(arguments.costs, num_classes, names)
    return Asked(arguments, name, base_classifier, deployed, costs)


def _of_model(arguments: PredictArguments, class_names: Sequence[str]) -> tuple[str, BaseClassifier, Deployed]:
    if arguments.model is None:
        raise UserError("who is to answer? give --run RUN, or --model.name MODEL and --sigma")
    if arguments.sigma is None:
        raise UserError("sigma is missing: give the noise level that the model was certified at, or --run")
    options = ModelOptions(arguments.model) if isinstance(arguments.model, str) else arguments.model
    base_classifier = load_base_classifier(options)
    check_precision(arguments.precision, base_classifier)
    warn_of_random_weights(options)
    warn_of_other_sigma(base_classifier, options.name, arguments.sigma)
    m, names = base_classifier.num_classes, base_classifier.class_names
    if names is None and class_names:
        if len(class_names) != m:
            raise UserError(f"data.class_names has {len(class_names)} names and model {options.label!r} {m} classes")
        names = tuple(class_names)
    deployed = Deployed(
        sigma=float(arguments.sigma),
        rule=one_rule(arguments.rule, m, names, base_classifier.rules),
        answer=as_answer(arguments.answer, m, names),
        n0=arguments.n0,
        n=arguments.n,
        alpha=arguments.alpha,
        alpha_p=arguments.alpha_p,
        precision=arguments.precision,
        class_names=names,
    )
    return options.label, base_classifier, deployed


def refuse_stored(arguments: PredictArguments) -> None:
    """Refuses options of stored answers where one image is asked about.

    Raises:
        UserError: naming the option.
    """
    given: dict[str, DataOptions | str | None] = {
        "data": arguments.data,
        "results": arguments.results,
        "out": arguments.out,
    }
    for option, value in given.items():
        if value is not None:
            raise UserError(f"--image is one image, whose answer is printed; leave out --{option}, or --image")
