"""JSON that strangers wrote: read once, within bounds, and reached only as the types that the reader names.

A part of the wrong shape is therefore an error with its name, wherever it is. Texts are Unicode: where `lenient`, what
is not becomes U+FFFD, as in Docker's own reader; else it is refused.
"""

from __future__ import annotations

import json
import re
from typing import NoReturn

from udi.slotted import Slotted, put
from udiroot.errors import ImageInvalid, UdiError, printable

MAX_DEPTH = 64
"""Values within values. Honest documents have about ten."""
MAX_VALUES = 200_000
"""Values of a stranger's document. Each takes up to a hundred times the memory of the two bytes that it may be written
in; an index of ten thousand manifests has about half as many."""
_SURROGATES = (
    r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"  # a pair, which is one character
    r"|(?P<lone>\\u[dD][89a-fA-F][0-9a-fA-F]{2}|[\ud800-\udfff])"
    r"|\\."
)
_REPLACEMENT = "\ufffd"


def read_json(text: bytes | str, *, lenient: bool = False, most: int | None = None) -> object:
    """The value that `text` holds. Raises ValueError, with what is wrong, for all that programs read differently.

    That is: a key twice in one object, NaN and infinities, integers of more than 64 bits, other encodings than UTF-8;
    and for more than MAX_DEPTH values within values, or more than `most` values in all.
    """
    plain = text.decode("utf-8", "replace" if lenient else "strict") if isinstance(text, bytes) else text
    if "\\" in plain or not plain.isascii():
        plain = re.sub(_SURROGATES, lambda match: _replaced(match, lenient), plain)
    try:
        value = json.loads(
            plain, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except RecursionError as error:
        raise ValueError(_TOO_DEEP) from error
    _check_extent(value, most)
    return value


class JsonValue(Slotted):
    """One value of a document. `name` is what errors call it, and `wrong` the class of those errors."""

    __slots__ = ("_value", "name", "wrong")
    _value: object
    name: str
    wrong: type[UdiError]

    def __init__(self, value: object, name: str, wrong: type[UdiError] = ImageInvalid) -> None:
        put(self, "_value", value)
        put(self, "name", name)
        put(self, "wrong", wrong)

    @classmethod
    def parse(cls, text: bytes, name: str, wrong: type[UdiError] = ImageInvalid) -> JsonValue:
        """The document that `text` holds."""
        try:
            return cls(read_json(text, lenient=True, most=MAX_VALUES), name, wrong)
        except ValueError as error:
            raise wrong(f"{name} is not JSON: {printable(error)}") from error

    @property
    def is_null(self) -> bool:
        """Whether it is null, or a member that its object does not have."""
        return self._value is None

    def get(self, key: str) -> JsonValue:
        """A member of the object; null where it is absent, or where this is null itself."""
        if self._value is None:
            return JsonValue(None, f"{key} of {self.name}", self.wrong)
        return JsonValue(self._dictionary().get(key), f"{key} of {self.name}", self.wrong)

    def has(self, *keys: str) -> bool:
        """Whether the object has one of these members."""
        return not self._dictionary().keys().isdisjoint(keys)

    def as_object(self, message: str = "") -> JsonValue:
        """Itself, which must be an object."""
        self._dictionary(message)
        return self

    def members(self, message: str = "") -> dict[str, JsonValue]:
        """The members of the object."""
        return {
            key: JsonValue(value, f"{printable(key, 40)} of {self.name}", self.wrong)
            for key, value in self._dictionary(message).items()
        }

    def items(self, message: str = "") -> list[JsonValue]:
        """The items of the array."""
        if not isinstance(self._value, list):
            self._refuse(message, "list")
        return [
            JsonValue(item, f"item {number} of {self.name}", self.wrong) for number, item in enumerate(self._value, 1)
        ]

    def text(self, default: str | None = None, message: str = "") -> str:
        """The string; `default`, where there is one, for null."""
        if self._value is None and default is not None:
            return default
        if not isinstance(self._value, str):
            self._refuse(message, "string")
        return self._value

    def integer(self, least: int = 0, message: str = "") -> int:
        """The integer, no less than `least`."""
        if not isinstance(self._value, int) or isinstance(self._value, bool) or self._value < least:
            self._refuse(message, f"integer of at least {least}")
        return self._value

    def truth(self) -> bool:
        """The boolean."""
        if not isinstance(self._value, bool):
            self._refuse("", "boolean")
        return self._value

    def is_text(self) -> bool:
        """Whether it is a string."""
        return isinstance(self._value, str)

    def as_it_is(self) -> object:
        """The value as `json` reads it, for whoever passes it on and does not look into it."""
        return self._value

    def _dictionary(self, message: str = "") -> dict[str, object]:
        if not isinstance(self._value, dict):
            self._refuse(message, "JSON object")
        return self._value

    def _refuse(self, message: str, kind: str) -> NoReturn:
        article = "an" if kind.startswith("integer") else "a"
        raise self.wrong(message or f"{self.name} is not {article} {kind}")


_TOO_DEEP = f"it has more than {MAX_DEPTH} values within values"


def _replaced(match: re.Match[str], lenient: bool) -> str:
    if not match["lone"]:
        return match[0]
    if lenient:
        return _REPLACEMENT
    raise ValueError("it has half of a surrogate pair, which is not a character")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"it has the key '{printable(key, 40)}' twice in one object")
        found[key] = value
    return found


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(1 << 63) <= int(digits) < 1 << 63:
        raise ValueError("it has an integer of more than 64 bits")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError("it has a number that is too large")
    return number


def _constant(word: str) -> NoReturn:
    raise ValueError(f"it has {word}, which is not JSON")


def _check_extent(value: object, most: int | None) -> None:
    """Level by level, so that depth costs no stack."""
    level = [value]
    count = 1
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
        count += len(level)
        if most is not None and count > most:
            raise ValueError(f"it has more than {most} values")
    raise ValueError(_TOO_DEEP)
