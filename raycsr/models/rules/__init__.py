"""Decision rules: logits -> class. With any of them f is a base classifier of its own.

A rule is fixed before it is certified, and its smoothed version is certified by the same theorems as argmax
is. A cost-sensitive one gives up some answers that would be costly if they were wrong, without training.

Every kind is a file with a subclass of `Rule`, and a line of `KINDS`; packages add others by entry points of the group
`raycsr.rules`.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Annotated, Any

from raycsr.costs.specs import is_cost_spec
from raycsr.errors import UserError, shown, similar
from raycsr.extensions import Extensions
from raycsr.forms import Forms, kind_of
from raycsr.models.rules.argmax import Argmax
from raycsr.models.rules.expected_cost import ExpectedCost
from raycsr.models.rules.offset import Offset
from raycsr.models.rules.rule import Rule

KINDS: dict[str, type[Rule]] = {
    "argmax": Argmax,
    "offset": Offset,
    "expected_cost": ExpectedCost,
}
ARGMAX = Argmax()
_TUNED = "tuned"  # no kind: those that a checkpoint holds


def _wrong(kind: Any) -> str | None:
    """What is wrong with a kind of a package."""
    if not (isinstance(kind, type) and issubclass(kind, Rule)):
        return "it is no subclass of raycsr.models.rules.Rule"
    own = {name for one in kind.__mro__[: kind.__mro__.index(Rule)] for name in vars(one)}
    lacks = [name for name in ("kind", "forms", "parse") if name not in own]
    lacks += [] if own & {"decide", "decider"} else ["decide"]
    lacks += [] if "__dataclass_params__" in vars(kind) else ["@dataclass(frozen=True)"]  # its fields make the id
    return f"it lacks {', '.join(lacks)}" if lacks else None


_ADDED = Extensions("kind of rule", "raycsr.rules", [*KINDS, _TUNED], _wrong)


def parse_rules(
    specs: Sequence[str],
    *,
    num_classes: int | None,
    class_names: Sequence[str] | None = None,
    stored: Iterable[Rule] = (),
) -> list[Rule]:
    """Builds the rules that a command line or a YAML file names, each once, in order.

    Args:
        specs: Of these forms, where COSTS is any spec of `CostMatrix.from_spec`:

            - `argmax`
            - `offset:cat=1.5,dog=-0.5`: what is added to the logits of some classes, by name or index, as costs
              name them.
            - `offset:1.5*COSTS`: b = -1.5 * column sums of C / their largest, which lowers the classes that it
              is costly to answer.
            - `expected_cost:2*COSTS`: tau = 2.
            - `offset:0.5,1,1.5*COSTS`: several strengths are a rule each.
            - `tuned`: all rules that the checkpoint holds.
        num_classes: The number m of classes, where known; all but `argmax` and `tuned` need it.
        class_names: Their names, where known.
        stored: The rules of the checkpoint.

    Returns:
        The rules; those of one spec in the order of their strengths.

    Raises:
        UserError: a spec that is not understood; the message names the nearest that is.
    """
    rules: dict[str, Rule] = {}
    for spec in specs:
        for rule in _parsed(spec.strip(), num_classes, class_names, tuple(stored)):
            rules.setdefault(rule.id, rule)
    return list(rules.values())


def _parsed(
    spec: str, num_classes: int | None, class_names: Sequence[str] | None, stored: tuple[Rule, ...]
) -> Sequence[Rule]:
    if spec == ARGMAX.spec:
        return [ARGMAX]
    if spec == _TUNED:
        if not stored:
            raise UserError(
                "rule 'tuned': the model's checkpoint holds none; `raycsr tune-rule --model M --costs C` stores one "
                "where it is better than argmax"
            )
        return stored
    name, colon, rest = spec.partition(":")
    kind = _find(name)
    if kind is None or kind_of(spec, kind.forms) is None or (colon and not rest):
        raise UserError(f"rule {shown(spec)} not understood: {_nearest(name)}")
    if num_classes is None:
        raise UserError(f"rule {spec!r} needs the number of classes, which this classifier does not say; give a Rule")
    return kind.parse(spec, num_classes, class_names)


def rule_of_dict(values: Mapping[str, Any]) -> Rule:
    """Returns the rule that `Rule.to_dict` described.

    Raises:
        UserError: Its kind is unknown, or its parameters make no rule of it.
        LookupError, TypeError, ValueError: They are not what `to_dict` wrote.
    """
    kind = _find(values["kind"])
    if kind is None:
        raise UserError(f"unknown kind of rule {shown(str(values['kind']))}: {_nearest(str(values['kind']))}")
    return kind.of_dict(values)


def _find(name: str) -> type[Rule] | None:
    added: type[Rule] | None = _ADDED.load(name)
    if added is not None and added.kind != name:  # stored rules are found by it
        raise UserError(f"kind of rule {name!r} of a package calls itself {added.kind!r}; give both one name")
    return added or KINDS.get(name)


def rule_kinds() -> dict[str, type[Rule]]:
    """All kinds: raycsr's own, and those of installed packages that can be used."""
    kinds = dict(KINDS)
    for name in _ADDED.names():
        with suppress(UserError):  # said where that name is asked for
            kinds[name] = _ADDED.load(name)
    return kinds


def _nearest(name: str) -> str:
    forms = {name: kind.forms for name, kind in rule_kinds().items()} | {_TUNED: (_TUNED,)}
    close = [forms[one][0] for one in similar(name, forms)]
    return f"did you mean {' or '.join(close)}?" if close else f"use {rule_forms()}"


def rule_forms() -> str:
    """What help and messages say of the forms."""
    forms = [form for kind in rule_kinds().values() for form in kind.forms]
    return f"{', '.join(forms)}, or tuned for those that `raycsr tune-rule` stored in the checkpoint"


def is_rule_spec(text: str) -> bool:
    """Whether a text is written in one of the forms, or as the costs that are part of one."""
    forms = [_TUNED, *(form for kind in rule_kinds().values() for form in kind.forms)]
    return kind_of(text.casefold(), forms) is not None or is_cost_spec(text)


RuleSpec = Annotated[str, Forms(rule_forms, is_rule_spec)]

__all__ = [
    "ARGMAX",
    "KINDS",
    "Argmax",
    "ExpectedCost",
    "Offset",
    "Rule",
    "RuleSpec",
    "parse_rules",
    "rule_kinds",
    "rule_of_dict",
]
