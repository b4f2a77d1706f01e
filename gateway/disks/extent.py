"""Whether a disk image is whole. QEMU reads zeros where the file of an image ends too early, and so would a job.

Each check goes through the tables that say where the image keeps its data. What else is wrong with a table is for QEMU
to say. A file may end within its last piece of data, as QEMU itself leaves it.
"""

from __future__ import annotations

import struct

from gateway.image.blob import Blob
from udiroot.errors import ImageInvalid

_OFFSET = 0x00FFFFFFFFFFFE00
_COMPRESSED = 1 << 62
_MOST_TABLES = 1 << 22
_SECTOR = 512
_NO_DIRECTORY = (1 << 64) - 1


def require_whole_qcow2(image: Blob) -> None:
    """By the tables of two levels that have an offset for each cluster (QEMU's docs/interop/qcow2.txt)."""
    bits, count, first = struct.unpack(">I12xIQ", image.read_at(20, 28).ljust(28, b"\0"))
    if not 9 <= bits <= 21 or count > _MOST_TABLES:
        return
    in_compressed = (1 << (62 - (bits - 8))) - 1
    has_bitmaps = bool(image.read_at(79, 1).ljust(1, b"\0")[0] & 0x10) and image.read_at(7, 1) == b"\3"
    for table in {entry & _OFFSET for entry in _numbers(image, first, count, ">Q")} - {0}:
        entries = _numbers(image, table, (1 << bits) // 8, ">Q")
        for entry in entries[:: 2 if has_bitmaps else 1]:
            _require_within(image, entry & (in_compressed if entry & _COMPRESSED else _OFFSET))
        _require_within(image, table)


def require_whole_vmdk(image: Blob) -> None:
    """By the directory of tables that have a sector for each grain; one that is written as a stream has none there."""
    per_table, directory = struct.unpack("<I8xQ", image.read_at(44, 20).ljust(20, b"\0"))
    capacity, grain = struct.unpack("<QQ", image.read_at(12, 16).ljust(16, b"\0"))
    if directory == _NO_DIRECTORY or not per_table or not grain:
        return
    count = -(-capacity // (per_table * grain))
    if count > _MOST_TABLES or per_table > _MOST_TABLES:
        return
    for table in set(_numbers(image, directory * _SECTOR, count, "<I")) - {0}:
        _require_within(image, table * _SECTOR)
        for sector in _numbers(image, table * _SECTOR, per_table, "<I"):
            _require_within(image, sector * _SECTOR)


def require_whole_vdi(image: Blob) -> None:
    """By the number of blocks that it has, which lie one after the other and are all written completely."""
    first, block, blocks = struct.unpack("<I28xI8xI", image.read_at(344, 48).ljust(48, b"\0"))
    if blocks:
        _require_within(image, first + blocks * block - 1)


def _numbers(image: Blob, at: int, count: int, form: str) -> tuple[int, ...]:
    """The numbers of a table, as far as it is there."""
    size = struct.calcsize(form)
    raw = image.read_at(at, count * size)
    return struct.unpack(f"{form[0]}{len(raw) // size}{form[1]}", raw[: len(raw) // size * size])


def _require_within(image: Blob, at: int) -> None:
    if at >= image.size:
        raise ImageInvalid(
            f"the disk image is cut off: it has data at byte {at}, and ends after {image.size} bytes", "copy it again"
        )
