"""Tables of a squashfs, read back as its format says: listings with groups and index; and finding equal files."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.image.squashfs.compressors import compressor
from gateway.image.squashfs.directories import Entry, Listing, write_listing
from gateway.image.squashfs.duplicates import SmallFiles
from gateway.image.squashfs.inodes import LARGEST_LISTING, NONE, Common, directory
from gateway.image.squashfs.metadata import SIZE, MetadataWriter

_STORED = 0x8000
_MOST_IN_GROUP = 256


def _written(entries: list[Entry], before: int = 0) -> tuple[Listing, bytes, list[int]]:
    """The listing, its table's whole stream, and where that stream's blocks begin in the table."""
    table = bytearray()
    writer = MetadataWriter(compressor(("gzip", 1), 128 << 10), table.extend)
    writer.add(bytes(before))
    listing = write_listing(writer, entries)
    writer.finish()
    return listing, _stream(bytes(table)), writer.starts


def _stream(table: bytes) -> bytes:
    """The bytes of a table of metadata."""
    parts, at = [], 0
    while at < len(table):
        (word,) = struct.unpack_from("<H", table, at)
        count = word & ~_STORED
        data = table[at + 2 : at + 2 + count]
        parts.append(data if word & _STORED else zlib.decompress(data))
        at += 2 + count
    assert all(len(part) == SIZE for part in parts[:-1])
    return b"".join(parts)


def _read(stream: bytes) -> list[Entry]:
    """A listing, as a kernel reads it."""
    found: list[Entry] = []
    at = 0
    while at < len(stream):
        count, block, first = struct.unpack_from("<III", stream, at)
        assert count < _MOST_IN_GROUP
        at += 12
        for _ in range(count + 1):
            offset, apart, kind, length = struct.unpack_from("<HhHH", stream, at)
            found.append((stream[at + 8 : at + 9 + length], block, offset, first + apart, kind))
            at += 9 + length
    return found


_NAMES = st.lists(st.binary(min_size=1, max_size=255), unique=True, max_size=600).map(sorted)


@given(_NAMES, st.data())
def test_a_listing_is_read_as_it_was_written(names: list[bytes], data: st.DataObject) -> None:
    """Whatever the numbers of inodes and their blocks: a hard link's is far away."""
    numbers = data.draw(st.lists(st.integers(1, 1 << 31), min_size=1, max_size=9))
    blocks = data.draw(st.lists(st.integers(0, 1 << 31), min_size=1, max_size=5))
    entries: list[Entry] = [
        (name, blocks[at // 7 % len(blocks)], at % SIZE, numbers[at // 5 % len(numbers)] + at % 5, 1 + at % 7)
        for at, name in enumerate(names)
    ]
    before = data.draw(st.integers(0, 2 * SIZE))
    listing, stream, _ = _written(entries, before)
    assert listing.size == len(stream) - before
    assert _read(stream[before:]) == entries


@pytest.mark.parametrize("before", [0, 1, SIZE - 1, SIZE])
def test_the_index_leads_to_groups(before: int) -> None:
    """Each of its rows: how far into the listing a group begins, in which block that is, and the group's first name."""
    entries: list[Entry] = [(b"%06d" % number, number // 300, 0, 1 + number, 2) for number in range(20_000)]
    listing, stream, starts = _written(entries, before)
    rows, at = [], 0
    for _ in range(listing.indexed):
        size, block, length = struct.unpack_from("<III", listing.index, at)
        rows.append((size, block, listing.index[at + 12 : at + 13 + length]))
        at += 13 + length
    assert at == len(listing.index)
    assert len(rows) >= listing.size // SIZE - 1, "nearly each block of the listing is in the index"
    for size, block, name in rows:
        assert starts[(before + size) // SIZE] == block
        assert _read(stream[before + size :])[0][0] == name
    assert [row[2] for row in rows] == sorted(row[2] for row in rows)


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_a_directory_whose_size_needs_more_than_16_bits_is_extended(over: int) -> None:
    """The size counts 3 bytes more than the listing has."""
    common = Common(0o755, 0, 0, 0, 1, 2, NONE)
    made = directory(common, Listing(0, 0, LARGEST_LISTING - 3 + over), 1)
    kind, size = (8, struct.unpack_from("<I", made, 20)[0]) if over > 0 else (1, struct.unpack_from("<H", made, 24)[0])
    assert (struct.unpack_from("<H", made)[0], size) == (kind, LARGEST_LISTING + over)


@given(st.lists(st.binary(max_size=3), max_size=3000))
def test_equal_files_are_found_however_many_there_are(contents: list[bytes]) -> None:
    files, first = SmallFiles(), dict[bytes, int]()
    for row, data in enumerate(contents):
        assert files.same(row, data) == first.setdefault(data, row)


def test_the_table_of_equal_files_grows() -> None:
    files = SmallFiles()
    assert [files.same(row, b"%d" % row) for row in range(5000)] == list(range(5000))
    assert [files.same(9999, b"%d" % row) for row in range(5000)] == list(range(5000))


@pytest.mark.parametrize("name", ["gzip", "zstd", "xz"])
def test_a_block_is_compressed_to_the_same_bytes_each_time(name: str) -> None:
    """Also by a compressor that compressed others before."""
    block = bytes(range(256)) * 512
    used = compressor((name, None), len(block))
    used(b"another" * 9000)
    assert used(block) == used(block) == compressor((name, None), len(block))(block)
