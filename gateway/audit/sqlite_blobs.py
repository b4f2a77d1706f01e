"""The blobs of one table of an SQLite database, as rpm has them (rpmdb.sqlite), read without SQLite.

A database of a stranger's is read here by a reader that only knows what it needs, in bounded memory, and not by a
library in C. The form is that of https://www.sqlite.org/fileformat.html; chapters are named below.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gateway.audit.packages import MAX_PACKAGES, Unreadable

_MAGIC = b"SQLite format 3\0"
_TABLE_INTERIOR, _TABLE_LEAF = 5, 13
_WAL_MAGICS = (0x377F0682, 0x377F0683)
_MAX_DEPTH = 20
_CUT = "a page is cut off"


def blobs(database: bytes, log: bytes, table: str) -> Iterator[bytes]:
    """The blob of each row of `table`; `log` is the write-ahead log beside the database, which may hold newer pages.

    Raises Unreadable.
    """
    pages = _Pages(database, log)
    try:
        root = 0
        for row in pages.rows(1):
            kind, name, _, page = (*_values(row, 4), None, None, None, None)[:4]
            if kind == b"table" and name == table.encode() and isinstance(page, int):
                root = page
        if not root:
            raise Unreadable(f"it has no table {table}")
        for row in pages.rows(root):
            yield from (value for value in _values(row, 2) if isinstance(value, bytes))
    except (struct.error, IndexError) as error:
        raise Unreadable(_CUT) from error


class _Pages:
    """The pages of a database, and the rows of the trees in them."""

    def __init__(self, database: bytes, log: bytes) -> None:
        if database[:16] != _MAGIC or len(database) < 100:
            raise Unreadable("it is not an SQLite database")
        size = int.from_bytes(database[16:18], "big")
        self._size = 65536 if size == 1 else size
        if self._size < 512 or self._size & (self._size - 1):
            raise Unreadable("its pages have an impossible size")
        self._usable = self._size - database[20]
        if self._usable < 480:  # chapter 1.3.4
            raise Unreadable("its pages have an impossible size")
        self._database = database
        self._newer = _logged(log, self._size)
        self._left = 2 * (len(database) // self._size + len(self._newer)) + 16
        """Pages that may still be read: in an honest database, each is in one place."""

    def _page(self, number: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Unreadable("its pages form a loop")
        page = self._newer.get(number) or self._database[(number - 1) * self._size : number * self._size]
        if number < 1 or len(page) != self._size:
            raise Unreadable(f"page {number} does not exist")
        return page

    def rows(self, root: int) -> Iterator[bytes]:
        """The records of a table, in order (chapter 1.6)."""
        pending, count = [(root, 0)], 0
        while pending:
            number, depth = pending.pop()
            if depth > _MAX_DEPTH:
                raise Unreadable("its pages form a loop")
            page = self._page(number)
            at = 100 if number == 1 else 0
            kind, cells = page[at], int.from_bytes(page[at + 3 : at + 5], "big")
            if kind not in (_TABLE_INTERIOR, _TABLE_LEAF):
                raise Unreadable(f"page {number} is not of a table")
            first = at + (12 if kind == _TABLE_INTERIOR else 8)
            pointers = struct.unpack_from(f">{cells}H", page, first)
            if kind == _TABLE_LEAF:
                count += cells
                if count > MAX_PACKAGES:
                    raise Unreadable(f"it has more than {MAX_PACKAGES} rows")
                for pointer in pointers:
                    yield self._record(page, pointer)
            else:
                children = [struct.unpack_from(">I", page, pointer)[0] for pointer in pointers]
                children.append(struct.unpack_from(">I", page, at + 8)[0])
                pending.extend((child, depth + 1) for child in reversed(children))

    def _record(self, page: bytes, at: int) -> bytes:
        """The record of a leaf's cell; what does not fit is in further pages (chapters 1.6, 1.7)."""
        size, at = _varint(page, at)
        _, at = _varint(page, at)
        if size > len(self._database) + len(self._newer) * self._size:
            raise Unreadable("a record is larger than the database")
        usable = self._usable
        most = usable - 35
        if size <= most:
            record = page[at : at + size]
            if len(record) != size:
                raise Unreadable(_CUT)
            return record
        least = (usable - 12) * 32 // 255 - 23
        here = least + (size - least) % (usable - 4)
        here = here if here <= most else least
        parts, left = [page[at : at + here]], size - here
        following = struct.unpack_from(">I", page, at + here)[0]
        while left > 0:
            more = self._page(following)
            parts.append(more[4 : 4 + min(left, usable - 4)])
            left -= usable - 4
            following = struct.unpack_from(">I", more)[0]
        return b"".join(parts)


def _values(record: bytes, most: int) -> list[bytes | int | None]:
    """The first values of a record (chapter 2.1): texts and blobs as bytes, integers; others are of no use here."""
    end, at = _varint(record, 0)
    kinds: list[int] = []
    while at < end and len(kinds) < most:
        kind, at = _varint(record, at)
        kinds.append(kind)
    at, values = end, list[bytes | int | None]()
    for kind in kinds:
        size = (kind - 12) // 2 if kind >= 12 else (0, 1, 2, 3, 4, 6, 8, 8, 0, 0, 0, 0)[kind]
        raw = record[at : at + size]
        if len(raw) != size:
            raise Unreadable("a record is cut off")
        at += size
        if kind >= 12:
            values.append(raw)
        else:
            values.append(int.from_bytes(raw, "big", signed=True) if 1 <= kind <= 6 else None)
    return values


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where it ends."""
    value = 0
    for number in range(9):
        byte = data[at]
        at += 1
        if number == 8:
            return value << 8 | byte, at
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            break
    return value, at


def _logged(log: bytes, size: int) -> dict[int, bytes]:
    """The pages of the transactions that a write-ahead log holds completely (chapter 4): only frames of its present
    salts count, and those after the last commit do not."""
    if len(log) < 32 or int.from_bytes(log[:4], "big") not in _WAL_MAGICS:
        return {}
    if int.from_bytes(log[8:12], "big") != size:
        return {}
    salts, found, waiting = log[16:24], dict[int, bytes](), dict[int, bytes]()
    for at in range(32, len(log) - size - 23, size + 24):
        number, committed = struct.unpack_from(">II", log, at)
        if log[at + 8 : at + 16] != salts:
            break
        waiting[number] = log[at + 24 : at + 24 + size]
        if committed:
            found |= waiting
            waiting = {}
    return found
