"""The tables of the configuration as a reader meets them: each with its heading, its words and its keys.

The annotated example and the man page are both made from these.
"""

from __future__ import annotations

import collections.abc
import dataclasses
import typing
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from udi.settings import constraint_of, help_of
from udi.values import MISSING, Field, fields, is_frozen


@dataclasses.dataclass(frozen=True)
class ShownKey:
    """A key. `value` is its default as TOML writes it; of a key that must be set, an empty one."""

    name: str
    help: str
    constraint: str
    value: str
    is_required: bool


@dataclasses.dataclass(frozen=True)
class ShownTable:
    """A table. `name` is empty for the keys before all tables; a NAME in it is the site's own to choose. One that is
    `repeated` stands any number of times, or not at all, or is inside such a one."""

    name: str
    heading: str
    words: str
    repeated: bool
    keys: tuple[ShownKey, ...]


def shown_tables(root: Any, shared: Collection[str], tables: Sequence[Any]) -> Iterator[ShownTable]:
    """All tables: the keys of the class `root` that are `shared`, its tables, then the `tables` of others, each a class
    with a NAME."""
    hints = typing.get_type_hints(root)
    specs = {spec.name: spec for spec in fields(root) if spec.name in shared}
    plain = [spec for name, spec in specs.items() if not table_of(hints[name])]
    yield ShownTable("", "", "", False, tuple(_key(spec, hints[spec.name]) for spec in plain))
    for name in specs:
        kind = table_of(hints[name])
        if kind:
            yield from _table(kind, name, hints[name])
    for kind in tables:
        yield from _table(kind, kind.NAME, kind)


def _table(kind: Any, name: str, hint: Any, *, inside: bool = False) -> Iterator[ShownTable]:
    """A table, then those in it."""
    hints = typing.get_type_hints(kind)
    specs = fields(kind)
    name = f"{name}.NAME" if _is_named(hint) else name
    repeated = inside or hint is not kind
    heading = f"[[{name}]]" if typing.get_origin(hint) is tuple else f"[{name}]"
    keys = tuple(_key(spec, hints[spec.name]) for spec in specs if not table_of(hints[spec.name]))
    yield ShownTable(name, heading, (kind.__doc__ or "").strip().split("\n\n")[0], repeated, keys)
    for spec in specs:
        inner = table_of(hints[spec.name])
        if inner:
            yield from _table(inner, f"{name}.{spec.name}", hints[spec.name], inside=repeated)


def _key(spec: Field, hint: Any) -> ShownKey:
    value = hint() if spec.is_required else _default(spec)
    return ShownKey(spec.name, help_of(spec), str(constraint_of(spec) or ""), _toml(value), spec.is_required)


def _default(spec: Field) -> Any:
    if spec.default_factory is not MISSING:
        return spec.default_factory()
    return spec.default


def table_of(hint: Any) -> Any:
    """The class of a table, of a list of tables or of tables by name; None for a plain key."""
    arguments = typing.get_args(hint)
    kind = arguments[-1] if _is_named(hint) else arguments[0] if typing.get_origin(hint) is tuple else hint
    return kind if is_frozen(kind) else None


def _is_named(hint: Any) -> bool:
    """Whether it is a table of tables, each by a name of the site's own."""
    return typing.get_origin(hint) is collections.abc.Mapping


def _toml(value: Any) -> str:
    """A default as TOML writes it: defaults are strings, integers, booleans, and lists and mappings of strings."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_toml(name)} = {_toml(item)}" for name, item in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, int):
        return str(value)
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'
