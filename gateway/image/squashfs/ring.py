"""Places in a buffer that are taken and freed in the same order, each in one piece."""

from __future__ import annotations

from collections import deque


class Ring:
    """The places of a buffer of `size` bytes, of which at most `most` are taken."""

    def __init__(self, size: int, most: int) -> None:
        self._size = size
        self._most = most
        self._taken: deque[tuple[int, int]] = deque()
        """Start and end of each, the oldest first."""

    def room(self, count: int) -> int | None:
        """Where `count` bytes have room now."""
        if not self._taken:
            return 0 if count <= self._size else None
        if len(self._taken) >= self._most:
            return None
        oldest, _ = self._taken[0]
        start, end = self._taken[-1]
        if start < oldest:
            return end if end + count <= oldest else None
        if end + count <= self._size:
            return end
        return 0 if count <= oldest else None

    def take(self, count: int) -> int:
        """Take a place of `count` bytes, more than none, for which there is room. Returns where it is."""
        place = self.room(count)
        assert place is not None, "there is no room"
        self._taken.append((place, place + count))
        return place

    def free(self) -> tuple[int, int]:
        """Free the place that was taken first. Returns where it is, and how many bytes it has."""
        start, end = self._taken.popleft()
        return start, end - start
