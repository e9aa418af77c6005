"""Answers: from the shares of a smoothed classifier's votes to what it says, decided after sampling.

A rule turns logits into a class, before the vote; an answer turns shares into a class or an abstention, after it.
Stored votes certify any answer, as they certify any costs. To abstain is never a costly mistake; it is no right answer
either, and an adversary can force it.

Every way to write an answer is a file with its `AnswerKind`, and a line of `KINDS`.
"""

from collections.abc import Iterable, Sequence
from typing import Annotated

from raycsr.certification.answers.answer import Answer, AnswerKind
from raycsr.certification.answers.argmax import ARGMAX_KIND
from raycsr.certification.answers.majority import MAJORITY_KIND
from raycsr.certification.answers.threshold import THRESHOLD_KIND
from raycsr.errors import UserError, shown, similar
from raycsr.forms import Forms, kind_of

KINDS: dict[str, AnswerKind] = {
    "argmax": ARGMAX_KIND,
    "majority": MAJORITY_KIND,
    "threshold": THRESHOLD_KIND,
}
ARGMAX = Answer((0.0,), spec="argmax")
MAJORITY = Answer((0.5,), spec="majority")


def parse_answer(spec: str, num_classes: int | None = None, class_names: Sequence[str] | None = None) -> Answer:
    """Builds the answer that a command line or a YAML file names.

    Args:
        spec: Of these forms, where COSTS is any spec of `CostMatrix.from_spec`:

            - `argmax`: the top class.
            - `majority`: the top class where its share exceeds 1/2.
            - `threshold:0.7*COSTS`: the top class; where it is costly to answer for any class, its share must exceed
              0.7. `threshold:0.7*uniform` says it of all classes.
            - `threshold:dog=0.7,cat=0.5`: the same of some classes, by name or index, as costs name them.
        num_classes: The number m of classes, where known; a threshold needs it.
        class_names: Their names, where known.

    Raises:
        UserError: A spec that is not understood; the message names the nearest that is.

    Example:
        >>> parse_answer("threshold:0.7*pair:cat/dog", 3, ["cat", "dog", "car"]).thresholds
        (0.0, 0.7, 0.0)
    """
    text = spec.strip()
    name, _, rest = text.partition(":")
    kind = KINDS.get(name)
    if kind is None or kind_of(text, kind.forms) is None:
        forms = {one: kind.forms for one, kind in KINDS.items()}
        close = [form for one in similar(name, forms) for form in forms[one]]
        fix = f"did you mean {' or '.join(close)}?" if close else f"use {answer_forms()}"
        raise UserError(f"answer {shown(spec)} not understood; {fix}")
    try:
        return Answer(tuple(kind.thresholds(rest, num_classes, class_names)), spec=text)
    except UserError as error:
        raise UserError(f"answer {shown(spec)}: {error}") from None


def parse_answers(
    specs: Iterable[str | Answer], num_classes: int | None = None, class_names: Sequence[str] | None = None
) -> list[Answer]:
    """Builds answers as `parse_answer` does, each once, in order; those that are built already stay.

    Example:
        >>> [answer.id for answer in parse_answers(["majority", "threshold:0.5*uniform"], 2)]
        ['majority']
    """
    found: dict[str, Answer] = {}
    for one in specs:
        answer = one if isinstance(one, Answer) else parse_answer(one, num_classes, class_names)
        found.setdefault(answer.id, answer)
    return list(found.values())


def as_answer(answer: Answer | str, num_classes: int | None = None, class_names: Sequence[str] | None = None) -> Answer:
    """An answer that a program gives, or writes as a command line does."""
    return parse_answers([answer], num_classes, class_names)[0]


def answer_forms() -> str:
    """What help and messages say of the forms."""
    return " or ".join(form for kind in KINDS.values() for form in kind.forms)


def is_answer_spec(text: str) -> bool:
    """Whether a text is written in one of the forms."""
    return kind_of(text.casefold(), [form for kind in KINDS.values() for form in kind.forms]) is not None


AnswerSpec = Annotated[str, Forms(answer_forms, is_answer_spec)]

__all__ = [
    "ARGMAX",
    "KINDS",
    "MAJORITY",
    "Answer",
    "AnswerKind",
    "AnswerSpec",
    "answer_forms",
    "as_answer",
    "is_answer_spec",
    "parse_answer",
    "parse_answers",
]
