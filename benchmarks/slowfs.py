"""Read-only file systems that pass everything through and delay each operation, as a parallel one does.

    python -m benchmarks.slowfs SOURCE TARGET [--latency SECONDS] [--namespace PID]

Any number of mounts, each with caches of its own as a node has them, share one server with a bound on its operations a
second. What reaches the server is counted for each mount. The server is benchmarks/slowfs.c, which speaks the kernel's
FUSE protocol (linux/fuse.h, 7.31) itself: some fifteen requests, so no library is needed, and its own cost is small.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import click

from udi.commandline import run
from udiroot.errors import SetupFailed
from xcsim import kernel, tools

CACHE = Path(__file__).parents[1] / ".cache"
NAMES = {1: "lookup", 3: "getattr", 5: "readlink", 14: "open", 15: "read", 17: "statfs", 27: "opendir", 28: "readdir"}
"""The requests that cost a round trip, by the kernel's number."""
_SLOTS, _BYTES = 64, 63
"""Numbers that the server keeps for each mount, and which of them is the bytes that were read."""


@dataclass(frozen=True)
class Service:
    """How the server serves: `latency` of each operation in seconds; operations and bytes a second for all mounts
    together (0: no bound); `valid`, how many seconds the kernel may keep an answer, as a client of a parallel file
    system keeps what it holds a lock on; the client's read-ahead in KiB (0: the kernel's default); and how many
    requests of one mount are served at a time."""

    latency: float = 0.001
    operations: float = 0
    bandwidth: float = 0
    valid: int = 3600
    read_ahead: int = 0
    threads: int = 16


@dataclass(frozen=True)
class Counts:
    """What reached the server: operations by kind, and bytes read."""

    kinds: dict[str, int]
    read: int

    @property
    def operations(self) -> int:
        return sum(self.kinds.values())

    def __sub__(self, earlier: Counts) -> Counts:
        kinds = {name: count - earlier.kinds.get(name, 0) for name, count in self.kinds.items()}
        return Counts({name: count for name, count in kinds.items() if count}, self.read - earlier.read)


@dataclass(frozen=True)
class Mounting:
    """Where to mount: a directory, in the mount namespace of a process (None: this one's)."""

    target: str
    namespace: int | None = None

    def mountinfo(self) -> Path:
        return Path(f"/proc/{self.namespace or 'self'}/mountinfo")


