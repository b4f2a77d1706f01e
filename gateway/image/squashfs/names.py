"""The tree pass: all inodes and listings, once it is known where the contents of files are.

The inodes of one directory's entries follow each other. So a directory is written in this order: what is in its
subdirectories, the inodes of its entries, its listing; its own inode is one of those of the directory that it is in.
"""

from __future__ import annotations

from collections.abc import Iterator

from gateway.image import tree
from gateway.image.squashfs import inodes
from gateway.image.squashfs.contents import Contents
from gateway.image.squashfs.directories import Entry, Listing, write_listing
from gateway.image.squashfs.inodes import NONE, Common
from gateway.image.squashfs.metadata import MetadataWriter
from gateway.image.squashfs.numbers import Numbers, names_of
from gateway.image.squashfs.superblock import IdTable
from gateway.image.squashfs.xattrs import XattrTable
from gateway.image.tree import Tree

_KINDS = {
    tree.DIRECTORY: inodes.DIRECTORY,
    tree.FILE: inodes.FILE,
    tree.SYMLINK: inodes.SYMLINK,
    tree.FIFO: inodes.FIFO,
}


class TreePass:
    """Writes to both tables. The tables of ids and attributes are filled meanwhile."""

    def __init__(
        self,
        final: Tree,
        numbers: Numbers,
        contents: Contents,
        block_size: int,
        ids: IdTable,
        xattrs: XattrTable,
        inode_table: MetadataWriter,
        listing_table: MetadataWriter,
    ) -> None:
        self._final = final
        self._numbers = numbers
        self._contents = contents
        self._block_size = block_size
        self._ids = ids
        self._xattrs = xattrs
        self._inodes = inode_table
        self._listings = listing_table
        self._done: dict[int, tuple[Listing, int]] = {}
        """Listings, and numbers of subdirectories, of directories whose inodes are not written."""
        self._places: dict[int, tuple[int, int]] = {}
        """Where the inodes are that have several names."""

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
        place = self._inodes.place()
        self._inodes.add(self._directory(tree.ROOT))
        return place

    def _enter(self, directory: int) -> tuple[int, list[int], Iterator[int]]:
        """A directory, its entries, and those that are directories."""
        rows = names_of(self._final, directory)
        kinds = self._final.kinds
        return directory, rows, iter([row for row in rows if kinds[row] == tree.DIRECTORY])

    def _finish(self, directory: int, rows: list[int]) -> None:
        entries = [self._entry(row) for row in rows]
        subdirectories = sum(entry[4] == inodes.DIRECTORY for entry in entries)
        self._done[directory] = write_listing(self._listings, entries), subdirectories

    def _entry(self, row: int) -> Entry:
        """Write the inode of a name, unless another name did."""
        final = self._final
        inode = final.inodes.get(row, row)
        kind = final.kinds[inode]
        place = self._places.get(inode)
        if place is None:
            place = self._inodes.place()
            if inode in self._numbers.names:
                self._places[inode] = place
            self._inodes.add(self._directory(row) if kind == tree.DIRECTORY else self._inode(inode, kind))
        return final.names[row], *place, self._numbers[inode], _KINDS[kind]

    def _inode(self, inode: int, kind: int) -> bytes:
        common = self._common(inode, self._numbers.names.get(inode, 1))
        if kind == tree.SYMLINK:
            return inodes.symlink(common, self._final.targets[inode])
        if kind == tree.FIFO:
            return inodes.fifo(common)
        contents, size = self._contents, self._final.sizes[inode]
        words = contents.words(inode)
        sparse = contents.zeros.get(inode, 0) * self._block_size
        if sparse and not words[-1]:
            sparse -= -size % self._block_size
        return inodes.file(common, size, contents.starts[inode], contents.fragment(inode), words.tobytes(), sparse)

    def _directory(self, row: int) -> bytes:
        listing, subdirectories = self._done.pop(row)
        return inodes.directory(self._common(row, 2 + subdirectories), listing, self._numbers[self._final.parents[row]])

    def _common(self, inode: int, links: int) -> Common:
        final = self._final
        user, group = final.owner_pairs[final.owners[inode]]
        xattrs = final.xattrs.get(inode)
        return Common(
            final.modes[inode],
            self._ids.place(user),
            self._ids.place(group),
            final.mtimes[inode],
            self._numbers[inode],
            links,
            self._xattrs.number(xattrs) if xattrs else NONE,
        )
