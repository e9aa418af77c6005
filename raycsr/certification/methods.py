"""How votes become certificates: methods by name, several a sampling design, of which the newest is the default.

A method is a bound, the routes that it pays for, and the level of each. All of it is settled without a look at the
votes that estimate (`routes.settle`). Of two methods that hold one is chosen for a whole run, never the better of both
for an image: that would be two statements, which together fail with twice the probability.
"""

from dataclasses import dataclass

from scipy.special import ndtri

from raycsr.certification.bounds import BOUNDS, Bounds
from raycsr.errors import UserError, nearest


@dataclass(frozen=True)
class Method:
    """One way from votes to certificates.

    Attributes:
        name: Name that certificates and their sets are filed under. Another method has another name.
        design: How n must have been chosen, `fixed` or `sequential`, so that its bounds hold.
        bound: The name of its bounds, among BOUNDS.
        each_alone: Whether the statement about a group of targets is an intersection-union test, for which the bound on
            each target is taken at one and the same level, however many targets there are; else the statement is that
            about all pairs, in which the targets share that level.
        share_of_p_a: Of alpha, what a group's statement spends on its lower bounds; the rest is that of its upper ones.
        set_route: Whether a group may be ruled out by a set of harmless classes.
        by_evidence: Whether a group's statement is a test of the radius itself (`eprocess`), at all of alpha, and not
            made of bounds on two shares.
    """

    name: str
    design: str
    bound: str
    each_alone: bool = True
    share_of_p_a: float = 0.9
    set_route: bool = False
    by_evidence: bool = False

    @property
    def bounds(self) -> Bounds:
        """Its bounds."""
        return BOUNDS[self.bound]

    def levels(self, alpha: float) -> tuple[float, float]:
        """What a group's statement at alpha spends on its lower bounds, and on the upper bound of each target."""
        return self.share_of_p_a * alpha, (1 - self.share_of_p_a) * alpha


# Of each design the newest last. A name is forever: what certificates of it say may not change, nor may it go while
# there are any.
METHODS = {
    method.name: method
    for method in (
        Method("clopper-pearson", "fixed", "clopper-pearson", each_alone=False),
        Method("cp-2", "fixed", "clopper-pearson", set_route=True),
        Method("beta-binomial", "sequential", "beta-binomial", each_alone=False),
        Method("sequence-2", "sequential", "beta-binomial"),
        Method("e-1", "sequential", "betting", by_evidence=True),
        Method("e-2", "sequential", "betting", set_route=True, by_evidence=True),
    )
}

NEWEST = {method.design: method for method in METHODS.values()}
"""Sampling design -> the method by which its votes are certified where nobody names another."""


def method_named(name: str, design: str | None = None) -> Method:
    """A method by its name.

    Args:
        name: Name of the method.
        design: Sampling design of the votes that it is to certify.

    Raises:
        UserError: an unknown name, or a method that does not hold for such votes.

    Example:
        >>> method_named("cp-2").design
        'fixed'
    """
    if name not in METHODS:
        raise UserError(f"no method of certificates is called {name!r}; {nearest(name, METHODS)}")
    method = METHODS[name]
    if design not in (None, method.design):
        fit = ", ".join(other.name for other in METHODS.values() if other.design == design)
        raise UserError(f"method {name!r} does not hold for votes sampled by {design!r}; use {fit}")
    return method


def largest_radius(n: int, alpha: float, sigma: float, sampling: str = "fixed") -> float:
    """The standard radius of an image whose n votes all agree: no radius can be larger.

    For a fixed n sigma * Phi^-1(alpha^(1/n)), in the units of sigma, and 0 where n is too small for alpha.
    Before sampling it says whether n is worth paying for.

    Example:
        >>> [round(largest_radius(n, 0.001, sigma=0.5), 3) for n in (100, 1_000, 10_000, 100_000)]
        [0.75, 1.232, 1.599, 1.906]
    """
    return sigma * max(0.0, float(ndtri(NEWEST[sampling].bounds.lower(n, n, alpha))))
