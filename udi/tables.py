"""Tables of a configuration file into frozen dataclasses: types, unknown keys, and the constraints beside each setting.

A dataclass may have a method `check()` for rules between its own keys, which raises ConfigError with the key's name.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from typing import Any

from udi.settings import broken, help_of, is_required
from udiroot.errors import ConfigError, printable


def read_table(kind: Any, document: dict[str, Any], path: str, where: str = "") -> Any:
    """The dataclass `kind` filled from `document`. `path` (the file) and `where` (`node.`) are for messages.

    Raises ConfigError for an unknown key, naming the nearest known one, a wrong type, or a broken constraint.
    """
    fields = {spec.name: spec for spec in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    for key in document:
        if key not in fields:
            raise unknown(key, fields, path, where)
    values = {key: _value(hints[key], value, path, where + key) for key, value in document.items()}
    for name, spec in fields.items():
        if name not in values and is_required(spec):
            if dataclasses.is_dataclass(hints[name]):
                values[name] = read_table(hints[name], {}, path, f"{where}{name}.")
            else:
                raise ConfigError(f"{path}: {where}{name} is missing", help_of(spec))
        if name in values and (words := broken(spec, values[name])):
            raise ConfigError(f"{path}: {where}{name} {words}")
    made = kind(**values)
    if hasattr(made, "check"):
        try:
            made.check()
        except ConfigError as error:
            raise ConfigError(f"{path}: {where}{error.message}", error.hint) from error
    return made


def unknown(key: str, known: typing.Iterable[str], path: str, where: str = "") -> ConfigError:
    """The error for a key or table that nobody knows, with the nearest known one as its hint."""
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {where}{near[0]}?" if near else f"known keys: {', '.join(names)}"
    return ConfigError(f"{path}: unknown key {printable(where + key)}", hint)


def _value(hint: Any, value: Any, path: str, where: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{path}: {where} must be a table")
        return read_table(hint, value, path, where + ".")
    if isinstance(hint, types.GenericAlias) or typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ConfigError(f"{path}: {where} must be a list")
        inner = typing.get_args(hint)[0]
        return tuple(_value(inner, item, path, f"{where}[{number}]") for number, item in enumerate(value))
    if type(value) is not hint:
        wanted = {str: "a string", int: "an integer", bool: "true or false"}[hint]
        raise ConfigError(f"{path}: {where} must be {wanted}, not {printable(value)}")
    if hint is str and any(c < " " or c == "\x7f" for c in value):
        raise ConfigError(f"{path}: {where} contains a control character")
    return value
