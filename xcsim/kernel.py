"""The few kernel calls that xcsim needs and Python 3.11 does not have: namespaces, mounts, pivot_root, prctl.

Every wrapper raises `OSError(errno, text, path)`; none of them makes decisions.
"""

import ctypes
import fcntl
import os
import socket
import struct

CLONE_FS = 0x00000200
CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18

MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38

_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_libc.setns.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.unshare.argtypes = [ctypes.c_int]
_libc.pivot_root.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.sethostname.argtypes = [ctypes.c_char_p, ctypes.c_size_t]


def _checked(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), what)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(source.encode(), target.encode(), fstype.encode() or None, flags, options.encode() or None)
    _checked(result, target)


def bind(source: str, target: str, *, readonly: bool = False) -> None:
    """Bind one mount (nothing below it) onto an existing target."""
    mount(source, target, flags=MS_BIND)
    if readonly:
        mount("none", target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    _checked(_libc.umount2(target.encode(), flags), target)


def unshare(flags: int) -> None:
    """unshare(2)."""
    _checked(_libc.unshare(flags), "unshare")


def setns(descriptor: int) -> None:
    """setns(2) for whichever namespace the descriptor names."""
    _checked(_libc.setns(descriptor, 0), "setns")


def enter_root(new_root: str) -> None:
    """Make `new_root` (a mount) the root of this mount namespace and detach the old one."""
    os.chdir(new_root)
    _checked(_libc.pivot_root(b".", b"."), new_root)
    umount(".", MNT_DETACH)
    os.chdir("/")


def set_host_name(name: str) -> None:
    """sethostname(2)."""
    raw = name.encode()
    _checked(_libc.sethostname(raw, len(raw)), name)


def die_with_parent(signal_number: int) -> None:
    """Receive this signal when the parent exits; must be called after every change of user."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def no_new_privileges() -> None:
    """Set-user-id programs have no effect from here on."""
    _checked(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "prctl")


def raise_loopback() -> None:
    """Bring `lo` of this network namespace up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
