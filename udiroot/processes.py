"""Processes that hold a root: found in /proc, terminated with care.

A process holds a root by its root or working directory, an open file, a mapping, or by a mount namespace of its own
with copies of our mounts; the last appears in no link, only in that process's own table of mounts. Only processes of
the job's user are terminated: TERM, then KILL. Another user's process is named, so that a person may decide.
"""

import os
import time

from udiroot import mountinfo, smallfile
from udiroot.errors import printable

IN_NAMESPACE = "mount namespace with image"
"""`Process.why` of one that holds a root by a mount namespace of its own."""
_TERM, _KILL = 15, 9
_PATIENCE = 0.25
"""Seconds between TERM and KILL: the job is over, so there is little left to save."""


class Process:
    """A running process, identified by pid and start time (in clock ticks since boot), and how it holds a root."""

    __slots__ = ("name", "pid", "start", "uid", "why")

    def __init__(self, pid: int, start: int, uid: int, name: str, why: str) -> None:
        self.pid, self.start, self.uid, self.name, self.why = pid, start, uid, name, why

    def __str__(self) -> str:
        return f"pid {self.pid} ({printable(self.name, 20)}, uid {self.uid}; {self.why})"


class Held:
    """What a process must not hold: paths at or under `directories`, file systems in `devices`, mounts labelled for
    `job` (any job where it is empty). `loops` are paths of loop devices."""

    __slots__ = ("devices", "directories", "job", "loops")

    def __init__(self, directories: "tuple[str, ...]", devices: "set[int]", job: str, loops: "set[str]") -> None:
        self.directories, self.devices, self.job, self.loops = directories, devices, job, loops

    def has_path(self, path: str) -> bool:
        return any(path == directory or path.startswith(directory + "/") for directory in self.directories)

    def has_mount(self, mount: mountinfo.Mount) -> bool:
        """Whether a mount in another namespace is one of ours."""
        label = mountinfo.Label.parse(mount.source)
        if label is not None:
            return not self.job or label.job == self.job
        return mount.device in self.devices or mount.source in self.loops


def holders(held: Held, *, deep: bool) -> "list[Process]":
    """All processes but this one that hold something; `deep` looks at open files and mappings too."""
    own_namespace = os.readlink("/proc/self/ns/mnt")
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdecimal() or int(entry) == os.getpid():
            continue
        try:
            why = _why(entry, held, own_namespace, deep)
            process = _identify(int(entry), why) if why else None
        except (FileNotFoundError, ProcessLookupError):
            continue
        if process:
            found.append(process)
    return found


def terminate(processes: "list[Process]", uid: int, deadline: float) -> "list[Process]":
    """Terminate those of `uid` and wait until they are gone; the processes that still run.

    `deadline` is a time of time.monotonic(). With a negative `uid` none is terminated, since the job's user is unknown.
    """
    ours = [process for process in processes if process.uid == uid and uid > 0]
    for number, patience in ((_TERM, _PATIENCE), (_KILL, 5.0)):
        for process in ours:
            _signal(process, number)
        until = min(time.monotonic() + patience, deadline)
        while (
            ours := [process for process in ours if is_running(process.pid, process.start)]
        ) and until > time.monotonic():
            time.sleep(0.005)
        if not ours:
            break
    return [process for process in processes if is_running(process.pid, process.start)]


def kill(pid: int, start: int, deadline: float) -> bool:
    """Kill one process, by pid and start time, and wait until it is gone; whether it is."""
    process = Process(pid, start, 0, "", "")
    _signal(process, _KILL)
    while is_running(pid, start):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.002)
    return True


def start_time(pid: int) -> int:
    """When a process started, in clock ticks since boot; -1 where there is none, or a zombie."""
    try:
        fields = smallfile.read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return -1
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])


def is_running(pid: int, start: int) -> bool:
    """Whether that very process still runs."""
    return start >= 0 and start_time(pid) == start


def _signal(process: Process, number: int) -> None:
    """Send a signal to that very process, by a descriptor of it where the kernel has those (5.3)."""
    import _signal as signals  # type: ignore[import-not-found, unused-ignore]

    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    except OSError:  # a kernel without pidfd_open: the start time must do
        descriptor = -1
    try:
        if is_running(process.pid, process.start):
            if descriptor >= 0:
                signals.pidfd_send_signal(descriptor, number)
            else:
                os.kill(process.pid, number)
    except ProcessLookupError:
        return
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _identify(pid: int, why: str) -> "Process | None":
    start = start_time(pid)
    uid, name = -1, ""
    for line in smallfile.read(f"/proc/{pid}/status").split(b"\n"):
        if line.startswith(b"Name:"):
            name = os.fsdecode(line[5:].strip())
        elif line.startswith(b"Uid:"):
            uid = int(line.split()[1])
            break
    return Process(pid, start, uid, name, why) if start >= 0 else None


def _why(pid: str, held: Held, own_namespace: str, deep: bool) -> str:
    """How a process holds something, for a person; nothing, if it does not."""
    directory = f"/proc/{pid}"
    for name, word in (("root", "root directory in image"), ("cwd", "working directory in image")):
        if _holds_link(f"{directory}/{name}", held):
            return word
    if _link(f"{directory}/ns/mnt") not in ("", own_namespace) and any(map(held.has_mount, mountinfo.read(pid))):
        return IN_NAMESPACE
    if not deep:
        return ""
    if _holds_link(f"{directory}/exe", held):
        return "executable in image"
    if any(_holds_link(f"{directory}/fd/{name}", held) for name in _names(f"{directory}/fd")):
        return "open file in image"
    return "mapped file in image" if _holds_mapping(directory, held) else ""


def _holds_link(path: str, held: Held) -> bool:
    """Whether one of proc's links leads to what is held, by its name here or by the file system that it is on."""
    target = _link(path)
    if not target.startswith("/"):
        return False
    if held.has_path(target):
        return True
    try:
        return os.stat(path).st_dev in held.devices
    except OSError:  # gone, or its file system does not respond: then only its name is known
        return False


def _holds_mapping(directory: str, held: Held) -> bool:
    try:
        lines = smallfile.read(f"{directory}/maps").split(b"\n")
    except OSError:  # a process that is exiting, or a kernel thread
        return False
    for line in lines:
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith(b"/"):
            major, minor = fields[3].split(b":")
            device = os.makedev(int(major, 16), int(minor, 16))
            if device in held.devices or held.has_path(os.fsdecode(fields[5])):
                return True
    return False


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:  # a process that is exiting, or a kernel thread, has no such link
        return ""


def _names(path: str) -> "list[str]":
    try:
        return os.listdir(path)
    except OSError:  # a process that is exiting
        return []
