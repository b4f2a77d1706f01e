"""Kernel modules that an image's format needs: loaded where the kernel lacks them, and taken out again if we did.

A kernel of the Cray kind has neither squashfs nor loop built in. What was absent before us stands in the record before
it is loaded; at teardown those that nobody uses leave. One that somebody else began to use meanwhile stays.
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

    A kernel without modules (no /proc/modules) has what it has.
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
            if error.errno != errno.EEXIST:  # somebody loaded it meanwhile
                raise SetupFailed(f"kernel module {path}: {error.strerror}") from error


def unload(paths: "tuple[str, ...]") -> None:
    """Take out those that are loaded and that nobody uses, the last loaded first."""
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
    """Names of those that are still loaded although nobody uses them."""
    loaded = _loaded() or {}
    return [name for name in map(name_of, paths) if loaded.get(name) == 0]


def name_of(path: str) -> str:
    """The kernel's name of the module in a file: /lib/modules/3.0/fs/squash-fs.ko is squash_fs."""
    return path.rpartition("/")[2].partition(".")[0].replace("-", "_")


def _loaded() -> "dict[str, int] | None":
    """Name → how many use it, of every loaded module; None where the kernel has no modules."""
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
            raise SetupFailed(f"kernel module {path}: must be a file of root's that nobody else may write")
        kernel.load_module(descriptor, path)
    finally:
        os.close(descriptor)
