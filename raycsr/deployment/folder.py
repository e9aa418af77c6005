"""A smoothed classifier in a folder: the weights, and all that beside them decides about its answers."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, get_args

from raycsr.certification import check_alpha
from raycsr.certification.answers import Answer
from raycsr.errors import DamagedFile, UserError
from raycsr.models.base_classifier import BaseClassifier
from raycsr.models.checkpoints import load_checkpoint, save_checkpoint
from raycsr.models.prepare import Precision
from raycsr.models.rules import Rule, rule_of_dict
from raycsr.smoothing.lattice import lattice_table
from raycsr.smoothing.options import Draws
from raycsr.store import FileMissing, Store

FORMAT = "raycsr-classifier/1"
"""Within one format fields are only added, and a reader passes over those that it does not know. Others are refused."""

_FACTS, _MODEL = "classifier.json", "model.pt"
_FIX = "save it again, by SmoothedClassifier.save"


@dataclass(frozen=True)
class Deployed:
    """What decides about the answers of a smoothed classifier, beside its base classifier.

    Attributes:
        sigma: Noise level, in [0, 1] pixel units.
        rule: Decision rule, logits -> class.
        answer: Answer, vote shares -> class or abstention.
        n0: Number of selection samples of an image.
        n: Largest number of estimation samples of an image.
        alpha: Failure probability of a certificate.
        alpha_p: Failure probability of what is said in a call.
        precision: Precision of the network.
        compile: Whether the network is compiled.
        batch_size: Number of rows of a forward pass.
        class_names: Names of the classes, where known.
        run: The run whose certificates it has, its id; None where there is none.
    """

    sigma: float
    rule: Rule
    answer: Answer
    n0: int
    n: int
    alpha: float
    alpha_p: float
    precision: str
    compile: bool = False
    batch_size: int = 64
    class_names: tuple[str, ...] | None = None
    run: str | None = None

    def __post_init__(self) -> None:
        """Refuses what nothing can be said by.

        Raises:
            UserError: naming the option and its value.
        """
        self.draws()
        check_alpha(self.alpha)

    def draws(self) -> Draws:
        """The draws of an image; each has noise of its own by the name that it gets."""
        return Draws(self.sigma, self.n0, self.n, batch_size=self.batch_size)

    def claim(self, input_size: tuple[int, int] | None) -> str:
        """What may be claimed of the answers, in one line (`raycsr.certification.predictions` has the proof).

        Args:
            input_size: Height and width of the images; None leaves out how far noise is from Gaussian.
        """
        elements = 0 if input_size is None else 3 * input_size[0] * input_size[1]
        eta = elements * lattice_table(self.sigma).total_variation
        a_call = self.alpha + self.alpha_p + (self.n0 + self.n) * eta
        return (
            f"within a certified radius P(a costly class is said) <= alpha + alpha_p + N eta = {a_call:.4g} a call, "
            f"alpha + K alpha_p in K calls (alpha {self.alpha:g}, alpha_p {self.alpha_p:g}); an attacker can force an "
            "abstention"
        )


def save_folder(folder: str | os.PathLike[str], base_classifier: BaseClassifier, deployed: Deployed) -> None:
    """Writes a smoothed classifier into a folder, local or s3://bucket/prefix.

    Raises:
        UserError: It cannot be written.
    """
    store = Store(folder)
    facts = {
        "format": FORMAT,
        **asdict(deployed),
        "rule": deployed.rule.to_dict(),
        "answer": deployed.answer.to_dict(),
        "components": base_classifier.components,
    }
    save_checkpoint(f"{store.location}/{_MODEL}", base_classifier, class_names=deployed.class_names)
    store.write(_FACTS, json.dumps(facts, indent=1).encode())


def load_folder(folder: str | os.PathLike[str]) -> tuple[BaseClassifier, Deployed]:
    """Reads what `save_folder` wrote.

    Raises:
        UserError: There is no such folder, it is damaged, or its weights are not those that were saved with it.
    """
    store = Store(folder)
    try:
        facts = json.loads(store.read(_FACTS))
    except FileMissing as error:
        raise UserError(f"there is no smoothed classifier in {store.location}: {_FACTS} is missing; {_FIX}") from error
    except (ValueError, RecursionError) as error:
        raise DamagedFile(f"{store.location}/{_FACTS}", "it is no JSON", _FIX) from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        found = facts.get("format") if isinstance(facts, dict) else facts
        raise UserError(f"{store.location}/{_FACTS} has format {found!r}, and this raycsr reads {FORMAT!r}; {_FIX}")
    for field, is_good in _FIELDS.items():
        if not is_good(facts.get(field)):
            raise DamagedFile(f"{store.location}/{_FACTS}", f"its {field} is not what was written", _FIX)
    try:
        names = facts["class_names"]
        deployed = Deployed(
            **{name: facts[name] for name in _FIELDS if name not in ("rule", "answer", "class_names")},
            rule=rule_of_dict(facts["rule"]),
            answer=Answer.of_dict(facts["answer"]),
            class_names=None if names is None else tuple(names),
        )
    except (LookupError, TypeError, ValueError, UserError) as error:
        raise DamagedFile(f"{store.location}/{_FACTS}", str(error), _FIX) from error
    base_classifier = load_checkpoint(f"{store.location}/{_MODEL}")
    if base_classifier.components != facts.get("components"):
        raise UserError(
            f"the weights in {store.location}/{_MODEL} are not those that {_FACTS} was written for, so nothing is "
            f"certified of them; {_FIX}"
        )
    base_classifier.eval().requires_grad_(False)
    return base_classifier, deployed


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_names(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(name, str) for name in value))


_FIELDS: dict[str, Callable[[Any], bool]] = {
    "sigma": _is_number,
    "rule": lambda value: isinstance(value, dict),
    "answer": lambda value: isinstance(value, dict),
    "n0": _is_count,
    "n": _is_count,
    "alpha": _is_number,
    "alpha_p": _is_number,
    "precision": lambda value: value in get_args(Precision),
    "compile": lambda value: type(value) is bool,
    "batch_size": _is_count,
    "class_names": _is_names,
    "run": lambda value: value is None or isinstance(value, str),
}
