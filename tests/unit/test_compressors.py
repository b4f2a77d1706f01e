"""Compressors of the blocks of a squashfs: zlib reads the default, and a block gives the same bytes anywhere."""

from __future__ import annotations

import struct
import threading
import zlib
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.image.squashfs.compressors import compressor

_BLOCK_SIZE = 128 << 10
_PLACES = 1500
"""Where the compressor's state is in memory: ISA-L by one call gave other bytes in one of 256 places."""
_TABLE = b"".join(struct.pack("<QII", at, size, 0) for at, size in ((96, 647), (743, 0x1FFFF), (131814, 0x2E6)))
"""A block that begins with a run of zeros: what such a place changes is seen in what follows."""


@given(st.one_of(st.binary(max_size=40), st.text("\0a", max_size=700).map(str.encode), st.binary(max_size=2000)))
def test_zlib_reads_what_the_default_compresses(data: bytes) -> None:
    reader = zlib.decompressobj(zlib.MAX_WBITS)
    assert reader.decompress(compressor(("gzip", 1), _BLOCK_SIZE)(data)) == data
    assert reader.eof
    assert not reader.unused_data


@pytest.mark.parametrize(("name", "level"), [("gzip", 1), ("gzip", 6), ("zstd", 3), ("xz", None)])
def test_the_same_bytes_wherever_the_compressor_is(name: str, level: int | None) -> None:
    compress = compressor((name, level), _BLOCK_SIZE)
    found: Counter[bytes] = Counter()
    ended = threading.Event()

    def by_one() -> None:
        with lock:
            found[compress(_TABLE)] += 1
        ended.wait()

    lock = threading.Lock()
    usual = threading.stack_size(512 << 10)
    try:
        threads = [threading.Thread(target=by_one) for _ in range(_PLACES)]
        for thread in threads:
            thread.start()
    finally:
        threading.stack_size(usual)
        ended.set()
    for thread in threads:
        thread.join()
    assert len(found) == 1
    assert found.total() == _PLACES
