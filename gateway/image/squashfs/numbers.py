"""The numbers of inodes: those of one directory's entries follow each other, as its listing wants them."""

from __future__ import annotations

from array import array

from gateway.image import tree
from gateway.image.tree import Tree


class Numbers:
    """Counts the final tree. Device nodes are no part of it."""

    def __init__(self, final: Tree) -> None:
        self._final = final
        self._of_rows = array("I", bytes(4 * len(final)))
        self._of_rows[tree.ROOT] = 1
        self.count = 1
        """Inodes."""
        self.names: dict[int, int] = {}
        """How many names the inode of each hard link has."""
        self.files = array("I")
        """Rows of inodes that have contents."""
        self._linked = set(final.inodes.values())
        pending = [tree.ROOT]
        while pending:
            self._enter(pending.pop(), pending)

    def __getitem__(self, row: int) -> int:
        """The number of an inode, by its row."""
        return self._of_rows[row]

    def _enter(self, directory: int, pending: list[int]) -> None:
        final, numbers, linked = self._final, self._of_rows, self._linked
        for row in names_of(final, directory):
            inode = final.inodes.get(row, row)
            if inode in linked:
                self.names[inode] = self.names.get(inode, 0) + 1
                if self.names[inode] > 1:
                    continue
            self.count += 1
            numbers[inode] = self.count
            if final.kinds[inode] == tree.DIRECTORY:
                pending.append(row)
            elif final.sizes[inode]:
                self.files.append(inode)


def names_of(final: Tree, directory: int) -> list[int]:
    """The rows of a directory's entries in the order of their names."""
    children = final.children.get(directory)
    if not children:
        return []
    rows = [children[name] for name in sorted(children)]
    return [row for row in rows if final.kinds[final.inodes.get(row, row)] != tree.DEVICE]
