"""Which processes hold a root, by all that /proc shows of each of their threads.

A process holds a root by its root or working directory, its executable, an open file, a mapping, or by a mount
namespace of its own with copies of our mounts; the last appears in no link, only in that namespace's table of mounts.
Threads may have each of these for themselves, but for the executable and mappings.

What a user decides is the length of these tables and the number of his processes. So each namespace is read once,
tables are searched in blocks and never held completely, and each holder is handed out before the next process is
looked at. Some holders are shown nowhere: a descriptor on its way through a socket, a bound socket, a request to the
kernel (io_uring). Those end with their process (`udiroot.leftovers`).
"""

import os
import time

from udiroot import mountinfo, processes, smallfile
from udiroot.errors import TimedOut
from udiroot.mountinfo import MARK, Mount
from udiroot.processes import Process
from udiroot.threads import with_own_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IN_NAMESPACE = "mount namespace with image"
"""`Process.why` of one that holds a root by a mount namespace of its own."""
_NAMESPACE_OPEN = "open mount namespace"
_NAMESPACE = "mnt:["
_MANY = 1000
"""After so many links of one process, the time is looked at."""


class Held:
    """What a process must not hold: paths at or under `directories`, file systems in `devices`, mounts labelled for
    `job` (any job where it is empty), loop devices at the paths `loops`, and the directory of a file system `image`:
    its device, and its path from that file system's root."""

    def __init__(
        self,
        directories: "tuple[str, ...]",
        devices: "set[int]",
        job: str,
        loops: "set[str]",
        image: "tuple[int, str] | None",
    ) -> None:
        self.directories, self.devices, self.job, self.loops, self.image = directories, devices, job, loops, image
        self._in_mounts = tuple(
            [f" {MARK}".encode()]
            + [f" {path} ".encode() for path in loops]
            + [_decimal(device) for device in (*devices, *((image[0],) if image else ()))]
        )
        self._in_maps = tuple(
            [_hexadecimal(device) for device in devices] + [b" " + os.fsencode(directory) for directory in directories]
        )

    def has_path(self, path: str) -> bool:
        return any(path == directory or path.startswith(directory + "/") for directory in self.directories)

    def has_mount(self, mount: Mount) -> bool:
        """Whether a mount in another namespace is one of ours."""
        label = mount.label
        if label is not None:
            return not self.job or label.job == self.job
        if mount.device in self.devices or mount.source in self.loops:
            return True
        if self.image is None or mount.device != self.image[0]:
            return False
        return mount.root == self.image[1] or mount.root.startswith(self.image[1] + "/")

    def is_in_mounts(self, table: bytes) -> bool:
        """Whether a part of another namespace's table of mounts shows one of ours."""
        return _any_line(table, self._in_mounts, lambda line: self.has_mount(mountinfo.parse(os.fsdecode(line))))

    def is_in_maps(self, table: bytes) -> bool:
        """Whether a part of a process's table of mappings shows a file of ours."""
        return _any_line(table, self._in_maps, self._has_mapping)

    def _has_mapping(self, line: bytes) -> bool:
        fields = line.split(None, 5)
        if len(fields) < 6 or not fields[5].startswith(b"/"):
            return False
        major, minor = fields[3].split(b":")
        return os.makedev(int(major, 16), int(minor, 16)) in self.devices or self.has_path(os.fsdecode(fields[5]))


def holders(held: Held, *, deep: bool, deadline: float) -> "Iterator[Process]":
    """Each process but this one that holds something, as soon as it is found; `deep` looks at links, open files and
    mappings too, without that only at mount namespaces.

    `deadline` is a time of time.monotonic(). Raises TimedOut where not all could be looked at by then.
    """
    search = _Search(held, deadline)
    for pid in processes.pids():
        search.require_time()
        why = search.why(pid, deep=deep)
        process = processes.identify(pid, why) if why else None
        if process:
            yield process
    for pid in search.with_open_namespace():
        process = processes.identify(pid, _NAMESPACE_OPEN)
        if process:
            yield process


