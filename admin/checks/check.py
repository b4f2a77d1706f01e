"""One check, and what it finds."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from udi.nodes import Node
from udi.oserrors import reason
from udiroot.errors import UdiError


class Level(enum.StrEnum):
    """How bad a row is; an error keeps jobs from running as configured, a warning does not today."""

    OK = "ok"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True)
class Finding:
    """What was found, and what to do about it; empty where nothing is to be done."""

    level: Level
    what: str
    todo: str = ""


@dataclass(frozen=True)
class Row:
    """A finding of the check that is called `check`, on `nodes`, or on this host where there are none."""

    check: str
    level: Level
    what: str
    todo: str = ""
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Check:
    """A check. `name` stays the same from version to version; `proves` is said where `look` finds nothing."""

    name: str
    proves: str
    look: Callable[[], Iterable[Finding]]

    def rows(self) -> Iterator[Row]:
        """One row where all is well, else one for each finding; a UdiError is one."""
        found = []
        try:
            for finding in self.look():
                found.append(finding)
        except UdiError as error:
            found.append(of_error(error))
        except OSError as error:
            found.append(wrong(f"{error.filename or self.name}: {reason(error)}"))
        for finding in found or [fine(self.proves)]:
            yield Row(self.name, finding.level, finding.what, finding.todo)


def fine(what: str) -> Finding:
    """All is well, in other words than those of the check."""
    return Finding(Level.OK, what)


def warning(what: str, todo: str = "") -> Finding:
    """Jobs run, but something may surprise users or operators."""
    return Finding(Level.WARNING, what, todo)


def wrong(what: str, todo: str = "") -> Finding:
    """Something does not work as configured."""
    return Finding(Level.ERROR, what, todo)


def of_error(error: UdiError, key: str = "", path: str = "") -> Finding:
    """An error, under the key of the configuration that it is about. The configuration's own `path` is left out, since
    all rows are about it."""
    message = error.message.removeprefix(f"{path}: ") if path else error.message
    return wrong(f"{key}: {message}" if key else message, error.hint)


def raised(call: Callable[[], object], key: str = "", path: str = "") -> Iterator[Finding]:
    """What a call raises, as a finding."""
    try:
        call()
    except UdiError as error:
        yield of_error(error, key, path)
