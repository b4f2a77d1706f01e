"""A man page as a value: what is said, apart from how it is written. `manual.roff` writes it."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Paragraph:
    """Running text; its line breaks mean nothing."""

    text: str


@dataclass(frozen=True)
class Literal:
    """Lines that are shown as they are, such as a command or a part of a file."""

    text: str


@dataclass(frozen=True)
class Definitions:
    """Terms that a reader would type, each with its text."""

    items: tuple[tuple[str, str], ...]


Block = Paragraph | Literal | Definitions


@dataclass(frozen=True)
class Section:
    """A heading with what is below it; `inner` ones have a heading of the second level."""

    title: str
    blocks: tuple[Block, ...] = ()
    inner: tuple[Section, ...] = ()


@dataclass(frozen=True)
class Page:
    """The page `name(number)`. `purpose` is what apropos shows, lower case and without a full stop."""

    name: str
    number: int
    purpose: str
    synopsis: tuple[str, ...]
    sections: tuple[Section, ...]
    see_also: tuple[str, ...] = ()
    """Other pages, as `udi(1)`."""

    @property
    def file(self) -> str:
        """The name of its file below the directory of man pages."""
        return f"man{self.number}/{self.name}.{self.number}"


_AS_IT_IS = "\b"
"""What click takes, alone on the first line of a paragraph, as a sign to keep its lines."""


def paragraphs(text: str) -> tuple[Paragraph | Literal, ...]:
    """The paragraphs of a text in which blank lines divide them."""
    return tuple(_paragraph(part) for part in text.split("\n\n") if part.strip())


def _paragraph(part: str) -> Paragraph | Literal:
    first, _, rest = part.partition("\n")
    if first.strip(" ") == _AS_IT_IS:
        return Literal(textwrap.dedent(rest))
    return Paragraph(" ".join(part.split()))
