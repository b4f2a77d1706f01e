"""The system calls that Python has no function for, each wrapped once.

Every wrapper raises OSError with errno, its text and the path concerned. Constants are those of the kernel's headers.
"""

import ctypes
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 0x20, 0x400, 0x800
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
UMOUNT_NOFOLLOW = 0x8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode())
    if _libc.mount(*arguments) < 0:
        raise _error(target)


def umount(target: str) -> None:
    """umount2(2), at once and never lazily: a busy mount must be seen, not hidden. A link is not followed."""
    if _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW) < 0:
        raise _error(target)


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
