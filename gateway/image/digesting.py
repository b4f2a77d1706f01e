"""Digesting layers piece by piece, here or by a companion (`gateway.image.companions`), of which this is the program.

    python -I -m gateway.image.digesting SOCKET

Each order comes with the descriptor of an open file.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import socket
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gateway.image.companions import Companion

_ORDER = struct.Struct("=qq?")
"""Position in the file; bytes; whether a layer begins with them."""
_ANSWER = struct.Struct("=iq32s")
"""An errno, or 0; how many of the bytes there were; the digest."""
_BUFFER = 1 << 18
"""Bytes that stay in the processor's cache from reading to digesting them."""


class Digest:
    """The sha256 of one layer after the other."""

    def __init__(self) -> None:
        self._buffer = memoryview(bytearray(_BUFFER))
        self._digest = hashlib.sha256()

    def add(self, descriptor: int, position: int, size: int, is_first: bool) -> tuple[int, bytes]:
        """Digest so many bytes of an open file, with which a layer begins or goes on. Returns how many there were, and
        the digest of the layer so far. Raises OSError."""
        if is_first:
            self._digest = hashlib.sha256()
        done = 0
        while done < size:
            count = os.preadv(descriptor, [self._buffer[: size - done]], position + done)
            if not count:
                break
            self._digest.update(self._buffer[:count])
            done += count
        return done, self._digest.digest()


class DigestBeside:
    """The same, done by a companion of this program."""

    def __init__(self, process: Companion) -> None:
        self._process = process

    def add(self, descriptor: int, position: int, size: int, is_first: bool) -> tuple[int, bytes]:
        """As `Digest.add`. Raises also UpstreamFailed."""
        self._process.send(_ORDER.pack(position, size, is_first), [descriptor])
        failure, count, digest = _ANSWER.unpack(self._process.answer())
        if failure:
            raise OSError(failure, os.strerror(failure))
        return count, digest


def main(descriptor: int) -> None:
    """Carry out orders until nobody can give any more, or take an answer: the starter may be killed at any moment."""
    digest = Digest()
    with socket.socket(fileno=descriptor) as orders, contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            order, files, _, _ = socket.recv_fds(orders, _ORDER.size, 1)
            if not order:
                return
            try:
                answer = 0, *digest.add(files[0], *_ORDER.unpack(order))
            except OSError as error:
                answer = error.errno or errno.EIO, 0, b""
            finally:
                os.close(files[0])
            orders.send(_ANSWER.pack(*answer))


if __name__ == "__main__":
    main(int(sys.argv[1]))
