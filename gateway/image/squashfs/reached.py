"""What the final tree still leads to: rows of replaced and hidden names are left in it, and device nodes are no part of
an image."""

from __future__ import annotations

from gateway.image import tree
from gateway.image.tree import Tree


class Reached:
    """The inodes that have names, directories aside; one byte a row."""

    def __init__(self, final: Tree) -> None:
        self.marks = bytearray(len(final))
        """1 for the row of each such inode."""
        self.names: dict[int, int] = {}
        """How many names the inode of each hard link has."""
        linked = set(final.inodes.values())
        pending = [tree.ROOT]
        while pending:
            for row in final.children.get(pending.pop(), {}).values():
                kind = final.kinds[row]
                if kind == tree.DIRECTORY:
                    pending.append(row)
                elif kind == tree.LINK or row in linked:
                    self._add_name(final, final.inodes.get(row, row))
                elif kind != tree.DEVICE:
                    self.marks[row] = 1

    def _add_name(self, final: Tree, inode: int) -> None:
        if final.kinds[inode] != tree.DEVICE:
            self.marks[inode] = 1
            self.names[inode] = self.names.get(inode, 0) + 1
