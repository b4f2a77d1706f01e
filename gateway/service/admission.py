"""Bounds on connections: of all callers together and of each, over all processes of the gateway; and on their files.

A connection holds one slot of each bound, and a slot is a lock. A process knows the slots that it holds itself, so its
first try nearly always succeeds. Open files, and uploads that they hold, are a process's own, and counted in it.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Self

from gateway.store.locks import Holder, Locks
from udiroot.errors import UpstreamFailed


class Admission:
    """Hands out slots, to all threads of a process."""

    def __init__(
        self, locks: Locks, total: int, per_caller: int, files: int = 1000, upload_bytes: int = 1 << 40
    ) -> None:
        """`files` and `upload_bytes` are what the pulls of one user may have together."""
        self._locks = locks
        self._total = total
        self._per_caller = per_caller
        self._mutex = threading.Lock()
        self._taken: set[tuple[str, int]] = set()
        self._most = {"files": files, "bytes": upload_bytes}
        self._used: dict[str, Counter[int]] = {"files": Counter(), "bytes": Counter()}

    def admit_files(self, uid: int, files: int, size: int, held: contextlib.ExitStack) -> None:
        """Count further open files of a user, and the bytes of uploads in them, until `held` is closed.

        Raises UpstreamFailed above a bound.
        """
        with self._mutex:
            for what, count, limit in (
                ("files", files, "limit set by gateway.files_per_user"),
                ("bytes", size, "limit set by gateway.max_image_bytes, for all uploads of one user at a time"),
            ):
                if self._used[what][uid] + count > self._most[what]:
                    message = f"your pulls have more than {self._most[what]} {what} open at the gateway"
                    raise UpstreamFailed(message, f"try again when they are done; {limit}")
            self._used["files"][uid] += files
            self._used["bytes"][uid] += size
        held.callback(self._release_files, uid, files, size)

    def _release_files(self, uid: int, files: int, size: int) -> None:
        with self._mutex:
            for what, count in (("files", files), ("bytes", size)):
                self._used[what][uid] -= count
                if not self._used[what][uid]:
                    del self._used[what][uid]

    def admit(self, caller: str) -> Admitted | None:
        """The slots of one connection, held until they are closed; None where there are too many connections."""
        admitted = Admitted(self, self._locks.holder())
        try:
            if admitted.take("all", self._total) and admitted.take(caller, self._per_caller):
                return admitted
        except BaseException:
            admitted.close()
            raise
        admitted.close()
        return None

    def take(self, holder: Holder, bound: str, limit: int | None = None) -> tuple[str, int] | None:
        """A free slot of a bound, which is a caller's where no limit is given; None where there is none."""
        for slot in ((bound, number) for number in range(self._per_caller if limit is None else limit)):
            with self._mutex:
                if slot not in self._taken and holder.try_take(self._locks.connection(*slot)):
                    self._taken.add(slot)
                    return slot
        return None

    def release(self, holder: Holder, slots: list[tuple[str, int]]) -> None:
        """Give slots back."""
        for slot in slots:
            holder.release(self._locks.connection(*slot))
        with self._mutex:
            self._taken.difference_update(slots)


class Admitted:
    """The slots of one connection. A context manager."""

    def __init__(self, admission: Admission, holder: Holder) -> None:
        self._admission = admission
        self._holder = holder
        self._slots: list[tuple[str, int]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, bound: str, limit: int | None = None) -> bool:
        """Take one more slot; False where there is none."""
        slot = self._admission.take(self._holder, bound, limit)
        if slot:
            self._slots.append(slot)
        return slot is not None

    def count_for(self, caller: str) -> None:
        """From here on, the connection is one of this caller, who has proved who that is: no longer of an address that
        many users share. Raises UpstreamFailed where the caller has too many."""
        if not self.take(caller):
            raise TooMany()
        self._admission.release(self._holder, [self._slots.pop(1)])

    def close(self) -> None:
        """Give all slots back."""
        self._admission.release(self._holder, self._slots)
        self._slots = []
        self._holder.close()


class TooMany(UpstreamFailed):
    """There are too many connections, of all callers or of one."""

    def __init__(self) -> None:
        super().__init__("the gateway has too many connections", "try again in a minute")
