"""Values of which there are many, such as one for each node of a job: small, made quickly, and without generated code.

They are as those of a frozen dataclass with slots. A class names its fields in `__slots__`, and puts them into itself
in `__init__`.
"""

from __future__ import annotations

from typing import NoReturn

put = object.__setattr__
"""For `__init__`: afterwards nothing changes a field."""


class Slotted:
    """Compared, hashed and shown by its fields."""

    __slots__: tuple[str, ...] = ()

    def values(self) -> tuple[object, ...]:
        """The fields, in their order."""
        return tuple([getattr(self, name) for name in self.__slots__])

    def __eq__(self, other: object) -> bool:
        return self.values() == other.values() if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.values())

    def __repr__(self) -> str:
        pairs = zip(self.__slots__, self.values(), strict=True)
        return f"{type(self).__qualname__}({', '.join(f'{name}={value!r}' for name, value in pairs)})"

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return type(self), self.values()

    def __setattr__(self, name: str, _: object) -> NoReturn:
        raise AttributeError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"cannot delete field {name!r}")
