"""Giving up root for good, in a child that is about to become another program, or to send one signal.

The kernel is queried again afterwards: a step that had no effect must not go unnoticed.
"""

import ctypes
import errno
import os
import struct

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_GET_NO_NEW_PRIVS = 24, 38, 39
_CAPABILITY_VERSION = 0x20080522
_SYS_KEYCTL = 219 if os.uname().machine == "aarch64" else 250
_KEYCTL_JOIN_SESSION_KEYRING = 1
_NOBODY_S = (1 << 32) - 257
"""A uid and gid that no process has: neither an account, nor nobody, nor the kernel's -1."""
_libc = ctypes.CDLL(None, use_errno=True)


def become(uid: int, gid: int, groups: "tuple[int, ...]") -> None:
    """Become that user with only these groups, without any capability, and without a way to new ones.

    Raises OSError for a call that failed, PermissionError where any right of root would be kept.
    """
    if uid <= 0:
        raise PermissionError(errno.EPERM, f"uid {uid} is not that of a user")
    for capability in range(64):
        if _prctl(_PR_CAPBSET_DROP, capability) < 0:  # EINVAL after the last that this kernel has
            break
    lasting = _prctl(_PR_SET_NO_NEW_PRIVS, 1) == 0  # since Linux 3.5; before, nosuid on all mounts must do
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    _leave_keyring_of_root()
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    if _libc.capset(header, bytes(24)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "capset")
    if _is_more(header, uid, gid, groups) or (lasting and _prctl(_PR_GET_NO_NEW_PRIVS, 0) != 1):
        raise PermissionError(errno.EPERM, "rights of root would be kept")


def become_sender(uid: int) -> None:
    """Become one that may signal what runs as `uid`, and nothing else, for ever.

    Only the effective uid is the user's: that gives the right to signal his processes, while the right to signal this
    one would come from the real or saved uid, which are nobody's. Raises as `become` does.
    """
    if uid <= 0:
        raise PermissionError(errno.EPERM, f"uid {uid} is not that of a user")
    os.setgroups(())
    os.setresgid(_NOBODY_S, _NOBODY_S, _NOBODY_S)
    os.setresuid(_NOBODY_S, uid, _NOBODY_S)
    header = struct.pack("Ii", _CAPABILITY_VERSION, 0)
    if _libc.capset(header, bytes(24)) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "capset")
    held = ctypes.create_string_buffer(24)
    if _libc.capget(header, held) < 0 or held.raw.strip(b"\0") or os.getresuid() != (_NOBODY_S, uid, _NOBODY_S):
        raise PermissionError(errno.EPERM, "rights of root would be kept")


def _leave_keyring_of_root() -> None:
    """A session keyring of its own: keys in that of the fan-out's daemon would stay within reach."""
    words = (ctypes.c_long(word) for word in (_SYS_KEYCTL, _KEYCTL_JOIN_SESSION_KEYRING, 0))
    if _libc.syscall(*words) < 0 and ctypes.get_errno() != errno.ENOSYS:  # a kernel may have no keys at all
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "keyctl")


def _is_more(header: bytes, uid: int, gid: int, groups: "tuple[int, ...]") -> bool:
    """Whether this process is, or can still become, anything else than that user."""
    held = ctypes.create_string_buffer(24)
    if _libc.capget(header, held) < 0 or held.raw.strip(b"\0"):
        return True
    if os.getresuid() != (uid,) * 3 or os.getresgid() != (gid,) * 3 or set(os.getgroups()) != set(groups):
        return True
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def _prctl(option: int, value: int) -> int:
    words = (ctypes.c_ulong(value), *(ctypes.c_ulong(0) for _ in range(3)))
    return int(_libc.prctl(ctypes.c_int(option), *words))
