"""Names of classes, as people have them: `tench, Tinca tinca`, `CD/DVD player`; and how lists of them are read."""

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Sequence

from raycsr.errors import UserError, shown, similar

_DIGITS = 60  # of a number in a message
_NEAREST = 3


def tidy(name: str) -> str:
    """A name without spaces around it, its letters composed: file systems and editors write "é" in two ways."""
    return unicodedata.normalize("NFC", name).strip()


def squeezed(name: str) -> str:
    """A tidy name with single spaces alone: cells of a spreadsheet break lines, and pages put spaces that do not."""
    return " ".join(tidy(name).split())


def check_class_names(names: Sequence[str], what: str) -> None:
    """Refuses names that cannot be told apart or written down.

    Args:
        names: Names of the classes, in order.
        what: What the names belong to, for the message.

    Raises:
        UserError: naming the first that is empty, has a line break or is there twice.
    """
    first: dict[str, int] = {}
    for k, name in enumerate(names):
        if not name or len(name.splitlines()) > 1:
            raise UserError(f"{what}: class {k} is named {shown(name)}; give it a name of one line")
        if name in first:
            raise UserError(
                f"{what}: classes {first[name]} and {k} are both named {shown(name)}; give each a name of its own, "
                "as in crane (bird), in data.class_names"
            )
        first[name] = k


def are_numbers(names: Iterable[str]) -> bool:
    """Whether all names are whole numbers, and so are never taken for indices."""
    return all(map(_is_number, names))


def read_classes(text: str, num_classes: int, class_names: Sequence[str] | None) -> list[int]:
    """Reads a list of classes with commas between: `cat,tench, Tinca tinca,"CD/DVD player"`.

    A class is given by its name, or by its index where no class has that name; where all names are whole numbers a
    number is a name alone, for folder 1 may well have index 0. A name may hold commas: what can be read in one way
    alone is read so, and quotes say where a name ends.

    Raises:
        UserError: a class is unknown, or the text can be read in two ways; the message names them.
    """
    return [int(item[0]) for item in _read(text, "", _Classes(num_classes, class_names), "")]


def read_pairs(text: str, num_classes: int, class_names: Sequence[str] | None) -> list[tuple[int, int]]:
    """Reads pairs of classes as `read_classes` reads classes: `cat/dog,CD/DVD player/cat`."""
    incomplete = "pair {} has no target; write seed/target"
    return [(int(a), int(b)) for a, b in _read(text, "/", _Classes(num_classes, class_names), incomplete)]


def read_values(text: str, num_classes: int, class_names: Sequence[str] | None) -> dict[int, float]:
    """Reads a number a class, as `read_classes` reads classes: `cat=1.5,tench, Tinca tinca=-0.5`.

    Raises:
        UserError: also where a class has no number, or two.
    """
    values: dict[int, float] = {}
    classes = _Classes(num_classes, class_names)
    for k, value in _read(text, "=", classes, "{} has no number; write cat=1.5"):
        name = classes.write(int(k))
        if k in values:
            raise UserError(f"class {name} is given twice; give it one number")
        try:
            values[int(k)] = float(value)
        except ValueError:
            raise UserError(f"{shown(str(value))} is no number; write {name}=1.5") from None
    return values


class _Classes:
    """The classes that a name may mean."""

    def __init__(self, num_classes: int, class_names: Sequence[str] | None) -> None:
        self.num_classes = num_classes
        self.names = list(class_names or [])
        self.index = {tidy(name): k for k, name in enumerate(self.names)}
        indices = [str(k) for k in range(num_classes)]
        self.by_index = not are_numbers(self.names) or self.names in ([], indices)

    def find(self, name: str) -> int | None:
        """The class of a name, in quotes or not, or of an index; None where there is none.

        Raises:
            UserError: the name in quotes is a class, and that without them another.
        """
        meant = [tidy(one) for one in (*_unquoted(name.strip()), name)]
        known = [one for one in meant if one in self.index]
        if len({self.index[one] for one in known}) > 1:
            raise UserError(
                f"{shown(name)} can be read in two ways, as class {known[0]} in quotes or as class {known[1]}"
            )
        if known:
            return self.index[known[0]]
        for one in meant:
            if self.by_index and _is_number(one) and len(one) < 10 and int(one) < self.num_classes:
                return int(one)
        return None

    def write(self, k: int) -> str:
        """How a person writes a class in a list."""
        name = self.names[k] if self.names else str(k)
        return '"' + name.replace('"', '""') + '"' if re.search(r"[,/=*\"']", name) else name

    def unknown(self, name: str) -> UserError:
        """What is said of a name that is none; names the nearest."""
        name, last = tidy(name), self.num_classes - 1
        if self.by_index and _is_number(name):
            return UserError(f"class {name[:_DIGITS]} is not one of the {self.num_classes} classes; use 0 to {last}")
        if not self.names:
            return UserError(f"class {shown(name)} given by name, but the data has no class names; use 0 to {last}")
        folded = {known.casefold(): k for k, known in enumerate(self.names)}
        begun = [known for known in folded if name and known.startswith(name.casefold())]
        near = begun or similar(name.casefold(), folded) or list(folded)
        names = ", ".join(self.write(folded[known]) for known in near[:_NEAREST])
        index = f" (or use 0 to {last})" if self.by_index else ""
        return UserError(f"unknown class {shown(name)}; nearest names: {names}{index}")


