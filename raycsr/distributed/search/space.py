"""The space of a sweep: which options differ between trials, checked before any trial is paid for."""

import itertools
import json
from collections.abc import Callable
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any

from jsonargparse import ArgumentParser
from ray import tune

from raycsr.distributed.options import Space
from raycsr.distributed.training.arguments import TrainConfig
from raycsr.errors import UserError, nearest
from raycsr.options import as_hinted

_MOST_CHECKED = 1000  # points of a space that are checked one by one before any is paid for
DOMAINS: dict[str, Callable] = {
    "grid": tune.grid_search,
    "choice": tune.choice,
    "uniform": lambda bounds: tune.uniform(*bounds),
    "log_uniform": lambda bounds: tune.loguniform(*bounds),
}


def corner_points(space: Space) -> list[dict[str, Any]]:
    """The grid, with every choice and both ends of every range: all that may be wrong with a space is wrong there.

    Raises:
        UserError: a domain of no known kind, or without values.
    """
    values: dict[str, list] = {}
    for key, domain in space.items():
        kind, *others = domain if isinstance(domain, dict) and domain else [None]
        if kind not in DOMAINS or others:
            raise UserError(f"space.{key} is {domain!r}: give one of {', '.join(f'{k}: [...]' for k in DOMAINS)}")
        if not isinstance(domain[kind], list) or not domain[kind]:
            raise UserError(f"space.{key} has no list of values: {domain!r}")
        if "uniform" in kind and not _are_bounds(domain[kind]):
            raise UserError(f"space.{key} needs {kind}: [low, high], got {domain[kind]}")
        if kind == "log_uniform" and not domain[kind][0] > 0:
            raise UserError(f"space.{key} needs positive bounds, got {domain[kind]}")
        # whole bounds are drawn between as any number is, so that an option of whole numbers is refused here
        values[key] = [float(bound) for bound in domain[kind]] if "uniform" in kind else domain[kind]
    combinations = itertools.product(*values.values())
    return [dict(zip(values, point, strict=True)) for point in itertools.islice(combinations, _MOST_CHECKED)]


def _are_bounds(values: list) -> bool:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    return len(values) == len(numbers) == 2 and numbers[0] < numbers[1]


def at_point(config: TrainConfig, point: dict[str, Any]) -> TrainConfig:
    """The training at a point of the space: dotted options -> values, with their types checked.

    Raises:
        UserError: an unknown option, or a value of the wrong type.
    """
    nested, keys = asdict(config), list(point)
    for position, (key, value) in enumerate(point.items()):
        *groups, last = key.split(".")
        if (groups[:1] == ["validation"] and last != "every") or key == "validation":
            raise UserError(
                f"space has {key!r}, by which trials are judged: those of several could not be compared; give it as an "
                f"option of the sweep, {key}, and of each value a sweep of its own"
            )
        replaced = [before for before in keys[:position] if before.startswith(f"{key}.")]
        if replaced:
            raise UserError(f"space has {key!r}, which replaces {replaced[0]!r} before it: put {key!r} first")
        open_ended = key.startswith(("objective.args.", "model.args.", "model.denoiser.args."))
        place: Any = nested
        for group in groups:
            if open_ended and group == "args" and isinstance(place, dict):
                place.setdefault(group, {})  # a group that is a value of the space may have none
            place = place.get(group) if isinstance(place, dict) else None
        if place is not nested and not isinstance(place, dict) and key.startswith("model.denoiser."):
            raise UserError(
                f"space has {key!r}, and model.denoiser is {'not there' if place is None else 'a list'}: give one to "
                "start from, or model.denoiser: {grid: [{name: ...}, ...]} with all that differs"
            )
        if not isinstance(place, dict) or (last not in place and not open_ended) or groups[:1] == ["data"]:
            raise UserError(f"space has {key!r}, which is no option of a training: {nearest(key, _options(config))}")
        place[last] = value
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(TrainConfig, "train")
    try:
        return parser.instantiate(parser.parse_object({"train": as_hinted(TrainConfig, nested, "")})).train
    except Exception as error:  # jsonargparse's own error, or what it met
        raise UserError(f"space at {point}: {' '.join(str(error).split())}") from error


def _options(config: Any, prefix: str = "") -> list[str]:
    names = []
    for one in fields(config):
        names.append(prefix + one.name)
        if is_dataclass(value := getattr(config, one.name)):
            names += _options(value, f"{prefix}{one.name}.")
    return [name for name in names if not name.startswith("data")]


def param_space(space: Space) -> dict[str, Any]:
    """The space as Ray Tune takes it."""
    return {key: DOMAINS[kind](values) for key, domain in space.items() for kind, values in domain.items()}


def with_later_options(stored: dict[str, Any], options: Any) -> dict[str, Any]:
    """Options as an earlier commit stored them, with the default of each that was added since.

    Args:
        stored: Options by name, nested as `asdict` does.
        options: The options of now, a dataclass, which say what there is.
    """
    found = dict(stored)
    for one in fields(options):
        now, before = getattr(options, one.name), found.get(one.name)
        if one.name not in found and one.default is not MISSING:
            found[one.name] = json.loads(json.dumps(one.default, default=asdict))
        elif is_dataclass(now) and isinstance(before, dict):
            found[one.name] = with_later_options(before, now)
        elif isinstance(now, list) and isinstance(before, list) and all(map(is_dataclass, now)):
            found[one.name] = [*map(with_later_options, before, now), *before[len(now) :]]
    return found


def first_difference(before: dict, now: dict) -> str | None:
    """Says which option of two nested dicts differs, and how; None where they are equal."""
    if before == now:
        return None
    old, new = _flat(before), _flat(now)
    changed = next(key for key in [*new, *old] if old.get(key) != new.get(key))
    return f"{changed} = {old.get(changed)!r}, now it is {new.get(changed)!r}"


def _flat(facts: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(facts, dict) or not facts:
        return {prefix: facts}
    return {k: v for key, value in facts.items() for k, v in _flat(value, f"{prefix}.{key}" if prefix else key).items()}
