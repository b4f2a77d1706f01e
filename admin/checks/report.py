"""The rows of `udi-admin check-config`, for a person and for programs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from admin.checks.check import Level, Row
from admin.console import screen
from admin.console.screen import hanging, terminal, whole
from udi.nodes import folded
from udiroot.errors import counted

SCHEMA = 1
"""Of the JSON: it rises when a key changes its meaning or goes away."""
_KINDS = {Level.OK: "good", Level.WARNING: "warning", Level.ERROR: "bad"}
_LEVEL_WIDTH = max(map(len, Level)) + 1


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
    console = terminal()
    column = max((len(row.check) for row in rows), default=0) + 2
    levels = Counter(row.level for row in rows)
    found = ", ".join(counted(levels[level], level) for level in (Level.ERROR, Level.WARNING) if levels[level])
    parts = [part for row in rows for part in _parts(console, row, column)]
    screen.show(console, *parts, whole(f"{config} on {host}: {found or 'OK'}"))


def _parts(console: Console, row: Row, column: int) -> Iterator[Text]:
    nodes = f"{folded(row.nodes)}: " if row.nodes else ""
    start = f"{row.level:<{_LEVEL_WIDTH}}{row.check:<{column}}"
    indent = len(start)
    yield hanging(console, start, nodes + row.what, indent=indent, kind=_KINDS[row.level])
    if row.todo:
        yield hanging(console, f"{' ' * indent}to do: ", row.todo, indent=indent + 2)
