"""The kernel's table of mounts, read from /proc/PID/mountinfo (proc(5)), and which of them are ours.

Our own file systems have the source name `udi:<job>:<uid>:<made|kept>`, so that the kernel's table shows their job and
whether set-up created the directory that the root is mounted on, even when the record is lost.
"""

import os

from udiroot import smallfile

_MARK = "udi:"


class Mount:
    """One line of the table. `device` is as in st_dev; `options` are those of the mount, not of its file system."""

    __slots__ = ("device", "kind", "options", "point", "source")

    def __init__(self, device: int, point: str, options: "list[str]", kind: str, source: str) -> None:
        self.device, self.point, self.options, self.kind, self.source = device, point, options, kind, source


class Label:
    """The source name of our file systems. `made` is true where set-up created the directory that the root is on."""

    __slots__ = ("job", "made", "uid")

    def __init__(self, job: str, uid: int, made: bool) -> None:
        self.job, self.uid, self.made = job, uid, made

    def text(self) -> str:
        return f"{_MARK}{self.job}:{self.uid}:{'made' if self.made else 'kept'}"

    @classmethod
    def parse(cls, source: str) -> "Label | None":
        """The label in a mount's source, or None where it is not one of ours."""
        parts = source.split(":")
        if len(parts) != 4 or parts[0] + ":" != _MARK or not parts[2].isdecimal():
            return None
        return cls(parts[1], int(parts[2]), parts[3] == "made")


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
    return [_mount(line) for line in os.fsdecode(data).split("\n") if line]


def below(mounts: "list[Mount]", directory: str) -> "list[Mount]":
    """Those of `mounts` on `directory` or under it, compared by components."""
    inside = directory + "/"
    return [mount for mount in mounts if mount.point == directory or mount.point.startswith(inside)]


def _mount(line: str) -> Mount:
    head, _, tail = line.partition(" - ")
    fields = head.split(" ")
    kind, source = tail.split(" ", 2)[:2]
    major, _, minor = fields[2].partition(":")
    device = os.makedev(int(major), int(minor))
    return Mount(device, _unescape(fields[4]), fields[5].split(","), kind, _unescape(source))


def _unescape(text: str) -> str:
    """Blank, tab, newline and backslash are written as three octal digits after a backslash."""
    if "\\" not in text:
        return text
    head, *parts = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in parts)
