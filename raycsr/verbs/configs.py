"""Configs: the files of options that come with raycsr, to begin one's own from."""

import itertools
import re

from raycsr.catalogue import config_files
from raycsr.errors import UserError, nearest


def configs(name: str | None = None) -> list[str]:
    """Lists the configs that come with raycsr, or prints one of them, for a file of your own.

    Args:
        name: Config to print, with its ending or without; by default all are listed, with the first line of each.

    Returns:
        The names of those that were printed or listed.

    Raises:
        UserError: where there is none of that name.
    """
    found = {one.name: one for one in config_files()}
    if name is not None:
        chosen = name if name in found else f"{name}.yaml"
        if chosen not in found:
            raise UserError(f"no config {name!r} comes with raycsr; {nearest(name, sorted(found))}")
        print(found[chosen].read_text(encoding="utf-8"), end="")
        return [chosen]
    width = max(map(len, found))
    for one in sorted(found):
        print(f"{one:<{width}}  {_first_sentence(found[one].read_text(encoding='utf-8'))}")
    print("\na file of your own: raycsr configs digits > digits.yaml")
    return sorted(found)


def _first_sentence(text: str) -> str:
    """Of the comment that a config begins with; the first line where it begins with none."""
    lines = text.splitlines()
    words = itertools.takewhile(lambda line: re.match("# [^ ]", line), lines)  # up to a command, which is set in
    return re.split(r"(?<=[.]) (?=[A-Z0-9])", " ".join(line.removeprefix("# ") for line in words))[0] or lines[0]
