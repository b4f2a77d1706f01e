"""Loop devices that a node left bound to a file of this machine, found by device and inode (loop(4))."""

import contextlib
import fcntl
import glob
import os
import struct
from pathlib import Path

_GET_STATUS64, _CLR_FD = 0x4C05, 0x4C01
_INFO = struct.Struct("=QQ216x")


def unbind_those_on(directory: Path) -> list[str]:
    """Unbind every loop device whose file is below the directory; returns their names."""
    ours = _files(directory)
    freed = []
    for path in glob.glob("/sys/block/loop*/loop/backing_file"):
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
