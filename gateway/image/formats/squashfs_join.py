"""Joining the parts of large directories in a squashfs file.

Packers look through all names of a directory for each name that they add: 65,500 files in one directory take tar2sqfs
and mksquashfs a minute. So `gateway.image.flatten` gives the packer such a directory in parts, as directories of their
own with a bounded number of names, and they are joined here: by one listing of all their entries, and by new inodes of
the directories on the way to it. Those are added behind the two tables that have them; nothing else is changed but the
positions of the tables that follow (squashfs 4.0: `Documentation/filesystems/squashfs.rst` and `fs/squashfs` of Linux).
"""

from __future__ import annotations

import lzma
import struct
import zlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import IO

import zstandard

from udiroot.errors import UpstreamFailed

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQQQQQQQ")
_METADATA = 8192
_STORED = 0x8000
"""The bit of a metadata block's length that says that it is not compressed."""
_NONE = (1 << 64) - 1
_NO_XATTR = (1 << 32) - 1
_PADDING = 4096
_DIRECTORY, _EXTENDED_DIRECTORY = 1, 8
_HEAD, _PLAIN, _EXTENDED = struct.Struct("<HHHHII"), struct.Struct("<IIHHI"), struct.Struct("<IIIIHHI")
_GROUP, _ENTRY, _INDEX = struct.Struct("<III"), struct.Struct("<HhHH"), struct.Struct("<III")
_GROUP_SIZE = 256
_FRAGMENT_SIZE, _ID_SIZE, _XATTR_SIZE = 16, 4, 16
_XATTR_HEADER = 16
_CACHED = 64

_READ: dict[int, Callable[[bytes], bytes]] = {
    1: zlib.decompress,
    4: lzma.decompress,
    6: lambda data: zstandard.ZstdDecompressor().decompress(data, max_output_size=_METADATA),
}
"""By the superblock's number of the compression. (Python has no lzo and no lz4.)"""
_WRITE: dict[int, Callable[[bytes], bytes]] = {
    1: zlib.compress,
    6: lambda data: zstandard.ZstdCompressor().compress(data),
}


def can_join(compression: int) -> bool:
    """Whether files of this compression can be read here."""
    return compression in _READ


