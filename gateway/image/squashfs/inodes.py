"""Inodes of a squashfs: the short form of each kind where its fields are wide enough, the extended one otherwise."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from gateway.image.squashfs.directories import Listing

DIRECTORY, FILE, SYMLINK, FIFO = 1, 2, 3, 6
"""Kinds, as listings name them, whichever form the inode has."""
_EXTENDED = 7
"""What is added to the kind in an extended inode."""
NONE = 0xFFFF_FFFF
"""No fragment; no attributes."""
LARGEST_LISTING = 0xFFFF
_HEAD = struct.Struct("<HHHHII")
_PLAIN_DIRECTORY, _EXTENDED_DIRECTORY = struct.Struct("<IIHHI"), struct.Struct("<IIIIHHI")
_PLAIN_FILE, _EXTENDED_FILE = struct.Struct("<IIII"), struct.Struct("<QQQIIII")
_SYMLINK, _NUMBER = struct.Struct("<II"), struct.Struct("<I")
_DOTS = 3
"""What a directory's size has beyond its listing, for `.` and `..`."""


@dataclass(slots=True)
class Common:
    """What all inodes have. `user` and `group` are places in the table of ids; `xattr` is NONE where there are none."""

    mode: int
    user: int
    group: int
    mtime: int
    number: int
    links: int
    xattr: int

    def head(self, kind: int) -> bytes:
        return _HEAD.pack(kind, self.mode, self.user, self.group, self.mtime, self.number)


def directory(common: Common, listing: Listing, parent: int) -> bytes:
    """`parent` is the number of the inode of the directory that it is in."""
    size = listing.size + _DOTS
    if size > LARGEST_LISTING or listing.indexed or common.xattr != NONE:
        rest = _EXTENDED_DIRECTORY.pack(
            common.links, size, listing.block, parent, listing.indexed, listing.offset, common.xattr
        )
        return common.head(DIRECTORY + _EXTENDED) + rest + listing.index
    return common.head(DIRECTORY) + _PLAIN_DIRECTORY.pack(listing.block, common.links, size, listing.offset, parent)


def file(common: Common, size: int, start: int, fragment: tuple[int, int], words: bytes, sparse: int) -> bytes:
    """`start` is where its first block is in the image, `words` the sizes of its blocks, `fragment` the block that has
    its bytes instead, with the offset there; `sparse` the bytes of blocks that are not stored since all are zero."""
    if common.links > 1 or common.xattr != NONE or sparse or max(start, size) > NONE:
        kept = min(sparse, size - 1) if sparse else 0
        rest = _EXTENDED_FILE.pack(start, size, kept, common.links, *fragment, common.xattr)
        return common.head(FILE + _EXTENDED) + rest + words
    return common.head(FILE) + _PLAIN_FILE.pack(start, *fragment, size) + words


def symlink(common: Common, target: bytes) -> bytes:
    """A symbolic link."""
    rest = _SYMLINK.pack(common.links, len(target)) + target
    if common.xattr != NONE:
        return common.head(SYMLINK + _EXTENDED) + rest + _NUMBER.pack(common.xattr)
    return common.head(SYMLINK) + rest


def fifo(common: Common) -> bytes:
    """A named pipe."""
    rest = _NUMBER.pack(common.links)
    if common.xattr != NONE:
        return common.head(FIFO + _EXTENDED) + rest + _NUMBER.pack(common.xattr)
    return common.head(FIFO) + rest
