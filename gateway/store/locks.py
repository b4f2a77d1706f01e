"""Locks between all processes and threads of the gateway on its machine.

Each lock is one byte of one file, at the place that the hash of its name gives (open file description locks, Linux
3.15). The kernel takes them back when their holder ends, however it ends, and no file is left to be cleaned up.

    store                  whoever writes references, facts or names of image files
    image <id>             shared: a pull is about to name this image; exclusive: it may be removed
    making <id>            the one conversion that makes this image
    conversion <key>       the one conversion of these very files
    temporary <name>       a file in the making
    worker <n>             one of gateway.service.workers
    connection …           bounds of connections
    system <name>          the one transfer to this system
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from udiroot.errors import ConfigError, TimedOut

_FLOCK = struct.Struct("hhqqi4x")
_PAUSE = 0.02


class Locks:
    """The lock file of one gateway."""

    def __init__(self, state: str) -> None:
        """Make the state folder where it is not there yet. Raises ConfigError."""
        self._path = f"{state}/locks"
        try:
            os.makedirs(state, mode=0o700, exist_ok=True)
            self.holder().close()
        except OSError as error:
            raise ConfigError(f"gateway.state: {state}: {(error.strerror or '').lower()}") from error

    def holder(self) -> Holder:
        """Somebody who can hold locks; not to be shared between threads."""
        return Holder(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))


class Holder:
    """Holds any number of locks until it is closed. A context manager."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        os.close(self._descriptor)

    def try_take(self, name: str, *, shared: bool = False) -> bool:
        """Take a lock if nobody else is in the way."""
        try:
            self._set(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, name)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: fcntl(2) allows both for "held by another"
            return False
        return True

    def take(
        self, name: str, *, shared: bool = False, seconds: float = 60.0, waiting: Callable[[], None] | None = None
    ) -> None:
        """Take a lock; `waiting` is called between tries. Raises TimedOut after `seconds`."""
        end = time.monotonic() + seconds
        while not self.try_take(name, shared=shared):
            if time.monotonic() > end:
                raise TimedOut(f"another gateway process holds the lock {name!r} for more than {seconds:.0f} s")
            if waiting:
                waiting()
            time.sleep(_PAUSE)

    def release(self, name: str) -> None:
        self._set(fcntl.F_UNLCK, name)

    def _set(self, kind: int, name: str) -> None:
        place = int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, place, 1, 0))
