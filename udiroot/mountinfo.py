"""The kernel's table of mounts, read from /proc/PID/mountinfo (proc(5)), and which of them are ours.

Our own file systems have the source name `udi:<job>:<uid>:<made|kept>`, so that the kernel's table shows their job and
whether set-up created the directory that the root is mounted on, even when the record is lost.
"""

import os

from udiroot import smallfile
from udiroot.fields import number

MARK = "udi:"
"""What every label begins with."""


class Mount:
    """One line of the table. `number` is its own id, `parent` that of the mount it is on; `device` is as in st_dev;
    `root` is the directory of its file system that it shows; `options` are its own, not its file system's."""

    __slots__ = ("device", "kind", "number", "options", "parent", "point", "root", "source")

    def __init__(
        self, number: int, parent: int, device: int, root: str, point: str, options: "list[str]", kind: str, source: str
    ) -> None:
        self.number, self.parent, self.device, self.root = number, parent, device, root
        self.point, self.options, self.kind, self.source = point, options, kind, source

    @property
    def label(self) -> "Label | None":
        """The label, where this is a file system of ours. Users choose the source of FUSE (fusermount(1), `fsname`)."""
        return None if self.kind.startswith("fuse") else Label.parse(self.source)


class Label:
    """The source name of our file systems. `made` is true where set-up created the directory that the root is on."""

    __slots__ = ("job", "made", "uid")

    def __init__(self, job: str, uid: int, made: bool) -> None:
        self.job, self.uid, self.made = job, uid, made

    def text(self) -> str:
        return f"{MARK}{self.job}:{self.uid}:{'made' if self.made else 'kept'}"

    @classmethod
    def parse(cls, source: str) -> "Label | None":
        """The label in a mount's source, or None where it is not one of ours."""
        parts = source.split(":")
        if len(parts) != 4 or parts[0] + ":" != MARK or (uid := number(parts[2])) < 0:
            return None
        return cls(parts[1], uid, parts[3] == "made")


def read(pid: "int | str" = "self") -> "list[Mount]":
    """The mounts that a process sees, in the order of mounting. A process that has exited sees none."""
    try:
        data = smallfile.read(f"/proc/{pid}/mountinfo")
    except (FileNotFoundError, ProcessLookupError):
        return []
    except OSError as error:
        if error.errno == 22:  # EINVAL: the process is exiting and no longer has a mount namespace
            return []
        raise
    return [parse(line) for line in os.fsdecode(data).split("\n") if line]


def read_below(directory: str) -> "list[Mount]":
    """The mounts on `directory` or under it. Of thousands of others, the lines are not even parsed."""
    wanted = b" " + os.fsencode(_escape(directory))
    lines = smallfile.read("/proc/self/mountinfo").split(b"\n")
    return below([parse(os.fsdecode(line)) for line in lines if wanted in line], directory)


def below(mounts: "list[Mount]", directory: str) -> "list[Mount]":
    """Those of `mounts` on `directory` or under it, compared by components."""
    inside = directory + "/"
    return [mount for mount in mounts if mount.point == directory or mount.point.startswith(inside)]


def deepest_first(mounts: "list[Mount]") -> "list[Mount]":
    """`mounts` in an order in which each one comes before the mount that it is on.

    Neither the order of the table nor the points show that for sure: a tree may have been moved, or been put together
    before it was attached.
    """
    left = {mount.number: mount for mount in mounts}
    order: list[Mount] = []
    for mount in mounts:
        chain = []
        step = left.pop(mount.number, None)
        while step:
            chain.append(step)
            step = left.pop(step.parent, None)
        order += reversed(chain)
    return order[::-1]


def parse(line: str) -> Mount:
    """The mount in one line of the table."""
    head, _, tail = line.partition(" - ")
    fields = head.split(" ")
    kind, source = tail.split(" ", 2)[:2]
    major, _, minor = fields[2].partition(":")
    device = os.makedev(int(major), int(minor))
    root, point, options = _unescape(fields[3]), _unescape(fields[4]), fields[5].split(",")
    return Mount(int(fields[0]), int(fields[1]), device, root, point, options, kind, _unescape(source))


def _unescape(text: str) -> str:
    """Blank, tab, newline and backslash are written as three octal digits after a backslash."""
    if "\\" not in text:
        return text
    head, *parts = text.split("\\")
    return head + "".join(map(_character, parts))


def _escape(text: str) -> str:
    """As the kernel writes it."""
    for character in "\\ \t\n":
        text = text.replace(character, f"\\{ord(character):03o}")
    return text


def _character(part: str) -> str:
    digits = part[:3]
    if len(digits) == 3 and not digits.strip("01234567"):
        return chr(int(digits, 8)) + part[3:]
    return "\\" + part  # a file system that writes its source by itself
