"""A cache of the node's own: a writable file system in a sparse file in the user's directory, gone with the job.

The file is made with the user's rights, so that it counts on the user's quota, and has no name before it gets its first
byte: nobody can write it but through the mount, and the kernel reads only what shifter-xc and the kernel itself wrote.
It is filled from a template of an empty file system, which the plan has: the parts that are not zero.
"""

import errno
import fcntl
import os
import sys

from udiroot import loop
from udiroot.binds import SAFE
from udiroot.errors import SetupFailed, UsageError, printable
from udiroot.kernel import mount
from udiroot.plan import NodePlan, PlanCache
from udiroot.rights import FileRights

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from udiroot.mountinfo import Mount

_FILE_SYSTEM, _OPTIONS = "ext4", "noload,noinit_itable,barrier=0"
"""It has no journal, its unused inode tables stay unwritten, as holes of the file, and nothing has to reach a disk."""
_SHUTDOWN, _WITHOUT_FLUSH = 0x8004587D, 2
"""EXT4_IOC_SHUTDOWN and EXT4_GOING_FLAGS_NOLOGFLUSH."""
_TRIES = 3


def mount_cache(
    plan: NodePlan, cache: PlanCache, node: str, directory: int, name: str, announce: "Callable[[int], None]"
) -> "Callable[[str], None]":
    """What makes the cache in the open `directory` and mounts it on a path. `name` is for messages. `announce` gets the
    file before a loop device does: no path names it, so that nothing else could tell whose such a device is.

    It raises UsageError where the user's directory does not take the file, SetupFailed where the node cannot mount it.
    """

    def attach(path: str) -> None:
        backing = _unnamed_file(plan, f"/proc/self/fd/{directory}", name)
        try:
            _fill(backing, cache, name)
            announce(backing)
            device, device_path = loop.attach(backing, loop.label(node, plan.job), writable=True)
            try:
                mount(device_path, path, _FILE_SYSTEM, SAFE, _OPTIONS)
            except OSError as error:
                raise SetupFailed(f"{name}: {_FILE_SYSTEM} cannot be mounted: {error.strerror}") from error
            finally:
                os.close(device)
        finally:
            os.close(backing)

    return attach


def discard(mounted: "Mount") -> None:
    """Let the kernel forget what is not written yet (Linux 4.11): unmounting would wait for gigabytes on their way to
    the parallel file system that nobody will read. The mount must be of a loop device of shifter-xc."""
    if mounted.kind != _FILE_SYSTEM or "rw" not in mounted.options:
        return
    try:
        directory = os.open(mounted.point, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if os.fstat(directory).st_dev == mounted.device:  # the path may lead through a directory of the user's
                fcntl.ioctl(directory, _SHUTDOWN, _WITHOUT_FLUSH.to_bytes(4, sys.byteorder))
        finally:
            os.close(directory)
    except OSError:  # hidden by another mount, or an older kernel: then unmounting takes as long as it takes
        return


def _unnamed_file(plan: NodePlan, directory: str, name: str) -> int:
    """A new file of the user's that no name leads to and that nobody else has open."""
    user = plan.user
    try:
        with FileRights(user.uid, user.gid, user.groups):
            try:
                return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_EXCL | os.O_CLOEXEC, 0)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT):
                    raise
            for _ in range(_TRIES):
                descriptor = _created_and_unlinked(directory, name)
                if descriptor >= 0:
                    return descriptor
    except OSError as error:
        raise UsageError(f"{name}: no file can be created there: {error.strerror}") from error
    raise UsageError(f"{name}: another process opens or replaces files that are created there")


def _created_and_unlinked(directory: str, name: str) -> int:
    """A file system without O_TMPFILE: for a moment there is a name that nobody can guess, and a file of mode 0, which
    its owner cannot open without changing it. -1 where someone did."""
    path = f"{directory}/.udi-{os.urandom(16).hex()}"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0)
    before = os.fstat(descriptor)
    os.unlink(path)
    after = os.fstat(descriptor)
    unopened = (before.st_mode & 0o777, before.st_nlink, after.st_mode & 0o777, after.st_nlink) == (0, 1, 0, 0)
    if unopened and _is_open_once(descriptor, name):
        return descriptor
    os.close(descriptor)
    return -1


def _is_open_once(descriptor: int, name: str) -> bool:
    """The kernel grants a write lease only where no other descriptor of this node has the file open. Raises UsageError
    for a file system without leases: nothing else shows that."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    except OSError as error:
        if error.errno == errno.EAGAIN:
            return False
        raise UsageError(
            f"{name}: other programs could write the cache, since that file system has no unnamed files and no leases",
            "choose a directory on another file system",
        ) from error
    fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _fill(backing: int, cache: PlanCache, name: str) -> None:
    """Write the template's parts; all else stays a hole."""
    import binascii
    import zlib

    try:
        os.truncate(backing, cache.size)
        for line in cache.template.split("\n"):
            offset, data = line.split(" ")
            part = memoryview(zlib.decompress(binascii.a2b_base64(data)))
            position = int(offset)
            while part:
                written = os.pwrite(backing, part, position)
                part, position = part[written:], position + written
    except OSError as error:
        raise UsageError(f"{name}: a file of {cache.size} bytes cannot be made: {error.strerror}") from error
    except (ValueError, zlib.error) as error:
        raise SetupFailed(f"plan: invalid template of a cache: {printable(error)}") from error
