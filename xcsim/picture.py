"""A picture of a node, to prove that it is exactly as it was: mounts, loop devices, processes, files.

Numbers that differ each time (mount ids, pids, inode numbers, times) are left out, so two pictures are equal when
nothing is left behind and nothing is missing.
"""

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path

from xcsim.loops import of_node
from xcsim.processes import members, namespace_of

WATCHED = ("/var", "/tmp", "/run")


@dataclass(frozen=True)
class NodePicture:
    """Every field is sorted text, one item per line."""

    mounts: tuple[str, ...]
    loops: tuple[str, ...]
    processes: tuple[str, ...]
    files: tuple[str, ...]
    modules: tuple[str, ...] = ()

    def difference(self, later: "NodePicture") -> list[str]:
        """What `later` has in addition (`+`) and what it lacks (`-`)."""
        lines = []
        for part in fields(self):
            before, after = list(getattr(self, part.name)), list(getattr(later, part.name))
            lines += [f"- {part.name}: {line}" for line in _without(before, after)]
            lines += [f"+ {part.name}: {line}" for line in _without(after, before)]
        return lines


def _without(some: list[str], others: list[str]) -> list[str]:
    rest = list(others)
    missing = []
    for line in some:
        if line in rest:
            rest.remove(line)
        else:
            missing.append(line)
    return missing


def take(pid: int) -> NodePicture:
    """The picture of the node whose init has this pid on the host."""
    return NodePicture(
        mounts=tuple(mounts_of(pid)),
        loops=tuple(f"{one.name} {one.path}" for one in of_node(pid)),
        processes=tuple(sorted(_processes(namespace_of(pid, "pid")))),
        files=tuple(sorted(line for top in WATCHED for line in _files(f"/proc/{pid}/root", top))),
        modules=tuple(sorted(loaded_modules())),
    )


def mounts_of(pid: int | str) -> list[str]:
    """mountinfo of a process without mount ids and peer groups, in the kernel's order."""
    lines = []
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        lines.append(" ".join(before.split()[2:6]) + " - " + after)
    return lines


def loaded_modules() -> Iterator[str]:
    """Names of the loaded kernel modules; a kernel may have none."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path("/proc/modules").read_text().splitlines():
            yield line.split()[0]


def _processes(namespace: str) -> Iterator[str]:
    for pid in members("pid", namespace):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            yield f"uid {os.stat(f'/proc/{pid}').st_uid} {words}"


def _files(root: str, top: str) -> Iterator[str]:
    """Names on one file system: what is mounted below it is listed as a mount, and may be all of /sys."""
    device = os.stat(root + top).st_dev
    for directory, directories, names in os.walk(root + top, followlinks=False):
        inside = directory[len(root) :]
        yield _line(directory, inside)
        own = [name for name in directories if _device(f"{directory}/{name}") == device]
        links = [name for name in own if os.path.islink(f"{directory}/{name}")]
        mounted = [name for name in directories if name not in own]
        directories[:] = own
        for name in (*names, *links, *mounted):
            with contextlib.suppress(FileNotFoundError):
                yield _line(f"{directory}/{name}", f"{inside}/{name}")


def _device(path: str) -> int:
    try:
        return os.lstat(path).st_dev
    except OSError:  # gone, or a file system that does not answer
        return -1


def _line(path: str, inside: str) -> str:
    found = os.lstat(path)
    size = found.st_size if stat.S_ISREG(found.st_mode) else 0
    target = " -> " + os.readlink(path) if stat.S_ISLNK(found.st_mode) else ""
    return f"{inside} {stat.filemode(found.st_mode)} {found.st_uid}:{found.st_gid} {size}{target}"
