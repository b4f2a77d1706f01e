"""Where the contents of each file are in the image: its blocks, or a part of a block of fragments."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

from gateway.image.squashfs.inodes import NONE


class Contents:
    """Columns by the row of the tree; 16 bytes a row, and 4 a block."""

    def __init__(self, rows: int) -> None:
        self.starts = array("Q", bytes(8 * rows))
        self.fragments = array("I", [NONE]) * rows
        self.offsets = array("I", bytes(4 * rows))
        self.zeros: dict[int, int] = {}
        """How many blocks of zeros a file has; those are not stored."""
        self._words = array("I")
        self._places: dict[int, tuple[int, int]] = {}

    def fragment(self, row: int) -> tuple[int, int]:
        """The block of fragments, and the offset in it."""
        return self.fragments[row], self.offsets[row]

    def words(self, row: int) -> array[int]:
        """The words of a file's blocks."""
        first, count = self._places.get(row, (0, 0))
        return self._words[first : first + count]

    def put(self, row: int, fragment: tuple[int, int]) -> None:
        """Say where a small file's contents are."""
        self.fragments[row], self.offsets[row] = fragment

    def begin(self, row: int, start: int) -> None:
        """A large file's blocks are from `start` on; the next words are those of this file."""
        self.starts[row] = start
        self._places[row] = len(self._words), 0

    def extend(self, row: int, words: Sequence[int]) -> None:
        """More words of the file that was begun last."""
        self._words.extend(words)
        first, _ = self._places[row]
        self._places[row] = first, len(self._words) - first
        zeros = words.count(0)
        if zeros:
            self.zeros[row] = self.zeros.get(row, 0) + zeros

    def share(self, row: int, other: int) -> None:
        """Give the file that was begun last the blocks of another one; its own words are forgotten."""
        first, _ = self._places[row]
        del self._words[first:]
        self._places[row] = self._places[other]
        self.starts[row] = self.starts[other]

    def share_fragment(self, row: int, other: int) -> None:
        """Give a small file the contents of another one."""
        self.fragments[row], self.offsets[row] = self.fragments[other], self.offsets[other]
