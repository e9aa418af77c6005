"""Functions that take their options whole: as a dataclass, which documents and types each and has its default."""

import functools
import inspect
import typing
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
A = TypeVar("A")
R = TypeVar("R")


def takes(arguments: Callable[P, A]) -> Callable[[Callable[[A], R]], Callable[P, R]]:
    """Lets a function of one dataclass be called by the dataclass's fields, as a program and a command line do.

    Args:
        arguments: The dataclass, with the function's options as its fields.

    Returns:
        A decorator of the function.
    """

    def decorate(function: Callable[[A], R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **options: P.kwargs) -> R:
            return function(arguments(*args, **options))

        returned = typing.get_type_hints(function).get("return")
        about: Any = call
        about.__signature__ = inspect.signature(arguments).replace(return_annotation=returned)
        about.__annotations__ = {**typing.get_type_hints(arguments, include_extras=True), "return": returned}
        about.arguments = arguments
        return call

    return decorate


def arguments_of(function: Any) -> Any:
    """What documents a function's options: the dataclass that it takes whole, or the function itself."""
    return getattr(function, "arguments", function)
