"""What an answer is, however it was written: a threshold a class."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from raycsr.certification.bounds import FloatArray
from raycsr.errors import UserError


@dataclass(frozen=True)
class Answer:
    """What the smoothed classifier says, given the shares p_k of its votes: the top class A, or that it abstains.

    It says A where p_A exceeds A's own threshold tau_A, and abstains otherwise; never the next best class instead. A
    is the class of the largest share, of equal ones the lowest. Two answers are equal where their thresholds are,
    however they were written.

    What is promised, and what certificates of an answer rest on: the answer is a function of the shares at a picture
    alone; it says a class j only where p_j is the largest share and above tau_j; and where p_A is larger than every
    other share and above tau_A, it says A.

    Attributes:
        thresholds: tau, one for all classes or one a class, 0 <= tau < 1. Where all are equal, one is kept.
        spec: Spec of the answer, as a person writes it; by default its id.

    Raises:
        UserError: There is no threshold, or one is not in [0, 1).

    Example:
        >>> dogs = Answer((0.0, 0.7), spec="threshold:dog=0.7")  # of the classes cat and dog
        >>> dogs.of([[0.4, 0.6], [0.2, 0.8], [0.6, 0.4]])
        <IntegerArray>
        [<NA>, 1, 0]
        Length: 3, dtype: Int64
    """

    thresholds: tuple[float, ...]
    spec: str = field(default="", compare=False, kw_only=True)

    def __post_init__(self) -> None:
        """Checks the thresholds, and brings them to one form."""
        taus = tuple(float(tau) + 0.0 for tau in self.thresholds)
        wrong = [tau for tau in taus if not (math.isfinite(tau) and 0 <= tau < 1)]
        if wrong or not taus:
            value = f"{wrong[0]:g}" if wrong else "missing"
            raise UserError(f"the threshold of an answer is {value}; give a share of votes, from 0 to below 1")
        object.__setattr__(self, "thresholds", taus[:1] if len(set(taus)) == 1 else taus)
        object.__setattr__(self, "spec", self.spec or self.id)

    @cached_property
    def id(self) -> str:
        """Names the answer in certificates: `argmax`, `majority`, or `threshold` and a digest of the thresholds."""
        named: dict[tuple[float, ...], str] = {(0.0,): "argmax", (0.5,): "majority"}
        return (
            named.get(self.thresholds)
            or f"threshold-{sha256(np.array(self.thresholds, '<f8').tobytes()).hexdigest()[:10]}"
        )

    @property
    def is_argmax(self) -> bool:
        """Whether it never abstains."""
        return self.thresholds == (0.0,)

    def of_classes(self, num_classes: int) -> FloatArray:
        """The threshold of every class, (m,).

        Args:
            num_classes: The number m of classes.

        Raises:
            UserError: The answer is of another number of classes.
        """
        if len(self.thresholds) not in (1, num_classes):
            raise UserError(
                f"answer {self.spec!r} is of {len(self.thresholds)} classes, here are {num_classes}; make them agree"
            )
        return np.broadcast_to(np.array(self.thresholds), (num_classes,))

    def of(self, shares: ArrayLike) -> pd.arrays.IntegerArray:
        """What is said, given shares (N, m), each row of sum 1: classes (N,), NA where it abstains."""
        votes = np.asarray(shares, np.float64)
        top = votes.argmax(axis=-1)
        exceeds = votes.max(axis=-1) > self.of_classes(votes.shape[-1])[top]
        return pd.arrays.IntegerArray(top.astype(np.int64), ~exceeds)

    def to_dict(self) -> dict[str, Any]:
        """Returns the answer as JSON values, for a checkpoint or a set of certificates."""
        return {"id": self.id, "spec": self.spec, "thresholds": list(self.thresholds)}

    @classmethod
    def of_dict(cls, values: Mapping[str, Any]) -> "Answer":
        """Returns the answer that `to_dict` described."""
        return cls(tuple(values["thresholds"]), spec=values["spec"])


@dataclass(frozen=True)
class AnswerKind:
    """A way to write an answer: a name that says all, or a name, a colon and a text.

    Attributes:
        forms: Examples, for the help and for messages; each begins with the kind's name, and has a colon where a text
            follows the name. COSTS stands for any spec of costs.
        thresholds: The text behind the colon, the number m of classes (None where it is not known), and their names
            where the data has them -> the thresholds, one for all classes or one a class. Raises a UserError about the
            text where it means none.
    """

    forms: tuple[str, ...]
    thresholds: Callable[[str, int | None, Sequence[str] | None], Sequence[float]]
