"""TOML as sites write it: a reader of the plain part of it, beside the library, for the start of hooks.

Each job waits for its hooks, and each hook reads `udi.toml`. The library takes some milliseconds to import, for regular
expressions that it compiles and for dates, and reads character by character. Nearly no `udi.toml` needs that, so what
hooks read comes here first.

The library stays the truth. This reader knows tables, lists of tables, keys, strings without escapes other than that of
a line's end, whole numbers, booleans, lists, and inline tables. It gives up at once on anything else, on what is wrong,
and where a rule of TOML about tables that are defined twice would have to be known. Then the library reads the whole
text, and it alone says what is wrong and in which line. Each character is looked at a fixed number of times.
"""

from __future__ import annotations

from typing import Any

_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
_BOOLEANS = {"true": True, "false": False}
_DIGITS = 18
"""Whole numbers of more may not fit into 64 bits."""
_DEPTH = 8
"""Lists and inline tables within others."""
_END = "\0"


def read_toml(text: str) -> dict[str, Any]:
    """What `tomllib.loads` returns for this text. Raises ValueError where it is not TOML, as that does."""
    document = plain(text)
    if document is None:
        import tomllib

        document = tomllib.loads(text)
    return document


def plain(text: str) -> dict[str, Any] | None:
    """The same, or None where the text has anything that is not plain, or is wrong."""
    lines = text.replace("\r\n", "\n")
    if not lines.replace("\n", "").replace("\t", "").isprintable():
        return None
    try:
        return _Reader(lines).document()
    except _NotPlainError:
        return None


class _NotPlainError(Exception):
    """The text is for the library."""


class _Reader:
    """Reads one text, which must have no control characters but line feeds and tabs."""

    def __init__(self, text: str) -> None:
        self._text = f"{text}\n{_END}"
        """No reading goes on past a line feed by itself, and the end is no character of any text."""
        self._at = 0
        self._top: dict[str, Any] = {}
        self._nests = {id(self._top)}
        """The tables and lists of tables that headers have made, which further headers may add to."""
        self._dotted: set[int] = set()
        """The tables that dotted keys have made since the last header, which further dotted keys may add to."""

    def document(self) -> dict[str, Any]:
        table = self._top
        self._space()
        while self._text[self._at] != _END:
            if self._takes("[["):
                table = self._list_of_tables()
            elif self._takes("["):
                table = self._table()
            else:
                self._pair(table)
            self._end_of_line()
            self._space()
        return self._top

    def _table(self) -> dict[str, Any]:
        """The table of a header, which none may have named before."""
        *above, last = self._key()
        self._must("]")
        nest = self._nest(above)
        if last in nest:
            raise _NotPlainError
        return self._below(nest, last)

    def _list_of_tables(self) -> dict[str, Any]:
        """The table that a header adds to its list."""
        *above, last = self._key()
        self._must("]]")
        nest = self._nest(above)
        if last not in nest:
            nest[last] = []
            self._nests.add(id(nest[last]))
        tables = nest[last]
        if not isinstance(tables, list) or id(tables) not in self._nests:
            raise _NotPlainError
        table: dict[str, Any] = {}
        tables.append(table)
        self._nests.add(id(table))
        self._dotted.clear()
        return table

    def _nest(self, key: list[str]) -> dict[str, Any]:
        self._dotted.clear()
        nest = self._top
        for part in key:
            nest = self._below(nest, part)
        return nest

    def _below(self, nest: dict[str, Any], part: str) -> dict[str, Any]:
        """The table of that name, or the last of such a list; a new one where there is none."""
        if part not in nest:
            nest[part] = {}
            self._nests.add(id(nest[part]))
        found = nest[part]
        if id(found) not in self._nests:
            raise _NotPlainError
        below: dict[str, Any] = found[-1] if isinstance(found, list) else found
        return below

    def _pair(self, table: dict[str, Any]) -> None:
        *above, last = self._key()
        self._must("=")
        self._blanks()
        value = self._value(0)
        for part in above:
            if part not in table:
                table[part] = {}
                self._dotted.add(id(table[part]))
            table = table[part]
            if id(table) not in self._dotted:
                raise _NotPlainError
        if last in table:
            raise _NotPlainError
        table[last] = value

    def _key(self) -> list[str]:
        parts = [self._part()]
        while self._takes("."):
            parts.append(self._part())
        return parts

    def _part(self) -> str:
        """A part of a key, with the blanks around it."""
        self._blanks()
        part = self._string() if self._text[self._at] in "\"'" else self._word()
        self._blanks()
        return part

    def _value(self, depth: int) -> object:
        if depth > _DEPTH:
            raise _NotPlainError
        first = self._text[self._at]
        if self._takes('"""'):
            return self._lines()
        if first in "\"'":
            return self._string()
        if self._takes("["):
            return self._list(depth)
        if self._takes("{"):
            return self._inline_table(depth)
        word = self._word()
        if word in _BOOLEANS:
            return _BOOLEANS[word]
        if len(word) > _DIGITS or not word.isdecimal() or (first == "0" and word != "0"):
            raise _NotPlainError
        return int(word)

    def _list(self, depth: int) -> list[object]:
        values: list[object] = []
        self._space()
        while not self._takes("]"):
            values.append(self._value(depth + 1))
            self._space()
            if self._takes(","):
                self._space()
            elif self._text[self._at] != "]":
                raise _NotPlainError
        return values

    def _inline_table(self, depth: int) -> dict[str, object]:
        """One whose keys have one part each."""
        values: dict[str, object] = {}
        self._blanks()
        if self._takes("}"):
            return values
        while True:
            key = self._part()
            self._must("=")
            self._blanks()
            if key in values:
                raise _NotPlainError
            values[key] = self._value(depth + 1)
            self._blanks()
            if self._takes("}"):
                return values
            self._must(",")

    def _string(self) -> str:
        """A string on one line, without escapes."""
        quote = self._text[self._at]
        end = self._text.find(quote, self._at + 1)
        if end < 0 or self._text.startswith(quote * 3, self._at):
            raise _NotPlainError
        string = self._text[self._at + 1 : end]
        if "\n" in string or (quote == '"' and "\\" in string):
            raise _NotPlainError
        self._at = end + 1
        return string

    def _lines(self) -> str:
        """A string on several lines. Its only escape is a line's end that is none, blanks after it included."""
        end = self._text.find('"""', self._at)
        first, *others = self._text[self._at : end].removeprefix("\n").split("\\\n")
        string = first + "".join(other.lstrip(" \t\n") for other in others)
        self._at = end + 3
        if end < 0 or "\\" in string or self._text[self._at] == '"':
            raise _NotPlainError
        return string

    def _word(self) -> str:
        """A bare key, or what a value begins with that is neither a string nor of several parts."""
        begin = self._at
        while self._text[self._at] in _BARE:
            self._at += 1
        if self._at == begin:
            raise _NotPlainError
        return self._text[begin : self._at]

    def _blanks(self) -> None:
        while self._text[self._at] in " \t":
            self._at += 1

    def _space(self) -> None:
        """Blanks, comments and ends of lines."""
        while (char := self._text[self._at]) in " \t\n#":
            self._at = self._text.index("\n", self._at) if char == "#" else self._at + 1

    def _end_of_line(self) -> None:
        self._blanks()
        if self._text[self._at] not in "#\n":
            raise _NotPlainError

    def _takes(self, mark: str) -> bool:
        if not self._text.startswith(mark, self._at):
            return False
        self._at += len(mark)
        return True

    def _must(self, mark: str) -> None:
        if not self._takes(mark):
            raise _NotPlainError
