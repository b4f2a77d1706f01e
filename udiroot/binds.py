"""Binding a directory or file of the node into a root, with its flags from the first moment on.

Kernels since 5.12 make a detached copy of the mount, set the flags on it and everything below, and then attach it.
Older ones bind first and set the flags mount by mount; so this is for trees that nobody can reach yet.
"""

import errno
import os

from udiroot import mountinfo
from udiroot.kernel import (
    MS_BIND,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
)

SAFE = MS_NOSUID | MS_NODEV
FROZEN = SAFE | MS_RDONLY
_KEPT_OPTIONS = {"ro": MS_RDONLY, "noexec": MS_NOEXEC, "noatime": MS_NOATIME, "nodiratime": MS_NODIRATIME,
                 "nosuid": MS_NOSUID, "nodev": MS_NODEV}  # fmt: skip


def bind(source: str, target: str, flags: int, *, recursive: bool = False) -> None:
    """Bind `source` on `target` with `flags`; `recursive` includes what is mounted below, with the same flags.

    Nothing that is mounted later on one side appears on the other. No user may be able to change what `target` leads
    to, which must be free of links, and not that of a descriptor.
    """
    try:
        tree = open_tree(source, recursive=recursive)
        try:
            mount_setattr(tree, flags, recursive=recursive)
            move_mount(tree, target)
        finally:
            os.close(tree)
    except OSError as error:
        if error.errno != errno.ENOSYS:
            raise
        _bind_then_remount(source, target, flags, MS_REC if recursive else 0)


def _bind_then_remount(source: str, target: str, flags: int, depth: int) -> None:
    mount(source, target, flags=MS_BIND | depth)
    mount("", target, flags=MS_PRIVATE | depth)
    for mounted in mountinfo.read_below(target):
        kept = 0
        for option in mounted.options:
            kept |= _KEPT_OPTIONS.get(option, 0)
        mount("", mounted.point, flags=MS_BIND | MS_REMOUNT | kept | flags)
