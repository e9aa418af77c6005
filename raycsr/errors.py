"""The one exception for what a user can mend, and the words that every such message needs."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from raycsr.credentials import has_credentials, without_credentials

MOST_MISTAKES = 20  # that are told, of one input
_COMPARED = 200  # characters of a name that are compared with others: it takes time in their square
_SHOWN = 60  # characters of a wrong text that a message repeats


class UserError(Exception):
    """A mistake in the input: one line that says what was wrong, the value, and the fix.

    The command line prints it without a traceback and exits with status 2. What it quotes, such as a name in a file,
    may hold anything: what cannot be printed in a line is escaped, and what looks like a secret is left out.

    Example:
        >>> import raycsr
        >>> try:
        ...     raycsr.CostMatrix.from_spec("sed:cat", 2, ["cat", "dog"])
        ... except raycsr.UserError as error:
        ...     print(error)
        costs 'sed:cat' not understood; did you mean seed:cat,dog?
    """

    def __init__(self, message: str) -> None:
        """Takes the line."""
        super().__init__(printable(without_credentials(message)))


class DamagedFile(UserError):
    """A stored file that is not what was written, cut off for instance, or that something else wrote.

    Attributes:
        file: Location of the file.
        fact: What is wrong with the file.
    """

    def __init__(
        self, file: str, fact: str, fix: str = "move it away, and run the command that wrote it again"
    ) -> None:
        """Takes the parts of the line."""
        super().__init__(f"{file} is damaged ({fact}); {fix}")
        self.file, self.fact, self._fix = file, fact, fix

    def __reduce__(self) -> tuple:
        """Pickles as the parts of the line: a worker's errors come to the driver."""
        return DamagedFile, (self.file, self.fact, self._fix)


class ClusterLostError(UserError):
    """The Ray cluster that work was done on is gone; to leave it in good order would take Ray minutes, or hang."""


class WaitedInVain(UserError):
    """Storage that was waited for and did not come: whoever gathers mistakes does not wait for the next thing there."""


class UserErrors(UserError):
    """Several mistakes, of which none hides another; the command line prints a line each.

    Attributes:
        errors: The mistakes.
    """

    def __init__(self, errors: Sequence[UserError]) -> None:
        """Takes the mistakes."""
        super().__init__(f"{len(errors)} mistakes: {'; and '.join(map(str, errors))}")
        self.errors = tuple(errors)

    def __reduce__(self) -> tuple:
        """Pickles as the mistakes."""
        return UserErrors, (self.errors,)


class Mistakes:
    """What checks find that do not need each other, so that a person can mend all of it at once.

    Example:
        >>> import raycsr
        >>> mistakes = Mistakes()
        >>> for spec in ("seed:cat", "sed:cat", "pair:cat/cow"):
        ...     with mistakes.noted():
        ...         matrix = raycsr.CostMatrix.from_spec(spec, 2, ["cat", "dog"])
        >>> len(mistakes.found)
        2
    """

    def __init__(self) -> None:
        """Knows of none."""
        self.found: list[UserError] = []

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Goes on behind a check that raises a UserError, and keeps that, once."""
        try:
            yield
        except WaitedInVain as error:
            self.found.append(error)
            self.refuse()
        except UserError as error:
            known = {str(one) for one in self.found}
            self.found += [one for one in mistakes_in(error) if str(one) not in known]

    def note(self, line: str) -> None:
        """Keeps the line about a mistake."""
        self.found.append(UserError(line))

    def refuse(self) -> None:
        """Raises what was found: one mistake as it is, several together.

        Raises:
            UserError: where there was any.
        """
        if len(self.found) == 1:
            raise self.found[0]
        if self.found:
            raise UserErrors(self.found)


def mistakes_in(error: UserError) -> tuple[UserError, ...]:
    """The mistakes that an error tells of: several, or itself."""
    return error.errors if isinstance(error, UserErrors) else (error,)


def behind(words: str, error: UserError) -> UserError:
    """The mistakes of an error, each behind some words that say where it is."""
    lines = [UserError(f"{words}{one}") for one in mistakes_in(error)]
    return UserErrors(lines) if len(lines) > 1 else lines[0]


def printable(text: str) -> str:
    """A text as one line that does nothing to a terminal or a page: line breaks and control characters are escaped."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def similar(name: str, known: Iterable[str]) -> list[str]:
    """The known names that a misspelt one may mean, the nearest first: at most three."""
    return difflib.get_close_matches(name[:_COMPARED], list(known), n=3, cutoff=0.5)


def nearest(name: str, known: Iterable[str]) -> str:
    """The known names that a misspelt one may mean, or all of them: ends a message about an unknown name."""
    names = list(known)
    close = similar(name, names)
    return f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(names)}"


def shown(text: str) -> str:
    """A text as a message repeats it: in quotes, of a long one the beginning."""
    text = without_credentials(text)  # the beginning of a secret cannot be told from other text
    return repr(text) if len(text) <= _SHOWN else f"{text[:_SHOWN]!r}... ({len(text):,} characters)"


def first_of(words: Sequence[str], most: int, between: str = ", ") -> str:
    """The first of some words, and how many there are beside."""
    more = f" and {len(words) - most} more" if len(words) > most else ""
    return between.join(words[:most]) + more


def refuse_credentials(text: str) -> None:
    """Refuses locations that carry credentials: they would end up in manifests, logs, trackers and messages.

    Raises:
        UserError: where a location in the text has a user, a password, a key or a signature; it is not repeated.
    """
    if has_credentials(text):
        raise UserError(
            "a location carries credentials; write s3://bucket/prefix and set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give the machine a role; a server's user and password go into its own variables"
        )
