"""A file that one thread receives and others read at the same time: each read waits for its bytes.

What is read is not verified yet: its sha256 is known when all of it is here. Whoever reads may prepare what must not
be used until the receiver has verified the whole.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Self

from gateway.image.blob import Blob


class BegunAnew(Exception):
    """What was read is worth nothing: the file is received again from its first byte."""


class NeverArrived(Exception):
    """The rest of the file will not come. Why is the receiver's to say."""


class Arrival:
    """How far a file has come that `descriptor` is open on, and that has `size` bytes in the end. For any threads."""

    def __init__(self, descriptor: int, size: int) -> None:
        self._descriptor, self._size = descriptor, size
        self._here = self._beginnings = 0
        self._ended = False
        self._changed = threading.Condition()

    @classmethod
    def whole(cls, descriptor: int, size: int) -> Self:
        """A file that is here already."""
        arrival = cls(descriptor, size)
        arrival.came(size)
        arrival.ends()
        return arrival

    def came(self, here: int) -> None:
        """The receiver has written the first `here` bytes."""
        with self._changed:
            self._here = here
            self._changed.notify_all()

    def begins_again(self) -> None:
        """The receiver begins at the first byte again. To be called before the file changes."""
        with self._changed:
            self._here = 0
            self._beginnings += 1
            self._changed.notify_all()

    def ends(self) -> None:
        """Nothing more comes, whether all is here or not."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def blob(self) -> ArrivingBlob:
        """The file, as it is received now."""
        with self._changed:
            return ArrivingBlob(self._descriptor, 0, self._size, self, self._beginnings)

    def wait_for_the_end(self, beginning: int) -> None:
        """Until the receiver has said that nothing more comes, and all is here. Raises BegunAnew and NeverArrived."""
        with self._changed:
            self._changed.wait_for(lambda: self._ended or self._beginnings != beginning)
        self.wait(beginning, self._size)

    def wait(self, beginning: int, end: int) -> None:
        """Until the first `end` bytes are here. Raises BegunAnew where they no longer belong to that beginning, and
        NeverArrived."""
        with self._changed:
            self._changed.wait_for(lambda: self._here >= end or self._ended or self._beginnings != beginning)
            if self._beginnings != beginning:
                raise BegunAnew
            if self._here < end:
                raise NeverArrived


@dataclass(frozen=True)
class ArrivingBlob(Blob):
    """A file that is being received. Reading it raises BegunAnew and NeverArrived."""

    arrival: Arrival
    beginning: int

    def read_at(self, position: int, count: int) -> bytes:
        """As of a file that is here, once all those bytes are."""
        end = min(position + count, self.size)
        self.arrival.wait(self.beginning, end)
        piece = super().read_at(position, count)
        self.arrival.wait(self.beginning, end)  # the file may have changed meanwhile
        return piece

    def wait_for_the_end(self) -> None:
        """Until the receiver has ended: whether the file is right is known then. Raises BegunAnew and NeverArrived."""
        self.arrival.wait_for_the_end(self.beginning)
