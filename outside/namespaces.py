"""Namespaces of this process and its children: the calls that Python 3.11 has no function for."""

from __future__ import annotations

import ctypes
import os

NEW_MOUNTS, NEW_USERS = 0x00020000, 0x10000000
_MS_REC, _MS_SLAVE, _MS_PRIVATE = 0x4000, 1 << 19, 1 << 18
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    if _libc.unshare(flags) < 0:
        raise _error("unshare")


def own_mounts(*, follows: bool) -> None:
    """Mounts of our own from here on. What is mounted here is seen nowhere else; where it `follows`, what the host
    unmounts goes here too, so that a session keeps no file system of the host busy. Raises OSError."""
    unshare(NEW_MOUNTS)
    if _libc.mount(b"none", b"/", None, _MS_REC | (_MS_SLAVE if follows else _MS_PRIVATE), None) < 0:
        raise _error("/")


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
