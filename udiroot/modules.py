"""Kernel modules that an image's format needs: loaded where the kernel lacks them, and unloaded again at teardown.

A Cray kernel has neither squashfs nor loop built in. Modules that were absent are in the record before they are loaded;
teardown unloads those that are unused. One that another program has begun to use meanwhile stays.
"""

import errno
import os
import stat

from udiroot import kernel, smallfile
from udiroot.errors import SetupFailed

_TABLE = "/proc/modules"
_BUSY = (errno.EWOULDBLOCK, errno.EBUSY, errno.ENOENT)


def absent(paths: "tuple[str, ...]") -> "tuple[str, ...]":
    """Those of the module files that this kernel has neither loaded nor built in, in the same order.

    A kernel without modules (no /proc/modules) lacks none.
    """
    loaded = _loaded()
    if not paths or loaded is None:
        return ()
    kinds = smallfile.read("/proc/filesystems").decode("ascii").split()
    return tuple(
        path
        for path in paths
        if (name := name_of(path)) not in loaded and name not in kinds and not os.path.exists(f"/sys/module/{name}")
    )


def load(paths: "tuple[str, ...]") -> None:
    """Load the module files in this order; `{release}` in a path is the running kernel's. Raises SetupFailed."""
    for path in paths:
        try:
            _load(path.replace("{release}", os.uname().release))
        except OSError as error:
            if error.errno != errno.EEXIST:  # another program loaded it meanwhile
                raise SetupFailed(f"kernel module {path}: {error.strerror}") from error


def unload(paths: "tuple[str, ...]") -> None:
    """Unload those that are loaded and unused, the last loaded first."""
    loaded = _loaded() or {}
    for path in reversed(paths):
        name = name_of(path)
        if name not in loaded:
            continue
        try:
            kernel.delete_module(name)
        except OSError as error:
            if error.errno not in _BUSY:
                raise


def unused(paths: "tuple[str, ...]") -> "list[str]":
    """Names of those that are unused and still loaded."""
    loaded = _loaded() or {}
    return [name for name in map(name_of, paths) if loaded.get(name) == 0]


def name_of(path: str) -> str:
    """The kernel's name of the module in a file: /lib/modules/3.0/fs/squash-fs.ko is squash_fs."""
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def _loaded() -> "dict[str, int] | None":
    """Name → number of users, of every loaded module; None where the kernel has no modules."""
    try:
        text = smallfile.read(_TABLE).decode("ascii")
    except FileNotFoundError:
        return None
    rows = [line.split() for line in text.split("\n") if line]
    return {row[0]: int(row[2]) if row[2].isdecimal() else -1 for row in rows}


def _load(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != 0 or status.st_mode & 0o022:
            raise SetupFailed(
                f"kernel module {path}: must be a regular file that is owned by root and writable by nobody else"
            )
        kernel.load_module(descriptor, path)
    finally:
        os.close(descriptor)
