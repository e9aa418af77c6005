"""Documents as Markdown. Texts are escaped: a name is a name, whatever it holds."""

import re

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
from raycsr.reports.text import table_lines

_ACTING = (  # in Markdown; a backslash first, which all others then get
    r"\\(?=[!-/:-@[-`{-~])",
    r"[|`<$]",
    r"~(?=~)|(?<=~)~",
    r"&(?=#?\w+;)",
    r"\[(?=[^\]]*\][(\[:])",
    r"(?<![^\W_])_|_(?![^\W_])",
    r"^(?:[#>=+]|-(?=[\s-]))",
)


def as_markdown(shown: Document | Block) -> str:
    """A document, or a single block, as Markdown; what is only for the page is left out."""
    return "\n\n".join(_parts(shown, 1)) + "\n"


def in_markdown(text: str) -> str:
    """A text of unknown origin as Markdown that shows it as it is: a name, a spec, an error.

    Only what would act is escaped, for Markdown is read as it stands, too: an underscore within a word, an interval in
    brackets or a single asterisk stays.
    """
    text = printable(text)
    for pattern in _ACTING if text.count("*") < 2 else (*_ACTING, r"\*"):
        text = re.sub(pattern, r"\\\g<0>", text)
    return text


def _parts(shown: Document | Block, level: int) -> list[str]:
    """The parts of a block, which blank lines tell apart; `level` is that of a heading here."""
    match shown:
        case Document(title, blocks) | Section(title, blocks):
            heading = f"{'#' * level} {in_markdown(title)}"
            return [heading, *(part for block in blocks for part in _parts(block, level + 1))]
        case Paragraph(text):
            return [in_markdown(text)]
        case Failed():
            return [in_markdown(shown.line)]
        case Notes(lines):
            return ["\n".join(f"- {in_markdown(line)}" for line in lines)]
        case Table():
            below = [in_markdown(shown.marks)] if shown.marks else []
            return ["\n".join(table_lines(shown, in_markdown)), *below]
        case Facts():
            return _parts(shown.table(), level)
        case Picture(description=description):
            return [in_markdown(f"({description})")]
        case Gallery(pictures):
            return ["\n".join(f"- {in_markdown(', '.join(one.lines))}" for one in pictures)]
        case Details():
            return []
