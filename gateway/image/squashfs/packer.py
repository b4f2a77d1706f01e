"""Bytes of files to blocks."""

from __future__ import annotations

from gateway.image.squashfs.compressors import Compress

STORED = 1 << 24
"""The bit of a block's word that says that it is not compressed; the other bits are its size."""


class Packer:
    """Packs in place: a block is never longer than the bytes that it is made of. For one thread."""

    def __init__(self, compress: Compress, block_size: int) -> None:
        self._compress = compress
        self._block_size = block_size
        self._zeros = bytes(block_size)

    def blocks(self, data: memoryview) -> tuple[int, list[int]]:
        """Replace the bytes of a file by its blocks, one after the other. Returns how many bytes those take, and the
        word of each; one of zeros has no bytes, and 0 as its word."""
        end, words = 0, []
        for at in range(0, len(data), self._block_size):
            block = data[at : at + self._block_size]
            if not block[0] and bytes(block) == self._zeros[: len(block)]:  # a view would be compared item by item
                words.append(0)
                continue
            size, word = self._pack(block, data[end:])
            end += size
            words.append(word)
        return end, words

    def whole(self, data: memoryview) -> tuple[int, list[int]]:
        """Replace the bytes by one block, whatever is in it."""
        size, word = self._pack(data, data)
        return size, [word]

    def _pack(self, block: memoryview, place: memoryview) -> tuple[int, int]:
        """Put a block to its place, which may be where its bytes are, but not behind that."""
        packed = self._compress(block)
        size = min(len(packed), len(block))
        if len(packed) < len(block):
            place[:size] = packed
            return size, size
        place[:size] = block
        return size, size | STORED
