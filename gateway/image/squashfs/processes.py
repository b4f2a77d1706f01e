"""A companion that packs (`gateway.image.squashfs.packing`), as its starter sees it."""

from __future__ import annotations

import contextlib
import mmap
import os
from array import array
from collections.abc import Collection, Iterator, Sequence

from gateway.image.companions import Companion, companion
from gateway.image.memory import memory_file
from gateway.image.squashfs import packing
from gateway.image.squashfs.compressors import Compression
from gateway.image.squashfs.packing import DONE, IN_PLACE, NO_MEMORY, ORDER, TOO_SHORT, WORD
from gateway.image.squashfs.pieces import Data, Range, TooShort, size_of
from gateway.image.squashfs.ring import Ring

_ROOM = 8 << 20
_WAITING = 32
"""Bytes and pieces that wait for one process, or for being written: enough for a moment in which no more are given,
also where each piece is a block of small files; and few enough messages for a socket's buffers, since both ends would
wait forever if both were full."""

Packed = tuple[memoryview, Sequence[int]]
"""Blocks one after the other, and the word of each: its size, with `packer.STORED`. Valid until more is given."""


class PackingProcess:
    """One of `gateway.image.squashfs.packers.Packers`."""

    def __init__(self, process: Companion, memory: memoryview) -> None:
        self.waiting = 0
        self._process = process
        self._memory = memory
        self._ring = Ring(len(memory), _WAITING)

    def has_room(self, size: int) -> bool:
        return self._ring.room(size) is not None

    def give(self, data: Data, is_whole: bool) -> None:
        size = size_of(data)
        place = self._ring.take(size)
        if isinstance(data, Range):
            source, position = data.descriptor, data.position
        else:
            source, position = IN_PLACE, 0
            self._memory[place : place + size] = data
        self._process.send(ORDER.pack(source, position, size, place, is_whole))
        self.waiting += size

    def take(self) -> Packed:
        kind, *rest = array(WORD, self._process.answer())
        place, size = self._ring.free()
        self.waiting -= size
        if kind == TOO_SHORT:
            raise TooShort
        if kind == NO_MEMORY:
            raise MemoryError
        if kind != DONE:
            raise OSError(rest[0], os.strerror(rest[0]))
        return self._memory[place : place + rest[0]], rest[1:]


@contextlib.contextmanager
def packing_process(
    compression: Compression, block_size: int, largest: int, layers: Collection[int]
) -> Iterator[PackingProcess]:
    """A process that packs pieces of at most `largest` bytes, in part from the open files `layers`. At the end, it has
    ended. Raises UpstreamFailed, OSError."""
    memory = memory_file("udi-packing")
    try:
        os.ftruncate(memory, max(_ROOM, 2 * largest))
        name, level = compression
        words = [*map(str, (memory, name, level or 0, block_size))]
        with (
            memoryview(mmap.mmap(memory, 0)) as mapped,  # unmapped with the last view of it
            companion(packing.__name__, words, {memory, *layers}) as process,
        ):
            yield PackingProcess(process, mapped)
    finally:
        os.close(memory)
