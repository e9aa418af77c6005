"""A budget: what a command may spend on sampling, in time, money or forward passes, and what it has spent."""

import re
import time
from dataclasses import dataclass

from raycsr.errors import UserError, shown

_SECONDS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
_FORMS = "'2 h', '90 min', '1e9 passes', or '$50 at $3 an hour' (of an actor)"
_NUMBER = r"([0-9]+(?:\.[0-9]*)?(?:e[0-9]+)?)"


@dataclass(frozen=True)
class Budget:
    """What may be spent on all runs of a command together.

    Attributes:
        amount: Number of seconds, or of forward passes of one row each, as a plan counts them.
        is_time: Whether it is seconds, from the begin of sampling on.
    """

    amount: float
    is_time: bool

    @classmethod
    def parse(cls, text: str, actors: int) -> "Budget":
        """Reads what a person writes.

        Args:
            text: A number and `s`, `min`, `h`, `d` or `passes`; or `$50 at $3 an hour`, the price of an actor.
            actors: Number of actors, each of which costs its price; this process costs as one.

        Raises:
            UserError: it is none of them, nothing can be bought for it, or a price is not known.

        Example:
            >>> Budget.parse("2 h", actors=4)
            Budget(amount=7200.0, is_time=True)
            >>> Budget.parse("$50 at $3 an hour", actors=4)
            Budget(amount=15000.0, is_time=True)
        """
        words = " ".join(text.replace(",", "").split()).lower()
        plain = re.fullmatch(rf"{_NUMBER} ?([a-z]+)", words)
        money = re.fullmatch(rf"\$ ?{_NUMBER}(?: at \$ ?{_NUMBER} ?(?:an hour|/ ?h))?", words)
        amount, is_time = 0.0, True
        if money is not None and money[2] is None:
            raise UserError(
                f"budget {shown(text)} needs the price of an actor's device for an hour; give it, as in "
                f"'${money[1]} at $3 an hour'"
            )
        if money is not None and float(money[2]) > 0:
            amount = 3600 * float(money[1]) / (float(money[2]) * max(1, actors))
        elif plain is not None and plain[2] in ("pass", "passes"):
            amount, is_time = float(plain[1]), False
        elif plain is not None:
            unit = plain[2] if plain[2] in _SECONDS else plain[2].removesuffix("s")
            amount = float(plain[1]) * _SECONDS.get(unit, 0)
        if not 0 < amount < float("inf"):
            raise UserError(f"budget {shown(text)} is not understood; give a positive one, such as {_FORMS}")
        return cls(amount, is_time)


class Spending:
    """What was spent of a budget. Each run may spend an equal share of what those before it left."""

    def __init__(self, budget: Budget, runs: int) -> None:
        """Begins to spend.

        Args:
            budget: The budget of all runs.
            runs: Number of runs, which are sampled one after another.
        """
        self._budget, self._runs = budget, runs
        self._start, self._passes = time.monotonic(), 0
        self._shares: dict[int, tuple[float, float]] = {}  # of a run: what was spent before it, and what it may spend

    def is_spent(self, run: int, passes: int) -> bool:
        """Adds the passes of a block that is done, and tells whether the share of its run is spent.

        Args:
            run: Number of the block's run.
            passes: Number of forward passes, of one row each: behind a denoiser that is told several levels as many for
                a noisy copy.
        """
        if run not in self._shares:
            before = self._spent() if self._shares else 0.0
            self._shares[run] = before, (self._budget.amount - before) / (self._runs - len(self._shares))
        self._passes += passes
        before, share = self._shares[run]
        return self._spent() - before >= share

    def _spent(self) -> float:
        return time.monotonic() - self._start if self._budget.is_time else float(self._passes)
