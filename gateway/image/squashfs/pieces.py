"""Pieces of files, each of as many blocks as one packer takes at a time."""

from __future__ import annotations

import os

from udiroot.errors import ImageInvalid


class Range:
    """`size` bytes of an open file, from `position` on. Does not own the descriptor."""

    __slots__ = ("descriptor", "position", "size")

    def __init__(self, descriptor: int, position: int, size: int) -> None:
        self.descriptor, self.position, self.size = descriptor, position, size


Data = bytes | bytearray | Range
"""Bytes, or where they are to be read."""
Piece = Data | int
"""Data, or so many zeros."""


class TooShort(ImageInvalid):
    """A file that had more bytes before."""

    def __init__(self) -> None:
        super().__init__("a layer became shorter while it was read")


def size_of(data: Data) -> int:
    """The bytes of it."""
    return data.size if isinstance(data, Range) else len(data)


def read(source: Range, buffer: memoryview) -> None:
    """Fill a buffer of the range's size. Raises TooShort, OSError."""
    done = 0
    while done < source.size:
        got = os.preadv(source.descriptor, [buffer[done:]], source.position + done)
        if not got:
            raise TooShort
        done += got
