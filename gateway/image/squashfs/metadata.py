"""Metadata of a squashfs: a stream in blocks of 8 KiB, each compressed where that makes it smaller."""

from __future__ import annotations

import struct
from collections.abc import Callable

from gateway.image.squashfs.compressors import Compress

SIZE = 8192
_STORED = 0x8000
"""The bit of a block's length that says that it is not compressed."""
_LENGTH = struct.Struct("<H")


class MetadataWriter:
    """One stream of metadata; `write` gets each finished block, with its length."""

    def __init__(self, compress: Compress, write: Callable[[bytes], object]) -> None:
        self._compress = compress
        self._write = write
        self._buffer = bytearray()
        self.size = 0
        """Bytes of the finished blocks."""
        self.starts: list[int] = []
        """Where each block begins, from the first one's start on."""

    def place(self) -> tuple[int, int]:
        """Where the next byte will be: the start of its block, and its offset there, uncompressed."""
        return self.size, len(self._buffer)

    def add(self, data: bytes | bytearray) -> None:
        """Append to the stream."""
        self._buffer += data
        if len(self._buffer) >= SIZE:
            self._flush()

    def finish(self) -> None:
        """Finish the last block."""
        if self._buffer:
            self._block(bytes(self._buffer))
            self._buffer.clear()

    def _flush(self) -> None:
        whole = len(self._buffer) // SIZE * SIZE
        with memoryview(self._buffer) as view:
            for at in range(0, whole, SIZE):
                self._block(bytes(view[at : at + SIZE]))
        del self._buffer[:whole]

    def _block(self, data: bytes) -> None:
        packed = self._compress(data)
        block = _LENGTH.pack(len(packed)) + packed
        if len(packed) >= len(data):
            block = _LENGTH.pack(len(data) | _STORED) + data
        self.starts.append(self.size)
        self.size += len(block)
        self._write(block)
