"""The values of an environment file: their types, `${NAME}` in them, and a list of all that is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from udi.carried import Record, has_control
from udi.values import Frozen
from udiroot.errors import printable

_MOST = 512
"""Elements of a list, or of a table."""
_VARIABLE = re.compile(r"\$\$\{|\$\{(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?P<default>:-[^}]*)?\})?")
"""`$${` is `${`; `${NAME:-TEXT}` is TEXT where NAME is not set."""
_TYPES = {bool: "a boolean", int: "a number", float: "a number", list: "a list", dict: "a table", str: "text"}


class Parts(Frozen):
    """A file's values by our own keys. `volumes_key` is what the file calls its volumes."""

    image: str = ""
    volumes: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    workdir: str = ""
    entrypoint: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    environment: tuple[Record, ...] = ()
    volumes_key: str = "volumes"


@dataclass
class Values:
    """Reads values; `variables_of_user` are what `${NAME}` stands for, and `wrong` is what was found, a line each."""

    variables_of_user: Mapping[str, str]
    wrong: list[str] = field(default_factory=list)

    def text(self, key: str, value: Any) -> str:
        """The text, with its variables replaced; empty where it is wrong."""
        if not isinstance(value, str):
            quoted = f', as "{value}"' if isinstance(value, (int, float)) and not isinstance(value, bool) else ""
            self.wrong.append(f"{key} must be text{quoted}, not {_TYPES.get(type(value), 'a date')}")
            return ""
        return self._expanded(key, value)

    def texts(self, key: str, value: Any) -> tuple[str, ...]:
        """The texts of a list."""
        if not isinstance(value, list):
            self.wrong.append(f'{key} must be a list, as ["..."], not {_TYPES.get(type(value), "a date")}')
            return ()
        if len(value) > _MOST:
            self.wrong.append(f"{key} has {len(value)} elements, over {_MOST}")
            return ()
        return tuple(self.text(f"{key}[{number}]", each) for number, each in enumerate(value))

    def variables(self, key: str, table: Any, *, empty_unsets: bool) -> tuple[Record, ...]:
        """The changes that a table of variables makes; with `empty_unsets`, an empty value removes its variable."""
        if not isinstance(table, dict) or len(table) > _MOST:
            self.wrong.append(f"{key} must be a table of at most {_MOST} variables")
            return ()
        return tuple(
            change
            for name, value in table.items()
            for change in self._changes(f"{key}.{printable(name)}", name, value, empty_unsets=empty_unsets)
        )

    def _changes(self, key: str, name: str, value: Any, *, empty_unsets: bool) -> Iterator[Record]:
        own = re.compile(rf"\$\{{{re.escape(name)}(?::-)?\}}")
        if not isinstance(value, str) or not own.search(value.replace("$${", "")):
            text = self.text(key, value)
            yield ("unset", name) if empty_unsets and not text else ("set", f"{name}={text}")
            return
        front, back = own.split(value, maxsplit=1)
        if own.search(back) or (front and not front.endswith(":")) or (back and not back.startswith(":")):
            self.wrong.append(f"{key}: ${{{name}}} must be at one end of a list, or between two, joined by colons")
            return
        if front:
            yield "prepend", f"{name}={self._expanded(key, front[:-1])}"
        if back:
            yield "append", f"{name}={self._expanded(key, back[1:])}"

    def _expanded(self, key: str, text: str) -> str:
        if has_control(text):
            self.wrong.append(f"{key} has a control character")
            return ""
        return _VARIABLE.sub(lambda match: self._value(key, match), text)

    def _value(self, key: str, match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        if match[0].startswith("$$"):
            return "${"
        if name is None:
            self.wrong.append(f"{key}: ${{ begins a variable, as ${{NAME}} or ${{NAME:-TEXT}}; $${{ is ${{ itself")
            return ""
        value = self.variables_of_user.get(name, "")
        if name not in self.variables_of_user and default is None:
            self.wrong.append(f"{key}: ${{{name}}} is not set in your environment")
        if has_control(value):
            self.wrong.append(f"{key}: ${{{name}}} of your environment has a control character")
            return ""
        return value or (default or "")[2:]
