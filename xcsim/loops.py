"""Which loop devices are a node's, and their end: they belong to the whole host, as its kernel does."""

import contextlib
import fcntl
import glob
import os
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from udiroot import mountinfo
from xcsim import kernel
from xcsim.processes import wait_until

_GET_STATUS64, _CLR_FD = 0x4C05, 0x4C01
_INFO = struct.Struct("=QQ216x")


@dataclass(frozen=True)
class NodeLoop:
    """A loop device, such as loop0, and the path of its file: on the node, and below the mount that it leads through,
    which is what the host sees when the node is gone."""

    name: str
    path: str
    below: str

    @property
    def is_bound(self) -> bool:
        """Whether it still is, with its node or without it."""
        return _text(Path(_backing(self.name))) in (self.path, self.below)

    def end(self, seconds: float) -> None:
        """Unbind it, now that the node is gone; most are unbound by the kernel then, within these seconds."""
        backing = Path(_backing(self.name))
        if wait_until(lambda: _text(backing) != self.path, seconds) and _text(backing) == self.below:
            with contextlib.suppress(OSError):  # another process may unbind it first
                device = os.open(f"/dev/{self.name}", os.O_RDONLY)
                try:
                    fcntl.ioctl(device, _CLR_FD)
                finally:
                    os.close(device)


def of_node(pid: int) -> list[NodeLoop]:
    """Those whose file lies in a mount of the node with that init, also one without a name. Not those of its root, and
    of file systems in user space.

    The kernel tells a file's path as its reader's root has it. One that becomes another when the root is a mount of the
    node leads through that mount. No file system is asked anything, since it may not respond.
    """
    with ThreadPoolExecutor(1) as thread:  # it has a root of its own, which ends with it
        return thread.submit(_of_node, pid).result()


def _of_node(pid: int) -> list[NodeLoop]:
    kernel.unshare(kernel.CLONE_FS)
    found = {}
    with contextlib.ExitStack() as opened:
        home = _opened(opened, "/", os.O_PATH)
        bound = {path.split("/")[3]: _opened(opened, path, os.O_RDONLY) for path in glob.glob(_backing("*"))}
        before = {name: _read(descriptor) for name, descriptor in bound.items()}
        for top in [_opened(opened, path, os.O_PATH | os.O_DIRECTORY) for path in _mounts(pid)] if bound else ():
            if top < 0:
                continue
            os.fchdir(top)
            os.chroot(".")
            for name, descriptor in bound.items():
                below = _read(descriptor)
                if below not in ("", before[name]):
                    found[name] = NodeLoop(name, before[name], below)
        os.fchdir(home)
        os.chroot(".")
        return [one for name, one in sorted(found.items()) if _read(bound[name]) == one.path]


def _mounts(pid: int) -> Iterator[str]:
    for mount in mountinfo.read(pid):
        if mount.point != "/" and not mount.kind.startswith("fuse"):
            yield f"/proc/{pid}/root{mount.point}"


def _opened(opened: contextlib.ExitStack, path: str, flags: int) -> int:
    """-1 for what is gone by now, or hidden by another mount."""
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC)
    except OSError:
        return -1
    opened.callback(os.close, descriptor)
    return descriptor


def _read(descriptor: int) -> str:
    """Nothing for a device that is not bound any more."""
    try:
        return os.pread(descriptor, 1 << 13, 0).decode(errors="replace").strip()
    except OSError:
        return ""


def _text(backing: Path) -> str:
    try:
        return backing.read_text(errors="replace").strip()
    except OSError:
        return ""


def _backing(name: str) -> str:
    return f"/sys/block/{name}/loop/backing_file"


def unbind_those_on(directory: Path) -> list[str]:
    """Unbind every loop device whose file has a name below the directory, by its device and inode (loop(4)); returns
    their names."""
    ours = _files(directory)
    freed = []
    for path in glob.glob(_backing("*")):
        name = path.split("/")[3]
        with contextlib.suppress(OSError):  # another process may unbind it first
            device = os.open(f"/dev/{name}", os.O_RDONLY)
            try:
                status = bytearray(_INFO.size)
                fcntl.ioctl(device, _GET_STATUS64, status)
                where, inode = _INFO.unpack(status)
                if (where, inode) in ours:
                    fcntl.ioctl(device, _CLR_FD)
                    freed.append(name)
            finally:
                os.close(device)
    return freed


def _files(directory: Path) -> set[tuple[int, int]]:
    found = set()
    for top, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                status = os.lstat(f"{top}/{name}")
                found.add((status.st_dev, status.st_ino))
    return found
