"""Listings of directories: names in order, in groups of those whose inodes are in one block, with an index of blocks.

The index lets a kernel begin near a name instead of at the first one: it has the first name of each metadata block of
the listing at whose start, or in which, a group begins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from gateway.image.squashfs.metadata import MetadataWriter

_GROUP, _ENTRY, _INDEX = struct.Struct("<III"), struct.Struct("<HhHH"), struct.Struct("<III")
_GROUP_SIZE = 256
_NEAR = 1 << 15
"""Inode numbers of a group differ from the first one's by less than this."""
_MOST_INDEXED = 0xFFFF

Entry = tuple[bytes, int, int, int, int]
"""A name; the block and the offset of its inode; the inode's number and kind."""


@dataclass(slots=True)
class Listing:
    """Where a listing is in the table of listings, its bytes, and its index."""

    block: int
    offset: int
    size: int = 0
    index: bytes = b""
    indexed: int = 0


def write_listing(table: MetadataWriter, entries: Iterable[Entry]) -> Listing:
    """Write the entries, which are in the order of their names."""
    block, offset = table.place()
    listing = Listing(block, offset)
    last_indexed = block
    group = bytearray()
    first_name, group_block, group_number, count = b"", -1, 0, 0

    def close() -> None:
        nonlocal last_indexed
        here, _ = table.place()
        if here != last_indexed and listing.indexed < _MOST_INDEXED:
            last_indexed = here
            listing.index += _INDEX.pack(listing.size, here, len(first_name) - 1) + first_name
            listing.indexed += 1
        table.add(_GROUP.pack(count - 1, group_block, group_number))
        table.add(group)
        listing.size += _GROUP.size + len(group)
        group.clear()

    for name, inode_block, inode_offset, number, kind in entries:
        apart = number - group_number
        if inode_block != group_block or count == _GROUP_SIZE or not -_NEAR <= apart < _NEAR:
            if count:
                close()
            first_name, group_block, group_number, count, apart = name, inode_block, number, 0, 0
        group += _ENTRY.pack(inode_offset, apart, kind, len(name) - 1)
        group += name
        count += 1
    if count:
        close()
    return listing
