"""Who packs data: this process, for a small image, or companions beside it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from typing import Protocol

from gateway.image.companions import WORTH
from gateway.image.squashfs.compressors import Compression, compressor
from gateway.image.squashfs.packer import Packer
from gateway.image.squashfs.pieces import Data, Range, read, size_of
from gateway.image.squashfs.processes import Packed, packing_process

_MOST = 8
"""One process gives the work; more than this would wait for it."""


class Packers(Protocol):
    """Who packs. The blocks of what was given are taken in the same order."""

    waiting: int
    """Bytes that were given, and their blocks not taken."""

    def has_room(self, size: int) -> bool:
        """Whether so many bytes can be given."""

    def give(self, data: Data, is_whole: bool) -> None:
        """Have it packed, as one block if `is_whole`. Raises ImageInvalid, UpstreamFailed, OSError."""

    def take(self) -> Packed:
        """The blocks of what was given first. Raises ImageInvalid, UpstreamFailed, MemoryError, OSError."""


@contextlib.contextmanager
def packers_for(
    total: int, compression: Compression, block_size: int, largest: int, layers: Collection[int]
) -> Iterator[Sequence[Packers]]:
    """Those who pack `total` bytes in pieces of at most `largest`, some of which are ranges of the open files `layers`.
    At the end, no process is left. Raises UpstreamFailed, OSError."""
    if total < WORTH:
        yield [_Here(compression, block_size, largest)]
        return
    with contextlib.ExitStack() as stack:
        count = min(_MOST, len(os.sched_getaffinity(0)))
        started = (packing_process(compression, block_size, largest, layers) for _ in range(count))
        yield [stack.enter_context(process) for process in started]


class _Here:
    """This process: packs what it is given at once."""

    def __init__(self, compression: Compression, block_size: int, largest: int) -> None:
        self._packer = Packer(compressor(compression, block_size), block_size)
        self._buffer = memoryview(bytearray(largest))
        self._packed: Packed | None = None
        self.waiting = 0

    def has_room(self, size: int) -> bool:
        return self._packed is None

    def give(self, data: Data, is_whole: bool) -> None:
        buffer = self._buffer[: size_of(data)]
        if isinstance(data, Range):
            read(data, buffer)
        else:
            buffer[:] = data
        size, words = self._packer.whole(buffer) if is_whole else self._packer.blocks(buffer)
        self._packed = buffer[:size], words

    def take(self) -> Packed:
        packed, self._packed = self._packed, None
        assert packed, "nothing was given"
        return packed
