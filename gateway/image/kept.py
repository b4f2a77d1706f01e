"""What compressed layers expand to, kept in memory for the two passes over them.

Each pass would decompress a layer again. Here threads decompress several layers at the same time, into files that are
in memory only, which are then read, and checked, like layers that were never compressed. A layer that is still being
fetched is expanded as it arrives. What all of them may take together is bounded; which ones find room may differ from
run to run, and the image does not depend on it.
"""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Self

from gateway.image.arriving import Arrival, BegunAnew, NeverArrived
from gateway.image.blob import Blob
from gateway.image.layers import Layer, chunks
from gateway.image.limits import Limits
from gateway.image.memory import memory_file

if TYPE_CHECKING:
    from udi.gatewayconfig import GatewayConfig

_MOST_THREADS = 4
"""Layers that are expanded at a time."""
_Place = tuple[int, int, int]
"""Descriptor, offset and size of a layer: one that an image has twice is expanded once."""


class KeptLayers:
    """The kept layers of one conversion, of at most `most` bytes together. A context manager: at its end they are free,
    and no thread is left.

    `budget` is that of the pass in which the layers are expanded.
    """

    def __init__(self, most: int, limits: Limits) -> None:
        self.budget = limits.budget()
        self._room = _Room(most)
        self._descriptors: list[int] = []
        self._arrivals: list[Arrival] = []
        self._begun: dict[_Place, Future[Blob | None]] = {}
        self._used: set[_Place] = set()
        self._produced = _Produced()
        self._threads = ThreadPoolExecutor(min(_MOST_THREADS, len(os.sched_getaffinity(0))), "expanding")
        self._given_up = threading.Event()

    @classmethod
    def of(cls, settings: GatewayConfig) -> Self:
        """Within the bounds of the site."""
        return cls(settings.layer_memory_bytes, Limits.of(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._given_up.set()
        for arrival in self._arrivals:
            arrival.ends()
        self._threads.shutdown(cancel_futures=True)
        for descriptor in self._descriptors:
            os.close(descriptor)

    def free(self) -> None:
        """Free the memory of all layers: nobody reads them any more, though others may have them open."""
        for descriptor in self._descriptors:
            os.ftruncate(descriptor, 0)

    def arriving(self, number: int, arrival: Arrival) -> None:
        """Start to expand the layer of that number while it arrives."""
        self._arrivals.append(arrival)
        self._begun[_place(arrival.blob())] = self._threads.submit(self._expand_arriving, number, arrival)

    def begin(self, layers: Sequence[Layer], progress: Callable[[int], None]) -> None:
        """Start to expand those of the layers that are compressed, the lowest first. `progress`, which several threads
        call, one at a time, gets also the bytes of those that were begun before."""
        self._produced.tell(progress)
        for layer in layers:
            if _place(layer.blob) not in self._begun and not layer.is_plain():
                self._begun[_place(layer.blob)] = self._threads.submit(self._expand, layer)

    def expanded(self, layer: Layer) -> Layer:
        """The layer as it is to be read, and checked, from now on: the kept one, if there was room for all of it.

        Waits for it. Raises ImageInvalid: a damaged layer, or more bytes than the budget has.
        """
        begun = self._begun.get(_place(layer.blob))
        blob = begun.result() if begun else None
        if not blob:
            return layer
        if _place(layer.blob) in self._used:
            self.budget.spend(blob.size)  # the image has all of it once more
        self._used.add(_place(layer.blob))
        return dataclasses.replace(layer, blob=blob, is_expanded=True)

    def _expand_arriving(self, number: int, arrival: Arrival) -> Blob | None:
        while True:
            blob = arrival.blob()
            try:
                layer = Layer(blob, "", number)
                try:
                    return None if layer.is_plain() else self._expand(layer)
                finally:
                    blob.wait_for_the_end()  # what is wrong with the layer may be wrong with this transfer only
            except BegunAnew:
                continue
            except NeverArrived:
                return None  # the receiver says why

    def _expand(self, layer: Layer) -> Blob | None:
        if not self._room.has(layer.blob.size):
            return None
        keeping = Keeping(memory_file(f"udi-{layer.number}"), self._room)
        self._descriptors.append(keeping.descriptor)
        produced, blob = 0, None
        try:
            for chunk in chunks(layer, self.budget):
                produced += len(chunk)
                if self._given_up.is_set() or not keeping.write(chunk):
                    break
                self._produced.add(len(chunk))
            else:
                blob = Blob(keeping.descriptor, 0, keeping.size)
        finally:
            if not blob:
                self.budget.refund(produced)
                keeping.drop()
        return blob


def _place(blob: Blob) -> _Place:
    return blob.descriptor, blob.offset, blob.size


class _Produced:
    """The bytes that came out of layers, for whoever wants to know, from then on."""

    def __init__(self) -> None:
        self._progress: Callable[[int], None] | None = None
        self._untold = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            if self._progress:
                self._progress(count)
            else:
                self._untold += count

    def tell(self, progress: Callable[[int], None]) -> None:
        with self._lock:
            self._progress = progress
            progress(self._untold)


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
        """Keep more of the layer. False where it does not fit, or the kernel has no memory for it."""
        if self._room.take(len(chunk)):
            self.size += len(chunk)
            try:
                _write_all(self.descriptor, chunk)
                return True
            except OSError:
                pass
        return False

    def drop(self) -> None:
        """Keep nothing of it."""
        os.ftruncate(self.descriptor, 0)
        self._room.give_back(self.size)
        self.size = 0


def _write_all(descriptor: int, chunk: bytes) -> None:
    rest = memoryview(chunk)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
