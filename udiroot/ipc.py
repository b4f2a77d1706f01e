"""POSIX message queues, and System V shared memory, queues and semaphores, which outlive every process that used them.

No directory of a root holds them: they belong to the node's kernel and to a user. POSIX shared memory is files of
/dev/shm, which a root has as a file system of its own.
"""

import ctypes
import errno
import os

from udiroot import smallfile
from udiroot.binds import SAFE
from udiroot.kernel import MS_NOEXEC, mount, umount

_libc = ctypes.CDLL(None, use_errno=True)
_IPC_RMID = 0
_SYSTEM_V = {"shm": "shmctl", "msg": "msgctl", "sem": "semctl"}
"""A table of /proc/sysvipc (proc(5)) → the call that removes its entries."""
_GONE = (errno.EINVAL, errno.EIDRM)


def remove(uid: int, directory: str) -> int:
    """Remove everything of `uid`; how many. `directory` is where the file system of queues may be mounted meanwhile.

    To be called when no process of that user is left.
    """
    return _remove_queues(uid, directory) + sum(_remove_system_v(uid, table) for table in _SYSTEM_V)


def _remove_queues(uid: int, directory: str) -> int:
    if not os.path.isdir(directory):
        os.mkdir(directory, 0o700)
    try:
        mount("mqueue", directory, "mqueue", SAFE | MS_NOEXEC)
    except OSError as error:
        os.rmdir(directory)
        if error.errno == errno.ENODEV:  # a kernel without them
            return 0
        raise
    try:
        removed = sum(_remove_queue(uid, f"{directory}/{name}") for name in os.listdir(directory))
    finally:
        umount(directory)
        os.rmdir(directory)
    return removed


def _remove_queue(uid: int, path: str) -> bool:
    """Whether there was such a queue of `uid`. Those of others come and go meanwhile."""
    try:
        if os.stat(path, follow_symlinks=False).st_uid != uid:
            return False
        os.unlink(path)
    except FileNotFoundError:
        return False
    return True


def _remove_system_v(uid: int, table: str) -> int:
    try:
        header, *rows = smallfile.read(f"/proc/sysvipc/{table}").decode("ascii").splitlines()
    except (FileNotFoundError, ValueError):  # a kernel without them
        return 0
    creator = header.split().index("cuid")
    found = [int(fields[1]) for row in rows if (fields := row.split())[creator] == str(uid)]
    for number in found:
        if table == "sem":
            done = _libc.semctl(number, 0, _IPC_RMID)
        else:
            done = _libc[_SYSTEM_V[table]](number, _IPC_RMID, None)
        if done < 0 and ctypes.get_errno() not in _GONE:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"/proc/sysvipc/{table} {number}")
    return len(found)
