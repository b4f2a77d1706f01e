"""The values of a hash database of Berkeley DB, as rpm had it until 2020 (Packages).

The form is that of Berkeley DB's dbinc/db_page.h: a metadata page, and pages of pairs, whose values are elsewhere where
they are large. Numbers have the byte order of the machine that made it, which the magic number shows.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gateway.audit.packages import MAX_PACKAGES, Unreadable

_HASH_MAGIC = 0x061561
_HASH_UNSORTED, _OVERFLOW, _HASH = 2, 7, 13
_PAGE_HEAD = 26
_KEYDATA, _OFFPAGE = 1, 3


def values(database: bytes) -> Iterator[bytes]:
    """The value of each pair but rpm's own counter, whose key is 0. Raises Unreadable."""
    try:
        yield from _Hash(database).values()
    except struct.error as error:
        raise Unreadable("a page is cut off") from error


class _Hash:
    def __init__(self, database: bytes) -> None:
        for order in "<>":
            if len(database) >= 72 and struct.unpack_from(f"{order}I", database, 12)[0] == _HASH_MAGIC:
                self._order = order
                break
        else:
            raise Unreadable("it is not a hash of Berkeley DB")
        self._database = database
        self._size = struct.unpack_from(f"{self._order}I", database, 20)[0]
        if not 512 <= self._size <= 65536 or self._size & (self._size - 1):
            raise Unreadable("its pages have an impossible size")
        if database[24]:
            raise Unreadable("it is encrypted")
        self._left = len(database) // self._size + 1
        """Pages of large values that may still be read: each is of one value."""

    def values(self) -> Iterator[bytes]:
        count = 0
        for start in range(self._size, len(self._database) - self._size + 1, self._size):
            page = self._database[start : start + self._size]
            if page[25] not in (_HASH_UNSORTED, _HASH):
                continue
            entries = struct.unpack_from(f"{self._order}H", page, 20)[0]
            offsets = struct.unpack_from(f"{self._order}{entries}H", page, _PAGE_HEAD)
            for number in range(0, entries - 1, 2):
                if self._key(page, offsets, number) == bytes(4):
                    continue
                count += 1
                if count > MAX_PACKAGES:
                    raise Unreadable(f"it has more than {MAX_PACKAGES} packages")
                yield self._value(page, offsets, number + 1)

    def _key(self, page: bytes, offsets: tuple[int, ...], number: int) -> bytes:
        return self._item(page, offsets, number)[1:]

    def _item(self, page: bytes, offsets: tuple[int, ...], number: int) -> bytes:
        """An item ends where the one before it begins: they are filled in from the page's end."""
        end = offsets[number - 1] if number else self._size
        if not _PAGE_HEAD <= offsets[number] < end <= self._size:
            raise Unreadable("an item is damaged")
        return page[offsets[number] : end]

    def _value(self, page: bytes, offsets: tuple[int, ...], number: int) -> bytes:
        item = self._item(page, offsets, number)
        if item[0] == _KEYDATA:
            return item[1:]
        if item[0] != _OFFPAGE:
            raise Unreadable(f"an item is of the unknown kind {item[0]}")
        following, size = struct.unpack_from(f"{self._order}II", item, 4)
        parts, left = list[bytes](), size
        while left > 0:
            part = self._overflow(following)
            parts.append(part[_PAGE_HEAD : _PAGE_HEAD + min(left, struct.unpack_from(f"{self._order}H", part, 22)[0])])
            if not parts[-1]:
                raise Unreadable("a large value is cut off")
            left -= len(parts[-1])
            following = struct.unpack_from(f"{self._order}I", part, 16)[0]
        return b"".join(parts)

    def _overflow(self, number: int) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise Unreadable("its pages form a loop")
        page = self._database[number * self._size : (number + 1) * self._size]
        if not number or len(page) != self._size or page[25] != _OVERFLOW:
            raise Unreadable(f"page {number} is not of a large value")
        return page
