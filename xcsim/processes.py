"""Which processes belong to a machine: a pid counts only with its start time, members are found by namespace."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

NAMESPACES = ("mnt", "pid", "uts", "net", "ipc")


@dataclass(frozen=True)
class ProcessId:
    """A process, by pid and start time, as it was when this was recorded."""

    pid: int
    start: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId":
        return cls(pid, _stat(pid)[1])

    @property
    def alive(self) -> bool:
        """Whether exactly this process exists and is not a zombie."""
        try:
            state, start = _stat(self.pid)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return start == self.start and state != "Z"

    def kill(self, number: int = signal.SIGKILL) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait_gone(self, seconds: float) -> bool:
        """Wait until it is gone, reaping it if it is a child; False after `seconds`."""
        return wait_until(lambda: not self._lingers(), seconds)

    def _lingers(self) -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return self.alive


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start time (clock ticks since boot) of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return fields[0], int(fields[19])


def wait_until(condition: Callable[[], bool], seconds: float, every: float = 0.01) -> bool:
    """Poll until the condition holds (True) or the time is over (False)."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(every)
    return True


def namespace_of(pid: int | str, kind: str) -> str:
    """The identity of a process's namespace, such as `mnt:[4026531840]`."""
    return os.readlink(f"/proc/{pid}/ns/{kind}")


def members(kind: str, identity: str) -> Iterator[int]:
    """The pid, in our /proc, of every live process in that namespace; what root may not inspect is not a member."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            if namespace_of(entry, kind) == identity and _stat(int(entry))[0] != "Z":
                yield int(entry)


def children(pid: int) -> list[int]:
    """Direct children of a single-threaded process."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def of_session(session: int) -> Iterator[int]:
    """Every process of that session."""
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if os.getsid(int(entry)) == session:
                    yield int(entry)


def kill_session(session: int, number: int = signal.SIGKILL) -> None:
    """Signal every process of a session, as pbs_mom does."""
    for pid in of_session(session):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
