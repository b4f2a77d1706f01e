"""What compressed layers expand to, kept in memory between the two passes over them.

Each pass would decompress a layer again. A file of memory (memfd_create(2)) is written by the thread that digests the
layer meanwhile, and is then read like a layer that was never compressed. Layers that do not fit into the bound of one
conversion are decompressed twice.
"""

from __future__ import annotations

import dataclasses
import os
from typing import Self

from gateway.image.blob import Blob
from gateway.image.layers import Layer


class KeptLayers:
    """The kept layers of one conversion, of at most `most` bytes together. A context manager: then it is free."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._descriptors: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def keeping(self, layer: Layer) -> Keeping | None:
        """Where the layer's bytes are to be written as they are read; None where it cannot fit."""
        if layer.blob.size >= self._left:
            return None
        descriptor = os.memfd_create(f"udi-{layer.number}", os.MFD_CLOEXEC)
        self._descriptors.append(descriptor)
        return Keeping(descriptor, self._left)

    def kept(self, layer: Layer, keeping: Keeping) -> Layer:
        """The layer as it is to be read from now on: the kept one, if all of it is there."""
        if not keeping.is_complete:
            return layer
        self._left -= keeping.size
        return dataclasses.replace(layer, blob=Blob(keeping.descriptor, 0, keeping.size), is_expanded=True)


class Keeping:
    """One layer's bytes on their way into memory."""

    def __init__(self, descriptor: int, most: int) -> None:
        self.descriptor = descriptor
        self.size = 0
        self.is_complete = True
        self._most = most

    def write(self, chunk: bytes) -> None:
        """More of the layer. What does not fit, or the kernel has no memory for, gives up the whole."""
        if not self.is_complete:
            return
        self.size += len(chunk)
        try:
            self.is_complete = self.size <= self._most and _write_all(self.descriptor, chunk)
        except OSError:
            self.is_complete = False
        if not self.is_complete:
            os.ftruncate(self.descriptor, 0)


def _write_all(descriptor: int, chunk: bytes) -> bool:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
    return True
