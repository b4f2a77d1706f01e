"""Taking flock(2) without waiting in the kernel, where no deadline of ours is heeded."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from udi.command import Deadline
    from udiroot.errors import TimedOut

_PAUSE = 0.02


def try_lock(descriptor: int) -> bool:
    """Take the exclusive lock on an open file, which goes with the descriptor; False where another holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def locked(path: str, opened: Callable[[], int], deadline: Deadline, refusal: TimedOut) -> Iterator[None]:
    """Hold the exclusive lock on the file or directory at `path`, of which `opened` makes a descriptor.

    The lock goes with the process that held it, however that ended. What its last holder removed is opened again: a
    lock on it would keep nobody out. Raises `refusal` at the deadline, and what `opened` raises.
    """
    while True:
        descriptor = opened()
        try:
            if try_lock(descriptor) and _is_at(path, descriptor):
                yield
                return
        finally:
            os.close(descriptor)
        if deadline.passed:
            raise refusal
        time.sleep(_PAUSE)


def _is_at(path: str, descriptor: int) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    return False
