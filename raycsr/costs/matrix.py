"""Cost matrices: which mistakes are costly, and how much each one costs."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raycsr.class_names import are_numbers, squeezed
from raycsr.costs.checks import checked_class, checked_names, checked_rows, checked_values
from raycsr.costs.distinct_rows import DistinctRows
from raycsr.costs.files import read_costs
from raycsr.costs.groups import costs_of_groups
from raycsr.costs.specs import find_kind
from raycsr.errors import UserError, nearest, shown

_MOST_WRITTEN_OUT = 100  # classes whose costs stand in a JSON file as m rows of m numbers
_DIGESTS: dict[bytes, str] = {}  # of matrices by what they are kept as: of 21,841 classes they are seconds of work


@dataclass(frozen=True, eq=False, repr=False)
class CostMatrix:
    """A cost matrix C: `C[y, k]` is what it costs to answer k where the true class is y.

    Two matrices are equal where their values are: class names are labels, not part of what is certified. It is kept by
    its distinct rows; `values` writes it out, which takes 3.8 GB where there are 21,841 classes.

    Args:
        values: Finite non-negative costs, zero on the diagonal, row = true class, m >= 2; (m, m), or its distinct rows.
        class_names: The m names of the classes, each once, or None.

    Raises:
        UserError: what is wrong, with the offending entry and its value.

    Example:
        >>> costs = CostMatrix([[0, 10], [1, 0]], ["malignant", "benign"])  # a missed cancer costs ten times as much
        >>> costs.values[0, 1]
        np.float64(10.0)
        >>> CostMatrix([[0, -1], [1, 0]])
        Traceback (most recent call last):
        raycsr.errors.UserError: cost at [0, 1] is -1.0; costs must not be negative
    """

    distinct: DistinctRows
    class_names: tuple[str, ...] | None = None

    def __init__(self, values: ArrayLike | DistinctRows, class_names: Sequence[str] | None = None) -> None:
        """Check and copy the values, so that nobody can change them afterwards."""
        if isinstance(values, DistinctRows):
            distinct = checked_rows(values)
        else:
            distinct = DistinctRows.of_dense(checked_values(values, class_names))
        object.__setattr__(self, "distinct", distinct)
        object.__setattr__(self, "class_names", checked_names(class_names, self.num_classes))

    @classmethod
    def uniform(cls, m: int, class_names: Sequence[str] | None = None) -> "CostMatrix":
        """Every mistake among m classes costs 1.

        Example:
            >>> CostMatrix.uniform(3).values
            array([[0., 1., 1.],
                   [1., 0., 1.],
                   [1., 1., 0.]])
        """
        return cls(DistinctRows(np.ones((1, m)), np.zeros(m, np.int32)), class_names)

    @classmethod
    def seedwise(
        cls, m: int, seeds: Iterable[int], cost: float = 1.0, class_names: Sequence[str] | None = None
    ) -> "CostMatrix":
        """Every mistake on an image of a seed class costs `cost`; all others cost nothing.

        Example:
            >>> CostMatrix.seedwise(3, [2]).values
            array([[0., 0., 0.],
                   [0., 0., 0.],
                   [1., 1., 0.]])
        """
        return cls.pairwise(m, {seed: [k for k in range(m) if k != seed] for seed in seeds}, cost, class_names)

    @classmethod
    def pairwise(
        cls,
        m: int,
        pairs: Mapping[int, Iterable[int]],
        cost: float = 1.0,
        class_names: Sequence[str] | None = None,
    ) -> "CostMatrix":
        """Taking an image of a seed class for one of its targets costs `cost`: pairs is {seed: [targets]}.

        Example:
            >>> CostMatrix.pairwise(3, {0: [1, 2]}, cost=5).values
            array([[0., 5., 5.],
                   [0., 0., 0.],
                   [0., 0., 0.]])
        """
        checked = {checked_class(y, m): [checked_class(k, m) for k in targets] for y, targets in pairs.items()}
        return cls(DistinctRows.of_pairs(m, checked, cost), class_names)

    @classmethod
    def groups(
        cls, m: int, group_of_class: Sequence[Hashable], cost: float = 1.0, class_names: Sequence[str] | None = None
    ) -> "CostMatrix":
        """To answer outside the group of the true class costs `cost`; within the group nothing.

        A file of classes and their groups is read by `from_spec("groups:FILE", ...)`.

        Args:
            m: Number of classes.
            group_of_class: Group of each class, (m,): names or numbers, such as the superclasses of ImageNet.
            cost: Cost of each mistake.
            class_names: The m names of the classes, each once, or None.

        Raises:
            UserError: not one group a class, or a class whose group is missing.

        Example:
            >>> CostMatrix.groups(4, ["animal", "vehicle", "animal", "vehicle"]).values
            array([[0., 1., 0., 1.],
                   [1., 0., 1., 0.],
                   [0., 1., 0., 1.],
                   [1., 0., 1., 0.]])
        """
        groups = list(group_of_class)
        if len(groups) != m:
            raise UserError(f"{len(groups)} groups for {m} classes; give each class its group")
        for k, group in enumerate(groups):
            if group is None or group != group:  # NaN, which is how a table says None
                raise UserError(f"class {k} has the group {group}; give it one")
        return cls(costs_of_groups(groups, cost), class_names)

    @classmethod
    def from_csv(cls, path: str | Path) -> "CostMatrix":
        """Read m rows of m numbers, row = true class, from a .csv, .tsv, .xlsx or .npy file.

        A header row of class names, a first column of class names, or both may surround the numbers; columns in
        another order than the rows are put in that of the rows. What tables may look like: see
        `raycsr.costs.files.read_costs`.

        Raises:
            UserError: a file that cannot be read, a cell that is no number, values that are no cost matrix.

        Example:
            >>> path = folder / "costs.csv"
            >>> size = path.write_text(",cat,dog\\ncat,0,1\\ndog,9,0\\n")
            >>> costs = CostMatrix.from_csv(path)
            >>> costs.class_names, costs.values.tolist()
            (('cat', 'dog'), [[0.0, 1.0], [9.0, 0.0]])
        """
        costs = _of_file(path)
        indices = tuple(str(k) for k in range(costs.num_classes))  # of a table written with them, not with names
        return cls(costs.distinct) if costs.class_names == indices else costs

    @classmethod
    def from_spec(cls, spec: str, num_classes: int, class_names: Sequence[str] | None = None) -> "CostMatrix":
        """Build the matrix that a command line or a YAML file names.

        Args:
            spec: `uniform`, `seed:cat,dog`, `pair:cat/dog,3/8` (true class / costly target), `groups:FILE` (any answer
                outside the true class's group) or the path of a `.csv`, `.tsv`, `.xlsx` or `.npy` file. A class
                is given by name, or by index where no class has that name.
                Quotes say where a name ends that holds a comma or a slash: `seed:"crane, bird",cat`. Costs are 1
                but for a file.
            num_classes: The number m of classes of the data.
            class_names: Names of the classes, where the data has them.

        Raises:
            UserError: an unknown form or class, or a file that disagrees with the data.

        Example:
            >>> costs = CostMatrix.from_spec("pair:cat/dog", 3, ["cat", "dog", "bird"])
            >>> costs.targets(0)
            array([1])
            >>> costs == CostMatrix.from_spec("pair:0/1", 3)
            True
        """
        checked_names(class_names, num_classes)
        kind = find_kind(spec)  # before a path: a class may be named like a file
        if kind is None:
            return _of_data(spec, num_classes, class_names)
        try:
            costs = cls(kind.values(spec.partition(":")[2], num_classes, class_names), class_names)
            if costs.num_classes != num_classes:
                raise UserError(f"they are of {costs.num_classes} classes, the data has {num_classes}; mend their kind")
        except UserError as error:
            raise UserError(f"costs {shown(spec)}: {error}") from None
        return costs

    @property
    def num_classes(self) -> int:
        """The number m of classes."""
        return len(self.distinct)

    @cached_property
    def values(self) -> NDArray[np.float64]:
        """All costs, row = true class; float64 (m, m)."""
        values = self.rows(np.arange(self.num_classes))
        values.setflags(write=False)
        return values

    def rows(self, classes: ArrayLike) -> NDArray[np.float64]:
        """The rows of S classes: what each answer costs where these are the true ones; float64 (S, m)."""
        return self.distinct.take(np.asarray(classes))

    def of(self, labels: NDArray[np.integer], answers: NDArray[np.integer]) -> NDArray[np.float64]:
        """What answers cost where the labels are the true classes: float64 (N,), of (N,) both."""
        return np.where(labels == answers, 0.0, self.distinct.rows[self.distinct.of_class[labels], answers])

    @cached_property
    def num_targets(self) -> NDArray[np.int64]:
        """How many classes are costly to answer where each class is the true one, (m,)."""
        rows, of_class = self.distinct.is_positive, self.distinct.of_class
        return np.count_nonzero(rows, axis=1)[of_class] - rows[of_class, np.arange(self.num_classes)]

    @property
    def sensitive(self) -> NDArray[np.bool_]:
        """(m,) True for the seed classes: those whose Omega is not empty."""
        return self.num_targets > 0

    @property
    def target_classes(self) -> NDArray[np.bool_]:
        """(m,) True for the classes that it is costly to answer for some true class."""
        rows, of_class = self.distinct.is_positive, self.distinct.of_class
        of_all = np.bincount(of_class, minlength=len(rows)) @ rows
        return of_all > rows[of_class, np.arange(self.num_classes)]  # which of these is the class's own

    @property
    def column_sums(self) -> NDArray[np.float64]:
        """(m,) What it costs to answer each class, summed over the true classes."""
        sums = np.zeros(self.num_classes)
        for block in self.distinct.blocks():
            for row in block:
                sums += row  # one after the other, as numpy sums columns: ids of rules hang on the last bit
        return sums

    @property
    def positive(self) -> tuple[float, float] | None:
        """The least and the largest cost of a mistake that costs something; None where none does."""
        rows = [row[row > 0] for block in self.distinct.blocks() for row in block]
        ends = [(row.min(), row.max()) for row in rows if len(row)]
        return (float(min(low for low, _ in ends)), float(max(high for _, high in ends))) if ends else None

    @cached_property
    def digest(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the values."""
        kept = self.distinct
        key = hashlib.blake2b(kept.rows.tobytes() + kept.of_class.tobytes(), digest_size=16).digest()
        if key not in _DIGESTS:
            of_values = hashlib.sha256()
            for block in kept.blocks():
                of_values.update(block.astype("<f8", copy=False).tobytes())
            _DIGESTS[key] = of_values.hexdigest()[:12]
        return _DIGESTS[key]

    def targets(self, y: int) -> NDArray[np.int64]:
        """Omega_y: the classes, ascending, that it is costly to answer where the true class is y.

        Example:
            >>> CostMatrix.uniform(4).targets(1)
            array([0, 2, 3])
        """
        return np.flatnonzero(self.rows([checked_class(y, self.num_classes)])[0] > 0)

    def to_json(self) -> dict[str, Any]:
        """The costs as a field of a JSON object: `values`, or of many classes `rows`, the distinct ones.

        Example:
            >>> CostMatrix.seedwise(2, [0]).to_json()
            {'values': [[0.0, 1.0], [0.0, 0.0]]}
            >>> CostMatrix.uniform(1000).to_json()
            {'rows': {'of_class': [[1000, 0]], 'distinct': [[[1000, 1.0]]]}}
        """
        if self.num_classes <= _MOST_WRITTEN_OUT:
            return {"values": self.values.tolist()}
        return {"rows": self.distinct.to_json()}

    @classmethod
    def of_json(cls, facts: Mapping[str, Any], class_names: Sequence[str] | None = None) -> "CostMatrix":
        """The costs of a JSON object that has the field of `to_json`; `values` of any number of classes are read, too.

        Raises:
            UserError: they are no cost matrix.
            LookupError, TypeError, ValueError: they are not what `to_json` wrote.
        """
        return cls(facts["values"] if "values" in facts else DistinctRows.of_json(facts["rows"]), class_names)

    def __eq__(self, other: object) -> bool:
        """Equal values."""
        if not isinstance(other, CostMatrix):
            return NotImplemented
        blocks = zip(self.distinct.blocks(), other.distinct.blocks(), strict=False)
        same_size = self.num_classes == other.num_classes
        return self is other or (same_size and all(np.array_equal(one, its) for one, its in blocks))

    def __hash__(self) -> int:
        """The hash of the values."""
        return hash(self.digest)

    def __repr__(self) -> str:
        """The size, the seed classes and the digest, rather than m x m numbers."""
        seeds = [self.class_names[y] if self.class_names else str(y) for y in np.flatnonzero(self.sensitive)]
        first = ", ".join(seeds[:5]) + (", ..." if len(seeds) > 5 else "")
        pairs = self.num_targets.sum()
        return f"CostMatrix({self.num_classes} classes, {pairs} costly pairs of seeds [{first}], {self.digest})"


def as_cost_matrix(costs: CostMatrix | str, num_classes: int | None = None) -> CostMatrix:
    """A cost matrix that a program gives, or writes as a command line does where the number of classes is known.

    Raises:
        UserError: no cost matrix, or a spec whose classes are not known here.

    Example:
        >>> as_cost_matrix("seed:1", num_classes=2) == CostMatrix.seedwise(2, [1])
        True
    """
    if isinstance(costs, CostMatrix):
        return costs
    if isinstance(costs, str) and num_classes is not None:
        return CostMatrix.from_spec(costs, num_classes)
    if isinstance(costs, str):
        how = f"CostMatrix.from_spec({costs!r}, num_classes, class_names)"
        raise UserError(f"costs {costs!r} needs the number of classes, which is not known here; give raycsr.{how}")
    raise UserError(f"costs are a {type(costs).__name__}; give a raycsr.CostMatrix, such as CostMatrix(values)")


def _of_file(path: str | Path) -> CostMatrix:
    names, values = read_costs(path)
    try:
        return CostMatrix(values, names)
    except UserError as error:
        raise UserError(f"cost matrix {path}: {error}") from None


def _of_data(path: str, num_classes: int, class_names: Sequence[str] | None) -> CostMatrix:
    """The costs of a file in the order of the data's classes and under their names.

    Raises:
        UserError: the file has other classes than the data.
    """
    costs = _of_file(path)
    if costs.num_classes != num_classes:
        raise UserError(
            f"cost matrix {path} has {costs.num_classes} classes, the data has {num_classes}; make them agree"
        )
    indices = [str(k) for k in range(num_classes)]
    theirs = indices if class_names is None else [squeezed(name) for name in class_names]
    names = theirs if costs.class_names is None else [squeezed(name) for name in costs.class_names]
    if set(names) == set(indices) != set(theirs) and not are_numbers(theirs):
        theirs = indices  # a table written with its indices, not names
    if set(names) != set(theirs):
        if class_names is None:
            return costs
        name = next(name for name in names if name not in theirs)
        raise UserError(f"cost matrix {path} has a class {name!r}, the data has none; {nearest(name, theirs)}")
    if names == theirs:
        return CostMatrix(costs.distinct, class_names)
    order = [names.index(name) for name in theirs]
    return CostMatrix(costs.values[np.ix_(order, order)], class_names)
