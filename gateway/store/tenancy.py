"""One directory, one gateway: a store and a state are written by the processes of one gateway at a time.

A gateway is a state directory on a host, with a store: the service, and whatever else is started with that
configuration. Its processes share a lock on a file of each directory for as long as they run, and the file says whose
they are. Another gateway needs that lock for itself alone: it gets it once none of those processes runs any more.

A file system that hosts share may keep locks on each host by itself (NFS with `local_lock`, Lustre with `localflock`),
or keep none. So the service also counts in the file, every few seconds. Who finds there the service of another host,
and no lock in the way, watches whether the count goes on; and a service that finds another gateway in its file ends.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Self

from gateway.store.locks import Holder, LockName
from udi.oserrors import reason
from udiroot.errors import ConfigError, UpstreamFailed, printable

log = logging.getLogger("gateway.store")

_FILE = ".gateway"
_BEAT = 5.0
"""Seconds between two counts."""
_WATCH = 3 * _BEAT
"""Seconds without a count after which the service of another host is dead."""
_WAIT = 2 * _WATCH
"""Seconds that others of the same gateway may take to find that out."""
_BLOCK = 512
_MAX_BYTES = 1 << 16
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Errors of fcntl(2) on a file system that has no locks."""
_USE, _CHANGE = LockName("use"), LockName("change")
"""Shared by the processes of the gateway that uses the directory; and of who finds out which one may."""


@dataclass(frozen=True)
class Tenant:
    """A gateway, and its service where that runs: `pid` is 0 where it does not."""

    host: str
    state: str
    store: str
    pid: int = 0
    since: int = 0
    count: int = 0

    @classmethod
    def here(cls, state: str, store: str) -> Self:
        """That of this configuration on this host."""
        return cls(socket.gethostname(), os.path.realpath(state), os.path.realpath(store))

    def is_same(self, other: Tenant) -> bool:
        """Whether both are one gateway."""
        return replace(self, pid=0, since=0, count=0) == replace(other, pid=0, since=0, count=0)

    def __str__(self) -> str:
        words = f"the gateway of host {printable(self.host)} with gateway.state {printable(self.state)}"
        if not self.pid:
            return words
        return f"{words} (process {self.pid}, since {time.strftime('%F %T', time.localtime(self.since))})"


class Tenancy:
    """The use of one directory by one process of a gateway, until that ends."""

    def __init__(self, what: str, directory: str, tenant: Tenant) -> None:
        """`what` is how messages call the directory, which exists. Raises ConfigError where another gateway uses it,
        UpstreamFailed where that cannot be found out."""
        self._what = f"{what} {directory}"
        self._path = f"{directory}/{_FILE}"
        self._tenant = tenant
        self._ended = threading.Event()
        self._counting = threading.Thread()
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with contextlib.ExitStack() as undo:
                self._holder = undo.enter_context(Holder(self._descriptor))
                if not self._joins():
                    self._move_in()
                undo.pop_all()
        except OSError as error:
            raise UpstreamFailed(f"{self._what}: {self._path}: {reason(error)}") from error

    def serve(self, lost: Callable[[ConfigError], None]) -> None:
        """This process is the gateway's one service from now on; `lost` is called, in a thread, should another gateway
        take the directory nevertheless. Raises UpstreamFailed."""
        self._tenant = replace(self._tenant, pid=os.getpid(), since=int(time.time()))
        try:
            self._write()
        except OSError as error:
            raise UpstreamFailed(f"{self._what}: {self._path}: {reason(error)}") from error
        self._counting = threading.Thread(target=self._count, args=(lost,), name="tenancy", daemon=True)
        self._counting.start()

    def end(self) -> None:
        """The service stops: nobody need wait for its next count."""
        self._ended.set()
        if self._counting.ident:
            self._counting.join(_BEAT)
        with contextlib.suppress(OSError):  # then whoever comes next waits
            now = self._read()
            if now and now.is_same(self._tenant):
                self._tenant = replace(self._tenant, pid=0)
                self._write()

    def service(self) -> Tenant | None:
        """The gateway that the file names, if its service has not stopped."""
        now = self._read()
        return now if now and now.pid else None

    def _joins(self) -> bool:
        """Whether this gateway uses the directory already; then this process does, too."""
        try:
            if not self._holder.try_take(_USE, shared=True):
                return False
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            return False
        now = self._read()
        if now and now.is_same(self._tenant):
            return True
        self._holder.release(_USE)
        return False

    def _move_in(self) -> None:
        has_locks = True
        try:
            self._holder.take(_CHANGE, seconds=_WAIT)
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            has_locks = False
        now = self._read()
        is_ours = now is not None and now.is_same(self._tenant)
        if has_locks and not self._holder.try_take(_USE, shared=is_ours):
            raise self._refusal(now)
        if now and not is_ours and now.pid and not (has_locks and now.host == self._tenant.host) and self._counts(now):
            raise self._refusal(now)
        if not is_ours:
            self._write()
        if has_locks:
            self._holder.try_take(_USE, shared=True)  # in place of the one for us alone
            self._holder.release(_CHANGE)

    def _counts(self, before: Tenant) -> bool:
        """Whether a service counts on, or another gateway has come meanwhile."""
        end = time.monotonic() + _WATCH
        while time.monotonic() < end:
            time.sleep(min(0.5, _BEAT / 10))
            now = self._read()
            if now and now != before:
                return True
        return False

    def _refusal(self, now: Tenant | None) -> ConfigError:
        return ConfigError(
            f"{self._what} is in use by {now or 'another gateway'}",
            "stop that one first: see docs/operations.md, Two gateways",
        )

    def _count(self, lost: Callable[[ConfigError], None]) -> None:
        has_failed = False
        while not self._ended.wait(_BEAT):
            try:
                now = self._read()
                if now and not now.is_same(self._tenant):
                    lost(self._refusal(now))
                    return
                self._tenant = replace(self._tenant, count=self._tenant.count + 1)
                self._write()
                has_failed = False
            except OSError as error:
                if not has_failed:
                    log.warning("%s: %s: %s", self._what, self._path, reason(error))
                has_failed = True

    def _read(self) -> Tenant | None:
        """What the file says, opened anew: NFS looks for what other hosts wrote when a file is opened. None where
        nobody has written it yet, or it is damaged. Raises OSError."""
        with open(self._path, "rb") as stream:
            text = stream.read(_MAX_BYTES)
        try:
            return Tenant(**json.loads(text))
        except (ValueError, TypeError):
            return None

    def _write(self) -> None:
        """In place, since the lock is on this file; and with room for it from the first time on."""
        text = json.dumps(asdict(self._tenant)).encode() + b"\n"
        size = max(-(-len(text) // _BLOCK) * _BLOCK, os.fstat(self._descriptor).st_size)
        os.pwrite(self._descriptor, text.rjust(size), 0)
