"""Locks between all processes and threads of the gateway on its machine.

Each lock is one byte of one file, at the offset that the hash of its name gives (open file description locks, Linux
3.15). The kernel releases them when their holder exits, however it exits, and no file is left to be cleaned up.

    store                       writes of references, facts and names of image files
    image IMAGE_ID              shared: a pull is about to name this image; exclusive: it may be removed
    making IMAGE_ID             the one conversion that makes this image
    conversion KEY              the one conversion of one source, by the hash of its identity
    temporary NAME              a file that is being written in the image store
    worker NUMBER               one of the conversions that may run at the same time
    queued NUMBER               one of the pulls that wait for a worker, for whoever counts them
    turn UID                    the one conversion of this user that waits for a worker
    share UID NUMBER            one of the conversions of this user that may run at the same time
    connection WHO NUMBER       one of the connections that all callers together (all), or one of them, may have
    system NAME                 the one transfer to this replica system
    layer REGISTRY DIGEST       the one download of this layer
    credentials UID             writes of this user's credentials
    pull NUMBER                 the request for an image that has this number in the history
    rescan                      the one rescan of the store's images
    history                     schema and recovery of the history's database
    metrics                     the one writer of the figures for node_exporter
    serve                       the one service that listens on the socket
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from udi.oserrors import reason
from udiroot.errors import ConfigError, TimedOut

_FLOCK = struct.Struct("hhqqi4x")
_PAUSE = 0.02


@dataclass(frozen=True)
class LockName:
    """The name of one lock; made by `Locks` and nowhere else."""

    text: str

    @property
    def offset(self) -> int:
        """Which byte of the file the lock is."""
        return int.from_bytes(hashlib.sha256(self.text.encode()).digest()[:7], "big")


class Locks:
    """The lock file of one gateway, and the names of its locks: the docstrings below are the table above."""

    def __init__(self, state: str) -> None:
        """Make the state directory where it does not exist. Raises ConfigError."""
        self._path = f"{state}/locks"
        try:
            os.makedirs(state, mode=0o700, exist_ok=True)
            self.holder().close()
        except OSError as error:
            raise ConfigError(f"gateway.state: {state}: {reason(error)}") from error

    def holder(self) -> Holder:
        """Something that can hold locks; not to be shared between threads."""
        return Holder(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))

    @staticmethod
    def store() -> LockName:
        """Writes of references, facts and names of image files."""
        return LockName("store")

    @staticmethod
    def image(image_id: str) -> LockName:
        """Shared: a pull is about to name this image; exclusive: it may be removed."""
        return LockName(f"image {image_id}")

    @staticmethod
    def making(image_id: str) -> LockName:
        """The one conversion that makes this image."""
        return LockName(f"making {image_id}")

    @staticmethod
    def conversion(key: str) -> LockName:
        """The one conversion of one source, by the hash of its identity."""
        return LockName(f"conversion {key}")

    @staticmethod
    def temporary(name: str) -> LockName:
        """A file that is being written in the image store."""
        return LockName(f"temporary {name}")

    @staticmethod
    def worker(number: int) -> LockName:
        """One of the conversions that may run at the same time."""
        return LockName(f"worker {number}")

    @staticmethod
    def queued(number: int) -> LockName:
        """One of the pulls that wait for a worker, for whoever counts them."""
        return LockName(f"queued {number}")

    @staticmethod
    def turn(uid: int) -> LockName:
        """The one conversion of this user that waits for a worker."""
        return LockName(f"turn {uid}")

    @staticmethod
    def share(uid: int, number: int) -> LockName:
        """One of the conversions of this user that may run at the same time."""
        return LockName(f"share {uid} {number}")

    @staticmethod
    def connection(who: str, number: int) -> LockName:
        """One of the connections that all callers together (all), or one of them, may have."""
        return LockName(f"connection {who} {number}")

    @staticmethod
    def system(name: str) -> LockName:
        """The one transfer to this replica system."""
        return LockName(f"system {name}")

    @staticmethod
    def layer(registry: str, digest: str) -> LockName:
        """The one download of this layer."""
        return LockName(f"layer {registry} {digest}")

    @staticmethod
    def credentials(uid: int) -> LockName:
        """Writes of this user's credentials."""
        return LockName(f"credentials {uid}")

    @staticmethod
    def pull(number: int) -> LockName:
        """The request for an image that has this number in the history."""
        return LockName(f"pull {number}")

    @staticmethod
    def rescan() -> LockName:
        """The one rescan of the store's images."""
        return LockName("rescan")

    @staticmethod
    def history() -> LockName:
        """Schema and recovery of the history's database."""
        return LockName("history")

    @staticmethod
    def metrics() -> LockName:
        """The one writer of the figures for node_exporter."""
        return LockName("metrics")

    @staticmethod
    def serve() -> LockName:
        """The one service that listens on the socket."""
        return LockName("serve")


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
        """Release all locks."""
        os.close(self._descriptor)

    def try_take(self, name: LockName, *, shared: bool = False) -> bool:
        """Take a lock; False where another holder is in the way."""
        try:
            self._set(fcntl.F_RDLCK if shared else fcntl.F_WRLCK, name)
        except (BlockingIOError, PermissionError):  # EAGAIN or EACCES: fcntl(2) allows both for "held by another"
            return False
        return True

    def take(
        self, name: LockName, *, shared: bool = False, seconds: float = 60.0, waiting: Callable[[], None] | None = None
    ) -> None:
        """Take a lock; `waiting` is called between tries. Raises TimedOut after `seconds`."""
        end = time.monotonic() + seconds
        while not self.try_take(name, shared=shared):
            if time.monotonic() > end:
                raise TimedOut(f"another gateway process has held the lock {name.text!r} for more than {seconds:.0f} s")
            if waiting:
                waiting()
            time.sleep(_PAUSE)

    def is_held_by_another(self, name: LockName) -> bool:
        """Whether another holder has the lock now; it is not taken."""
        wanted = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, name.offset, 1, 0)
        found: int = _FLOCK.unpack(fcntl.fcntl(self._descriptor, fcntl.F_OFD_GETLK, wanted))[0]
        return found != fcntl.F_UNLCK

    def release(self, name: LockName) -> None:
        """Release one lock."""
        self._set(fcntl.F_UNLCK, name)

    def _set(self, kind: int, name: LockName) -> None:
        fcntl.fcntl(self._descriptor, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, name.offset, 1, 0))
