"""A companion that packs (`gateway.image.squashfs.packing`), as its starter sees it."""

from __future__ import annotations

import contextlib
import mmap
import os
from array import array
from collections import deque
from collections.abc import Collection, Iterator, Sequence

from gateway.image.companions import Companion, companion
from gateway.image.memory import memory_file
from gateway.image.squashfs.compressors import Compression
from gateway.image.squashfs.packing import DONE, IN_SLOT, NO_MEMORY, ORDER, TOO_SHORT, WORD
from gateway.image.squashfs.pieces import Data, Range, TooShort, size_of

_SLOTS = 32
"""Pieces that wait for one process, or for being written: enough for a moment in which no more are given, also where
each is a block of small files."""
_PROGRAM = "gateway.image.squashfs.packing"

Packed = tuple[memoryview, Sequence[int]]
"""Blocks one after the other, and the word of each: its size, with `packer.STORED`. Valid until more is given."""


class PackingProcess:
    """One of `gateway.image.squashfs.packers.Packers`."""

    def __init__(self, process: Companion, slots: memoryview) -> None:
        self.waiting = 0
        self._process = process
        self._slots = slots
        self._size = len(slots) // _SLOTS
        self._sizes: deque[int] = deque()
        self._given = 0

    def has_room(self) -> bool:
        return len(self._sizes) < _SLOTS

    def give(self, data: Data, is_whole: bool) -> None:
        size, number = size_of(data), self._given % _SLOTS
        if isinstance(data, Range):
            source, position = data.descriptor, data.position
        else:
            source, position = IN_SLOT, 0
            self._slot(number, size)[:] = data
        self._process.send(ORDER.pack(source, position, size, number, is_whole))
        self._given += 1
        self._sizes.append(size)
        self.waiting += size

    def take(self) -> Packed:
        number = (self._given - len(self._sizes)) % _SLOTS
        kind, *rest = array(WORD, self._process.answer())
        if kind == TOO_SHORT:
            raise TooShort
        if kind == NO_MEMORY:
            raise MemoryError
        if kind != DONE:
            raise OSError(rest[0], os.strerror(rest[0]))
        self.waiting -= self._sizes.popleft()
        return self._slot(number, rest[0]), rest[1:]

    def _slot(self, number: int, size: int) -> memoryview:
        start = number * self._size
        return self._slots[start : start + size]


@contextlib.contextmanager
def packing_process(
    compression: Compression, block_size: int, largest: int, layers: Collection[int]
) -> Iterator[PackingProcess]:
    """A process that packs pieces of at most `largest` bytes, in part from the open files `layers`. At the end, it has
    ended. Raises UpstreamFailed, OSError."""
    memory = memory_file("udi-packing")
    try:
        os.ftruncate(memory, _SLOTS * largest)
        name, level = compression
        words = [*map(str, (memory, largest, name, level or 0, block_size))]
        with (
            memoryview(mmap.mmap(memory, 0)) as slots,  # unmapped with the last view of it
            companion(_PROGRAM, words, {memory, *layers}) as process,
        ):
            yield PackingProcess(process, slots)
    finally:
        os.close(memory)
