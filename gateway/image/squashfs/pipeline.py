"""Packing beside the decision of what goes where, with results in the order in which pieces were given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from gateway.image.squashfs.packers import Packers
from gateway.image.squashfs.pieces import Piece, size_of

_LARGEST = 1 << 20
_NOTHING = memoryview(b"")

Done = Callable[[memoryview, Sequence[int]], None]
"""Called with blocks one after the other, which are valid until it returns, and with the word of each."""


def largest_piece(block_size: int) -> int:
    """Bytes of a piece, but for one of zeros: whole blocks."""
    return max(_LARGEST, block_size)


class Pipeline:
    """Pieces on their way to packers, and their blocks on the way back."""

    def __init__(self, packers: Sequence[Packers], block_size: int) -> None:
        self._packers = packers
        self._block_size = block_size
        self._given: deque[tuple[Packers, Done] | Callable[[], None]] = deque()
        self.largest = largest_piece(block_size)

    def give(self, piece: Piece, done: Done, is_whole: bool = False) -> None:
        """Have a piece packed, as one block if `is_whole`, and `done` called here with its blocks, after those of all
        pieces before.

        Raises ImageInvalid, UpstreamFailed, MemoryError, OSError, and what `done` raises.
        """
        if isinstance(piece, int):
            words = [0] * -(-piece // self._block_size)
            self._given.append(lambda: done(_NOTHING, words))
            return
        size = size_of(piece)
        while not (ready := [each for each in self._packers if each.has_room(size)]):
            self._take()
        packer = min(ready, key=lambda each: each.waiting)
        packer.give(piece, is_whole)
        self._given.append((packer, done))

    def then(self, step: Callable[[], None]) -> None:
        """Have `step` called here once all pieces before are packed."""
        self._given.append(step)

    def finish(self) -> None:
        """Wait for all that was given."""
        while self._given:
            self._take()

    def _take(self) -> None:
        first = self._given.popleft()
        if callable(first):
            first()
            return
        packer, done = first
        done(*packer.take())
