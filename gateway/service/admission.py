"""Bounds on connections: of all callers together and of each, over all processes of the gateway.

A connection holds one slot of each bound, and a slot is a lock. A process knows the slots that it holds itself, so its
first try nearly always succeeds.
"""

from __future__ import annotations

import contextlib
import threading

from gateway.store.locks import Holder, Locks


class Admission:
    """Hands out slots, to all threads of a process."""

    def __init__(self, locks: Locks, total: int, per_caller: int) -> None:
        self._locks = locks
        self._total = total
        self._per_caller = per_caller
        self._mutex = threading.Lock()
        self._taken: set[tuple[str, int]] = set()

    def admit(self, caller: str) -> contextlib.ExitStack | None:
        """The slots of one connection, held until the stack is closed; None where there are too many connections."""
        holder = self._locks.holder()
        slots: list[tuple[str, int]] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self._release, holder, slots)
            for bound, limit in (("all", self._total), (caller, self._per_caller)):
                slot = self._take(holder, bound, limit)
                if slot is None:
                    return None
                slots.append(slot)
            return stack.pop_all()

    def _take(self, holder: Holder, bound: str, limit: int) -> tuple[str, int] | None:
        for slot in ((bound, number) for number in range(limit)):
            with self._mutex:
                if slot not in self._taken and holder.try_take(self._locks.connection(*slot)):
                    self._taken.add(slot)
                    return slot
        return None

    def _release(self, holder: Holder, slots: list[tuple[str, int]]) -> None:
        holder.close()
        with self._mutex:
            self._taken.difference_update(slots)