def _unquoted(text: str) -> list[str]:
    """What a text in quotes says, those within written twice as in a CSV; nothing for one that is not in quotes."""
    for quote in "\"'":
        inner = text[1:-1].replace(quote * 2, "")
        if len(text) > 1 and text[0] == text[-1] == quote and quote not in inner:
            return [text[1:-1].replace(quote * 2, quote)]
    return []


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit()


# A list is fields with one character behind each: classes ["," ","], pairs ["/" ","], values ["=" ","]. The last has
# none. A place in it is (where a field starts, which field of an item it is).
_Place = tuple[int, int]


def _read(text: str, inner: str, classes: _Classes, incomplete: str) -> list[tuple[int | str, ...]]:
    """Reads items with commas between; an item is a class, a pair (`/`), or a class and a value (`=`).

    Raises:
        UserError: no reading, or more than one.
    """
    ends = [inner, ","] if inner else [","]
    steps = _steps(text, ends, classes)
    readings = {(len(text) + 1, 0): 1}  # how many from each place to the end: 2 stands for more
    for place in sorted(steps, reverse=True):
        readings[place] = min(2, sum(readings.get(after, 0) for after, _ in steps[place]))
    if not readings[0, 0]:
        raise _no_reading(text, ends, steps, classes, incomplete)
    fields: list[int | str] = []
    place = (0, 0)
    while place in steps:
        possible = [(after, field) for after, field in steps[place] if readings.get(after)]
        if len(possible) > 1:
            short, long = (text[place[0] : after[0] - 1].strip() for after, _ in (possible[0], possible[-1]))
            raise UserError(
                f"{shown(text)} can be read in two ways, by class {shown(short)} or by class {shown(long)}; put quotes "
                f'around the one that is meant, as in "{short}"'
            )
        place, field = possible[0]
        fields.append(field)
    return list(zip(*(fields[f :: len(ends)] for f in range(len(ends))), strict=True))


def _steps(text: str, ends: list[str], classes: _Classes) -> dict[_Place, list[tuple[_Place, int | str]]]:
    """The places that can be reached, and from each where the next field may start and what the one between is."""
    where = {end: [*(i for i, c in enumerate(text) if c == end), *([len(text)] if end == "," else [])] for end in ends}
    most = {end: 1 + max((name.count(end) for name in classes.index), default=0) for end in ends}
    steps: dict[_Place, list[tuple[_Place, int | str]]] = {}
    reached = {(0, 0)}
    while reached:
        start, field = place = reached.pop()
        end = ends[field]
        steps[place] = []
        first = bisect_left(where[end], start)
        is_value = end == "," and "=" in ends
        for stop in where[end][first : first + (1 if is_value else most[end])]:
            token = text[start:stop]
            value = (None if "=" in token else token.strip()) if is_value else classes.find(token)
            if value is None:
                continue
            after = (stop + 1, (field + 1) % len(ends))
            steps[place].append((after, value))
            if after not in steps and stop < len(text):
                reached.add(after)
    return steps


def _no_reading(text: str, ends: list[str], steps: dict, classes: _Classes, incomplete: str) -> UserError:
    """What is wrong with a list, at the furthest place that can be reached."""
    start, field = max(steps)
    item = text[start:].split(",")[0]
    if ends[field] != "," and (ends[field] not in item or classes.find(item) is not None):
        return UserError(incomplete.format(shown(item.strip())))
    token = item.split(ends[field])[0]
    if ends[field] == "," and "=" in ends:
        return UserError(f"{shown(token.strip())} is no number; write cat=1.5")
    return classes.unknown(token)
