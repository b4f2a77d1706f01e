"""The inodes of files, links and pipes: written while the contents of later files are still being compressed."""

from __future__ import annotations

from gateway.image import tree
from gateway.image.reached import Reached
from gateway.image.squashfs import inodes
from gateway.image.squashfs.contents import Contents
from gateway.image.squashfs.places import InodeTable
from gateway.image.tree import Tree


class FileInodes:
    """Writes them in the order of their rows, which is that of the layers, so that the same tree gives the same bytes
    whichever thread is first."""

    def __init__(self, final: Tree, reached: Reached, contents: Contents, block_size: int, table: InodeTable) -> None:
        self._final = final
        self._reached = reached
        self._contents = contents
        self._block_size = block_size
        self._table = table
        self._next = 0

    def write_before(self, end: int) -> None:
        """Write those of rows before `end` that are not written: the contents of all of them have their places."""
        marks = self._reached.marks
        row = marks.find(1, self._next, end)
        while row >= 0:
            self._table.give_number(row)
            self._table.add(row, self._inode(row))
            row = marks.find(1, row + 1, end)
        self._next = end

    def _inode(self, row: int) -> bytes:
        common = self._table.common(row, self._reached.names.get(row, 1))
        kind = self._final.kinds[row]
        if kind == tree.SYMLINK:
            return inodes.symlink(common, self._final.targets[row])
        if kind == tree.FIFO:
            return inodes.fifo(common)
        contents, size = self._contents, self._final.sizes[row]
        words = contents.words(row)
        sparse = contents.zeros.get(row, 0) * self._block_size
        if sparse and not words[-1]:
            sparse -= -size % self._block_size
        return inodes.file(common, size, contents.starts[row], contents.fragment(row), words.tobytes(), sparse)
