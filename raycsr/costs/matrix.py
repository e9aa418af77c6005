"""Cost matrices: which mistakes are costly, and how much each one costs."""

import hashlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raycsr.costs.files import read_costs
from raycsr.costs.groups import costs_of_groups
from raycsr.costs.specs import find_kind
from raycsr.errors import UserError, nearest, shown


@dataclass(frozen=True, eq=False, repr=False)
class CostMatrix:
    """A cost matrix C: `C[y, k]` is what it costs to answer k where the true class is y.

    Two matrices are equal where their values are: class names are labels, not part of what is certified.

    Args:
        values: Finite non-negative costs, zero on the diagonal, row = true class, m >= 2; (m, m).
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

    values: NDArray[np.float64]
    class_names: tuple[str, ...] | None = None

    def __init__(self, values: ArrayLike, class_names: Sequence[str] | None = None) -> None:
        """Check and copy the values, so that nobody can change them afterwards."""
        object.__setattr__(self, "values", _checked_values(values, class_names))
        object.__setattr__(self, "class_names", _checked_names(class_names, self.num_classes))

    @classmethod
    def uniform(cls, m: int, class_names: Sequence[str] | None = None) -> "CostMatrix":
        """Every mistake among m classes costs 1.

        Example:
            >>> CostMatrix.uniform(3).values
            array([[0., 1., 1.],
                   [1., 0., 1.],
                   [1., 1., 0.]])
        """
        return cls(np.ones((m, m)) - np.eye(m), class_names)

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
        values = np.zeros((m, m))
        for seed, targets in pairs.items():
            for target in targets:
                values[_checked_class(seed, m), _checked_class(target, m)] = cost
        return cls(values, class_names)

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
        return cls(costs.values) if costs.class_names == indices else costs

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
        _checked_names(class_names, num_classes)
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
        return len(self.values)

    @property
    def sensitive(self) -> NDArray[np.bool_]:
        """(m,) True for the seed classes: those whose Omega is not empty."""
        return np.any(self.values > 0, axis=1)

    @property
    def target_classes(self) -> NDArray[np.bool_]:
        """(m,) True for the classes that it is costly to answer for some true class."""
        return np.any(self.values > 0, axis=0)

    @property
    def digest(self) -> str:
        """12 hexadecimal digits of the SHA-256 of the values."""
        return hashlib.sha256(self.values.astype("<f8").tobytes()).hexdigest()[:12]

    def targets(self, y: int) -> NDArray[np.int64]:
        """Omega_y: the classes, ascending, that it is costly to answer where the true class is y.

        Example:
            >>> CostMatrix.uniform(4).targets(1)
            array([0, 2, 3])
        """
        return np.flatnonzero(self.values[_checked_class(y, self.num_classes)] > 0)

    def __eq__(self, other: object) -> bool:
        """Equal values."""
        if not isinstance(other, CostMatrix):
            return NotImplemented
        return np.array_equal(self.values, other.values)

    def __hash__(self) -> int:
        """The hash of the values."""
        return hash(self.digest)

    def __repr__(self) -> str:
        """The size, the seed classes and the digest, rather than m x m numbers."""
        seeds = [self.class_names[y] if self.class_names else str(y) for y in np.flatnonzero(self.sensitive)]
        first = ", ".join(seeds[:5]) + (", ..." if len(seeds) > 5 else "")
        pairs = np.count_nonzero(self.values)
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


def _checked_values(values: ArrayLike, class_names: Sequence[str] | None) -> NDArray[np.float64]:
    try:
        array = np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise UserError(f"a cost matrix holds numbers in rows of equal length: {error}") from None
    if array.ndim != 2 or array.shape[0] != array.shape[1]:
        raise UserError(f"a cost matrix is square, one row and one column a class; this one is {array.shape}")
    if len(array) < 2:
        raise UserError(f"a cost matrix needs at least 2 classes; this one has {len(array)}")
    for wrong, rule in (
        (~np.isfinite(array), "costs must be finite"),
        (array < 0, "costs must not be negative"),
        (np.diag(np.diag(array) != 0), "a right answer costs nothing, set the diagonal to 0"),
    ):
        if wrong.any():
            row, column = (int(i) for i in np.argwhere(wrong)[0])
            named = class_names is not None and len(class_names) == len(array)  # a file may have them in another order
            words = f" ({class_names[row]} answered as {class_names[column]})" if named and class_names else ""
            raise UserError(f"cost at [{row}, {column}] is {array[row, column]}{words}; {rule}")
    array += 0.0  # -0.0 and 0.0 are one value, and so must have one digest
    array.setflags(write=False)
    return array


def _checked_names(class_names: Sequence[str] | None, num_classes: int) -> tuple[str, ...] | None:
    if class_names is None:
        return None
    names = tuple(class_names)
    if len(names) != num_classes:
        raise UserError(f"{len(names)} class names for {num_classes} classes; give one name a class")
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise UserError(f"class name {twice!r} is given twice; names must differ")
    return names


def _checked_class(k: int, num_classes: int) -> int:
    if not 0 <= k < num_classes:
        raise UserError(f"class {k} is not one of the {num_classes} classes; use 0 to {num_classes - 1}")
    return int(k)


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
    theirs = indices if class_names is None else list(class_names)
    names = theirs if costs.class_names is None else list(costs.class_names)
    if set(names) == set(indices) != set(theirs):
        theirs = indices  # a table written with its indices, not names
    if set(names) != set(theirs):
        if class_names is None:
            return costs
        name = next(name for name in names if name not in theirs)
        raise UserError(f"cost matrix {path} has a class {name!r}, the data has none; {nearest(name, theirs)}")
    order = [names.index(name) for name in theirs]
    return CostMatrix(costs.values[np.ix_(order, order)], class_names)
