"""Files with the same contents, of which the image has those once.

Only files of the same size are compared. Small ones are known by their sha256. Large ones are found by the checksum of
their compressed blocks once those are written, compared byte by byte, and taken out again.
"""

from __future__ import annotations

import hashlib
import os
import zlib
from array import array
from collections.abc import Iterable

from gateway.image.squashfs.contents import Contents
from gateway.image.squashfs.output import Output

_SIZES = 1 << 20
_DIGEST = 32
_FIRST_SLOTS = 1 << 10


class SharedSizes:
    """Which sizes several files have, in a table of one size however many files there are: a large size may be said to
    be shared though it is not."""

    def __init__(self, sizes: Iterable[int]) -> None:
        self._files = bytearray(_SIZES)
        for size in sizes:
            slot = size % _SIZES
            self._files[slot] = min(self._files[slot] + 1, 2)

    def is_shared(self, size: int) -> bool:
        """Whether more than one file may have this size."""
        return self._files[size % _SIZES] > 1


class SmallFiles:
    """A table of digests with 44 to 56 bytes a file, where a dict would take four times that.

    Digests are salted, so that nobody can make files whose digests meet in one place of the table.
    """

    def __init__(self) -> None:
        self._salted = hashlib.sha256(os.urandom(_DIGEST))
        self._digests = bytearray()
        self._rows = array("I")
        self._slots = array("I", bytes(4 * _FIRST_SLOTS))

    def same(self, row: int, data: bytes) -> int:
        """The row that had the same contents first, which may be this one."""
        digest = self._salted.copy()
        digest.update(data)
        key = digest.digest()
        if len(self._rows) * 2 >= len(self._slots):
            self._grow()
        slot, found = self._find(key)
        if found:
            return self._rows[found - 1]
        self._digests += key
        self._rows.append(row)
        self._slots[slot] = len(self._rows)
        return row

    def _find(self, key: bytes) -> tuple[int, int]:
        """The slot of a digest, and its number from 1 on; 0 where the slot is free."""
        slots, digests, last = self._slots, self._digests, len(self._slots) - 1
        slot = int.from_bytes(key[:8], "little") & last
        while (found := slots[slot]) and digests[(found - 1) * _DIGEST : found * _DIGEST] != key:
            slot = (slot + 1) & last
        return slot, found

    def _grow(self) -> None:
        self._slots = array("I", bytes(8 * len(self._slots)))
        for number in range(len(self._rows)):
            slot, _ = self._find(bytes(self._digests[number * _DIGEST : (number + 1) * _DIGEST]))
            self._slots[slot] = number + 1


class LargeFiles:
    """Files of blocks that are in the image."""

    def __init__(self, contents: Contents, output: Output) -> None:
        self._contents = contents
        self._output = output
        self._seen: dict[tuple[int, int, int], int] = {}
        self._checksum = 0

    def begin(self) -> None:
        """The blocks of the next file follow."""
        self._checksum = 0

    def add(self, data: memoryview) -> None:
        """Blocks that were written."""
        self._checksum = zlib.crc32(data, self._checksum)

    def finish(self, row: int, size: int) -> None:
        """All blocks of a file of `size` bytes are written: it may turn out that they were there before."""
        start = self._contents.starts[row]
        count = self._output.position - start
        key = size, count, self._checksum
        other = self._seen.setdefault(key, row)
        if other == row:
            return
        same_words = self._contents.words(row) == self._contents.words(other)
        if same_words and self._output.is_same(self._contents.starts[other], start, count):
            self._contents.share(row, other)
            self._output.rewind(start)
