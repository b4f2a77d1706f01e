"""An annotated `udi.toml`, made from the tables of settings: every key with help, constraint and default."""

from __future__ import annotations

import collections.abc
import dataclasses
import textwrap
import typing
from collections.abc import Iterator
from typing import Any

from admin.machines import all_tables
from udi.config import SiteConfig, shared_keys
from udi.settings import constraint_of, help_of, is_required

_WIDTH = 100
_HEAD = """\
# Configuration of shifter-xc: /etc/udi/udi.toml, owned by root, mode 0644.
# Every key is shown with its default, commented out; a key without one must be set.
"""
_EXAMPLES = {"store.path": '"/scratch/udi"'}
"""Values to show for keys that have no default, where the key can stand in the file only once."""


def example() -> str:
    """The text of the file; it is valid, and sets what must be set to an example."""
    return _HEAD + "".join(f"\n{block}" for block in _blocks())


def _blocks() -> Iterator[str]:
    hints = typing.get_type_hints(SiteConfig)
    specs = {spec.name: spec for spec in dataclasses.fields(SiteConfig) if spec.name in shared_keys()}
    plain = [spec for name, spec in specs.items() if not _table_of(hints[name])]
    yield "".join(_key(spec, hints[spec.name], "") for spec in plain)
    for name in specs:
        kind = _table_of(hints[name])
        if kind:
            yield from _table(kind, name, hints[name])
    for kind in all_tables():
        yield from _table(kind, kind.NAME, kind)


def _table(kind: Any, name: str, hint: Any, *, inside: bool = False) -> Iterator[str]:
    """A table, then those in it. One that may stand any number of times is commented out, and so is all `inside` it."""
    hints = typing.get_type_hints(kind)
    specs = dataclasses.fields(kind)
    name = f"{name}.NAME" if _is_named(hint) else name
    listed = inside or hint is not kind
    head = f"# [[{name}]]" if typing.get_origin(hint) is tuple else f"# [{name}]" if listed else f"[{name}]"
    keys = [spec for spec in specs if not _table_of(hints[spec.name])]
    text = _comment((kind.__doc__ or "").strip().split("\n\n")[0])
    yield text + f"{head}\n" + "".join(_key(spec, hints[spec.name], "" if listed else f"{name}.") for spec in keys)
    for spec in specs:
        inner = _table_of(hints[spec.name])
        if inner:
            yield from _table(inner, f"{name}.{spec.name}", hints[spec.name], inside=listed)


def _key(spec: dataclasses.Field[Any], hint: Any, where: str) -> str:
    constraint = constraint_of(spec)
    help_text = help_of(spec) + (f" ({constraint})" if constraint else "")
    example = _EXAMPLES.get(where + spec.name)
    if example:
        return _comment(help_text) + f"{spec.name} = {example}\n"
    value = _toml(hint() if is_required(spec) else _default(spec))
    required = " # required" if is_required(spec) else ""
    return _comment(help_text) + f"# {spec.name} = {value}{required}\n"


def _default(spec: dataclasses.Field[Any]) -> Any:
    if spec.default_factory is not dataclasses.MISSING:
        return spec.default_factory()
    return spec.default


def _table_of(hint: Any) -> Any:
    """The dataclass of a table, of a list of tables or of tables by name; None for a plain key."""
    arguments = typing.get_args(hint)
    kind = arguments[-1] if _is_named(hint) else arguments[0] if typing.get_origin(hint) is tuple else hint
    return kind if dataclasses.is_dataclass(kind) else None


def _is_named(hint: Any) -> bool:
    """Whether it is a table of tables, each by a name of the site's own."""
    return typing.get_origin(hint) is collections.abc.Mapping


def _comment(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ") + "\n"


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
