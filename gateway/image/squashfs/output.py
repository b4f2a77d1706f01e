"""The image file while it is written: appended to, read again where that saves bytes, its start filled in last."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self

_PIECE = 1 << 20
_PADDING = 4096
"""The file's size is a multiple of this, since a block device has no half blocks."""


class Output:
    """A new file, private to this account. A context manager: at its end, the file is closed."""

    def __init__(self, path: str, reserved: int) -> None:
        """`reserved` bytes at the start are for `finish`."""
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        self.position = reserved

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._descriptor)

    def add(self, data: bytes | bytearray | memoryview) -> None:
        """Append."""
        self._write(data, self.position)
        self.position += len(data)

    def rewind(self, position: int) -> None:
        """Forget what was appended from `position` on."""
        self.position = position

    def is_same(self, one: int, other: int, count: int) -> bool:
        """Whether `count` bytes at two positions are the same."""
        for at in range(0, count, _PIECE):
            size = min(_PIECE, count - at)
            if os.pread(self._descriptor, size, one + at) != os.pread(self._descriptor, size, other + at):
                return False
        return True

    def finish(self, start: bytes) -> None:
        """Write the reserved bytes, and bring the file to its size."""
        os.ftruncate(self._descriptor, self.position)
        os.ftruncate(self._descriptor, -(-self.position // _PADDING) * _PADDING)
        self._write(start, 0)

    def _write(self, data: bytes | bytearray | memoryview, position: int) -> None:
        done = 0
        with memoryview(data) as view:
            while done < len(view):
                done += os.pwrite(self._descriptor, view[done:], position + done)
