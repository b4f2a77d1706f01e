"""Frozen classes of values that cost little to define: a hook imports some eighty of them, with its settings.

For each class `dataclasses` writes the text of six methods and compiles it, which takes longer than anything else that
the module does; and its own import takes half as long as an interpreter takes to start. So the methods are written
once, here, and `fields`, `replace` and `as_dict` too. To `dataclasses` a class is one of its own when it is asked about
it. Instances are made and compared somewhat slower: what a job has one of for each node is `udi.slotted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar, dataclass_transform, overload

_T = TypeVar("_T")
MISSING: Final = object()
"""Where a field has no default."""


class Field:
    """What is known of one field; `type` is the text of its annotation."""

    def __init__(self, default: Any, default_factory: Any, metadata: Mapping[str, Any]) -> None:
        self.name = self.type = ""
        self.default, self.default_factory, self.metadata = default, default_factory, metadata

    @property
    def is_required(self) -> bool:
        """Whether an instance cannot be made without it."""
        return self.default is MISSING and self.default_factory is MISSING


@overload
def field(*, default_factory: Callable[[], _T], metadata: Mapping[str, Any] = ...) -> _T: ...
@overload
def field(*, default: Any = ..., metadata: Mapping[str, Any] = ...) -> Any: ...
def field(*, default: Any = MISSING, default_factory: Any = MISSING, metadata: Mapping[str, Any] | None = None) -> Any:
    """A field of a frozen class, as `dataclasses.field`."""
    return Field(default, default_factory, metadata or {})


@overload
def frozen(cls: type[_T], /) -> type[_T]: ...
@overload
def frozen(*, kw_only: bool) -> Callable[[type[_T]], type[_T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_T] | None = None, /, *, kw_only: bool = False) -> type[_T] | Callable[[type[_T]], type[_T]]:
    """As `dataclass(frozen=True)`, but without slots, `__post_init__` and base classes of the kind, and with all fields
    in `__init__`, `repr` and comparisons. A method that the class has itself stays."""
    return _made(cls, kw_only) if cls is not None else lambda each: _made(each, kw_only)


def is_frozen(kind: object) -> bool:
    """Whether this is a class that `frozen` made, or an instance of one."""
    return hasattr(kind, "__shape__")


def fields(kind: Any) -> tuple[Field, ...]:
    """The fields of a frozen class or instance, in their order."""
    shape: _Shape = kind.__shape__
    return shape.fields


def replace(one: _T, **changes: Any) -> _T:
    """One with the same values but those. Raises TypeError for a field that there is not."""
    return type(one)(**{**_named(one), **changes})


def as_dict(one: Any) -> dict[str, Any]:
    """The values by the names of their fields, and so within them, also where they are in tuples and mappings."""
    return {name: _plain(value) for name, value in _named(one).items()}


def _plain(value: Any) -> Any:
    if is_frozen(value):
        return as_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


class _Shape:
    """What `__init__` must know of a class."""

    def __init__(self, found: tuple[Field, ...], kw_only: bool) -> None:
        self.fields, self.kw_only = found, kw_only
        self.names = tuple(each.name for each in found)


class _Fields:
    """In the place of `__dataclass_fields__`: what `dataclasses` would have put there, made for who asks."""

    def __get__(self, one: object, cls: Any) -> Any:
        import dataclasses

        shape: _Shape = cls.__shape__
        rows = [(each.name, each.type, _usual(each)) for each in shape.fields]
        made = dataclasses.make_dataclass(cls.__name__, rows, init=False, repr=False, eq=False, kw_only=shape.kw_only)
        cls.__dataclass_fields__ = vars(made)["__dataclass_fields__"]
        return cls.__dataclass_fields__


def _usual(own: Field) -> Any:
    """The field as `dataclasses` knows it."""
    import dataclasses

    if own.default_factory is not MISSING:
        return dataclasses.field(default_factory=own.default_factory, metadata=own.metadata)
    default = dataclasses.MISSING if own.default is MISSING else own.default
    return dataclasses.field(default=default, metadata=own.metadata)


def _made(cls: Any, kw_only: bool) -> Any:
    if is_frozen(cls):
        raise TypeError(f"{cls.__qualname__} has a frozen class as its base")
    found = []
    for name, annotation in vars(cls).get("__annotations__", {}).items():
        if str(annotation).removeprefix("typing.").startswith("ClassVar"):
            continue
        given = vars(cls).get(name, MISSING)
        if type(given).__hash__ is None or type(given).__module__ == "dataclasses":
            raise TypeError(f"the default of {cls.__qualname__}.{name} must be immutable, or a field of {__name__}")
        each = given if isinstance(given, Field) else Field(given, MISSING, {})
        each.name, each.type = name, annotation
        found.append(each)
        if each.default is not MISSING:
            setattr(cls, name, each.default)
        elif each is given:
            delattr(cls, name)
    cls.__shape__ = _Shape(tuple(found), kw_only)
    cls.__match_args__ = () if kw_only else cls.__shape__.names  # type: ignore[misc]
    for name, method in _METHODS.items():
        if name not in vars(cls):
            setattr(cls, name, method)
    return cls


def _init(self: Any, /, *given: Any, **named: Any) -> None:
    shape: _Shape = type(self).__shape__
    values = {} if shape.kw_only else dict(zip(shape.names, given, strict=False))
    if len(given) > len(values) or not named.keys() <= set(shape.names) - values.keys():
        raise TypeError(f"{type(self).__qualname__} takes {', '.join(shape.names)}, not {given} and {named}")
    values |= named
    for each in shape.fields:
        if each.name in values:
            continue
        if each.is_required:
            raise TypeError(f"{type(self).__qualname__} needs {each.name}")
        values[each.name] = each.default if each.default_factory is MISSING else each.default_factory()
    self.__dict__.update(values)


def _named(one: Any) -> dict[str, Any]:
    return {name: getattr(one, name) for name in type(one).__shape__.names}


def _repr(self: Any) -> str:
    return f"{type(self).__qualname__}({', '.join(f'{name}={each!r}' for name, each in _named(self).items())})"


def _values_of(one: Any) -> tuple[Any, ...]:
    return tuple(getattr(one, name) for name in type(one).__shape__.names)


def _eq(self: Any, other: object) -> bool:
    return _values_of(self) == _values_of(other) if type(other) is type(self) else NotImplemented


def _hash(self: Any) -> int:
    return hash(_values_of(self))


def _set(self: Any, name: str, _: object) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delete(self: Any, name: str) -> None:
    from dataclasses import FrozenInstanceError

    raise FrozenInstanceError(f"cannot delete field {name!r}")


_METHODS = {
    "__init__": _init,
    "__repr__": _repr,
    "__eq__": _eq,
    "__hash__": _hash,
    "__setattr__": _set,
    "__delattr__": _delete,
    "__dataclass_fields__": _Fields(),
}
