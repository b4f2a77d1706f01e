"""Files that are in memory only, and have no name."""

from __future__ import annotations

import errno
import os

_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - whoever may write there cannot open a file without a name


def memory_file(name: str) -> int:
    """The descriptor of a new one, which `/proc` shows by `name`. Raises OSError.

    Linux has memfd_create(2) since 3.17; before that, it is a file of the tmpfs that POSIX shared memory uses.
    """
    try:
        return os.memfd_create(name, os.MFD_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
    import tempfile  # few kernels need it

    with tempfile.TemporaryFile(dir=_SHARED_MEMORY, buffering=0) as file:
        return os.dup(file.fileno())
