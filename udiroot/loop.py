"""Loop devices, by ioctl: bound to a descriptor, named for their node and job, and freed by the kernel when
their last user is gone (autoclear).

LOOP_CONFIGURE does everything in one step since kernel 5.8. Older kernels need LOOP_SET_FD and LOOP_SET_STATUS64, and
before 3.1 there is no control device, so that a free device is found by querying each. Another program may take the
device in between: then the next one is tried, a limited number of times.
"""

import errno
import fcntl
import os
import time
from struct import Struct

from udiroot import smallfile
from udiroot.errors import SetupFailed

_SET_FD, _CLR_FD, _SET_STATUS64, _GET_STATUS64 = 0x4C00, 0x4C01, 0x4C04, 0x4C05
_CONFIGURE, _CTL_GET_FREE = 0x4C0A, 0x4C82
_READ_ONLY, _AUTOCLEAR = 1, 4
_INFO = Struct("5Q4I64s64s32s2Q")
"""struct loop_info64: device, inode, rdevice, offset, sizelimit; number, encrypt type, key size, flags; file name, …"""
_NAME_AT = 9
_CONFIG_HEAD = Struct("2I")
_CONFIG_TAIL = b"\0" * 64
_MAX_LABEL, _MAX_NODE = 63, 29
"""Bytes that the kernel keeps of a device's name, and how many of them a node's identity may take."""
_SHORTENED = "~"
"""Separates the beginning of a long identity or job id from its digest; neither has such a character."""
_TRIES = 50
_TAKEN = (errno.EBUSY, errno.EAGAIN, errno.ENXIO, errno.ENODEV, errno.ENOENT)
"""Another program was faster, or the device's file in /dev does not exist yet."""


def label(node: str, job: str) -> str:
    """The name of our loop devices, `udi:<node>:<job>`, in at most 63 bytes; without `job`, what the names of all
    jobs on that node begin with.

    An identity or job id that is too long is shortened to its beginning and digest, so that no two become the same.
    """
    head = f"udi:{_fitting(node, _MAX_NODE)}:"
    return head + _fitting(job, _MAX_LABEL - len(head))


def job_of(name: str) -> str:
    """The job in the name of one of our loop devices; nothing, where its id was shortened."""
    job = name.split(":", 2)[2]
    return "" if _SHORTENED in job else job


def attach(backing: int, name: str, *, writable: bool = False) -> "tuple[int, str]":
    """Bind a free loop device to the descriptor `backing`, read-only unless `writable`; its descriptor and its path.

    The device lives as long as that descriptor or a mount of it. Raises SetupFailed when there is none.
    """
    last = ""
    for attempt in range(_TRIES):
        number = _free_number(attempt)
        path = f"/dev/loop{number}"
        try:
            device = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            last = f"{path}: {error.strerror}"
            if error.errno not in _TAKEN:
                break
        else:
            try:
                _bind(device, backing, name, _AUTOCLEAR if writable else _READ_ONLY | _AUTOCLEAR)
                return device, path
            except OSError as error:
                os.close(device)
                last = f"{path}: {error.strerror}"
                if error.errno not in _TAKEN:
                    break
        time.sleep(0.001 * min(attempt, 20))
    raise SetupFailed(f"no free loop device: {last}")


def file_id(backing: int) -> str:
    """What `bound` says of a device that is bound to the open file."""
    status = os.fstat(backing)
    return f"{status.st_dev}:{status.st_ino}"


def bound() -> "dict[str, tuple[str, str, str]]":
    """Every bound loop device of this kernel: its path → its name, the path of its file, and which file that is."""
    found = {}
    for entry in os.listdir("/sys/block"):
        if not entry.startswith("loop"):
            continue
        try:
            backing = os.fsdecode(smallfile.read(f"/sys/block/{entry}/loop/backing_file").rstrip(b"\n"))
            path = f"/dev/{entry}"
            name, file = _status(path)
            found[path] = (name, backing, file)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
    return found


def name_of(path: str) -> str:
    """The name of one bound loop device. Raises OSError."""
    return _status(path)[0]


def detach(path: str) -> None:
    """Free a device that is bound but not in use; one in use is freed by the kernel when its last user is gone."""
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.ioctl(device, _CLR_FD)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
    finally:
        os.close(device)


def _status(path: str) -> "tuple[str, str]":
    """The name of one bound loop device, and its file as `file_id` names it. Raises OSError."""
    device = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        info = _INFO.unpack(fcntl.ioctl(device, _GET_STATUS64, bytes(_INFO.size)))
    finally:
        os.close(device)
    return os.fsdecode(info[_NAME_AT].rstrip(b"\0")), f"{info[0]}:{info[1]}"


def _fitting(text: str, room: int) -> str:
    if len(text) <= room:
        return text
    from udiroot import digest  # hardly ever needed

    tail = _SHORTENED + digest.sha256(text.encode("utf-8", "surrogateescape"))[:16]
    return text[: room - len(tail)] + tail


def _bind(device: int, backing: int, name: str, flags: int) -> None:
    info = _INFO.pack(*(0,) * 8, flags, os.fsencode(name), b"", b"", 0, 0)
    try:
        fcntl.ioctl(device, _CONFIGURE, _CONFIG_HEAD.pack(backing, 0) + info + _CONFIG_TAIL)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTTY):
            raise
        _bind_in_two_steps(device, backing, info)


def _bind_in_two_steps(device: int, backing: int, info: bytes) -> None:
    """As kernels before 5.8 need it. A failed second step leaves the device bound, so it is freed here."""
    fcntl.ioctl(device, _SET_FD, backing)
    try:
        for attempt in range(_TRIES):
            try:
                fcntl.ioctl(device, _SET_STATUS64, info)
                return
            except OSError as error:
                if error.errno != errno.EAGAIN or attempt == _TRIES - 1:
                    raise
                time.sleep(0.001)
    except OSError:
        fcntl.ioctl(device, _CLR_FD)
        raise


def _free_number(attempt: int) -> int:
    """A device that is free at this moment, from the control device where the kernel has one."""
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return _scan(attempt)
    try:
        return fcntl.ioctl(control, _CTL_GET_FREE)
    finally:
        os.close(control)


def _scan(attempt: int) -> int:
    """The first device that is not bound (ENXIO); with later attempts, one further on."""
    free = 0
    for number in range(256):
        try:
            device = os.open(f"/dev/loop{number}", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            break
        try:
            fcntl.ioctl(device, _GET_STATUS64, bytes(_INFO.size))
        except OSError as error:
            if error.errno == errno.ENXIO:
                if free >= attempt % 8:
                    return number
                free += 1
        finally:
            os.close(device)
    raise SetupFailed(
        "no free loop device among /dev/loop*", "check that the loop module is loaded and max_loop is large enough"
    )
