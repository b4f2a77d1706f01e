"""A page in the macros of man(7), which both groff and mandoc read without a warning."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator

from manual.page import Block, Definitions, Literal, Page, Section

_WIDTH = 78
_ESCAPES = {
    "\\": r"\e",
    "-": r"\-",  # an option that is copied from the page must be one
    '"': r"\(dq",
    "'": r"\(aq",
    "`": r"\(ga",
    "^": r"\(ha",
    "~": r"\(ti",
}
_COMMENT = '.\\" Made from the tables of the programs.\n'


def as_roff(page: Page, version: str, date: str) -> str:
    """The text of its file. `date` is that of the text, as YYYY-MM-DD."""
    title = f'{_quoted(page.name.upper())} "{page.number}" "{date}" {_quoted(version)}'
    return _COMMENT + "".join(
        f"{line}\n"
        for line in (
            f".TH {title}",
            ".nh",
            ".ad l",
            ".SH NAME",
            f"{escaped(page.name)} \\- {escaped(page.purpose)}",
            *_synopsis(page),
            *(line for section in page.sections for line in _section(section)),
            *_see_also(page),
        )
    )


def escaped(text: str) -> str:
    """Text in which no character means anything to roff; the file is ASCII."""
    return "".join(_ESCAPES.get(c, c if c.isascii() else f"\\[u{ord(c):04X}]") for c in text)


def _synopsis(page: Page) -> Iterator[str]:
    yield ".SH SYNOPSIS"
    for number, usage in enumerate(page.synopsis):
        program, _, rest = usage.partition(" ")
        if number:
            yield ".br"
        yield f"\\fB{escaped(program)}\\fP {escaped(rest)}".rstrip()


def _section(section: Section) -> Iterator[str]:
    yield f".SH {_quoted(section.title.upper())}"
    yield from _blocks(section.blocks)
    for inner in section.inner:
        yield f".SS {_quoted(inner.title)}"
        yield from _blocks(inner.blocks)


def _blocks(blocks: tuple[Block, ...]) -> Iterator[str]:
    for number, block in enumerate(blocks):
        if isinstance(block, Definitions):
            for term, text in block.items:
                yield ".TP"
                yield _line(f"\\fB{escaped(term)}\\fP")
                yield from _filled(text)
        elif isinstance(block, Literal):
            yield from (".PP", ".RS 4", ".nf")
            yield from map(_line, map(escaped, block.text.splitlines()))
            yield from (".fi", ".RE")
        else:
            if number:
                yield ".PP"
            yield from _filled(block.text)


def _filled(text: str) -> Iterator[str]:
    """Each sentence begins a line, by which roff knows where sentences end."""
    for sentence in re.split(r"(?<=[.:;?!])\s+(?=[A-Z])", " ".join(text.split())):
        for line in textwrap.wrap(escaped(sentence), _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield _line(line)


def _see_also(page: Page) -> Iterator[str]:
    if page.see_also:
        yield ".SH SEE ALSO"
    for number, other in enumerate(page.see_also, 1):
        name, _, rest = other.partition("(")
        yield f".BR {escaped(name)} ({rest}{'' if number == len(page.see_also) else ' ,'}"


def _line(text: str) -> str:
    """A line of text, which no first character makes a request."""
    return f"\\&{text}" if text.startswith((".", "'")) else text


def _quoted(text: str) -> str:
    return f'"{escaped(text)}"'
