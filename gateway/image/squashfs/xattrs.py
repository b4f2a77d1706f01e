"""Extended attributes: each set of them is stored once, and inodes name it by its number."""

from __future__ import annotations

import struct

from gateway.image.squashfs.compressors import Compress
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.output import Output
from gateway.image.tar_reader import Xattrs
from gateway.image.tree import shown
from udiroot.errors import ImageInvalid

_PREFIXES = ((b"user.", 0), (b"trusted.", 1), (b"security.", 2))
_MAX_NAME, _MAX_VALUE = 255, 65536
"""The kernel's own limits."""
_NAME, _VALUE, _SET, _TABLE = struct.Struct("<HH"), struct.Struct("<I"), struct.Struct("<QII"), struct.Struct("<QII")


class XattrTable:
    """Collects the sets, and writes the two tables."""

    def __init__(self, compress: Compress) -> None:
        self._compress = compress
        self._numbers: dict[Xattrs, int] = {}
        self._pairs = bytearray()
        self._writer = MetadataWriter(compress, self._pairs.extend)
        self._sets = bytearray()

    def number(self, xattrs: Xattrs) -> int:
        """The number of a set. Raises ImageInvalid for an attribute that no file can have."""
        found = self._numbers.get(xattrs)
        if found is None:
            found = self._numbers[xattrs] = len(self._numbers)
            block, offset = self._writer.place()
            text = b"".join(_pair(name, value) for name, value in xattrs)
            self._writer.add(text)
            self._sets += _SET.pack(block << 16 | offset, len(xattrs), len(text))
        return found

    def write(self, output: Output) -> int | None:
        """Append both tables. Returns where the second one begins; None where there is no attribute."""
        if not self._numbers:
            return None
        self._writer.finish()
        start = output.position
        output.add(self._pairs)
        base = output.position
        sets = MetadataWriter(self._compress, output.add)
        sets.add(self._sets)
        sets.finish()
        table = output.position
        output.add(_TABLE.pack(start, len(self._numbers), 0))
        output.add(struct.pack(f"<{len(sets.starts)}Q", *(base + at for at in sets.starts)))
        return table


def _pair(name: bytes, value: bytes) -> bytes:
    prefix, number = next((prefix, number) for prefix, number in _PREFIXES if name.startswith(prefix))
    if not len(prefix) < len(name) <= _MAX_NAME:
        raise ImageInvalid(
            f"an extended attribute's name has {len(name)} bytes, the limit is {_MAX_NAME}: {shown(name)}"
        )
    if len(value) > _MAX_VALUE:
        raise ImageInvalid(f"extended attribute {shown(name)} has {len(value)} bytes, the limit is {_MAX_VALUE}")
    suffix = name[len(prefix) :]
    return _NAME.pack(number, len(suffix)) + suffix + _VALUE.pack(len(value)) + value
