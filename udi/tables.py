"""Tables of a configuration file into frozen classes: types, unknown keys, and the constraints beside each setting.

A class may have a method `check()` for rules between its own keys, which raises ConfigError with the key's name.
"""

from __future__ import annotations

import builtins
import collections.abc
import sys
import types
import typing
from typing import Any

from udi.nearest import nearest
from udi.settings import broken, help_of
from udi.values import Field, fields, is_frozen
from udiroot.errors import ConfigError, printable


def read_table(kind: Any, document: dict[str, Any], path: str, where: str = "") -> Any:
    """The frozen class `kind` filled from `document`. `path` (the file) and `where` (`node.`) are for messages.

    Raises ConfigError for an unknown key, naming the nearest known one, a wrong type, or a broken constraint.
    """
    reader = _Reader(path)
    made = reader.table(kind, document, where)
    if reader.errors:
        raise reader.errors[0]
    return made


def table_errors(kind: Any, document: dict[str, Any], path: str, where: str = "") -> list[ConfigError]:
    """Everything for which `read_table` would raise."""
    reader = _Reader(path)
    reader.table(kind, document, where)
    return reader.errors


def unknown(key: str, known: typing.Iterable[str], path: str, where: str = "") -> ConfigError:
    """The error for a key or table that nobody knows, with the nearest known one as its hint."""
    names = list(known)
    near = nearest(key, names)
    hint = f"did you mean {where}{near}?" if near else f"known keys: {', '.join(names)}"
    return ConfigError(f"{path}: unknown key {printable(where + key)}", hint)


def _types(kind: Any, specs: typing.Collection[Field]) -> dict[str, Any]:
    """The types of those fields. What is more than a name is compiled from its text, which takes time for each."""
    names = vars(builtins) | vars(sys.modules[kind.__module__])
    others = {spec.name: spec.type for spec in specs if spec.type not in names}
    asked = types.SimpleNamespace(__annotations__=others)
    return {spec.name: names[spec.type] for spec in specs if spec.type in names} | typing.get_type_hints(asked, names)


_WRONG = object()
"""In the place of a value that has an error."""


class _Reader:
    """Reads tables of one file, and goes on after an error, so that a person sees them all at once."""

    def __init__(self, path: str) -> None:
        self.errors: list[ConfigError] = []
        self._path = path

    def table(self, kind: Any, document: dict[str, Any], where: str) -> Any:
        """The frozen class `kind`; where something in it is wrong, `_WRONG` and the errors."""
        before = len(self.errors)
        specs = {spec.name: spec for spec in fields(kind)}
        self.errors += [unknown(key, specs, self._path, where) for key in document if key not in specs]
        known = {key: value for key, value in document.items() if key in specs}
        hints = _types(kind, [spec for name, spec in specs.items() if name in known or spec.is_required])
        values = {key: self._value(hints[key], value, where + key) for key, value in known.items()}
        for name, spec in specs.items():
            if name not in values and spec.is_required:
                if is_frozen(hints[name]):
                    values[name] = self.table(hints[name], {}, f"{where}{name}.")
                else:
                    self._error(f"{where}{name} is missing", help_of(spec))
            elif name in values and values[name] is not _WRONG and (words := broken(spec, values[name])):
                self._error(f"{where}{name} {words}")
        if len(self.errors) > before:
            return _WRONG
        made = kind(**values)
        if hasattr(made, "check"):
            try:
                made.check()
            except ConfigError as error:
                self._error(f"{where}{error.message}", error.hint)
        return made

    def _value(self, hint: Any, value: Any, where: str) -> Any:
        if is_frozen(hint):
            return self.table(hint, value, where + ".") if isinstance(value, dict) else self._wrong(where, "a table")
        if typing.get_origin(hint) is collections.abc.Mapping:
            if not isinstance(value, dict):
                return self._wrong(where, "a table of names and values")
            inner = typing.get_args(hint)[1]
            pairs = {key: self._value(inner, item, f"{where}.{printable(key)}") for key, item in value.items()}
            return _WRONG if any(item is _WRONG for item in pairs.values()) else pairs
        if isinstance(hint, types.GenericAlias) or typing.get_origin(hint) is tuple:
            if not isinstance(value, list):
                return self._wrong(where, "a list")
            inner = typing.get_args(hint)[0]
            items = tuple(self._value(inner, item, f"{where}[{number}]") for number, item in enumerate(value))
            return _WRONG if any(item is _WRONG for item in items) else items
        if type(value) is not hint:
            wanted = {str: "a string", int: "an integer", bool: "true or false"}[hint]
            return self._wrong(where, f"{wanted}, not {printable(value)}")
        if hint is str and any(c < " " or c == "\x7f" for c in value):
            return self._error(f"{where} contains a control character")
        return value

    def _wrong(self, where: str, wanted: str) -> Any:
        return self._error(f"{where} must be {wanted}")

    def _error(self, message: str, hint: str = "") -> Any:
        self.errors.append(ConfigError(f"{self._path}: {message}", hint))
        return _WRONG
