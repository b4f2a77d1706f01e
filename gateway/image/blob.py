"""A blob: a range of bytes in an open file. Manifests, configurations and layers are all passed on as blobs.

Whoever opens the file decides with whose rights; nothing past this point opens a path.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from udiroot.errors import ImageInvalid, printable


@dataclass(frozen=True)
class Blob:
    """`size` bytes at `offset` of the file that `descriptor` is open on. Does not own the descriptor."""

    descriptor: int
    offset: int
    size: int

    @classmethod
    def of_file(cls, descriptor: int) -> Blob:
        """All of the file that `descriptor` is open on."""
        return cls(descriptor, 0, os.fstat(descriptor).st_size)

    def read_at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes from `position`; fewer at the blob's end, or where the file ends before the blob does."""
        count = min(count, self.size - position)
        return os.pread(self.descriptor, count, self.offset + position) if count > 0 else b""

    def read_whole(self, what: str, limit: int) -> bytes:
        """All bytes of a small blob. Raises ImageInvalid when it has more than `limit`, or the file is truncated."""
        if self.size > limit:
            raise ImageInvalid(f"{printable(what)} has {self.size} bytes, the limit is {limit}")
        parts: list[bytes] = []
        position = 0
        while position < self.size:
            part = self.read_at(position, self.size - position)
            if not part:
                raise ImageInvalid(f"{printable(what)} ends after {position} of {self.size} bytes")
            parts.append(part)
            position += len(part)
        return b"".join(parts)
