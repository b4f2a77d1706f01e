"""Reading files' contents from layers, in the order in which they are there.

Of a layer that is not compressed (or of which what it expands to was kept) any part can be read, by any process that
has its descriptor. A compressed one is decompressed from its start, ahead of who reads it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Protocol

from gateway.image.blob import Blob
from gateway.image.layers import Budget, Layer, LayerStream, chunks
from gateway.image.squashfs.pieces import Data, Range, TooShort

_WINDOW = 1 << 18
"""Bytes that are read at once where files are small."""
_AHEAD = 4
"""Chunks of a compressed layer that are ready before they are read."""


class Source(Protocol):
    """The contents of one layer's files."""

    def read(self, position: int, count: int) -> bytes:
        """`count` bytes from a position of the uncompressed layer. Raises ImageInvalid."""

    def data(self, position: int, count: int) -> Data:
        """These bytes, or where they are. Raises ImageInvalid."""


class PlainSource:
    """A layer whose positions are positions in a file."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._window = b""
        self._start = 0

    def read(self, position: int, count: int) -> bytes:
        at = position - self._start
        if at < 0 or at + count > len(self._window):
            self._window, self._start, at = self._blob.read_at(position, max(count, _WINDOW)), position, 0
            if len(self._window) < count:
                raise TooShort
        return self._window[at : at + count]

    def data(self, position: int, count: int) -> Data:
        return Range(self._blob.descriptor, self._blob.offset + position, count)


class StreamSource:
    """A compressed layer: positions never go back."""

    def __init__(self, layer: Layer, budget: Budget, threads: Executor) -> None:
        self._stream = LayerStream(_ahead(chunks(layer, budget), threads), layer.label)

    def read(self, position: int, count: int) -> bytes:
        self._stream.skip(position - self._stream.position)
        pieces = list(self._stream.pieces(count))
        return bytes(pieces[0]) if len(pieces) == 1 else b"".join(pieces)

    def data(self, position: int, count: int) -> Data:
        return self.read(position, count)


def _ahead(source: Iterator[bytes], threads: Executor) -> Iterator[bytes]:
    """The same items, made by another thread; one thread, since an iterator is for one at a time."""
    waiting = deque(threads.submit(next, source, None) for _ in range(_AHEAD))
    while (item := waiting.popleft().result()) is not None:
        waiting.append(threads.submit(next, source, None))
        yield item
