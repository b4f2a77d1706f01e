"""File systems that hold the measured images: memory, this machine's disk, a network-like store, a real one by ssh.

A store is opened cold: nothing of it is in any cache of the node. For the network-like one, whose data come from
memory, that is a new mount; for the others the kernel's caches are dropped as well. What reached the store is counted
where that can be seen.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.slowfs import Counts, Mounting, Service, SlowFileSystems
from xcsim import kernel, tools
from xcsim.ports import free_port

_SFTP_SERVER = "/usr/lib/openssh/sftp-server"
_REQUEST = re.compile(r"^debug\d: request \d+: (\w+)", re.MULTILINE)
_DATA = re.compile(r"^debug\d: request \d+: sent data len (\d+)", re.MULTILINE)

Reached = Callable[[], Counts | None]
"""What has reached an opened store so far; None where nobody can tell."""


@dataclass(frozen=True)
class Opened:
    """A store in use: where each node finds it on this machine, and its counter."""

    directories: Sequence[Path]
    counts: Reached = lambda: None
    processor: Callable[[], float] = lambda: 0.0
    """Seconds of a core that the store's own server has taken so far, where this machine is that server."""


class Store(Protocol):
    """`name` is for tables, `files` the directory that images are put into."""

    name: str
    files: Path

    def opened(self, nodes: int) -> contextlib.AbstractContextManager[Opened]:
        """Open it for so many nodes, with cold caches."""


class Direct:
    """A directory that this machine has mounted: on disk, in memory, or on a file system of a site's.

    `drop` is a command that makes the file system's own client forget what the kernel cannot make it forget.
    """

    def __init__(self, name: str, files: Path, drop: Sequence[str] = ()) -> None:
        self.name, self.files, self._drop = name, files, drop

    @contextlib.contextmanager
    def opened(self, nodes: int) -> Iterator[Opened]:
        if self._drop:
            os.sync()
            tools.run(*self._drop, failure=f"the caches of {self.name} were not dropped")
        drop_caches()
        yield Opened([self.files] * nodes)


class Slow:
    """The network-like store: what `files` holds, through a server that delays and bounds."""

    def __init__(self, files: Path, mounts: Path, service: Service) -> None:
        self.name, self.files, self._mounts, self._service = "network-like store", files, mounts, service

    @contextlib.contextmanager
    def opened(self, nodes: int) -> Iterator[Opened]:
        targets = [self._mounts / str(number) for number in range(nodes)]
        for target in targets:
            target.mkdir(parents=True, exist_ok=True)
        drop_caches()
        with SlowFileSystems(self.files, self._service, [Mounting(str(target)) for target in targets]) as served:
            yield Opened(targets, served.counts, served.processor)


class Sshfs:
    """sshfs over this machine's loopback, from an sshd of its own. A context manager.

    Its server writes a line for each request into a file, from which they are counted.
    """

    def __init__(self, files: Path, directory: Path) -> None:
        self.name, self.files, self._directory = "sshfs", files, directory
        self._requests = directory / "requests"

    def __enter__(self) -> Sshfs:
        at = self._directory
        (at / "mount").mkdir(parents=True)
        for name in ("host", "user"):
            tools.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", at / name, failure="no ssh key")
        self._port = free_port()
        (at / "config").write_text(
            f"Port {self._port}\nListenAddress 127.0.0.1\nHostKey {at}/host\nAuthorizedKeysFile {at}/user.pub\n"
            "PidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\n"
            f"Subsystem sftp {_SFTP_SERVER} -R -e -l DEBUG3 2>>{self._requests}\n"
        )
        (at / "known").write_text(f"[127.0.0.1]:{self._port} {(at / 'host.pub').read_text()}")
        Path("/run/sshd").mkdir(exist_ok=True)
        self._sshd = subprocess.Popen(
            ["/usr/sbin/sshd", "-D", "-f", at / "config"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._sshd.terminate()
        self._sshd.wait()

    @contextlib.contextmanager
    def opened(self, nodes: int) -> Iterator[Opened]:
        at = self._directory
        options = (
            f"ro,allow_other,default_permissions,kernel_cache,dcache_timeout=3600,attr_timeout=3600,entry_timeout=3600,"
            f"IdentityFile={at}/user,UserKnownHostsFile={at}/known,StrictHostKeyChecking=yes,ConnectionAttempts=20"
        )
        drop_caches()
        self._requests.unlink(missing_ok=True)
        tools.run(
            "sshfs",
            "-p",
            str(self._port),
            "-o",
            options,
            f"root@127.0.0.1:{self.files}",
            at / "mount",
            failure="sshfs did not mount",
        )
        try:
            yield Opened([at / "mount"] * nodes, lambda: sftp_requests(self._requests.read_text(errors="replace")))
        finally:
            kernel.umount(str(at / "mount"), kernel.MNT_DETACH)


def sftp_requests(log: str) -> Counts:
    """What reached an sftp-server, from what it logs at level DEBUG3: its requests by kind, and the bytes it sent."""
    kinds = Counter(kind for kind in _REQUEST.findall(log) if kind != "sent")
    return Counts(dict(kinds), sum(map(int, _DATA.findall(log))))


@contextlib.contextmanager
def memory(directory: Path) -> Iterator[Path]:
    """A tmpfs on a new directory."""
    directory.mkdir(parents=True)
    kernel.mount("memory", str(directory), "tmpfs", 0, "mode=0755,size=90%")
    try:
        yield directory
    finally:
        kernel.umount(str(directory), kernel.MNT_DETACH)


def drop_caches() -> None:
    """Forget every clean page, name and inode that nobody uses."""
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
