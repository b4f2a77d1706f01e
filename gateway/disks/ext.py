"""ext2, ext3 and ext4, read from a blob: inodes, directories, contents, links and attributes.

After the kernel's Documentation/filesystems/ext4. Nothing that the file system says of itself is trusted: each block of
its own that is read counts against the number of blocks that it has, so that no tree of them can be larger than the
disk, and whatever contradicts itself is an ImageInvalid.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.image.blob import Blob
from udiroot.errors import ImageInvalid, printable

ROOT = 2
"""The number of the inode of the root directory."""
_MAGIC = b"\x53\xef"
_EXTENTS, _INLINE, _ENCRYPTED, _VERITY, _EA_INODE = 0x80000, 0x10000000, 0x800, 0x100000, 0x200000
"""Flags of an inode."""
_EXTENT_MAGIC, _DEEPEST = 0xF30A, 5
_UNWRITTEN = 32768
"""Lengths of extents above this are of unwritten ones, which read as zeros."""
_ATTRIBUTES_MAGIC = 0xEA020000
_PREFIXES = {1: "user.", 2: "system.posix_acl_access", 3: "system.posix_acl_default", 4: "trusted.", 6: "security."}
_INLINE_DATA = (7, b"data")
_NEEDS_RECOVERY = 0x4
_FEATURES = {
    "filetype": 0x2, "recovery": _NEEDS_RECOVERY, "meta_bg": 0x10, "extents": 0x40, "64bit": 0x80, "mmp": 0x100,
    "flex_bg": 0x200, "ea_inode": 0x400, "csum_seed": 0x2000, "largedir": 0x4000, "inline_data": 0x8000,
    "encrypt": 0x10000, "casefold": 0x20000,
}  # fmt: skip
"""Incompatible features that are understood, or do not matter to a reader."""
_PIECE = 1 << 20
_LONGEST_LINK = 4095
_LONGEST_ATTRIBUTE, _MOST_ATTRIBUTES = 1 << 16, 1 << 20
"""Bytes of one attribute that has an inode of its own, and of all those of an inode."""


@dataclass(frozen=True)
class Inode:
    """A file of any kind. Times in seconds since the epoch; `device` is major and minor of a device."""

    number: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    links: int
    flags: int
    block: bytes = field(repr=False)
    acl: int = field(repr=False)
    extra: bytes = field(repr=False)

    @property
    def device(self) -> tuple[int, int]:
        old, new = struct.unpack_from("<II", self.block)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, (new & 0xFF) | (new >> 12 & 0xFFF00)


def is_ext(blob: Blob) -> bool:
    """Whether a blob has the mark of such a file system."""
    return blob.read_at(1024 + 56, 2) == _MAGIC


class ExtFileSystem:
    """One file system. Raises ImageInvalid, here and in each method, where it is damaged or cannot be read."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        raw = blob.read_at(1024, 1024)
        if len(raw) < 1024 or raw[56:58] != _MAGIC:
            raise ImageInvalid("no ext2, ext3 or ext4 file system")
        numbers = struct.unpack_from("<14I", raw)
        self._inodes, blocks, self._first_block, shift = numbers[0], numbers[1], numbers[5], numbers[6]
        self._blocks_per_group, self._inodes_per_group = numbers[8], numbers[10]
        revision = struct.unpack_from("<I", raw, 76)[0]
        self._inode_size = struct.unpack_from("<H", raw, 88)[0] if revision else 128
        incompatible = struct.unpack_from("<I", raw, 96)[0] if revision else 0
        self._first_meta = struct.unpack_from("<I", raw, 260)[0] if incompatible & _FEATURES["meta_bg"] else None
        self._is_sparse = bool(struct.unpack_from("<I", raw, 100)[0] & 1)
        is_wide = bool(incompatible & _FEATURES["64bit"])
        self._descriptor = (struct.unpack_from("<H", raw, 254)[0] or 32) if is_wide else 32
        blocks |= struct.unpack_from("<I", raw, 336)[0] << 32 if is_wide else 0
        self._require_sound(shift, incompatible)
        self.block_size = 1024 << shift
        self._has_types = bool(incompatible & _FEATURES["filetype"])
        if blocks * self.block_size > blob.size:  # the kernel does not mount such a one either
            raise ImageInvalid(
                f"ext file system is cut off: it has {blocks * self.block_size} bytes, and {blob.size} are there",
                "copy it again",
            )
        self._blocks = blocks
        self._inodes = min(self._inodes, blob.size // self._inode_size)
        self._left = self._blocks + self._inodes
        self._tables: dict[int, int] = {}

    def _require_sound(self, shift: int, incompatible: int) -> None:
        unknown = incompatible & ~sum(_FEATURES.values())
        if unknown:
            raise ImageInvalid(f"ext file system has features that cannot be read: {unknown:#x}")
        if incompatible & _NEEDS_RECOVERY:
            raise ImageInvalid(
                "ext file system was not unmounted: its journal must be replayed first",
                "shut the virtual machine down, or run e2fsck on the file system",
            )
        is_sound = shift <= 6 and 128 <= self._inode_size <= 1024 << shift and not self._inode_size % 4
        is_sound &= 32 <= self._descriptor <= 1024 and not self._descriptor % 8
        if not (is_sound and self._blocks_per_group and self._inodes_per_group):
            raise _damaged("superblock")

    def inode(self, number: int) -> Inode:
        """The inode with a number of a directory."""
        if not 1 <= number <= self._inodes:
            raise _damaged(f"inode {number}")
        group, index = divmod(number - 1, self._inodes_per_group)
        place = self._table(group) * self.block_size + index * self._inode_size
        raw = self._blob.read_at(place, self._inode_size)
        if len(raw) < self._inode_size:
            raise _damaged(f"inode {number}")
        mode, uid, low, _, _, mtime, _, gid, links, _, flags = struct.unpack_from("<HHIIIIIHHII", raw)
        acl, high = struct.unpack_from("<II", raw, 104)
        acl_high, uid_high, gid_high = struct.unpack_from("<HHH", raw, 118)
        is_sized = stat.S_ISREG(mode) or stat.S_ISDIR(mode)
        extra = struct.unpack_from("<H", raw, 128)[0] if self._inode_size > 128 else 0
        epoch = struct.unpack_from("<I", raw, 136)[0] & 3 if extra >= 12 and self._inode_size >= 140 else 0
        return Inode(
            number=number,
            mode=mode,
            uid=uid | uid_high << 16,
            gid=gid | gid_high << 16,
            size=low | (high << 32 if is_sized else 0),
            mtime=(mtime - (1 << 32) if mtime >> 31 else mtime) + (epoch << 32),
            links=links,
            flags=flags,
            block=raw[40:100],
            acl=acl | acl_high << 32,
            extra=raw[128 + extra :] if 128 + extra < len(raw) else b"",
        )

    def entries(self, directory: Inode) -> Iterator[tuple[bytes, int]]:
        """Names of a directory and the numbers of their inodes, without `.` and `..`."""
        self._require_plain(directory)
        if directory.flags & _INLINE:
            inline = self._inline(directory)
            yield from _names(inline[4:60], directory)
            yield from _names(inline[60:], directory)
            return
        self._charge(-(-directory.size // self.block_size))
        for block in self._read(directory):
            for at in range(0, len(block), self.block_size):
                yield from _names(block[at : at + self.block_size], directory)

    def data(self, file: Inode) -> Iterator[bytes]:
        """The content of a regular file, as many bytes as it has; holes are zeros."""
        self._require_plain(file)
        if file.flags & _INLINE:
            yield self._inline(file)[: file.size]
            return
        left = file.size
        for piece in self._read(file):
            yield piece[:left]
            left -= min(left, len(piece))

    def target(self, link: Inode) -> bytes:
        """Where a symbolic link leads."""
        if link.size > _LONGEST_LINK or link.flags & _ENCRYPTED:
            raise _damaged(f"symbolic link, inode {link.number}")
        if link.flags & _INLINE:
            return self._inline(link)[: link.size]
        if link.size < len(link.block) and not link.flags & _EXTENTS:
            return link.block[: link.size]
        return b"".join(self._read(link))[: link.size]

    def attributes(self, inode: Inode) -> dict[str, bytes]:
        """Extended attributes by name."""
        found = {}
        for (index, name), value in self._raw_attributes(inode).items():
            if index in _PREFIXES:
                found[_PREFIXES[index] + os.fsdecode(name)] = value
        return found

    def _require_plain(self, inode: Inode) -> None:
        if inode.flags & _ENCRYPTED:
            raise ImageInvalid(f"ext file system: inode {inode.number} is encrypted", "decrypt it in the machine first")

    def _table(self, group: int) -> int:
        """The first block of a group's inodes."""
        if group not in self._tables:
            per_block = self.block_size // self._descriptor
            number, index = divmod(group, per_block)
            if self._first_meta is None or number < self._first_meta:
                block = 1024 // self.block_size + 1 + number  # after the block that has the superblock
            else:  # the descriptors of a few groups are in the first of these
                first = number * per_block
                block = self._first_block + first * self._blocks_per_group + self._has_superblock(first)
            raw = self._block(block)[index * self._descriptor : (index + 1) * self._descriptor]
            low = struct.unpack_from("<I", raw, 8)[0]
            high = struct.unpack_from("<I", raw, 40)[0] if self._descriptor >= 64 else 0
            self._tables[group] = low | high << 32
        return self._tables[group]

    def _has_superblock(self, group: int) -> bool:
        """Whether a group begins with a copy: with sparse_super those of 0, 1 and the powers of 3, 5 and 7."""
        if group <= 1 or not self._is_sparse:
            return True
        return any(group == base**power for base in (3, 5, 7) for power in range(1, 40))

    def _charge(self, blocks: int) -> None:
        """Each block of the file system's own belongs to one place, so they cannot be more than it has."""
        self._left -= blocks
        if self._left < 0:
            raise _damaged("its directories and tables refer to more blocks than there are")

    def _block(self, number: int) -> bytes:
        """A block of the file system's own."""
        self._charge(1)
        if not 0 < number < self._blocks and not (number == 0 and self.block_size > 1024):
            raise _damaged(f"block {number}")
        raw = self._blob.read_at(number * self.block_size, self.block_size)
        if len(raw) < self.block_size:
            raise ImageInvalid(f"ext file system is cut off: block {number} is missing")
        return raw

    def _read(self, inode: Inode) -> Iterator[bytes]:
        """All blocks of a file up to its size, in pieces; the last one is not cut."""
        wanted = -(-inode.size // self.block_size)
        at = 0
        for first, place, count in self._runs(inode):
            if first < at:
                raise _damaged(f"inode {inode.number} has blocks twice")
            if first >= wanted:
                break
            yield from self._zeros(first - at)
            count = min(count, wanted - first)
            yield from self._zeros(count) if not place else self._stored(place, count)
            at = first + count
        yield from self._zeros(wanted - at)

    def _stored(self, place: int, count: int) -> Iterator[bytes]:
        if place + count > self._blocks:
            raise _damaged(f"blocks {place} to {place + count - 1}")
        position, left = place * self.block_size, count * self.block_size
        while left:
            piece = self._blob.read_at(position, min(left, _PIECE))
            if not piece:
                raise ImageInvalid(f"ext file system is cut off: block {position // self.block_size} is missing")
            yield piece
            position, left = position + len(piece), left - len(piece)

    def _zeros(self, count: int) -> Iterator[bytes]:
        left = count * self.block_size
        while left > 0:
            yield bytes(min(left, _PIECE))
            left -= min(left, _PIECE)

    def _runs(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """First block in the file, first block on the disk (0: a hole), and number of blocks, in the file's order."""
        if inode.flags & _EXTENTS:
            yield from self._extents(inode.block, _DEEPEST, inode)
        else:
            yield from self._mapped(inode)

    def _extents(self, node: bytes, depth_left: int, inode: Inode) -> Iterator[tuple[int, int, int]]:
        magic, count, _, depth = struct.unpack_from("<HHHH", node)
        if magic != _EXTENT_MAGIC or depth > depth_left or 12 * (count + 1) > len(node):
            raise _damaged(f"extents of inode {inode.number}")
        for at in range(12, 12 * (count + 1), 12):
            if depth:
                low, high = struct.unpack_from("<IH", node, at + 4)
                yield from self._extents(self._block(low | high << 32), depth - 1, inode)
                continue
            first, length, high, low = struct.unpack_from("<IHHI", node, at)
            if length > _UNWRITTEN:
                yield first, 0, length - _UNWRITTEN
            else:
                yield first, low | high << 32, length

    def _mapped(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """The blocks of ext2 and ext3: twelve direct ones, then one, two and three levels of tables of numbers."""
        numbers = struct.unpack("<15I", inode.block)
        wanted = -(-inode.size // self.block_size)
        for at, number in enumerate(numbers[:12]):
            if number:
                yield at, number, 1
        first, per_block = 12, self.block_size // 4
        for level, number in enumerate(numbers[12:], 1):
            if number and first < wanted:
                yield from self._indirect(number, level, first, wanted)
            first += per_block**level

    def _indirect(self, table: int, level: int, first: int, wanted: int) -> Iterator[tuple[int, int, int]]:
        per_block = self.block_size // 4
        for index, number in enumerate(struct.unpack(f"<{per_block}I", self._block(table))):
            at = first + index * per_block ** (level - 1)
            if at >= wanted:
                return
            if number and level == 1:
                yield at, number, 1
            elif number:
                yield from self._indirect(number, level - 1, at, wanted)

    def _inline(self, inode: Inode) -> bytes:
        return inode.block + self._raw_attributes(inode).get(_INLINE_DATA, b"")

    def _raw_attributes(self, inode: Inode) -> dict[tuple[int, bytes], bytes]:
        found: dict[tuple[int, bytes], bytes] = {}
        if len(inode.extra) >= 4 and struct.unpack_from("<I", inode.extra)[0] == _ATTRIBUTES_MAGIC:
            found |= self._attributes_in(inode.extra[4:], inode.extra[4:], inode)
        if inode.acl:
            block = self._block(inode.acl)
            if struct.unpack_from("<I", block)[0] != _ATTRIBUTES_MAGIC:
                raise _damaged(f"attributes of inode {inode.number}")
            found |= self._attributes_in(block[32:], block, inode)
        return found

    def _attributes_in(self, entries: bytes, values: bytes, inode: Inode) -> dict[tuple[int, bytes], bytes]:
        found: dict[tuple[int, bytes], bytes] = {}
        at, total = 0, 0
        while at + 16 <= len(entries) and entries[at : at + 4] != bytes(4):
            length, index, offset, elsewhere, size = struct.unpack_from("<BBHII", entries, at)
            name = entries[at + 16 : at + 16 + length]
            value = self._value_in_inode(elsewhere, size) if elsewhere else values[offset : offset + size]
            total += length + size
            if len(value) != size or len(name) != length or total > _MOST_ATTRIBUTES:
                raise _damaged(f"attributes of inode {inode.number}")
            found[index, name] = value
            at += (16 + length + 3) & ~3
        return found

    def _value_in_inode(self, number: int, size: int) -> bytes:
        holder = self.inode(number)
        if size > _LONGEST_ATTRIBUTE or holder.size != size or not holder.flags & _EA_INODE:
            raise _damaged(f"attribute in inode {number}")
        return b"".join(self._read(holder))[:size]


def _names(block: bytes, directory: Inode) -> Iterator[tuple[bytes, int]]:
    """The entries in one block of a directory."""
    at = 0
    while at + 8 <= len(block):
        number, length, size = struct.unpack_from("<IHB", block, at)
        length = 65536 if length in (0, 65535) else length  # of a block of 64 KiB
        name = block[at + 8 : at + 8 + size]
        if length < 8 or length % 4 or at + length > len(block) or len(name) != size or size + 8 > length:
            raise _damaged(f"directory, inode {directory.number}")
        if number and name not in (b".", b".."):
            if not name or b"/" in name or b"\0" in name:
                raise ImageInvalid(f"ext file system: invalid name '{printable(os.fsdecode(name))}' in a directory")
            yield name, number
        at += length


def _damaged(what: str) -> ImageInvalid:
    return ImageInvalid(f"ext file system is damaged: {what}", "run e2fsck on it")
