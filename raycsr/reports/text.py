"""Documents as text for a terminal. Nothing in a text moves the cursor or colours a line."""

from collections.abc import Callable

from raycsr.errors import printable
from raycsr.reports.document import (
    Block,
    Details,
    Document,
    Facts,
    Failed,
    Gallery,
    Notes,
    Paragraph,
    Picture,
    Section,
    Table,
)
from raycsr.reports.letters import cells

_UNDERLINES = "=-"  # of the title, and of the headings below it; those below these have none


def as_text(shown: Document | Block) -> str:
    """A document, or a single block, for a terminal; tables line up, and what is only for the page is left out."""
    return "\n\n".join(_lines(shown, 0))


def table_lines(table: Table, written: Callable[[str], str]) -> list[str]:
    """A table whose columns line up, a line each for the header, the rule and the rows: Markdown reads it, too.

    Args:
        table: Table to show, without its marks.
        written: Makes of a cell what stands there.
    """
    rows = [[written(cell) for cell in row] for row in ([column.title for column in table.columns], *table.rows)]
    widths = [max(map(cells, column)) for column in zip(*rows, strict=True)]
    right = [column.numeric for column in table.columns]
    rule = ["-" * (width + 1) + ("-:"[numeric]) for width, numeric in zip(widths, right, strict=True)]
    lines = [
        [
            " " * (width - cells(cell)) * numeric + cell + " " * (width - cells(cell)) * (not numeric)
            for cell, width, numeric in zip(row, widths, right, strict=True)
        ]
        for row in rows
    ]
    header, *below = (f"| {' | '.join(line)} |" for line in lines)
    return [header, f"|{'|'.join(rule)}|", *below]


def _lines(shown: Document | Block, depth: int) -> list[str]:
    """The paragraphs of a block; `depth` is how many headings stand above it."""
    match shown:
        case Document(title, blocks) | Section(title, blocks):
            heading = printable(title)
            if depth < len(_UNDERLINES):
                heading += "\n" + _UNDERLINES[depth] * cells(heading)
            return [heading, *(line for block in blocks for line in _lines(block, depth + 1))]
        case Paragraph(text):
            return [printable(text)]
        case Failed():
            return [printable(shown.line)]
        case Notes(lines):
            return ["\n".join(f"- {printable(line)}" for line in lines)]
        case Table():
            below = [printable(shown.marks)] if shown.marks else []
            return ["\n".join(table_lines(shown, printable)), *below]
        case Facts(of):
            known = {label: [f"{name} {fact}" for name, fact in facts.items() if fact] for label, facts in of.items()}
            return ["\n".join(printable(f"- {label}: {' · '.join(facts)}") for label, facts in known.items())]
        case Picture(description=description):
            return [printable(f"[{description}]")]
        case Gallery(pictures):
            return ["\n".join(printable(f"- {', '.join(one.lines)}") for one in pictures)]
        case Details():
            return []
