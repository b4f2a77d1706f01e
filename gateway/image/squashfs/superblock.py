"""The superblock, and the two small tables that it leads to: of ids and of fragments."""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass

from gateway.image.squashfs.compressors import Compress
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.output import Output
from udiroot.errors import ImageInvalid

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
SIZE = _SUPERBLOCK.size
_MAGIC, _MAJOR, _MINOR = 0x73717368, 4, 0
_NO_FRAGMENTS, _DUPLICATES, _NO_XATTRS = 0x10, 0x40, 0x200
_NONE = (1 << 64) - 1
_MOST_IDS = 0xFFFF
_FRAGMENT = struct.Struct("<QII")


@dataclass
class Superblock:
    """Positions are from the file's start; `root` is where the root's inode is: block, then 16 bits of offset."""

    inodes: int
    block_size: int
    compression: int
    fragments: int
    ids: int
    root: int
    used: int
    id_table: int
    xattr_table: int | None
    inode_table: int
    listing_table: int
    fragment_table: int | None

    def pack(self) -> bytes:
        """Its bytes. The time is always 0, so that the same tree gives the same file."""
        flags = _DUPLICATES
        flags |= 0 if self.fragments else _NO_FRAGMENTS
        flags |= _NO_XATTRS if self.xattr_table is None else 0
        return _SUPERBLOCK.pack(
            _MAGIC,
            self.inodes,
            0,
            self.block_size,
            self.fragments,
            self.compression,
            self.block_size.bit_length() - 1,
            flags,
            self.ids,
            _MAJOR,
            _MINOR,
            self.root,
            self.used,
            self.id_table,
            _NONE if self.xattr_table is None else self.xattr_table,
            self.inode_table,
            self.listing_table,
            _NONE if self.fragment_table is None else self.fragment_table,
            _NONE,
        )


class IdTable:
    """Owners and groups, each number once."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._places)

    def place(self, number: int) -> int:
        """The place of an owner or a group. Raises ImageInvalid where there are more than the format has room for."""
        found = self._places.get(number)
        if found is None:
            found = self._places[number] = len(self._places)
            if found >= _MOST_IDS:
                raise ImageInvalid(f"the image has more than {_MOST_IDS} owners and groups, the limit of squashfs")
        return found

    def write(self, output: Output, compress: Compress) -> int:
        """Append it. Returns where its index begins."""
        return _write_table(output, compress, struct.pack(f"<{len(self._places)}I", *self._places))


class FragmentTable:
    """Where each block of fragments is."""

    def __init__(self) -> None:
        self._starts = array("Q")
        self._words = array("I")

    def __len__(self) -> int:
        return len(self._starts)

    def add(self, start: int, word: int) -> None:
        """One more block."""
        self._starts.append(start)
        self._words.append(word)

    def write(self, output: Output, compress: Compress) -> int | None:
        """Append it. Returns where its index begins; None where there is no block."""
        if not self._starts:
            return None
        pairs = zip(self._starts, self._words, strict=True)
        return _write_table(output, compress, b"".join(_FRAGMENT.pack(start, word, 0) for start, word in pairs))


def _write_table(output: Output, compress: Compress, data: bytes) -> int:
    """Metadata, then the positions of its blocks."""
    base = output.position
    writer = MetadataWriter(compress, output.add)
    writer.add(data)
    writer.finish()
    index = output.position
    output.add(struct.pack(f"<{len(writer.starts)}Q", *(base + at for at in writer.starts)))
    return index
