"""The one exception for what a user can mend, and the words that every such message needs."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake in the input: one line that says what was wrong, the value, and the fix.

    The command line prints it without a traceback and exits with status 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names that a misspelt one may mean, or all of them: ends a message about an unknown name."""
    names = list(known)
    close = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(names)}"
