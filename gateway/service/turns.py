"""Whose conversion starts next: slots for workers, shared fairly between users, over all processes of the gateway.

A conversion cannot be taken back once it runs. So no user but root has all slots where there is more than one, and a
slot that becomes free goes to the user who has the fewest, and among those to the one whose last one is longest ago.
Of one user's own conversions, one at a time waits for a slot.

Slots and turns are locks. The state directory has an empty file for each user, which shows who may be waiting; its time
is when that user last got a slot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from gateway.store.locks import Holder, Locks

_PAUSE = 0.05
"""Seconds between two looks for a slot."""


class Turns:
    """Hands out the slots of `workers` workers to `most` pulls that can be in progress at the same time."""

    def __init__(self, locks: Locks, state: str, workers: int, most: int = 256) -> None:
        self._locks = locks
        self._directory = f"{state}/turns"
        self._workers = workers
        self._most = most

    def take(self, holder: Holder, uid: int, waiting: Callable[[], None]) -> None:
        """Take a slot for a conversion of `uid`; it is free again when `holder` is closed.

        `waiting` is called between tries.
        """
        place = next((n for n in range(self._most) if holder.try_take(self._locks.queued(n))), None)
        self._wait(holder, uid, waiting)
        if place is not None:
            holder.release(self._locks.queued(place))

    def queue(self, holder: Holder) -> int:
        """How many pulls wait for a slot now, in all processes."""
        return sum(holder.is_held_by_another(self._locks.queued(number)) for number in range(self._most))

    def busy(self, holder: Holder) -> int:
        """How many conversions have a slot now."""
        return sum(holder.is_held_by_another(self._locks.worker(number)) for number in range(self._workers))

    def _wait(self, holder: Holder, uid: int, waiting: Callable[[], None]) -> None:
        while not holder.try_take(self._locks.turn(uid)):
            waiting()
            time.sleep(_PAUSE)
        own = self._file(uid)
        while not self._try(holder, uid):
            waiting()
            time.sleep(_PAUSE)
        os.utime(own)
        holder.release(self._locks.turn(uid))

    def _try(self, holder: Holder, uid: int) -> bool:
        """Take a slot if one is free and nobody else's turn is before this user's."""
        slot = next((n for n in range(self._workers) if holder.try_take(self._locks.worker(n))), None)
        if slot is None:
            return False
        part = next((n for n in range(self._share(uid)) if holder.try_take(self._locks.share(uid, n))), None)
        if part is not None:
            mine = self._rank(holder, uid)
            if all(mine <= self._rank(holder, other) for other in self._others(holder, uid)):
                return True
            holder.release(self._locks.share(uid, part))
        holder.release(self._locks.worker(slot))
        return False

    def _rank(self, holder: Holder, uid: int) -> tuple[int, int, int]:
        """Who is lower is served first: by slots that others of the same user hold, then by the time of the last."""
        return self._running(holder, uid), os.stat(f"{self._directory}/{uid}").st_mtime_ns, uid

    def _running(self, holder: Holder, uid: int) -> int:
        return sum(holder.is_held_by_another(self._locks.share(uid, number)) for number in range(self._share(uid)))

    def _share(self, uid: int) -> int:
        """Slots that one user may have; root pulls for the site, and may have all."""
        return self._workers if uid == 0 else max(1, self._workers - 1)

    def _others(self, holder: Holder, uid: int) -> list[int]:
        """Further users who wait, and may have a slot."""
        return [
            other
            for other in map(int, os.listdir(self._directory))
            if other != uid
            and holder.is_held_by_another(self._locks.turn(other))
            and self._running(holder, other) < self._share(other)
        ]

    def _file(self, uid: int) -> str:
        """The user's file; one that never had a slot comes first."""
        path = f"{self._directory}/{uid}"
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            os.utime(path, (0, 0))
        except FileExistsError:
            pass
        return path