class SlowFileSystems:
    """Mounts of `source` with one server; a context manager. Raises SetupFailed where the server does not start.

    With `trace`, the server writes a line for each counted operation into that file: its code, of a read the offset and
    the bytes (else 0), and the path.
    """

    def __init__(
        self, source: Path, service: Service, mountings: Sequence[Mounting], trace: Path | None = None
    ) -> None:
        self._source, self._service, self._mountings, self._trace = source, service, mountings, trace
        size = len(mountings) * _SLOTS * 8
        self._shared = os.memfd_create("slowfs")
        os.truncate(self._shared, size)
        self._counters = mmap.mmap(self._shared, size)

    def __enter__(self) -> Self:
        program = server_program()
        devices = [_mounted(mounting) for mounting in self._mountings]
        log = os.open(self._trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644) if self._trace else -1
        try:
            descriptors = [self._shared, *devices, *([log] if log >= 0 else [])]
            argv = _words(program, self._source, self._service, (self._shared, log), devices)
            self._server = subprocess.Popen(argv, stdout=subprocess.PIPE, pass_fds=descriptors)
        finally:
            for descriptor in (*devices, *([log] if log >= 0 else [])):
                os.close(descriptor)
        assert self._server.stdout
        if self._server.stdout.readline() != b"ready\n":
            self.__exit__()
            raise SetupFailed("the slow file system's server did not start")
        if self._service.read_ahead:
            for mounting in self._mountings:
                Path(f"/sys/class/bdi/{_device_number(mounting)}/read_ahead_kb").write_text(
                    str(self._service.read_ahead)
                )
        return self

    def __exit__(self, *_: object) -> None:
        for mounting in self._mountings:
            _unmount(mounting)
        try:
            self._server.wait(10)
        except subprocess.TimeoutExpired:  # something outside still holds a mount: it gets errors from now on
            self._server.kill()
            self._server.wait()
        assert self._server.stdout
        self._server.stdout.close()
        self._counters.close()
        os.close(self._shared)

    def counts(self, number: int | None = None) -> Counts:
        """What reached the server since it started, from one mount or from all."""
        total = [0] * _SLOTS
        for mount in range(len(self._mountings)) if number is None else (number,):
            values = struct.unpack_from(f"{_SLOTS}Q", self._counters, mount * _SLOTS * 8)
            total = [one + other for one, other in zip(total, values, strict=True)]
        return Counts({name: total[code] for code, name in NAMES.items() if total[code]}, total[_BYTES])

    def processor(self) -> float:
        """Seconds of a core that the server has taken since it started."""
        words = Path(f"/proc/{self._server.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def server_program() -> Path:
    """The compiled server, made once for each version of its source."""
    source = Path(__file__).with_suffix(".c")
    program = CACHE / f"slowfs-{hashlib.sha256(source.read_bytes()).hexdigest()[:16]}"
    if not program.exists():
        CACHE.mkdir(exist_ok=True)
        unfinished = program.with_suffix(f".{os.getpid()}")
        tools.run("gcc", "-O2", "-pthread", "-o", unfinished, source, failure="the slow file system did not compile")
        unfinished.rename(program)
    return program


def _words(program: Path, source: Path, service: Service, files: tuple[int, int], devices: Sequence[int]) -> list[str]:
    numbers = (int(service.latency * 1e9), service.operations, service.bandwidth, service.valid, service.threads)
    return [str(program), str(source), *map(str, files), *map(str, numbers), *map(str, devices)]


def _mounted(mounting: Mounting) -> int:
    """Mount it, with nobody serving yet; the descriptor to serve it by."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_RDONLY
    _in_namespace(mounting, lambda: kernel.mount("slowfs", mounting.target, "fuse", flags, options))
    return device


def _unmount(mounting: Mounting) -> None:
    _in_namespace(mounting, lambda: kernel.umount(mounting.target, kernel.MNT_DETACH))


def _in_namespace(mounting: Mounting, action: Callable[[], None]) -> None:
    """Do it in a child, since a process cannot return from another mount namespace. Raises SetupFailed."""
    if mounting.namespace is None:
        action()
        return
    child = os.fork()
    if child == 0:
        status = 1
        with contextlib.suppress(OSError):
            with open(f"/proc/{mounting.namespace}/ns/mnt") as there:
                kernel.setns(there.fileno())
            action()
            status = 0
        os._exit(status)
    if os.waitpid(child, 0)[1]:
        raise SetupFailed(f"mounting or unmounting {mounting.target} failed")


def _device_number(mounting: Mounting) -> str:
    """`major:minor` of the mount, from the kernel's table: asking the file system itself would be an operation."""
    lines = [line.split() for line in mounting.mountinfo().read_text().splitlines()]
    return next(words[2] for words in reversed(lines) if words[4] == mounting.target)


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target")
@click.option("--latency", default=0.001, show_default=True, help="Seconds per operation.")
@click.option("--operations", default=0.0, show_default=True, help="Bound on operations per second; 0: none.")
@click.option("--namespace", type=int, help="Pid of a process in whose mount namespace to mount.")
def main(source: Path, target: str, latency: float, operations: float, namespace: int | None) -> None:
    """Mount SOURCE on TARGET, each operation delayed, and serve it until it is unmounted; print `ready` before."""
    program = server_program()
    device = _mounted(Mounting(target, namespace))
    counters = os.memfd_create("slowfs")
    os.truncate(counters, _SLOTS * 8)
    for descriptor in (device, counters):
        os.set_inheritable(descriptor, True)
    words = _words(program, source, Service(latency, operations), (counters, -1), [device])
    os.execv(program, words)


if __name__ == "__main__":
    run(main, "benchmarks.slowfs")
