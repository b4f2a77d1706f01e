"""What every root has in any case: the kernel's file systems, and empty ones of the job's own."""

import os
from errno import EINVAL

from udiroot.binds import SAFE, bind
from udiroot.kernel import MS_NOEXEC, MS_NOSUID, mount

BOUND = ("/proc", "/sys", "/dev")
"""The node's own. /proc is bound rather than mounted again: a new one would not have the node's `hidepid`."""
EMPTY = ("/tmp", "/var/tmp")
"""File systems of the job's own, in memory, that start empty."""
_SHARED_MEMORY = "/dev/shm"


def mount_views(root: str, label: str, limit: int) -> "set[int]":
    """Mount them in a root whose mount points exist. `limit` is the size of each empty one in bytes.

    Returns the devices of the empty ones. /dev/shm is one of them wherever the node has such a directory, so that
    POSIX shared memory is the job's own and goes with it.
    """
    try:
        bind("/proc", root + "/proc", SAFE | MS_NOEXEC)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        # in a user's own namespace, what is mounted below it may not be uncovered
        bind("/proc", root + "/proc", SAFE | MS_NOEXEC, recursive=True)
    bind("/sys", root + "/sys", SAFE, recursive=True)
    bind("/dev", root + "/dev", MS_NOSUID, recursive=True)
    empty = [*EMPTY]
    if os.path.isdir(root + _SHARED_MEMORY) and not os.path.islink(root + _SHARED_MEMORY):
        empty.append(_SHARED_MEMORY)
    for path in empty:
        mount(label, root + path, "tmpfs", SAFE, f"mode=1777,size={limit}")
    return {os.stat(root + path).st_dev for path in empty}
