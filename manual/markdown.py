"""A page in Markdown, for the HTML of the documents. Definition lists are those of Sphinx's reader, MyST."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from manual.page import Block, Definitions, Literal, Page, Section


def as_markdown(page: Page, known: Collection[str]) -> str:
    """The text of its file, with links to the pages that are `known`, such as `udi(1)`; their files lie beside it."""
    lines = (
        f"# {page.name}({page.number})",
        f"{escaped(page.name)}: {escaped(page.purpose)}",
        "## Synopsis",
        _fenced("\n".join(page.synopsis)),
        *(line for section in page.sections for line in _section(section)),
        *_see_also(page, known),
    )
    return "".join(f"{line}\n\n" for line in lines)


def file_of(title: str) -> str:
    """The file of a page that is called as others name it: `udi.1.md` of `udi(1)`."""
    name, _, number = title.rstrip(")").partition("(")
    return f"{name}.{number}.md"


def escaped(text: str) -> str:
    """Text on one line in which no character means anything to Markdown."""
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", " ".join(text.split()))


def _section(section: Section) -> Iterator[str]:
    yield f"## {escaped(section.title)}"
    yield from _blocks(section.blocks)
    for inner in section.inner:
        yield f"### {_code(inner.title)}"
        yield from _blocks(inner.blocks)


def _blocks(blocks: tuple[Block, ...]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, Definitions):
            for term, text in block.items:
                yield f"{_code(term)}\n: {escaped(text)}"
        elif isinstance(block, Literal):
            yield _fenced(block.text)
        else:
            yield escaped(block.text)


def _see_also(page: Page, known: Collection[str]) -> Iterator[str]:
    if page.see_also:
        yield "## See also"
        yield ", ".join(f"[{other}]({file_of(other)})" if other in known else other for other in page.see_also)


def _code(text: str) -> str:
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def _fenced(text: str) -> str:
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{fence}text\n{text.rstrip()}\n{fence}"
