"""Which file system of a disk is the root: by what is in it, not by what a table or /etc/fstab says."""

from __future__ import annotations

import os
import stat

from gateway.disks.ext import ROOT, ExtFileSystem, is_ext
from gateway.disks.partitions import partitions
from gateway.image.blob import Blob
from gateway.image.compression import compression_of
from udiroot.errors import ImageInvalid

_KINDS = (
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "encrypted with LUKS"),
    (0x200, b"LABELONE", "a physical volume of LVM"),
    (0xFF6, b"SWAPSPACE2", "swap space"),
    (82, b"FAT32", "FAT"),
    (54, b"FAT", "FAT"),
    (3, b"NTFS", "NTFS"),
    (0, b"hsqs", "squashfs"),
    (0x8001, b"CD001", "the ISO 9660 of a CD"),
)
"""Place and mark of what is found in partitions, and its name."""
_FORMATS = ((0, b"QFI\xfb", "vm-qcow2"), (0, b"KDMV", "vm-vmdk"), (64, b"\x7f\x10\xda\xbe", "vm-vdi"))
"""Place and mark of the formats of disks, and the kind of source that reads them."""
_HINT = (
    "only ext2, ext3 and ext4 are read: copy its files to such a file system, or into an archive (rootfs-archive:FILE)"
)


def root_of(disk: Blob, wanted: str) -> ExtFileSystem:
    """The root file system of a disk: that of the partition `wanted`, counted from 1, or where that is empty the only
    one that looks like one. Raises ImageInvalid."""
    _require_plain(disk)
    parts = [disk] if _kind(disk) else partitions(disk)
    if wanted:
        return _chosen(parts, wanted)
    found = [(number, system) for number, part in enumerate(parts, 1) if (system := _root_in(part)) is not None]
    if len(found) == 1:
        return found[0][1]
    if found:
        numbers = " and ".join(str(number) for number, _ in found)
        raise ImageInvalid(
            f"partitions {numbers} of the disk image each look like a root file system", "name one: FILE:PARTITION"
        )
    listed = ", ".join(f"partition {number}: {_kind(part) or 'unknown'}" for number, part in enumerate(parts, 1))
    raise ImageInvalid(f"no root file system in the disk image ({listed or 'no partition'})", _HINT)


def _require_plain(disk: Blob) -> None:
    """Raises ImageInvalid for a file that does not begin as a disk does."""
    for at, mark, kind in _FORMATS:
        if disk.read_at(at, len(mark)) == mark:
            raise ImageInvalid(f"the disk image is of the format {kind.removeprefix('vm-')}", f"pull it as {kind}:FILE")
    way = compression_of(disk)
    if way != "plain":
        raise ImageInvalid(f"the disk image is compressed with {way}", "decompress it first")


def _chosen(parts: list[Blob], wanted: str) -> ExtFileSystem:
    number = int(wanted) if wanted.isdecimal() and len(wanted) < 5 else 0
    if not 1 <= number <= len(parts):
        raise ImageInvalid(f"the disk image has no partition '{wanted}', but {len(parts)}", "name one: FILE:PARTITION")
    part = parts[number - 1]
    if not is_ext(part):
        raise ImageInvalid(f"partition {number} of the disk image cannot be read: {_kind(part) or 'unknown'}", _HINT)
    return ExtFileSystem(part)


def _root_in(part: Blob) -> ExtFileSystem | None:
    """The file system, where it has /etc and programs."""
    if not is_ext(part):
        return None
    system = ExtFileSystem(part)
    names = {os.fsdecode(name): number for name, number in system.entries(system.inode(ROOT))}
    has_programs = "bin" in names or "usr" in names
    has_etc = "etc" in names and stat.S_ISDIR(system.inode(names["etc"]).mode)
    return system if has_etc and has_programs else None


def _kind(part: Blob) -> str:
    """What a partition holds, in words; nothing, where that is not known."""
    if is_ext(part):
        return "ext"
    return next((name for at, mark, name in _KINDS if part.read_at(at, len(mark)) == mark), "")
