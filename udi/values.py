"""Frozen classes of values that cost little to define: a hook imports some eighty of them, with its settings.

For each class `dataclasses` writes the text of six methods and compiles it, which takes longer than anything else that
the module does; and its own import takes half as long as an interpreter takes to start. So the methods are written
once, in the base of all, and `fields`, `replace` and `as_dict` too. To `dataclasses` a class is one of its own when it
is asked about it. Instances are made and compared somewhat slower: what a job has one of for each node is
`udi.slotted`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn, TypeGuard, TypeVar, dataclass_transform, overload

_T = TypeVar("_T")
_F = TypeVar("_F", bound="Frozen")
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


class _ForDataclasses:
    """In the place of `__dataclass_fields__`: what `dataclasses` would have put there, made for who asks."""

    def __get__(self, one: object, cls: type[Frozen]) -> Any:
        import dataclasses

        rows = [(each.name, each.type, _usual(each)) for each in cls.__fields__.values()]
        is_kw_only = not cls.__match_args__
        made = dataclasses.make_dataclass(cls.__name__, rows, init=False, repr=False, eq=False, kw_only=is_kw_only)
        cls.__dataclass_fields__ = vars(made)["__dataclass_fields__"]
        return cls.__dataclass_fields__


def _usual(own: Field) -> Any:
    """The field as `dataclasses` knows it."""
    import dataclasses

    if own.default_factory is not MISSING:
        return dataclasses.field(default_factory=own.default_factory, metadata=own.metadata)
    default = dataclasses.MISSING if own.default is MISSING else own.default
    return dataclasses.field(default=default, metadata=own.metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Frozen:
    """As `dataclass(frozen=True)`, but without slots, `__post_init__` and inherited fields, and with all fields in
    `__init__`, `repr` and comparisons. With `kw_only` a class is made by keywords alone."""

    __fields__: ClassVar[Mapping[str, Field]] = {}
    __match_args__: ClassVar[tuple[str, ...]] = ()
    __dataclass_fields__: ClassVar[Any]

    def __init_subclass__(cls, *, kw_only: bool = False) -> None:
        if cls.__bases__ != (Frozen,):
            raise TypeError(f"{cls.__qualname__} has another base than {Frozen.__name__}")
        found = {}
        for name, annotation in vars(cls).get("__annotations__", {}).items():
            if str(annotation).removeprefix("typing.").startswith("ClassVar"):
                continue
            given = vars(cls).get(name, MISSING)
            if type(given).__hash__ is None or type(given).__module__ == "dataclasses":
                raise TypeError(f"the default of {cls.__qualname__}.{name} must be immutable, or a field of {__name__}")
            each = found[name] = given if isinstance(given, Field) else Field(given, MISSING, {})
            each.name, each.type = name, annotation
            if each is given and each.default is MISSING:
                delattr(cls, name)
            elif each is given:
                setattr(cls, name, each.default)
        cls.__fields__, cls.__dataclass_fields__ = found, _ForDataclasses()
        cls.__match_args__ = () if kw_only else tuple(found)  # type: ignore[misc]

    def __init__(self, /, *given: Any, **named: Any) -> None:
        known = self.__fields__
        values = dict(zip(self.__match_args__, given, strict=False))
        if len(given) > len(values) or not named.keys() <= known.keys() - values.keys():
            raise TypeError(f"{type(self).__qualname__} takes {', '.join(known)}, not {given} and {named}")
        values |= named
        for name, each in known.items():
            if name in values:
                continue
            if each.is_required:
                raise TypeError(f"{type(self).__qualname__} needs {name}")
            values[name] = each.default if each.default_factory is MISSING else each.default_factory()
        self.__dict__.update(values)

    def __repr__(self) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={each!r}' for name, each in _named(self).items())})"

    def __eq__(self, other: Any) -> bool:
        return _named(self) == _named(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(_named(self).values()))

    if not TYPE_CHECKING:  # mypy would take it for leave to assign to any other name

        def __setattr__(self, name: str, _: object) -> NoReturn:
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        from dataclasses import FrozenInstanceError

        raise FrozenInstanceError(f"cannot delete field {name!r}")


def is_frozen(kind: object) -> TypeGuard[type[Frozen]]:
    """Whether this is a frozen class."""
    return isinstance(kind, type) and issubclass(kind, Frozen)


def fields(kind: type[Frozen] | Frozen) -> tuple[Field, ...]:
    """The fields of a frozen class or instance, in their order."""
    return tuple(kind.__fields__.values())


def replace(one: _F, **changes: Any) -> _F:
    """One with the same values but those. Raises TypeError for a field that there is not."""
    return type(one)(**{**_named(one), **changes})


def as_dict(one: Frozen) -> dict[str, Any]:
    """The values by the names of their fields, and so within them, also where they are in tuples and mappings."""
    return {name: _plain(value) for name, value in _named(one).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Frozen):
        return as_dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _named(one: Frozen) -> dict[str, Any]:
    return {name: getattr(one, name) for name in one.__fields__}
