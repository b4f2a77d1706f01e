"""Small JSON files of our own, read into frozen classes: every field has exactly its type, or the file is damaged.

What a full disk, a crash or a hand left of one must not be taken for what was written, and never ends in a traceback.
"""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from udi import durable
from udi.jsonvalue import read_json
from udi.nodes import Node, named
from udi.oserrors import reason
from udi.values import fields
from udiroot.errors import UpstreamFailed, UsageError, printable

_MAX_NUMBER = 1 << 37
"""Counts are smaller, and so are epoch seconds until the year 6325."""
T = TypeVar("T")


def read_record(path: str, kind: type[T], hint: str) -> T:
    """The record of class `kind` at `path`, whose fields are strings, booleans, numbers from 0 on, nodes, and lists.

    Another version of ours may have written it, since jobs outlive an upgrade, and the way back: a field with a default
    may be missing, and one that is not known is passed over.

    Raises FileNotFoundError; UpstreamFailed with `hint`, which is what a person must do, for a damaged one.
    """
    try:
        found: T = _filled(kind, read_json(durable.read_text(path)))
    except FileNotFoundError:
        raise
    except (OSError, ValueError, UsageError) as error:
        what = reason(error) if isinstance(error, OSError) else printable(error)
        raise UpstreamFailed(f"{path} cannot be read: {what}", hint) from error
    return found


def remove_record(*paths: str) -> None:
    """Remove the records, or whatever is in their places; none is fine. Raises UpstreamFailed."""
    try:
        for path in paths:
            if os.path.isdir(path) and not os.path.islink(path):
                import shutil  # nothing of ours makes one

                shutil.rmtree(path)
        durable.remove(*paths)
    except OSError as error:
        raise UpstreamFailed(
            f"{error.filename} cannot be removed: {reason(error)}", "repair its file system"
        ) from error


def modified(path: str) -> int:
    """When the file was last changed (epoch seconds), 0 where it cannot be asked: how old a damaged record may be."""
    try:
        return int(os.lstat(path).st_mtime)
    except OSError:
        return 0


def _filled(kind: Any, document: object) -> Any:
    if not isinstance(document, dict):
        raise ValueError("it is not a JSON object")
    hints = typing.get_type_hints(kind)
    needed = [spec.name for spec in fields(kind) if spec.is_required]
    if not document.keys() >= set(needed):
        raise ValueError(f"it has not the fields {', '.join(needed)}")
    given = [spec.name for spec in fields(kind) if spec.name in document]
    return kind(**{name: _value(hints[name], document[name], name) for name in given})


def _value(hint: Any, value: object, name: str) -> object:
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"its {name} is not a list")
        return tuple(_value(typing.get_args(hint)[0], item, name) for item in value)
    if hint is Node:
        return named(_value(str, value, name))  # type: ignore[arg-type]
    if type(value) is not hint or (isinstance(value, int) and not 0 <= value < _MAX_NUMBER):
        raise ValueError(f"its {name} is not a valid {_WORDS[hint]}")
    return value


_WORDS: Mapping[Callable[..., object], str] = {str: "string", int: "number", bool: "boolean"}
