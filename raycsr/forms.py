"""Texts in which a comma may be part of one value, such as `seed:cat,dog`: what marks the options that take them."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Forms:
    """How the text of an option may be written. `Annotated[str, Forms(...)]` marks the option.

    Several such texts are several words, or the option again; an option that takes one is not repeated.

    Attributes:
        in_words: Returns what the help says of the forms.
        is_one: Whether a text is written in one of the forms, and so is no class after another's comma.
    """

    in_words: Callable[[], str]
    is_one: Callable[[str], bool]

    def __repr__(self) -> str:
        """Short, for the help shows annotations."""
        return "Forms"


def kind_of(text: str, forms: Iterable[str]) -> str | None:
    """Returns what stands before the colon of the form that a text is written in; None where it is in none of them.

    Args:
        text: A text, such as `seed:3`.
        forms: Examples of the forms: the name of a kind, with a colon and more where a text follows the name.
    """
    name, colon, _ = text.partition(":")
    return next((name for form in forms if form.partition(":")[:2] == (name, colon)), None)
