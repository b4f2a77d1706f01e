"""What compressed layers expand to, kept in memory for the two passes over them.

Each pass would decompress a layer again. Here threads decompress several layers at the same time, into files of memory
(memfd_create(2)), which are then read, and checked, like layers that were never compressed. What all of them may take
together is bounded; which ones find room may differ from run to run, and the image does not depend on it.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Self

from gateway.image.blob import Blob
from gateway.image.layers import Budget, Layer, chunks

_MOST_THREADS = 4
"""Layers that are expanded at a time."""


class KeptLayers:
    """The kept layers of one conversion, of at most `most` bytes together. A context manager: at its end they are free,
    and no thread is left."""

    def __init__(self, most: int) -> None:
        self._room = _Room(most)
        self._descriptors: list[int] = []
        self._begun: dict[int, Future[Layer]] = {}
        self._threads = ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0))), "expanding")
        self._given_up = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        self._threads.shutdown(cancel_futures=True)
        for descriptor in self._descriptors:
            os.close(descriptor)

    def begin(self, layers: Sequence[Layer], budget: Budget, progress: Callable[[int], None]) -> None:
        """Start to expand those of the layers that are compressed, the lowest first. Several threads use `budget` and
        `progress`."""
        for layer in layers:
            if not layer.is_plain():
                self._begun[layer.number] = self._threads.submit(self._expand, layer, budget, progress)

    def expanded(self, layer: Layer) -> Layer:
        """The layer as it is to be read, and checked, from now on: the kept one, if there was room for all of it.

        Waits for it. Raises ImageInvalid: a damaged layer, or more bytes than the budget has.
        """
        begun = self._begun.pop(layer.number, None)
        return begun.result() if begun else layer

    def _expand(self, layer: Layer, budget: Budget, progress: Callable[[int], None]) -> Layer:
        if not self._room.has(layer.blob.size):
            return layer
        keeping = Keeping(os.memfd_create(f"udi-{layer.number}", os.MFD_CLOEXEC), self._room)
        self._descriptors.append(keeping.descriptor)
        produced = 0
        for chunk in chunks(layer, budget):
            produced += len(chunk)
            if self._given_up.is_set() or not keeping.write(chunk):
                budget.refund(produced)
                return layer
            progress(len(chunk))
        return dataclasses.replace(layer, blob=Blob(keeping.descriptor, 0, keeping.size), is_expanded=True)


class _Room:
    """The bytes that are left for layers, shared by threads."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = threading.Lock()

    def has(self, count: int) -> bool:
        with self._lock:
            return count < self._left

    def take(self, count: int) -> bool:
        """Whether there was room for so many bytes; they are taken then."""
        with self._lock:
            fits = count <= self._left
            self._left -= count if fits else 0
            return fits

    def give_back(self, count: int) -> None:
        with self._lock:
            self._left += count


class Keeping:
    """One layer's bytes on their way into memory."""

    def __init__(self, descriptor: int, room: _Room) -> None:
        self.descriptor = descriptor
        self.size = 0
        self._room = room

    def write(self, chunk: bytes) -> bool:
        """Keep more of the layer. False where it does not fit, or the kernel has no memory for it: then the whole is
        given up."""
        if self._room.take(len(chunk)):
            self.size += len(chunk)
            try:
                _write_all(self.descriptor, chunk)
                return True
            except OSError:
                pass
        os.ftruncate(self.descriptor, 0)
        self._room.give_back(self.size)
        return False


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
