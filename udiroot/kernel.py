"""The system calls that Python has no function for, each wrapped once.

Every wrapper raises OSError with errno, its text and the path concerned. Constants are those of the kernel's headers.
Those that old kernels lack fail there with ENOSYS, and their callers have a fallback.
"""

import ctypes
import os
from struct import pack

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 0x1, 0x2, 0x4, 0x8
"""The same bits as MOUNT_ATTR_RDONLY and so on, of mount_setattr(2)."""
MS_REMOUNT, MS_NOATIME, MS_NODIRATIME = 0x20, 0x400, 0x800
MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 0x1000, 0x2000, 0x4000, 0x40000
UMOUNT_NOFOLLOW = 0x8

_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE = 1
_MOVE_FROM_DESCRIPTOR, _MOVE_TO_LINK = 0x4, 0x10
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x2, 0x10
_SYS_OPEN_TREE, _SYS_MOVE_MOUNT, _SYS_OPENAT2, _SYS_MOUNT_SETATTR = 428, 429, 437, 442
_SYS_INIT_MODULE, _SYS_DELETE_MODULE, _SYS_FINIT_MODULE = (
    (105, 106, 273) if os.uname().machine == "aarch64" else (175, 176, 313)
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)
_libc.syscall.restype = ctypes.c_long


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2)."""
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode())
    if _libc.mount(*arguments) < 0:
        raise _error(target)


def umount(target: str) -> None:
    """umount2(2), never lazily: a busy mount must be seen, not hidden. A link is not followed."""
    if _libc.umount2(os.fsencode(target), UMOUNT_NOFOLLOW) < 0:
        raise _error(target)


def open_tree(source: str, *, recursive: bool) -> int:
    """open_tree(2), Linux 5.2: a detached copy of the mount at `source`; its descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC | (_AT_RECURSIVE if recursive else 0)
    return _call(_SYS_OPEN_TREE, source, _AT_FDCWD, os.fsencode(source), flags)


def mount_setattr(tree: int, flags: int, *, recursive: bool) -> None:
    """mount_setattr(2), Linux 5.12: add `flags` to the tree and make it private (no propagation)."""
    where = _AT_EMPTY_PATH | (_AT_RECURSIVE if recursive else 0)
    attributes = pack("4Q", flags, 0, MS_PRIVATE, 0)
    _call(_SYS_MOUNT_SETATTR, "", tree, b"", where, attributes, len(attributes))


def move_mount(tree: int, target: str) -> None:
    """move_mount(2), Linux 5.2: attach the tree of a descriptor at `target`."""
    flags = _MOVE_FROM_DESCRIPTOR | _MOVE_TO_LINK
    _call(_SYS_MOVE_MOUNT, target, tree, b"", _AT_FDCWD, os.fsencode(target), flags)


def open_in_root(root: int, path: str) -> int:
    """openat2(2), Linux 5.6: an O_PATH descriptor of what `path` names if `root` is the root of all names."""
    how = pack("3Q", os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    return _call(_SYS_OPENAT2, path, root, os.fsencode(path), how, len(how))


def load_module(descriptor: int, name: str) -> None:
    """finit_module(2), or before Linux 3.8 init_module(2): load the module that the descriptor is open on."""
    try:
        _call(_SYS_FINIT_MODULE, name, descriptor, b"", 0)
    except OSError as error:
        if error.errno != 38:  # ENOSYS
            raise
        image = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        _call(_SYS_INIT_MODULE, name, image, len(image), b"")


def delete_module(name: str) -> None:
    """delete_module(2), without waiting: EWOULDBLOCK where it is in use."""
    _call(_SYS_DELETE_MODULE, name, os.fsencode(name), os.O_NONBLOCK)


def _call(number: int, path: str, *arguments: "int | bytes") -> int:
    values = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = int(_libc.syscall(ctypes.c_long(number), *values))
    if result < 0:
        raise _error(path)
    return result


def _error(path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), path)