def join(path: str, directories: Collection[bytes]) -> int:
    """Join the parts of each of these directories, all of whose entries are parts. Returns how many parts there were.

    Their inodes remain in the file, unused. Raises UpstreamFailed where the file is not what a packer makes.
    """
    try:
        with open(path, "r+b") as stream:
            return _Joining(stream).join(directories)
    except (struct.error, ValueError, KeyError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        raise UpstreamFailed("the packed file cannot be read, so its large directories cannot be joined") from error


@dataclass(slots=True)
class _Entry:
    """One name of a listing; `block` and `offset` are where its inode is."""

    name: bytes
    block: int
    offset: int
    number: int
    kind: int


@dataclass(slots=True)
class _Directory:
    """What a directory's inode says, and its entries."""

    mode: int
    owner: int
    group: int
    mtime: int
    number: int
    links: int
    parent: int
    xattr: int
    entries: dict[bytes, _Entry] = field(default_factory=dict)
    orphans: dict[bytes, _Entry] = field(default_factory=dict)
    """Directories that were in one of its parts, whose inodes still name that as what they are in."""


class _Output:
    """Metadata blocks that are added behind a table; `base` is where, from the table's start."""

    def __init__(self, base: int, compression: int) -> None:
        self._base = base
        self._compress = _WRITE.get(compression)
        self._buffer = bytearray()
        self.blocks = bytearray()

    @property
    def position(self) -> tuple[int, int]:
        """The block that the next byte goes to, and its offset there."""
        return self._base + len(self.blocks), len(self._buffer)

    def write(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _METADATA:
            self._flush()

    def finish(self) -> bytes:
        """All blocks."""
        if self._buffer:
            self._flush()
        return bytes(self.blocks)

    def _flush(self) -> None:
        data = bytes(self._buffer[:_METADATA])
        del self._buffer[:_METADATA]
        packed = self._compress(data) if self._compress else data
        if len(packed) < len(data):
            self.blocks += struct.pack("<H", len(packed)) + packed
        else:
            self.blocks += struct.pack("<H", len(data) | _STORED) + data


class _Joining:
    """One file whose directories are joined."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        fields = _SUPERBLOCK.unpack(stream.read(_SUPERBLOCK.size))
        self._fixed, self._root, self._used = fields[:11], fields[11], fields[12]
        self._ids, self._xattrs, self._inodes, self._listings, self._fragments, self._exports = fields[13:]
        self._fragment_count, compression, self._id_count = fields[4], fields[5], fields[8]
        if self._exports != _NONE:
            raise ValueError("a table of inodes by number")
        self._inflate = _READ[compression]
        self._cache: dict[int, tuple[bytes, int]] = {}
        self._after = self._end_of_listings()
        self._new_inodes = _Output(self._listings - self._inodes, compression)
        self._new_listings = _Output(self._after - self._listings, compression)

    def join(self, directories: Collection[bytes]) -> int:
        """Directories are loaded from the root down, and written from the deepest up."""
        paths = {path.rsplit(b"/", depth)[0] for path in directories for depth in range(path.count(b"/") + 1)} - {b""}
        ordered = sorted(paths, key=lambda path: path.count(b"/"))
        loaded = {b"": self._load(self._root >> 16, self._root & 0xFFFF)}
        parts = 0
        for path in (b"", *ordered):
            if path:
                entry = _parent(loaded, path).entries[_name(path)]
                loaded[path] = self._load(entry.block, entry.offset)
            if path in directories:
                parts += self._gather(loaded[path])
        for path in reversed(ordered):
            parent, name = _parent(loaded, path), _name(path)
            parent.orphans.pop(name, None)
            entry = parent.entries[name]
            entry.block, entry.offset = self._write(loaded.pop(path), parent.number)
        block, offset = self._write(loaded[b""], loaded[b""].parent)
        self._finish(block << 16 | offset)
        return parts

    def _gather(self, directory: _Directory) -> int:
        """Put the entries of all parts in their place."""
        parts = [self._load(part.block, part.offset) for part in directory.entries.values()]
        directory.links = 2 + sum(part.links - 2 for part in parts)
        directory.entries = {name: entry for part in parts for name, entry in part.entries.items()}
        directory.orphans = {name: entry for name, entry in directory.entries.items() if entry.kind == _DIRECTORY}
        return len(parts)

    # Reading

    def _end_of_listings(self) -> int:
        """Where the metadata block begins that follows the last listing."""
        firsts = []
        if self._fragment_count and self._fragments != _NONE:
            firsts.append(self._number_at(self._fragments))
        if self._id_count:
            firsts.append(self._number_at(self._ids))
        if self._xattrs != _NONE:
            firsts.append(self._number_at(self._xattrs))
        return min(firsts)

    def _number_at(self, position: int) -> int:
        self._stream.seek(position)
        number: int = struct.unpack("<Q", self._stream.read(8))[0]
        return number

    def _block(self, position: int) -> tuple[bytes, int]:
        """The metadata block at a position of the file, and where the next one is."""
        if position not in self._cache:
            if len(self._cache) >= _CACHED:
                self._cache.clear()
            self._stream.seek(position)
            length = struct.unpack("<H", self._stream.read(2))[0]
            data = self._stream.read(length & ~_STORED)
            self._cache[position] = data if length & _STORED else self._inflate(data), self._stream.tell()
        return self._cache[position]

    def _metadata(self, position: int, offset: int, count: int) -> bytes:
        """Bytes from `offset` on of the block at a position of the file, and of those after it."""
        data, position = self._block(position)
        found = bytearray(data[offset : offset + count])
        while len(found) < count:
            data, position = self._block(position)
            found += data[: count - len(found)]
        return bytes(found)

    def _load(self, block: int, offset: int) -> _Directory:
        """The directory whose inode is there."""
        position = self._inodes + block
        kind, mode, owner, group, mtime, number = _HEAD.unpack(self._metadata(position, offset, _HEAD.size))
        plain = kind == _DIRECTORY
        if not plain and kind != _EXTENDED_DIRECTORY:
            raise ValueError("not a directory")
        form = _PLAIN if plain else _EXTENDED
        rest = form.unpack(self._metadata(position, offset, _HEAD.size + form.size)[_HEAD.size :])
        if plain:
            listing, links, size, start, parent, xattr = *rest, _NO_XATTR
        else:
            links, size, listing, parent, _, start, xattr = rest
        directory = _Directory(mode, owner, group, mtime, number, links, parent, xattr)
        if size > 3:  # as many more as `.` and `..` would take
            text = self._metadata(self._listings + listing, start, size - 3)
            directory.entries = {entry.name: entry for entry in _entries(text)}
        return directory

    # Writing

    def _write(self, directory: _Directory, parent: int) -> tuple[int, int]:
        """A new inode and a new listing. Returns where the inode is."""
        for entry in directory.orphans.values():
            entry.block, entry.offset = self._write(self._load(entry.block, entry.offset), directory.number)
        directory.orphans = {}
        entries = list(directory.entries.values())
        listing, start = self._new_listings.position
        block = listing
        size, index, indexed = 0, b"", 0
        for group in _groups(entries):
            here, _ = self._new_listings.position
            if here != block:
                block, name = here, group[0].name
                index += _INDEX.pack(size, here, len(name) - 1) + name
                indexed += 1
            text = _GROUP.pack(len(group) - 1, group[0].block, group[0].number) + b"".join(
                _ENTRY.pack(entry.offset, entry.number - group[0].number, entry.kind, len(entry.name) - 1) + entry.name
                for entry in group
            )
            self._new_listings.write(text)
            size += len(text)
        place = self._new_inodes.position
        head = (_EXTENDED_DIRECTORY, directory.mode, directory.owner, directory.group, directory.mtime)
        rest = (directory.links, size + 3, listing, parent, indexed, start, directory.xattr)
        self._new_inodes.write(_HEAD.pack(*head, directory.number) + _EXTENDED.pack(*rest) + index)
        return place

    def _finish(self, root: int) -> None:
        """Write the added blocks, what followed them at its new place, and the superblock."""
        self._stream.seek(self._listings)
        listings = self._stream.read(self._after - self._listings)
        tail = bytearray(self._stream.read(self._used - self._after))
        inodes, more = self._new_inodes.finish(), self._new_listings.finish()
        shift = len(inodes) + len(more)
        for table, count in self._pointers():
            at = table - self._after
            moved = (number + shift for number in struct.unpack_from(f"<{count}Q", tail, at))
            struct.pack_into(f"<{count}Q", tail, at, *moved)
        self._stream.seek(self._listings)
        self._stream.write(inodes + listings + more + tail)
        self._stream.write(bytes(-self._stream.tell() % _PADDING))
        self._stream.truncate()
        tables = [self._ids, self._xattrs, self._inodes, self._listings, self._fragments, self._exports]
        shifts = [shift, shift, 0, len(inodes), shift, 0]
        moved_tables = [at if at == _NONE else at + by for at, by in zip(tables, shifts, strict=True)]
        self._stream.seek(0)
        self._stream.write(_SUPERBLOCK.pack(*self._fixed, root, self._used + shift, *moved_tables))

    def _pointers(self) -> list[tuple[int, int]]:
        """Where the tables behind the listings have positions in the file, and how many."""
        found = [(self._ids, _blocks(self._id_count * _ID_SIZE))]
        if self._fragments != _NONE:
            found.append((self._fragments, _blocks(self._fragment_count * _FRAGMENT_SIZE)))
        if self._xattrs != _NONE:
            self._stream.seek(self._xattrs + 8)
            count = struct.unpack("<I", self._stream.read(4))[0]
            found.append((self._xattrs, 1))
            found.append((self._xattrs + _XATTR_HEADER, _blocks(count * _XATTR_SIZE)))
        return found


def _parent(loaded: dict[bytes, _Directory], path: bytes) -> _Directory:
    return loaded[path.rpartition(b"/")[0]]


def _name(path: bytes) -> bytes:
    return path.rpartition(b"/")[2]


def _blocks(size: int) -> int:
    return -(-size // _METADATA)


def _entries(text: bytes) -> Iterator[_Entry]:
    """The entries of a listing: groups of those whose inodes are in one block."""
    at = 0
    while at < len(text):
        more, block, first = _GROUP.unpack_from(text, at)
        at += _GROUP.size
        for _ in range(more + 1):
            offset, difference, kind, length = _ENTRY.unpack_from(text, at)
            at += _ENTRY.size
            yield _Entry(text[at : at + length + 1], block, offset, first + difference, kind)
            at += length + 1


def _groups(entries: list[_Entry]) -> Iterator[list[_Entry]]:
    """Entries that one header can have."""
    group: list[_Entry] = []
    for entry in entries:
        if group and (
            len(group) == _GROUP_SIZE
            or entry.block != group[0].block
            or not -(1 << 15) <= entry.number - group[0].number < 1 << 15
        ):
            yield group
            group = []
        group.append(entry)
    if group:
        yield group
