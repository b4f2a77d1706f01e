"""Where file systems may be on a disk: its partitions by GPT or MBR, or the whole disk where it has no table.

UEFI specification 2.10, chapter 5 (GPT and the layout of an MBR). Nothing of a table is trusted: what lies outside the
disk is left out, and the number of partitions is bounded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gateway.image.blob import Blob
from udiroot.errors import ImageInvalid

_SECTORS = (512, 4096)
_MOST = 128
_SIGNATURE = b"\x55\xaa"
_GPT = b"EFI PART"
_PROTECTIVE = 0xEE
_EXTENDED = (0x05, 0x0F, 0x85)
_GPT_HEADER = struct.Struct("<8sIIIIQQQQ16sQIII")
_MBR_ENTRY = struct.Struct("<B3sB3sII")


def partitions(disk: Blob) -> list[Blob]:
    """The partitions in the order of the table; the disk itself where it has no table. Raises ImageInvalid."""
    start = disk.read_at(0, 512)
    if len(start) < 512:
        raise ImageInvalid(f"disk image has only {disk.size} bytes")
    for sector in _SECTORS:
        header = disk.read_at(sector, 512)
        if header.startswith(_GPT):
            return list(_of_gpt(disk, header, sector))
    if start[510:] != _SIGNATURE:
        return [disk]
    found = list(_of_mbr(disk, start))
    return found or [disk]


def _of_gpt(disk: Blob, header: bytes, sector: int) -> Iterator[Blob]:
    fields = _GPT_HEADER.unpack_from(header)
    first, count, size = fields[10], fields[11], fields[12]
    if not (128 <= size <= 4096) or count > 1024:
        raise ImageInvalid(f"the disk's partition table (GPT) is damaged: {count} entries of {size} bytes")
    table = disk.read_at(first * sector, count * size)
    for at in range(0, len(table) - size + 1, size):
        kind, begin, end = table[at : at + 16], *struct.unpack_from("<QQ", table, at + 32)
        if any(kind):
            yield from _within(disk, begin * sector, (end - begin + 1) * sector)


def _of_mbr(disk: Blob, start: bytes) -> Iterator[Blob]:
    for kind, begin, count in _entries(start):
        if kind in _EXTENDED:
            yield from _logical(disk, begin)
        elif kind != _PROTECTIVE:
            yield from _within(disk, begin * 512, count * 512)


def _logical(disk: Blob, extended: int) -> Iterator[Blob]:
    """The chain of logical partitions: each table has one and the place of the next, counted from the first table."""
    at = extended
    for _ in range(_MOST):
        table = disk.read_at(at * 512, 512)
        if table[510:] != _SIGNATURE:
            return
        following = 0
        for kind, begin, count in _entries(table):
            if kind in _EXTENDED:
                following = extended + begin
            else:
                yield from _within(disk, (at + begin) * 512, count * 512)
        if not following:
            return
        at = following
    raise ImageInvalid(f"the disk has more than {_MOST} logical partitions, or its table leads in a circle")


def _entries(table: bytes) -> Iterator[tuple[int, int, int]]:
    """Type, first sector and number of sectors of the four entries that are in use."""
    for at in range(446, 510, 16):
        _, _, kind, _, begin, count = _MBR_ENTRY.unpack_from(table, at)
        if kind and count:
            yield kind, begin, count


def _within(disk: Blob, offset: int, size: int) -> Iterator[Blob]:
    """The part of the disk, as far as that is long: an image may be cut after its last file system."""
    size = min(size, disk.size - offset)
    if offset > 0 and size > 0:
        yield Blob(disk.descriptor, disk.offset + offset, size)
