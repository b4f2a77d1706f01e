"""Frozen dataclasses as JSON objects, field by field: the one codec of events, requests and answers.

A field without a default must be present, and a field that the class does not have is refused. It knows the types that
the messages need: str, int, bool, float, bytes (as base64), image references (as text), tuples, dict[str, str], other
dataclasses, and one of these or None (as an empty string).
"""

from __future__ import annotations

import base64
import dataclasses
import functools
import types
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from udi.reference import ImageReference
from udiroot.errors import UsageError, printable

T = TypeVar("T")

Document = dict[str, object]
"""A JSON object."""
ParseReference = Callable[[str], ImageReference]


def to_document(message: Any, *, defaults: bool = True) -> Document:
    """The fields of a dataclass as JSON knows them; without `defaults`, a field that has its default is left out."""
    document: Document = {}
    for field in dataclasses.fields(message):
        value = getattr(message, field.name)
        if defaults or field.default is dataclasses.MISSING or value != field.default:
            document[field.name] = _plain(value)
    return document


def from_document(
    kind: type[T], document: Mapping[str, object], what: str, parse: ParseReference = ImageReference.parse
) -> T:
    """The dataclass that `document` holds. `what` names it in errors, and `parse` reads its image references.

    Raises UsageError for a field that is missing, unknown, or not of its type.
    """
    shape: Any = kind
    fields = {field.name: field for field in dataclasses.fields(shape)}
    hints = _hints(shape)
    for name in document:
        if name not in fields:
            raise UsageError(f"{what} has an unknown field {printable(name, 60)!r}")
    values = {}
    for name, field in fields.items():
        if name in document:
            values[name] = _typed(hints[name], document[name], f"{name} of {what}", parse)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise UsageError(f"{what} has no {name}")
    return kind(**values)


@functools.cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _plain(value: object) -> object:
    if isinstance(value, ImageReference):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if dataclasses.is_dataclass(value):
        return to_document(value)
    return value


def _typed(hint: Any, value: object, what: str, parse: ParseReference) -> object:
    """`value` as a value of the type `hint`."""
    if get_origin(hint) is types.UnionType:
        inner, _ = get_args(hint)  # X | None
        return _typed(inner, value, what, parse) if value != "" else None
    if hint is bytes:
        return _bytes(_checked(str, value, what), what)
    if hint is ImageReference:
        return parse(_checked(str, value, what))
    if get_origin(hint) is tuple:
        return _tuple(get_args(hint), _checked(list, value, what), what, parse)
    if get_origin(hint) is dict:
        return {key: _checked(str, item, what) for key, item in _checked(dict, value, what).items()}
    if dataclasses.is_dataclass(hint):
        assert isinstance(hint, type)
        return from_document(hint, _checked(dict, value, what), what, parse)
    return float(_number(value, what)) if hint is float else _checked(hint, value, what)


def _tuple(hints: tuple[Any, ...], items: list[object], what: str, parse: ParseReference) -> tuple[object, ...]:
    each = [hints[0]] * len(items) if hints[-1] is Ellipsis else list(hints)
    if len(each) != len(items):
        raise UsageError(f"{what} must have {len(each)} items, not {len(items)}")
    return tuple(_typed(hint, item, what, parse) for hint, item in zip(each, items, strict=True))


def _checked(kind: type[T], value: object, what: str) -> T:
    """`value`, which must be of this very type: to Python, but not to us, a bool is an int."""
    if type(value) is not kind:
        raise UsageError(f"{what} must be of type {_NAMES.get(kind, kind.__name__)}")
    return value


def _bytes(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(f"{what} is not valid base64") from error


def _number(value: object, what: str) -> float:
    return value if isinstance(value, int) and not isinstance(value, bool) else _checked(float, value, what)


_NAMES: dict[type[object], str] = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}
