"""Extended attributes: which of a layer's are kept, and the kernel's limits on those (`linux/limits.h`).

What is beyond the limits no node could read. It is refused, as whoever unpacks the layer is refused by the kernel.
"""

from __future__ import annotations

from gateway.image.tar_reader import FIFO, SYMLINK, Member, Xattrs
from gateway.image.tree import shown
from udiroot.errors import ImageInvalid

_KEPT = (b"user.", b"trusted.")
"""What squashfs supports, without `security.*`: file capabilities have no effect in a root mounted nosuid."""
_OVERLAY = (b"user.overlay.", b"trusted.overlay.")
"""Orders to the kernel's overlay, of which a node may make the image a layer: they would hide or redirect files there.
(The overlay's whiteouts are device nodes 0:0, and no device is kept.)"""
_USER = b"user."
_WITHOUT_USER = (SYMLINK, FIFO)
"""Kinds of members that can have none of those: the kernel sets and shows them on files and directories alone."""
_MAX_NAME = 255
_MAX_VALUE = 65536
_MAX_LIST = 65536
"""Bytes of the names of one file, each with its NUL."""


def kept(member: Member) -> Xattrs:
    """The attributes of a member that the image gets. Raises ImageInvalid."""
    dropped = (*_OVERLAY, _USER) if member.kind in _WITHOUT_USER else _OVERLAY
    found = tuple(pair for pair in member.xattrs if pair[0].startswith(_KEPT) and not pair[0].startswith(dropped))
    for name, value in found:
        if len(name) > _MAX_NAME or b"\0" in name or name in _KEPT:
            raise _refused(member, f"the attribute '{shown(name)}', whose name is not valid")
        if len(value) > _MAX_VALUE:
            raise _refused(member, f"the attribute '{shown(name)}' of {len(value)} bytes, the limit is {_MAX_VALUE}")
    names = sum(len(name) + 1 for name, _ in found)
    if names > _MAX_LIST:
        raise _refused(member, f"attributes whose names have {names} bytes, the limit is {_MAX_LIST}")
    return found


def has_orders(member: Member) -> bool:
    """Whether a member has attributes that the kernel's overlay obeys."""
    return any(name.startswith(_OVERLAY) for name, _ in member.xattrs)


def _refused(member: Member, what: str) -> ImageInvalid:
    return ImageInvalid(f"{shown(member.name)} has {what}")
