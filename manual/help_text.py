"""A page from what a program prints for --help: the usage, paragraphs, and options with their text in a second column.

For programs that are not Python. A line that begins with two blanks is an option, and with more, a further line of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from manual.page import Block, Definitions, Paragraph, Section

_USAGE = re.compile(r"(?:Usage:|      ) (?P<usage>\S.*)")
_OPTION = re.compile(r"  (?P<term>\S(?:.*?\S)?)  +(?P<text>\S.*)")
_TITLED = re.compile(r"(?P<title>[A-Z][a-z ]+)[:,] ")


@dataclass(frozen=True)
class HelpText:
    """What a program prints for --help, taken apart."""

    usage: tuple[str, ...]
    paragraphs: tuple[str, ...]
    options: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> HelpText:
        """Raises ValueError for a line that is none of these."""
        usage: list[str] = []
        paragraphs: list[str] = []
        options: list[tuple[str, str]] = []
        for part in text.strip("\n").split("\n\n"):
            if part.startswith("Usage:"):
                usage += [_matched(_USAGE, line)["usage"] for line in part.splitlines()]
            elif part.startswith("  "):
                options += _rows(part)
            else:
                paragraphs.append(" ".join(part.split()))
        return cls(tuple(usage), tuple(paragraphs), tuple(options))

    def sections(self) -> tuple[Section, ...]:
        """Description and options; a paragraph after the first that begins with a title is a section of its own."""
        description: list[Block] = []
        titled = []
        for text in self.paragraphs:
            found = _TITLED.match(text) if description else None
            if found:
                rest = text[found.end() :]
                titled.append(Section(found["title"], (Paragraph(rest[0].upper() + rest[1:]),)))
            else:
                description.append(Paragraph(text))
        return (Section("Description", tuple(description)), Section("Options", (Definitions(self.options),)), *titled)


def _rows(part: str) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for line in part.splitlines():
        if line.startswith("   "):
            term, text = rows.pop()
            rows.append((term, f"{text} {line.strip()}"))
        else:
            found = _matched(_OPTION, line)
            rows.append((found["term"], found["text"]))
    return rows


def _matched(pattern: re.Pattern[str], line: str) -> re.Match[str]:
    found = pattern.fullmatch(line)
    if not found:
        raise ValueError(f"not a line of a help text: {line!r}")
    return found
