"""What http.client reads of an answer in another way than is safe or right with strangers.

A chunk's size is read here: http.client takes `-1` for one, and then reads all that comes into memory. And an interim
answer (1xx: RFC 9110, 15.2) is passed over: http.client takes all but `100` for the answer itself.
"""

from __future__ import annotations

import http.client
import re
from typing import BinaryIO

_MAX_INTERIM = 20
_SWITCHING = 101
_MAX_LINE = 4096
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n")


class FinalResponse(http.client.HTTPResponse):
    """An answer whose status is that of the request's outcome."""

    def begin(self) -> None:
        """Read the status and the headers. Raises HTTPException where interim answers do not end."""
        for _ in range(_MAX_INTERIM):
            super().begin()
            if not 100 <= self.status < 200 or self.status == _SWITCHING:
                return
            self.headers = None  # type: ignore[assignment]  # as before the first one, so that the next one is read
        raise http.client.HTTPException(f"more than {_MAX_INTERIM} interim answers")


class Chunks:
    """The body of an answer that comes in chunks (RFC 9112, 7.1); what follows the last one is not read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._left = 0
        """Bytes of the current chunk that are still to come."""
        self._begun = self._ended = False

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; none at the end. Raises IncompleteRead where it is cut off, else HTTPException."""
        if not self._left and not self._ended:
            self._next_chunk()
        if self._ended:
            return b""
        piece = self._stream.read(min(count, self._left))
        if not piece:
            raise http.client.IncompleteRead(piece, self._left)
        self._left -= len(piece)
        return piece

    def _next_chunk(self) -> None:
        if self._begun and self._line() not in (b"\r\n", b"\n"):
            raise http.client.HTTPException("a chunk is longer than its size")
        size = _SIZE.fullmatch(self._line())
        if not size:
            raise http.client.HTTPException("a chunk has no valid size")
        self._begun, self._left = True, int(size[1], 16)
        self._ended = not self._left

    def _line(self) -> bytes:
        line = self._stream.readline(_MAX_LINE)
        if not line.endswith(b"\n") and len(line) < _MAX_LINE:
            raise http.client.IncompleteRead(line)
        return line
