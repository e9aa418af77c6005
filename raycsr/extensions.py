"""What installed packages add to raycsr by entry points: objectives and sources of images of a user's own.

A package names them in its `pyproject.toml`, and wherever it is installed, on the driver as on a cluster's nodes, they
are found; nothing is imported before its name is asked for.
"""

import functools
import os
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass
from importlib.metadata import Distribution, EntryPoint, distributions
from pathlib import Path
from typing import Any

from raycsr.errors import UserError


@dataclass(frozen=True)
class Extensions:
    """The names of one kind that installed packages add.

    Attributes:
        what: Name of such an extension in messages, such as "objective".
        group: Group of the entry points, such as "raycsr.objectives".
        own: Names that are raycsr's own, which no package may take.
        wrong: Says what is wrong with a loaded object; None where nothing is.
    """

    what: str
    group: str
    own: Collection[str]
    wrong: Callable[[Any], str | None]

    def names(self) -> list[str]:
        """All that are added, also by packages that are broken."""
        return sorted({entry.name for _, entry in self._entries()} - set(self.own))

    def load(self, name: str) -> Any:
        """Returns what a package adds by this name; None where none does.

        Raises:
            UserError: naming the package: its name for it is raycsr's own or another package's, or it cannot be used.
        """
        found = [(package, entry) for package, entry in self._entries() if entry.name == name]
        if not found:
            return None
        packages = " and ".join(package for package, _ in found)
        label, fix = f"{self.what} {name!r} of package {packages}", f"rename it in its entry points ({self.group})"
        if name in self.own:
            raise UserError(f"{label} has the name of one of raycsr's own; {fix}, or uninstall the package")
        if len(found) > 1:
            raise UserError(f"{label} is there several times; {fix}, or uninstall all packages but one")
        try:
            made = found[0][1].load()
        except Exception as error:  # a package may raise anything while it is imported
            why = (str(error).splitlines() or [""])[0]
            raise UserError(
                f"{label} cannot be imported ({type(error).__name__}: {why}); mend the package, or uninstall it"
            ) from error
        if wrong := self.wrong(made):
            raise UserError(f"{label} cannot be used: {wrong}; mend the package, or uninstall it")
        return made

    def _entries(self) -> list[tuple[str, EntryPoint]]:
        """Packages and their entry points; files of packages that have none of this group are not even parsed."""
        having: dict[str, Distribution] = {}
        for distribution, text in _naming_raycsr(tuple((folder, _written(folder)) for folder in sys.path)):
            if self.group in text:
                having.setdefault(_name(distribution), distribution)  # the first on the path is the one imported
        found = []
        for package, distribution in having.items():
            try:
                entries = list(distribution.entry_points)
            except Exception as error:  # each version of Python has its own for a line that it cannot parse
                raise UserError(
                    f"the entry points of package {package} cannot be read; mend or uninstall it"
                ) from error
            found += [(package, entry) for entry in entries if entry.group == self.group]
        return found


@functools.lru_cache(maxsize=1)
def _naming_raycsr(path: tuple[tuple[str, int | None], ...]) -> list[tuple[Distribution, str]]:
    """The distributions whose entry points name raycsr, with their text.

    There are hundreds of files, which are read again where a folder of the path is another or was written into, as by
    an installation in the middle of a notebook.
    """
    read = ((distribution, distribution.read_text("entry_points.txt") or "") for distribution in distributions())
    return [(distribution, text) for distribution, text in read if "raycsr." in text]


def _written(folder: str) -> int | None:
    """When files last came to or went from a folder of the path, None where it is not there."""
    try:
        return os.stat(folder or ".").st_mtime_ns
    except OSError:
        return None


def _name(distribution: Distribution) -> str:
    """The package's name; where it has no metadata, the folder that its entry points lie in."""
    try:
        name = distribution.name
    except Exception:  # each version of Python, and of the backport that others load, has its own
        name = None
    return name or Path(str(getattr(distribution, "_path", distribution.locate_file("")))).name
