"""The tree pass: all directories and their listings, once it is known where the inodes of everything else are.

A directory is written after those in it, so the root's inode is the last one.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.image import tree
from gateway.image.squashfs import inodes
from gateway.image.squashfs.directories import Entry, write_listing
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.places import InodeTable
from gateway.image.tree import Tree

_KINDS = {
    tree.DIRECTORY: inodes.DIRECTORY,
    tree.FILE: inodes.FILE,
    tree.SYMLINK: inodes.SYMLINK,
    tree.FIFO: inodes.FIFO,
}


class TreePass:
    """Writes to both tables."""

    def __init__(self, final: Tree, inode_table: InodeTable, listing_table: MetadataWriter) -> None:
        self._final = final
        self._inodes = inode_table
        self._listings = listing_table

    def run(self) -> tuple[int, int]:
        """Write all. Returns where the root's inode is. Raises ImageInvalid for what the format has no room for."""
        open_directories = [self._enter(tree.ROOT)]
        while open_directories:
            directory, rows, subdirectories = open_directories[-1]
            below = next(subdirectories, None)
            if below is not None:
                open_directories.append(self._enter(below))
                continue
            open_directories.pop()
            self._finish(directory, rows)
        block, offset, _ = self._inodes.place(tree.ROOT)
        return block, offset

    def _enter(self, directory: int) -> tuple[int, list[int], Iterator[int]]:
        """A directory, its entries in the order of their names, and those that are directories."""
        self._inodes.give_number(directory)
        children, kinds = self._final.children.get(directory, {}), self._final.kinds
        rows = [children[name] for name in sorted(children)]
        return directory, rows, iter([row for row in rows if kinds[row] == tree.DIRECTORY])

    def _finish(self, directory: int, rows: list[int]) -> None:
        """Write a directory's listing, and its inode."""
        listing = write_listing(self._listings, self._entries(rows))
        kinds = self._final.kinds
        links = 2 + sum(kinds[row] == tree.DIRECTORY for row in rows)
        parent = self._inodes.number(self._final.parents[directory])
        self._inodes.add(directory, inodes.directory(self._inodes.common(directory, links), listing, parent))

    def _entries(self, rows: list[int]) -> Iterator[Entry]:
        final, place = self._final, self._inodes.place
        for row in rows:
            inode = final.inodes.get(row, row)
            kind = final.kinds[inode]
            if kind != tree.DEVICE:
                yield final.names[row], *place(inode), _KINDS[kind]
