"""Compressing blocks in threads, with results in the order in which the work was given.

Reading, comparing and compressing release the interpreter lock, so as many threads as there are processors keep them
busy while one thread decides what goes where. What waits is bounded: a few runs for each thread.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from gateway.image.blob import Blob
from gateway.image.squashfs.compressors import Compress
from udiroot.errors import ImageInvalid

STORED = 1 << 24
"""The bit of a block's word that says that it is not compressed; the other bits are its size."""
_RUN = 1 << 20
"""Bytes of a file that one thread takes at a time."""
_MOST_THREADS = 8
"""One thread gives the work; more threads than this would wait for it."""
_WAITING = 2
"""Runs for each thread that wait to be compressed, or to be written."""


class Packer:
    """One thread's compressor, and its buffer."""

    def __init__(self, compress: Compress, block_size: int) -> None:
        self._compress = compress
        self._block_size = block_size
        self._zeros = bytes(block_size)
        self._buffer = memoryview(bytearray(max(_RUN, block_size)))

    def read(self, blob: Blob, position: int, count: int) -> memoryview:
        """Bytes of a blob, in the buffer: valid until the next call. Raises ImageInvalid where it is too short."""
        done = 0
        while done < count:
            got = os.preadv(blob.descriptor, [self._buffer[done:count]], blob.offset + position + done)
            if not got:
                raise ImageInvalid("a layer became shorter while it was read")
            done += got
        return self._buffer[:count]

    def blocks(self, data: memoryview) -> Packed:
        """The blocks of a file; one of zeros has no bytes, and 0 as its word."""
        parts: list[bytes | memoryview] = []
        words: list[int] = []
        for at in range(0, len(data), self._block_size):
            block = data[at : at + self._block_size]
            if not block[0] and bytes(block) == self._zeros[: len(block)]:  # a view would be compared item by item
                words.append(0)
                continue
            part, word = self._one(block)
            parts.append(part)
            words.append(word)
        return b"".join(parts), words

    def whole(self, data: memoryview) -> Packed:
        """One block, whatever is in it."""
        part, word = self._one(data)
        return bytes(part), [word]

    def _one(self, block: memoryview) -> tuple[bytes | memoryview, int]:
        packed = self._compress(block)
        return (packed, len(packed)) if len(packed) < len(block) else (block, len(block) | STORED)


Packed = tuple[bytes, list[int]]
"""Blocks one after the other, and the word of each: its size, with STORED."""
Work = Callable[[Packer], Packed]
Done = Callable[[bytes, list[int]], None]


class Pipeline:
    """Threads that compress. A context manager: at its end, they have ended."""

    def __init__(self, compressor: Callable[[], Compress], block_size: int) -> None:
        """`compressor` makes one for each thread."""
        self._compressor = compressor
        self._block_size = block_size
        threads = max(1, min(_MOST_THREADS, len(os.sched_getaffinity(0))))
        self._most = threads * (1 + _WAITING)
        self._own = threading.local()
        self._threads = ThreadPoolExecutor(threads, "packing")
        self._given: deque[tuple[Future[Packed], Done] | Callable[[], None]] = deque()
        self._waiting = 0
        self.run = max(_RUN, block_size)
        """Bytes of one piece of work; whole blocks."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(cancel_futures=True)

    def give(self, work: Work, done: Done) -> None:
        """Have `work` done by a thread, and `done` called here with its result, after those of all work before."""
        while self._waiting >= self._most:
            self._take()
        self._given.append((self._threads.submit(self._do, work), done))
        self._waiting += 1

    def then(self, step: Callable[[], None]) -> None:
        """Have `step` called here once all work before is done."""
        self._given.append(step)

    def finish(self) -> None:
        """Wait for all that was given."""
        while self._given:
            self._take()

    def _take(self) -> None:
        first = self._given.popleft()
        if callable(first):
            first()
            return
        future, done = first
        self._waiting -= 1
        done(*future.result())

    def _do(self, work: Work) -> Packed:
        packer: Packer | None = getattr(self._own, "packer", None)
        if packer is None:
            packer = self._own.packer = Packer(self._compressor(), self._block_size)
        return work(packer)
