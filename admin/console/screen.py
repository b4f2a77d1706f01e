"""What `udi-admin` shows to a person: columns that fit the terminal, whole lines elsewhere, colors only where asked.

rich decides on colors: none without a terminal, none where NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import datetime
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence

import click
from rich.cells import chop_cells
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

_WIDE = 4096
"""Columns where nothing is a terminal: there, no line is divided or cut."""
_LEAST_TEXT = 24
"""Columns of text below which a terminal is too narrow to be fitted."""
_STYLES = {"good": "green", "bad": "bold red", "warning": "yellow", "head": "bold", "": ""}


def terminal() -> Console:
    """Standard output, as wide as it is."""
    found = Console(markup=False, highlight=False, emoji=False, soft_wrap=False)
    return found if found.is_terminal else Console(markup=False, highlight=False, emoji=False, width=_WIDE)


def show(console: Console, *parts: RenderableType) -> None:
    """Print the parts, without the blanks that fill a last column."""
    with console.capture() as captured:
        for part in parts:
            console.print(part, soft_wrap=isinstance(part, Text) and bool(part.no_wrap))
    for line in captured.get().splitlines():
        click.echo(line.rstrip(), color=True)  # the console has decided on colors


def columns(*names: str, cut: Sequence[str] = ()) -> Table:
    """A table. In a terminal that is too narrow, the columns of `cut` end in an ellipsis, the last one goes on in
    further lines, and all others stay whole."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=_STYLES["head"], pad_edge=False)
    for name in names:
        if name in cut:
            table.add_column(name, overflow="ellipsis", min_width=8)  # rich narrows no column of `no_wrap`
        elif name == names[-1]:
            table.add_column(name, overflow="fold", min_width=20)
        else:
            table.add_column(name, no_wrap=True, overflow="fold")
    return table


def rows(pairs: Iterable[tuple[str, str]]) -> Table:
    """Names and values, the values folded beside their names."""
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style=_STYLES["head"])
    table.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            table.add_row(name, value)
    return table


def hanging(console: Console, start: str, text: str, *, indent: int, kind: str = "") -> Text:
    """`start`, then the text, whose further lines begin at column `indent`. `kind` is that of the first word.

    In a terminal the text is divided between words; a word that is longer than a line, such as a path, stays whole, so
    that it can be copied.
    """
    line = start + text
    if console.is_terminal and console.width >= indent + _LEAST_TEXT:
        # rich would fold or cut a word that is longer than a line
        line = textwrap.fill(
            text,
            console.width - 1,
            initial_indent=start,
            subsequent_indent=" " * indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    made = whole(line or start.rstrip())
    made.stylize(_STYLES[kind], 0, len(start.split(" ")[0]))
    return made


def quoted(console: Console, mark: str, line: str) -> Iterator[Text]:
    """A line of another program's output, as it is, behind the mark. In a terminal each row of it has the mark, so that
    none can be taken for a line of ours; none is as wide as the terminal, where some would add an empty one."""
    rows = chop_cells(line, max(console.width - len(mark) - 1, 1)) if console.is_terminal else []
    for row in rows or [line]:
        yield whole(mark + row)


def whole(text: str) -> Text:
    """Text that is neither divided nor cut, however wide the terminal is."""
    return Text(text, no_wrap=True)


def title(text: str, kind: str = "head") -> Text:
    """A line of its own. `kind` is good, bad, warning or head."""
    return Text(text, style=_STYLES[kind])


def styled(text: str, kind: str) -> Text:
    """A cell. `kind` is good, bad, warning, head, or empty."""
    return Text(text, style=_STYLES[kind])


def at(seconds: float) -> str:
    """A moment, for a person; nothing for 0, which nobody knows."""
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if seconds else ""


def age(since: float, now: float | None = None) -> str:
    """How long ago that was, in its largest unit: `42 s`, `7 min`, `3 h`, `12 d`; `?` where nobody knows."""
    if not since:
        return "?"
    seconds = max(0, int((time.time() if now is None else now) - since))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
