"""Frozen dataclasses that cost little to define: a hook imports some eighty classes of values and settings.

For each class `dataclasses` writes the text of six methods and compiles it, which takes longer than anything else that
the module does. `frozen` makes a dataclass as well, which `fields`, `replace` and `asdict` take, but with methods that
are written once, here. Its instances are made and compared somewhat slower: what a job has one of for each node is a
`dataclass`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from typing import Any, TypeVar, dataclass_transform, overload

_T = TypeVar("_T")


@overload
def frozen(cls: type[_T], /) -> type[_T]: ...
@overload
def frozen(*, kw_only: bool) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T] | None = None, /, *, kw_only: bool = False) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """As `dataclass(frozen=True)`, but without slots and `__post_init__`, and with all fields in `__init__`, `repr` and
    comparisons. A method that the class has itself stays."""
    return _made(cls, kw_only) if cls is not None else lambda each: _made(each, kw_only)


class _Shape:
    """What `__init__` must know of a class."""

    def __init__(self, cls: Any) -> None:
        specs = fields(cls)
        self.names = tuple(spec.name for spec in specs)
        self.positions = tuple(spec.name for spec in specs if not spec.kw_only)
        self.defaults = {spec.name: spec.default for spec in specs if spec.default is not MISSING}
        self.factories = {spec.name: spec.default_factory for spec in specs if spec.default_factory is not MISSING}


def _made(cls: type[_T], kw_only: bool) -> type[_T]:
    made: Any = dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(cls)
    made.__shape__ = _Shape(made)
    for name, method in _METHODS.items():
        if name not in vars(cls):
            setattr(made, name, method)
    return cls


def _init(self: Any, /, *given: Any, **named: Any) -> None:
    shape: _Shape = type(self).__shape__
    values = dict(zip(shape.positions, given, strict=False))
    if len(given) > len(shape.positions) or not named.keys() <= set(shape.names) - values.keys():
        raise TypeError(f"{type(self).__qualname__} takes {', '.join(shape.names)}, not {given} and {named}")
    values |= named
    for name in shape.names:
        if name in values:
            continue
        if name in shape.defaults:
            values[name] = shape.defaults[name]
        elif name in shape.factories:
            values[name] = shape.factories[name]()
        else:
            raise TypeError(f"{type(self).__qualname__} needs {name}")
    self.__dict__.update(values)


def _values_of(one: Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in type(one).__shape__.names)


def _repr(self: Any) -> str:
    pairs = zip(type(self).__shape__.names, _values_of(self), strict=True)
    return f"{type(self).__qualname__}({', '.join(f'{name}={each!r}' for name, each in pairs)})"


def _eq(self: Any, other: object) -> bool:
    return _values_of(self) == _values_of(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values_of(self))


def _set(self: Any, name: str, _: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _set,
    "__delattr__": _delete,
}
