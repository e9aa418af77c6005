"""What people look at, as data: a document of blocks, composed once, and rendered by `text`, `markdown` and `html`.

A block says what is shown and never how: texts in it are as they are, whatever they hold, and each renderer escapes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

NOT_RECORDED = "not recorded"  # what tables say of a fact that is ""


@dataclass(frozen=True)
class Paragraph:
    """A text of one or more sentences."""

    text: str


@dataclass(frozen=True)
class Notes:
    """A list of sentences."""

    lines: Sequence[str]


@dataclass(frozen=True)
class Column:
    """What a column of a table holds.

    Attributes:
        title: Header of the column.
        numeric: Whether its cells are numbers, which stand to the right.
        key: Whether its cells say what a row is about: where a table is too wide for a page, each part of it has them.
    """

    title: str
    numeric: bool = False
    key: bool = False


@dataclass(frozen=True)
class Table:
    """Rows of cells.

    Attributes:
        columns: One each for the cells of a row.
        rows: The cells, as they are read.
        marks: Meaning of the marks in the cells, a line below the table; empty where there are none.
    """

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    marks: str = ""


@dataclass(frozen=True)
class Facts:
    """The same facts about several things.

    Attributes:
        of: Label of a thing -> name of a fact -> what it is, "" where that is not recorded.
        links: Label of a thing -> URI of its folder; only the page has links.
    """

    of: Mapping[str, Mapping[str, str]]
    links: Mapping[str, str] = field(default_factory=dict)

    def table(self) -> Table:
        """A row a fact, a column a thing."""
        names = next(iter(self.of.values()))
        rows = [[name, *(facts[name] or NOT_RECORDED for facts in self.of.values())] for name in names]
        return Table([Column(""), *map(Column, self.of)], rows)


@dataclass(frozen=True)
class Picture:
    """A picture that is drawn twice, as SVG.

    Attributes:
        wide: With panels side by side.
        narrow: With panels one below the other, for a telephone.
        description: For those who cannot see it.
    """

    wide: bytes
    narrow: bytes
    description: str


@dataclass(frozen=True)
class Captioned:
    """A small PNG, or one line that says why there is none, with lines of text below."""

    png: bytes | str
    lines: Sequence[str]


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side."""

    pictures: Sequence[Captioned]


@dataclass(frozen=True)
class Details:
    """Blocks that only the page has room for: text and Markdown pass them over, and nobody makes them in vain.

    Attributes:
        make: Composes them; it may draw pictures and read photographs.
    """

    make: Callable[[], Sequence["Block"]]


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it, sections of their own among it; a page shows a folded one when asked to."""

    title: str
    blocks: Sequence["Block"]
    folded: bool = False


@dataclass(frozen=True)
class Document:
    """A title and all that stands below it."""

    title: str
    blocks: Sequence["Block"]


Block = Paragraph | Notes | Table | Facts | Picture | Gallery | Details | Section