class _Search:
    """One look at all processes. `_namespaces` are the mount namespaces that were read → whether ours are in them;
    `_opened` are processes → the namespaces that they have open without being in them."""

    def __init__(self, held: Held, deadline: float) -> None:
        self._held, self._deadline = held, deadline
        self._own = _link("/proc/self/ns/mnt")
        self._namespaces = {self._own: False}
        self._opened: dict[int, set[str]] = {}

    def require_time(self) -> None:
        """Raises TimedOut after the deadline."""
        if time.monotonic() >= self._deadline:
            raise TimedOut("not all processes could be examined in time")

    def why(self, pid: int, *, deep: bool) -> str:
        """How a process holds something, for a person; nothing, if it does not."""
        threads = processes.tasks(pid)
        if any(map(self._is_in_namespace, threads)):
            return IN_NAMESPACE
        return self._why_by_links(pid, threads) if deep else ""

    def with_open_namespace(self) -> "list[int]":
        """Processes that have a mount namespace open that contains ours, or that no process is in: what such a one
        contains is shown nowhere."""
        return [pid for pid, names in self._opened.items() if any(self._namespaces.get(name, True) for name in names)]

    def _is_in_namespace(self, thread: str) -> bool:
        name = _link(f"{thread}/ns/mnt")
        if name and name not in self._namespaces:
            try:
                self._namespaces[name] = self._is_in_table(f"{thread}/mountinfo", self._held.is_in_mounts)
            except OSError:  # it is exiting; the namespace, if it remains, is read by way of another process
                return False
        return self._namespaces.get(name, False)

    def _why_by_links(self, pid: int, threads: "list[str]") -> str:
        for name, word in (("root", "root directory in image"), ("cwd", "working directory in image")):
            if any(self._is_link(f"{thread}/{name}") for thread in threads):
                return word
        for thread in with_own_descriptors(threads):
            if self._has_open_file(pid, f"{thread}/fd"):
                return "open file in image"
        with_memory = next((thread for thread in threads if _link(f"{thread}/exe")), "")  # all threads share theirs
        if with_memory and self._is_link(f"{with_memory}/exe"):
            return "executable in image"
        return "mapped file in image" if with_memory and self._has_mapping(with_memory) else ""

    def _has_open_file(self, pid: int, directory: str) -> bool:
        for count, name in enumerate(_names(directory)):
            if count % _MANY == 0:
                self.require_time()
            path = f"{directory}/{name}"
            target = _link(path)
            if self._is_target(path, target):
                return True
            if target.startswith(_NAMESPACE) and target != self._own:
                self._opened.setdefault(pid, set()).add(target)
        return False

    def _has_mapping(self, thread: str) -> bool:
        try:
            return self._is_in_table(f"{thread}/maps", self._held.is_in_maps)
        except OSError:  # it is exiting
            return False

    def _is_in_table(self, path: str, has: "Callable[[bytes], bool]") -> bool:
        for block in smallfile.blocks(path):
            if has(block):
                return True
            self.require_time()
        return False

    def _is_link(self, path: str) -> bool:
        return self._is_target(path, _link(path))

    def _is_target(self, path: str, target: str) -> bool:
        """Whether one of proc's links leads to what is held, by its name here or by the file system that it is on."""
        if not target.startswith("/"):
            return False
        if self._held.has_path(target):
            return True
        try:
            return os.stat(path).st_dev in self._held.devices
        except OSError:  # gone, or its file system does not respond: then only its name is known
            return False


def _any_line(table: bytes, needles: "tuple[bytes, ...]", is_wanted: "Callable[[bytes], bool]") -> bool:
    """Whether any line with one of `needles` in it is wanted: no other line is looked at."""
    for needle in needles:
        at = table.find(needle)
        while at >= 0:
            end = table.find(b"\n", at)
            end = len(table) if end < 0 else end
            if is_wanted(table[table.rfind(b"\n", 0, at) + 1 : end]):
                return True
            at = table.find(needle, end)
    return False


def _decimal(device: int) -> bytes:
    """A device as a line of mountinfo has it."""
    return b" %d:%d " % (os.major(device), os.minor(device))


def _hexadecimal(device: int) -> bytes:
    """A device as a line of maps has it."""
    return b" %02x:%02x " % (os.major(device), os.minor(device))


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
