"""What a run was certified with, to be deployed: its base classifier, by the hash of its weights, sigma, and rules."""

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from raycsr.certification.answers import Answer, as_answer
from raycsr.deployment.folder import Deployed
from raycsr.errors import UserError, shown
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.loading import load_base_classifier
from raycsr.models.rules import ARGMAX, Rule, rule_of_dict
from raycsr.models.spec import DenoiserOptions, ModelOptions
from raycsr.options import as_hinted
from raycsr.results import Run, resolve_run
from raycsr.results.notes import read_rule
from raycsr.smoothing.options import NOISE_SCHEME


def base_classifier_of(
    run: Run, manifest: Mapping[str, Any], model: str | ModelOptions | None = None
) -> BaseClassifier:
    """The run's base classifier: that which is named, or the one that the manifest names.

    Args:
        run: The run.
        manifest: Manifest of the run.
        model: What a user names; the weights must be those that were certified.

    Raises:
        UserError: it is not the one that the run's votes are of, or cannot be loaded.
    """
    if not {"preprocessing", "components"} <= manifest.keys():
        raise UserError(f"run {run.run_id} does not say which weights its votes are of; give one that does")
    name = manifest["model"]
    fix = "give its own by --model.name, as `raycsr sample` had it"
    options = _named(manifest) if model is None else ModelOptions(model) if isinstance(model, str) else model
    height, width = manifest["preprocessing"]["input_size"]
    try:
        found = load_base_classifier(options, num_classes=manifest["num_classes"])
        if options.input_size is None and found.preprocessing.input_size != (height, width) and height == width:
            options = replace(options, input_size=height)  # which the manifest says, not the model's name
            found = load_base_classifier(options, num_classes=manifest["num_classes"])
    except UserError as error:
        if model is not None:
            raise
        raise UserError(f"the model of run {run.run_id}, {shown(name)}, cannot be loaded ({error}); {fix}") from error
    for what, here, there in (
        ("weights", found.components, manifest["components"]),
        ("preprocessing", found.preprocessing.to_dict(), manifest["preprocessing"]),
    ):
        if here != there:
            raise UserError(
                f"model {options.label!r} is not that of run {run.run_id} ({shown(name)}): its {what} differ; {fix}"
            )
    return found


def _named(manifest: Mapping[str, Any]) -> ModelOptions:
    """The model as it was named for the run; earlier runs note its label alone."""
    noted = manifest.get("config", {}).get("model")
    if noted is None:
        return ModelOptions(manifest["model"])
    try:
        in_front = noted.get("denoiser") or []
        in_front = [in_front] if isinstance(in_front, dict) else in_front
        denoisers = [DenoiserOptions(**_known(DenoiserOptions, one)) for one in in_front]
        return ModelOptions(**{**_known(ModelOptions, {**noted, "denoiser": None}), "denoiser": denoisers or None})
    except (AttributeError, TypeError, UserError) as error:
        raise UserError(
            f"the model in the manifest of this run is damaged ({error}); give its own by --model.name"
        ) from error


def _known(options: type[ModelOptions | DenoiserOptions], noted: Mapping[str, Any]) -> dict[str, Any]:
    """What was noted of these options, of the types that they have; a later raycsr may have more of them."""
    known = {one.name: noted[one.name] for one in fields(options) if one.name in noted}
    checked: dict[str, Any] = as_hinted(options, known, "model")
    return checked


def rule_of(run: Run, rule: str) -> Rule:
    """The run's decision rule that a person means by its id or its spec.

    Raises:
        UserError: the run has no such rule: votes under it were never drawn.
    """
    rule_id = run.rule_id(rule)
    return ARGMAX if rule_id == ARGMAX.id else rule_of_dict(read_rule(run.store, f"rules/{rule_id}.json"))


def deployed_of_run(
    run: str | os.PathLike[str],
    *,
    rule: str,
    answer: Answer | str,
    model: str | ModelOptions | None,
    n0: int,
    n: int,
    alpha: float,
    alpha_p: float,
) -> tuple[BaseClassifier, Deployed]:
    """What a run certified, as `SmoothedClassifier.from_run` deploys it; arguments and errors as there."""
    found = resolve_run(run)
    manifest = found.manifest()
    scheme = manifest.get("noise_scheme", "v1")
    if scheme != NOISE_SCHEME:
        raise UserError(
            f"run {found.run_id} was sampled under noise scheme {scheme}, and what is deployed draws {NOISE_SCHEME}, "
            "the exact one: its certificates are of another smoothed classifier; sample it anew"
        )
    network = base_classifier_of(found, manifest, model)
    return network, Deployed(
        sigma=manifest["sigma"],
        rule=rule_of(found, rule),
        answer=as_answer(answer, network.num_classes, manifest["class_names"]),
        n0=n0,
        n=n,
        alpha=alpha,
        alpha_p=alpha_p,
        precision=manifest["precision"],
        compile=manifest.get("compile", False),
        class_names=tuple(manifest["class_names"]),
        run=found.run_id,
    )
