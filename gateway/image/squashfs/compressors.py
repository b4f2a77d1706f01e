"""What compresses the blocks of a squashfs. Each function is for one thread; all of them release the interpreter lock.

A block must be what every kernel's decompressor reads: for gzip a zlib stream with a window of at most 32 KiB, for zstd
one frame with its size, for xz one stream with CRC32 and a dictionary that is no larger than a block.

A process that packs imports little else than this (`gateway.image.squashfs.packing`), so each library is imported where
it is used.
"""

from __future__ import annotations

from collections.abc import Callable

Buffer = bytes | bytearray | memoryview
Compress = Callable[[Buffer], bytes]
Compression = tuple[str, int | None]
"""A name of `NUMBERS`, and a level."""

NUMBERS = {"gzip": 1, "xz": 4, "zstd": 6}
"""What can be written here, with the superblock's number of each."""
_GZIP_DEFAULT, _ZSTD_DEFAULT, _XZ_PRESET = 9, 15, 6
"""Levels of Debian's packers, where none is requested."""
_ISAL_LEVEL = 2
"""Of 0 to 3: half again as fast as 3, and with zlib's level 1 in size to about one percent; 1 is three percent off."""
_ISAL_MEMORY = 9
_ISAL_START = 8
"""Bytes of a block that ISA-L gets first, and flushes: from 4 to 16, which are too few for its fast loop."""


def compressor(compression: Compression, block_size: int) -> Compress:
    """A function that compresses one block."""
    name, level = compression
    if name == "gzip":
        return _isal() if level == 1 else _zlib(level or _GZIP_DEFAULT)
    if name == "zstd":
        return _zstd(level or _ZSTD_DEFAULT)
    return _xz(block_size)


def _isal() -> Compress:
    """Deflate by ISA-L, six times as fast as zlib's level 1, and the same bytes for the same block.

    Where its fast loop begins a stream, it takes the hash of the third byte from a register that still has the address
    of ISA-L's own state (igzip_icf_body_h1_gr_bt.asm, `.write_first_byte`, up to ISA-L 2.32.1). The block decompresses
    to what it was, but the address decides which matches are found. So the loop gets only what follows the first bytes.
    """
    from isal import isal_zlib

    def compress(block: Buffer) -> bytes:
        data = memoryview(block)
        stream = isal_zlib.compressobj(_ISAL_LEVEL, isal_zlib.DEFLATED, isal_zlib.MAX_WBITS, _ISAL_MEMORY)
        start = stream.compress(data[:_ISAL_START]) + stream.flush(isal_zlib.Z_SYNC_FLUSH)
        return start + stream.compress(data[_ISAL_START:]) + stream.flush()

    return compress


def _zlib(level: int) -> Compress:
    import zlib

    return lambda block: zlib.compress(block, level)


def _zstd(level: int) -> Compress:
    import zstandard

    zstd = zstandard.ZstdCompressor(level)
    return lambda block: zstd.compress(memoryview(block))


def _xz(block_size: int) -> Compress:
    import lzma

    filters = [{"id": lzma.FILTER_LZMA2, "preset": _XZ_PRESET, "dict_size": block_size}]
    return lambda block: lzma.compress(block, lzma.FORMAT_XZ, lzma.CHECK_CRC32, filters=filters)
