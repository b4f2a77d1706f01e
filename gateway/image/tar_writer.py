"""Writing the one tar stream that a packer reads: headers and data to a pipe, large data without copying it.

Names, link targets and attributes that a ustar header cannot hold go into a PAX header before it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

from gateway.image.blob import Blob
from gateway.image.tar_reader import BLOCK, DIRECTORY, FIFO, LINK, REGULAR, SYMLINK, Xattrs
from udiroot.errors import ImageInvalid

__all__ = ["DIRECTORY", "FIFO", "LINK", "REGULAR", "SYMLINK", "TarWriter"]

_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
_FLUSH = 1 << 18
_SENDFILE_FROM = 1 << 16
_ZEROS = bytes(1 << 20)
_OCTAL_7, _OCTAL_11 = 0o7777777, 0o77777777777


class TarWriter:
    """Entries to `descriptor`, through a buffer. `wrote` gets the number of bytes of each write."""

    def __init__(self, descriptor: int, wrote: Callable[[int], None]) -> None:
        self._descriptor = descriptor
        self._wrote = wrote
        self._buffer = bytearray()
        self.kept: bytearray | None = None
        """Where it is set, the data that is written is appended to it, too."""

    def entry(
        self,
        name: bytes,
        kind: bytes,
        *,
        mode: int = 0,
        owner: tuple[int, int] = (0, 0),
        mtime: int = 0,
        size: int = 0,
        linkname: bytes = b"",
        xattrs: Xattrs = (),
    ) -> None:
        """The header of an entry; `size` bytes of data must follow."""
        records: list[tuple[bytes, bytes]] = [(b"SCHILY.xattr." + key, value) for key, value in xattrs]
        if len(name) > 100:
            records.append((b"path", name))
        if len(linkname) > 100:
            records.append((b"linkpath", linkname))
        for key, value, limit in (
            (b"uid", owner[0], _OCTAL_7),
            (b"gid", owner[1], _OCTAL_7),
            (b"size", size, _OCTAL_11),
        ):
            if value > limit:
                records.append((key, b"%d" % value))
        if records:
            text = b"".join(_record(key, value) for key, value in records)
            self._header(b"PaxHeader", b"x", 0o644, (0, 0), 0, len(text), b"")
            self._buffer += text
            self.pad(len(text))
        fitting = (min(owner[0], _OCTAL_7), min(owner[1], _OCTAL_7))
        self._header(name[:100], kind, mode, fitting, mtime, min(size, _OCTAL_11), linkname[:100])
        if len(self._buffer) >= _FLUSH:  # entries without data may follow one another by the million
            self.flush()

    def write(self, data: bytes | memoryview) -> None:
        if self.kept is not None:
            self.kept += data
        self._buffer += data
        if len(self._buffer) >= _FLUSH:
            self.flush()

    def write_zeros(self, count: int) -> None:
        while count:
            self.write(_ZEROS[:count])
            count -= min(count, len(_ZEROS))

    def copy(self, blob: Blob, position: int, count: int) -> None:
        """`count` bytes of a blob, by the kernel alone where they are many."""
        if count < _SENDFILE_FROM or self.kept is not None:
            data = blob.read_at(position, count)
            if len(data) < count:
                raise ImageInvalid("a layer became shorter while it was read")
            self.write(data)
            return
        self.flush()
        if position + count > blob.size:
            raise ImageInvalid("a layer ends within a file")
        offset, end = blob.offset + position, blob.offset + position + count
        while offset < end:
            sent = os.sendfile(self._descriptor, blob.descriptor, offset, end - offset)
            if not sent:
                raise ImageInvalid("a layer became shorter while it was read")
            offset += sent
            self._wrote(sent)

    def pad(self, size: int) -> None:
        """Fill up to a whole block after `size` bytes of data."""
        self._buffer += bytes(-size % BLOCK)

    def finish(self) -> None:
        """The archive's end."""
        self._buffer += bytes(2 * BLOCK)
        self.flush()

    def flush(self) -> None:
        view = memoryview(bytes(self._buffer))
        self._buffer.clear()
        while view:
            written = os.write(self._descriptor, view)
            view = view[written:]
            self._wrote(written)

    def _header(
        self, name: bytes, kind: bytes, mode: int, owner: tuple[int, int], mtime: int, size: int, linkname: bytes
    ) -> None:
        block = _HEADER.pack(
            name,
            b"%07o" % mode,
            b"%07o" % owner[0],
            b"%07o" % owner[1],
            b"%011o" % size,
            b"%011o" % mtime,
            b"        ",
            kind,
            linkname,
            b"ustar\x0000",
            b"",
            b"",
            b"",
            b"",
            b"",
        )
        self._buffer += block[:148] + b"%06o\0 " % sum(block) + block[156:]


def _record(key: bytes, value: bytes) -> bytes:
    """A PAX record, whose length counts its own digits."""
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length = len(b"%d" % length) + len(body)
    return b"%d" % length + body
