"""What the costs of stored certificates are called, and which of them a person means."""

import shlex
from pathlib import Path, PurePath

from raycsr.costs.files import is_cost_file
from raycsr.errors import UserError
from raycsr.results.runs import Run


class NotAsAsked(UserError):
    """A run that has not what was asked for: to be asked for otherwise, and never left out instead."""


def sets_of(run: Run, spec: str, stored: dict[str, dict]) -> list[str]:
    """Names of the sets of the costs that a spec means now, however they were written when they were certified.

    Raises:
        UserError: a file has other costs than when it was certified.
    """
    listed = [name for name, facts in stored.items() if told_apart(written(facts), facts) == spec]
    if listed:
        return listed
    named = [name for name, facts in stored.items() if spec in (facts["spec"], written(facts))]
    try:
        costs = run.costs(spec)
    except UserError:  # a file that is on another machine
        if is_cost_file(spec) and Path(spec).exists():
            raise
        return named
    meant = [name for name, facts in stored.items() if facts["costs"] == costs]
    if named and not meant:
        raise NotAsAsked(
            f"{spec} has other costs than when run {run.run_id} was certified under it; certify it again with "
            f"`raycsr certify --run {run.location} --costs {shlex.quote(spec)}`"
        )
    return meant


def written(facts: dict) -> str:
    """How a set's costs are called: a file by its name alone."""
    return PurePath(facts["spec"]).name if is_cost_file(facts["spec"]) else facts["spec"]


def told_apart(costs: str, facts: dict) -> str:
    """How costs are called where others are called alike."""
    return f"{costs} (alpha {facts['alpha']:g}, {facts['costs'].digest[:4]})"
