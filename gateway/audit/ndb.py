"""The blobs of rpm's own database, ndb (Packages.db), as SUSE has it: slots that say where blobs are.

The form is that of rpm's lib/backend/ndb/rpmpkg.c; all numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gateway.audit.packages import MAX_PACKAGES, Unreadable

_PAGE, _SLOT = 4096, struct.Struct("<4sIII")
_HEADER = struct.Struct("<4sIII")
_HEADER_SIZE = 32
_BLOCK = 16
"""Bytes that blobs are counted in, and of the head of each."""


def blobs(database: bytes) -> Iterator[bytes]:
    """The blob of each package. Raises Unreadable."""
    if len(database) < _PAGE or database[:4] != b"RpmP":
        raise Unreadable("it is not a database of rpm's ndb")
    _, version, _, slot_pages = _HEADER.unpack_from(database)
    if version != 0:
        raise Unreadable(f"it has version {version}, and only 0 is known")
    end = slot_pages * _PAGE
    if end > len(database):
        raise Unreadable("its slots are cut off")
    count = 0
    for at in range(_HEADER_SIZE, end, _SLOT.size):
        magic, index, offset, blocks = _SLOT.unpack_from(database, at)
        if magic != b"Slot":
            raise Unreadable("a slot is damaged")
        if not index:
            continue
        count += 1
        if count > MAX_PACKAGES:
            raise Unreadable(f"it has more than {MAX_PACKAGES} packages")
        yield _blob(database, index, offset * _BLOCK, blocks * _BLOCK)


def _blob(database: bytes, index: int, at: int, size: int) -> bytes:
    if at + size > len(database) or size < _BLOCK:
        raise Unreadable("a blob is cut off")
    magic, number, _, length = _SLOT.unpack_from(database, at)
    if magic != b"BlbS" or number != index or length > size - _BLOCK:
        raise Unreadable("a blob is damaged")
    return database[at + _BLOCK : at + _BLOCK + length]
