"""What the final tree still leads to: rows of replaced and hidden names are left in it, and device nodes are no part of
an image."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import compress, count

from gateway.image import tree
from gateway.image.tree import Tree


class Reached:
    """Counts names and inodes, and marks the inodes that are no directories; one byte a row."""

    def __init__(self, final: Tree) -> None:
        self._final = final
        self.marks = bytearray(len(final))
        """1 for the row of each such inode."""
        self.names: dict[int, int] = {}
        """How many names the inode of each hard link has."""
        self.entries = 0
        """Names, the root's among them."""
        directories = 0
        linked = set(final.inodes.values())
        pending = [tree.ROOT]
        while pending:
            directories += 1
            for row in final.children.get(pending.pop(), {}).values():
                kind = final.kinds[row]
                if kind == tree.DIRECTORY:
                    pending.append(row)
                elif kind == tree.LINK or row in linked:
                    self._add_name(final.inodes.get(row, row))
                elif kind != tree.DEVICE:
                    self.marks[row] = 1
                    self.entries += 1
        self.entries += directories
        self.inodes = directories + self.marks.count(1)

    def files(self) -> Iterator[int]:
        """The rows of the files that have contents, in order."""
        final = self._final
        for row in compress(count(), self.marks):
            if final.kinds[row] == tree.FILE and final.sizes[row]:
                yield row

    def _add_name(self, inode: int) -> None:
        if self._final.kinds[inode] != tree.DEVICE:
            self.marks[inode] = 1
            self.names[inode] = self.names.get(inode, 0) + 1
            self.entries += 1
