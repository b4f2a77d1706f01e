"""The rows of `udi-admin check-config`, for a person and for programs.

A terminal gets lines that fit, divided between words; elsewhere a row is one line, and another for what to do. Colors
are for terminals only, and not where NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence

import click

from admin.checks.check import Level, Row
from udi.nodes import folded
from udiroot.errors import counted

SCHEMA = 1
"""Of the JSON: it rises when a key changes its meaning or goes away."""
_COLORS = {Level.OK: "green", Level.WARNING: "yellow", Level.ERROR: "red"}
_LEVEL_WIDTH = max(map(len, Level)) + 1
_LEAST_TEXT = 24
"""Columns of text below which a terminal is too narrow to be fitted."""


def exit_code(rows: Sequence[Row], of_errors: int) -> int:
    """0 where no row is an error."""
    return of_errors if any(row.level is Level.ERROR for row in rows) else 0


def as_json(config: str, host: str, rows: Sequence[Row]) -> str:
    """One JSON object: `schema`, `config`, `host`, `verdict` (the worst level), `counts` by level, and `rows` in order,
    each with `check`, `level`, `what`, `todo` (may be empty) and `nodes` (names; none: this host)."""
    levels = Counter(row.level for row in rows)
    document = {
        "schema": SCHEMA,
        "config": config,
        "host": host,
        "verdict": next((level for level in reversed(Level) if levels[level]), Level.OK),
        "counts": {level: levels[level] for level in Level},
        "rows": [
            {
                "check": row.check,
                "level": row.level,
                "what": row.what,
                "todo": row.todo,
                "nodes": [node.name for node in row.nodes],
            }
            for row in rows
        ],
    }
    return json.dumps(document, indent=1)


def show(config: str, host: str, rows: Sequence[Row]) -> None:
    """Print the rows: level, check and finding in columns, below it what to do; last, how many there are of each."""
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size((80, 24)).columns if is_terminal else 0
    colored = is_terminal and not os.environ.get("NO_COLOR")
    column = max((len(row.check) for row in rows), default=0) + 2
    for row in rows:
        for number, line in enumerate(_lines(row, column, width)):
            if number == 0 and colored:
                line = click.style(line[:_LEVEL_WIDTH], fg=_COLORS[row.level]) + line[_LEVEL_WIDTH:]
            click.echo(line, color=colored)
    levels = Counter(row.level for row in rows)
    found = ", ".join(counted(levels[level], level) for level in (Level.ERROR, Level.WARNING) if levels[level])
    click.echo(f"{config} on {host}: {found or 'OK'}")


def _lines(row: Row, column: int, width: int) -> Iterator[str]:
    nodes = f"{folded(row.nodes)}: " if row.nodes else ""
    start = f"{row.level:<{_LEVEL_WIDTH}}{row.check:<{column}}"
    indent = " " * len(start)
    yield from _fitted(start, indent, nodes + row.what, width)
    if row.todo:
        yield from _fitted(f"{indent}to do: ", f"{indent}  ", row.todo, width)


def _fitted(start: str, indent: str, text: str, width: int) -> Iterator[str]:
    """The text behind `start`, in lines of at most `width` columns; a path or list of nodes that is longer stays whole,
    so that it can be copied."""
    if width < len(indent) + _LEAST_TEXT:
        yield start + text
        return
    yield from textwrap.wrap(
        text,
        width - 1,
        initial_indent=start,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    ) or [start.rstrip()]
