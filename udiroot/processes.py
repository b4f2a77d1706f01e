"""Processes, identified by pid and start time, and how one is killed without ever hitting another that has its pid.

A process lives as long as any of its threads does: one whose first thread has exited looks like a zombie, and still
holds all that its other threads hold.
"""

import os
import time

from udiroot import smallfile
from udiroot.errors import counted, printable

_KILL = 9
_DEAD = (b"Z", b"X")
_SHOWN = 3
"""How many processes a message names."""


class Process:
    """A running process: pid and start time (in clock ticks since boot), its real uid, and `why` it is of interest."""

    __slots__ = ("name", "pid", "start", "uid", "why")

    def __init__(self, pid: int, start: int, uid: int, name: str, why: str) -> None:
        self.pid, self.start, self.uid, self.name, self.why = pid, start, uid, name, why

    def __str__(self) -> str:
        return f"pid {self.pid} ({printable(self.name, 20)}, uid {self.uid}; {self.why})"


class Terminated:
    """The processes that were terminated, each counted once, with the first of them for a message."""

    def __init__(self) -> None:
        self._known: set[tuple[int, int]] = set()
        self._first: list[Process] = []

    def add(self, process: Process) -> None:
        if (process.pid, process.start) in self._known:
            return
        self._known.add((process.pid, process.start))
        if len(self._first) < _SHOWN:
            self._first.append(process)

    def __str__(self) -> str:
        """`clean` where there were none."""
        if not self._known:
            return "clean"
        return f"terminated {counted(len(self._known), 'process', 'processes')}: {', '.join(map(str, self._first))}"


class Status:
    """What /proc/PID/status shows: the name, and the real, effective, saved and file system uid; whether any thread
    `lives`, or only the parent has not taken notice of the exit yet."""

    __slots__ = ("lives", "name", "uids")

    def __init__(self, data: bytes) -> None:
        self.name = os.fsdecode(_value(data, b"Name:"))
        self.uids = tuple(map(int, _value(data, b"\nUid:").split()))
        threads = _value(data, b"\nThreads:")
        self.lives = _value(data, b"\nState:")[:1] not in _DEAD or threads not in (b"0", b"1")


def pids() -> "list[int]":
    """All processes but this one, the youngest first as far as pids show that: one that forks and exits all the time
    is then looked at while it still runs."""
    own = os.getpid()
    found = [int(name) for name in os.listdir("/proc") if name.isdecimal()]
    found.sort(reverse=True)
    return [pid for pid in found if pid != own]


def status(pid: int) -> "Status | None":
    """None where there is no such process any more."""
    try:
        return Status(smallfile.read(f"/proc/{pid}/status"))
    except (FileNotFoundError, ProcessLookupError):
        return None


def identify(pid: int, why: str) -> "Process | None":
    """The process that has this pid now; None where it has exited."""
    start = start_time(pid)
    found = status(pid)
    return Process(pid, start, found.uids[0], found.name, why) if found and start >= 0 else None


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 where there is none, or only a zombie."""
    try:
        fields = smallfile.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    dead = fields[0] in _DEAD and not (int(fields[17]) > 1 and _has_live_thread(pid))
    return -1 if dead else int(fields[19])


def is_running(pid: int, start: int) -> bool:
    """Whether that very process still runs."""
    return start >= 0 and start_time(pid) == start


def kill(pid: int, start: int, deadline: float) -> bool:
    """Kill one process, by pid and start time, and wait until it is gone; whether it is. `deadline` is a time of
    time.monotonic()."""
    send_kill(pid, start)
    while is_running(pid, start):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def send_kill(pid: int, start: int) -> None:
    """Send SIGKILL to that very process, by a descriptor of it where the kernel has those (5.3)."""
    import _signal as signals  # type: ignore[import-not-found, unused-ignore]

    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel without pidfd_open: the start time must do
        descriptor = -1
    try:
        if is_running(pid, start):
            if descriptor >= 0:
                signals.pidfd_send_signal(descriptor, _KILL)
            else:
                os.kill(pid, _KILL)
    except ProcessLookupError:
        return
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def tasks(pid: int) -> "list[str]":
    """The threads of a process, as directories of /proc; one that has a single thread is that thread.

    The kernel counts threads as links of the directory, which is one call instead of four.
    """
    directory = f"/proc/{pid}/task"
    try:
        if os.stat(directory).st_nlink <= 3:  # two of a directory's own, and one for each thread
            return [f"/proc/{pid}"]
        return [f"{directory}/{name}" for name in os.listdir(directory)]
    except OSError:  # it has exited
        return []


def _has_live_thread(pid: int) -> bool:
    for task in tasks(pid):
        try:
            state = smallfile.read(f"{task}/stat").rpartition(b")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in _DEAD:
            return True
    return False


def _value(data: bytes, key: bytes) -> bytes:
    """The text after `key`, up to the end of its line."""
    start = data.find(key) + len(key)
    return data[start : data.find(b"\n", start)].strip()
