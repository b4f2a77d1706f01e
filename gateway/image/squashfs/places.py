"""Where inodes are, for the listings that name them, and what is the same in all inodes."""

from __future__ import annotations

from array import array

from gateway.image.squashfs.inodes import NONE, Common
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.superblock import IdTable
from gateway.image.squashfs.xattrs import XattrTable
from gateway.image.tree import Tree


class InodeTable:
    """Inodes in the order in which they are written, and their numbers in that order; 10 bytes a row."""

    def __init__(self, final: Tree, ids: IdTable, xattrs: XattrTable, writer: MetadataWriter) -> None:
        self._final = final
        self._ids = ids
        self._xattrs = xattrs
        self._writer = writer
        self._numbers = array("I", bytes(4 * len(final)))
        self._blocks = array("I", bytes(4 * len(final)))
        self._offsets = array("H", bytes(2 * len(final)))
        self.count = 0
        """Numbers that were given."""

    def give_number(self, row: int) -> None:
        """Give the next number to an inode that will be written."""
        self.count += 1
        self._numbers[row] = self.count

    def number(self, row: int) -> int:
        return self._numbers[row]

    def place(self, row: int) -> tuple[int, int, int]:
        """The block and the offset of an inode that is written, and its number."""
        return self._blocks[row], self._offsets[row], self._numbers[row]

    def common(self, row: int, links: int) -> Common:
        """What every inode has, of one that has a number."""
        final = self._final
        user, group = final.owner_pairs[final.owners[row]]
        xattrs = final.xattrs.get(row)
        return Common(
            final.modes[row],
            self._ids.place(user),
            self._ids.place(group),
            final.mtimes[row],
            self._numbers[row],
            links,
            self._xattrs.number(xattrs) if xattrs else NONE,
        )

    def add(self, row: int, inode: bytes) -> None:
        """Write an inode."""
        self._blocks[row], self._offsets[row] = self._writer.place()
        self._writer.add(inode)
