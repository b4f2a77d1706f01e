"""Blocks of fragments: the contents of small files, put together until a block is full."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.image.squashfs.output import Output
from gateway.image.squashfs.pipeline import Pipeline
from gateway.image.squashfs.superblock import FragmentTable


class Fragments:
    """The block that is being filled, and the table of those that are written."""

    def __init__(self, pipeline: Pipeline, output: Output, block_size: int) -> None:
        self._pipeline = pipeline
        self._output = output
        self._block_size = block_size
        self._open = bytearray()
        self._number = 0
        self.table = FragmentTable()

    def add(self, data: bytes) -> tuple[int, int]:
        """Add a file's contents, less than a block. Returns the number of their block, and the offset in it."""
        if len(self._open) + len(data) > self._block_size:
            self.finish()
        offset = len(self._open)
        self._open += data
        return self._number, offset

    def finish(self) -> None:
        """Give the block to be compressed, unless it is empty."""
        if not self._open:
            return
        block, self._open = self._open, bytearray()
        self._number += 1
        self._pipeline.give(block, self._written, is_whole=True)

    def _written(self, data: memoryview, words: Sequence[int]) -> None:
        self.table.add(self._output.position, words[0])
        self._output.add(data)
