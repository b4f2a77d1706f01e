"""What every table of the configuration is made of: keys with a type, a default, a line of help, and constraints.

A constraint stands beside its key and nowhere else, so that reading the file, `udi-admin check-config` and
`udi-admin example-config` all go by the one table.
"""

from __future__ import annotations

import os
import re
from typing import Any, Protocol

from udi.values import Field, field
from udiroot.errors import printable

_KEY = "setting"
_FILLED = "filled"


class Constraint(Protocol):
    """What a value must be beyond its type; of a list, what each item must be. Its text is for people."""

    def broken_by(self, value: Any) -> str:
        """What is wrong, to be read after the key's name (`must be …`); empty where nothing is."""


class AbsolutePath:
    """A path from the root with no `.`, `..`, doubled or trailing slash, and not the root itself."""

    def __init__(self, *, optional: bool = False) -> None:
        self._optional = optional

    def broken_by(self, value: Any) -> str:
        if value == "" and self._optional:
            return ""
        plain = value.startswith("/") and os.path.normpath(value) == value and value != "/"
        return "" if plain else f"must be a plain absolute path, not '{printable(value)}'"

    def __str__(self) -> str:
        return "an absolute path, or empty" if self._optional else "an absolute path"


class Bounds:
    """A number no smaller than `least`, and no larger than `most` where there is one. `unit` is for messages, and `cap`
    is what no program could work with any more."""

    def __init__(self, least: int, most: int | None = None, unit: str = "", cap: int = 1 << 60) -> None:
        self._least, self._most, self._unit, self._cap = least, most, unit, cap

    def broken_by(self, value: Any) -> str:
        if value > self._cap and self._most is None:
            return f"must not be as large as {value}"
        if value >= self._least and (self._most is None or value <= self._most):
            return ""
        return f"must be {self}, not {value}"

    def __str__(self) -> str:
        unit = f" {self._unit}" if self._unit else ""
        return f"at least {self._least}{unit}" if self._most is None else f"from {self._least} to {self._most}{unit}"


class Matching:
    """A text of one form; `words` say which."""

    def __init__(self, pattern: str, words: str) -> None:
        self._pattern, self._words = pattern, words  # compiled for the first value: few sites have one of each

    def broken_by(self, value: Any) -> str:
        return "" if re.fullmatch(self._pattern, value) else f"must be {self}, not '{printable(value)}'"

    def __str__(self) -> str:
        return self._words


class IpAddress:
    """An IPv4 or IPv6 address; for lines of /etc/hosts, with names after it."""

    def __init__(self, *, with_names: bool = False) -> None:
        self._with_names = with_names

    def broken_by(self, value: Any) -> str:
        import ipaddress  # a table without addresses, which most are, need not wait for it

        words = value.split() if self._with_names else [value]
        try:
            ipaddress.ip_address(words[0])
            is_valid = (len(words) > 1) == self._with_names
        except (ValueError, IndexError):
            is_valid = False
        return "" if is_valid else f"must be {self}, not '{printable(value)}'"

    def __str__(self) -> str:
        return "an address and the names of a host" if self._with_names else "an address"


class OneOf:
    """One of some words."""

    def __init__(self, *choices: str) -> None:
        self._choices = choices

    def broken_by(self, value: Any) -> str:
        return "" if value in self._choices else f"must be {self}, not '{printable(value)}'"

    def __str__(self) -> str:
        return " or ".join(self._choices)


PATH = AbsolutePath()
OPTIONAL_PATH = AbsolutePath(optional=True)
_MONTH = 31 * 24 * 3600
SECONDS = Bounds(1, unit="second", cap=_MONTH)
PAUSE = Bounds(0, cap=_MONTH)
DAYS = Bounds(0, cap=36_500)
POSITIVE = Bounds(1)
FEW = Bounds(1, cap=10_000)
COUNT = Bounds(0)
_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = Matching(rf"{_OCTET}(?:\.{_OCTET}){{3}}", "an IPv4 address")
WORD = Matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a plain word")
FILE = Matching(r"[A-Za-z0-9_][A-Za-z0-9_.+/-]*", "a file's name")


def setting(default: Any, help_text: str, constraint: Constraint | None = None, *, filled: bool = False) -> Any:
    """A key of the configuration: its default, its line of help, and what its value must be beyond its type. A list
    that is `filled` may not be empty."""
    metadata = {_KEY: (help_text, constraint), _FILLED: filled}
    if isinstance(default, (list, tuple, dict)):
        frozen = dict(default) if isinstance(default, dict) else tuple(default)
        return field(default_factory=lambda: frozen, metadata=metadata)
    return field(default=default, metadata=metadata)


def required(help_text: str, constraint: Constraint | None = None) -> Any:
    """A key that has no sensible default."""
    return field(metadata={_KEY: (help_text, constraint)})


def help_of(spec: Field) -> str:
    """The line of help of a key."""
    text: str = spec.metadata.get(_KEY, ("", None))[0]
    return text


def constraint_of(spec: Field) -> Constraint | None:
    """The constraint of a key, where it has one."""
    found: Constraint | None = spec.metadata.get(_KEY, ("", None))[1]
    return found


def broken(spec: Field, value: Any) -> str:
    """What the constraint of a key says of a value, or of the first item of a list, or pair of name and value of a
    mapping, that breaks it; empty if nothing."""
    if value == () and spec.metadata.get(_FILLED):
        return "must not be empty"
    constraint = constraint_of(spec)
    if constraint is None:
        return ""
    values = value.items() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
    return next((words for item in values if (words := constraint.broken_by(item))), "")
