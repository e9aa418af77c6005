"""What people look at, as data: a document of blocks, composed once, and rendered by `text`, `markdown` and `html`.

A block says what is shown and never how: texts in it are as they are, whatever they hold, and each renderer escapes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from raycsr.errors import UserError

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
class Failed:
    """What stands in the place of blocks that could not be made.

    Attributes:
        what: What was to stand there.
        why: The error, in a line.
    """

    what: str
    why: str

    @property
    def line(self) -> str:
        """A sentence that says both."""
        return f"{self.what} could not be made: {self.why}"


@dataclass(frozen=True)
class Details:
    """Blocks that only the page has room for: text and Markdown pass them over, and nobody makes them in vain.

    Attributes:
        what: What they show, for who does not see it because it failed.
        make: Composes them; it may draw pictures and read photographs.
    """

    what: str
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


Block = Paragraph | Notes | Table | Facts | Picture | Gallery | Failed | Details | Section


def kept(what: str, make: Callable[[], Sequence[Block]]) -> list[Block]:
    """Blocks, or one that says what failed: one chart, or one table, never takes the others with it.

    Args:
        what: What is made.
        make: Makes it.
    """
    try:
        return list(make())
    except Exception as error:  # of a chart, whatever the library below it says
        return [failed(what, error)]


def failed(what: str, error: Exception) -> Failed:
    """Says of an error what it was that could not be made; what looks like a secret is left out."""
    reason = " ".join(str(error).split())
    return Failed(what, str(error if isinstance(error, UserError) else UserError(f"{type(error).__name__}: {reason}")))


def made(document: Document) -> Document:
    """A document with what its details make in the place of each."""
    return replace(document, blocks=_made(document.blocks))


def _made(blocks: Sequence[Block]) -> list[Block]:
    found: list[Block] = []
    for block in blocks:
        match block:
            case Details(what, make):
                found += _made(kept(what, make))
            case Section(title, within, folded):
                of_it = _made(within)
                found.append(Section(title, of_it, folded and not failures(of_it)))
            case _:
                found.append(block)
    return found


def failures(blocks: Sequence[Block]) -> list[str]:
    """A sentence for each of the blocks, and of those in sections among them, that could not be made."""
    found: list[str] = []
    for block in blocks:
        if isinstance(block, Failed):
            found.append(block.line)
        elif isinstance(block, Section):
            found += failures(block.blocks)
    return found
