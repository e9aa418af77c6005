"""How runs, rules and cost matrices look in charts: one meaning a colour on a whole page."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# told apart with any colour vision (Okabe and Ito, 2008), but for their yellow, which is lost on white; a grey, a brown
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000", "#808080", "#96622F")
INK = "0.25"  # of what is of no run, rule or matrix by itself
_MARKERS = "osD^vPX*"
_DASHES = ("-", "--", ":", "-.", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 3)), (0, (8, 4)))
_HATCHES = ("", "////", "....", "xxxx", "----")

Key = tuple[str, str, str]  # run, costs and rule, as people read them


class Look(NamedTuple):
    """How one of them is drawn.

    Attributes:
        colour: Of its lines, points and bars.
        marker: Of its points, a kind for each colour: so a chart reads in grey, too.
        dash: Kind of its line.
        hatch: Of its bars; a kind for each dash.
    """

    colour: str
    marker: str
    dash: Any
    hatch: str

    @property
    def line(self) -> dict[str, Any]:
        """Colour, marker and dash, as matplotlib's lines take them."""
        return {"color": self.colour, "marker": self.marker, "linestyle": self.dash}

    @property
    def curve(self) -> dict[str, Any]:
        """The same for a curve of many points, of which few are marked, of each kind others."""
        return {**self.line, "markersize": 4, "markevery": (0.02 * (_MARKERS.find(self.marker) + 1), 0.17)}

    @property
    def point(self) -> dict[str, Any]:
        """Colour and marker, as matplotlib's lines take them."""
        return {"color": self.colour, "marker": self.marker}


_NOBODYS = Look(INK, "", "-", "")


class Looks:
    """Colours of the runs, if there are several, and dashes for their rules or matrices; else of the rules or matrices.

    Attributes:
        coloured: What has colours: "run", "rule" or "costs".
        keys: Run, costs and rule of all that is drawn.
    """

    def __init__(self, keys: Iterable[Key]) -> None:
        """Gives looks to what is drawn: run, costs and rule of each; the first are told apart best."""
        self.keys = tuple(keys)
        runs, costs, rules = (tuple(dict.fromkeys(key[i] for key in self.keys)) for i in range(3))
        of = {"run": runs, "rule": rules, "costs": costs}
        several = [name for name, values in of.items() if len(values) > 1] or ["run"]
        self.coloured, self._colours = several[0], of[several[0]]
        # costs seldom meet in one chart; rules do
        self._dashed = several[1] if len(several) > 1 and self.coloured == "run" else ""
        self._dashes = of[self._dashed] if self._dashed else ()

    def of(self, **named: str) -> Look:
        """The look of what is of a run, costs or a rule, by these names; one that is not known has nobody's."""
        value = named.get(self.coloured)
        if value not in self._colours:
            return _NOBODYS
        i = self._colours.index(value)
        dash = named.get(self._dashed)
        j = self._dashes.index(dash) if dash in self._dashes else 0
        return Look(
            COLOURS[i % len(COLOURS)],
            _MARKERS[i % len(_MARKERS)],
            _DASHES[j % len(_DASHES)],
            _HATCHES[j % len(_HATCHES)],
        )

    def of_key(self, key: Key) -> Look:
        """The look of a run, costs and rule."""
        return self.of(**dict(zip(("run", "costs", "rule"), key, strict=True)))


def as_label(label: str) -> str:
    """A label that matplotlib shows: it passes over those that begin with an underscore, such as of a file `_m.pt`."""
    return f" {label}" if label.startswith("_") else label


def looks_of(labels: Iterable[str]) -> Mapping[str, Look]:
    """Looks of some labels, where nothing else is drawn."""
    distinct = list(labels)
    looks = Looks((label, "", "") for label in distinct)
    return {label: looks.of(run=label) for label in distinct}
