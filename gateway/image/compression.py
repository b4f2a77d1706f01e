"""What compresses a file, by its first bytes, and its bytes without that: as they come, in bounded memory."""

from __future__ import annotations

import bz2
import io
import lzma
import re
import zlib
from collections.abc import Callable, Iterator
from typing import IO, TYPE_CHECKING, Protocol, cast

import zstandard
from isal import igzip, igzip_lib

from gateway.image.blob import Blob
from gateway.image.zstd_frames import ends_within_a_frame
from udiroot.errors import ImageInvalid, printable

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

_CHUNK = 1 << 20
_ISAL_ERROR = cast(type[Exception], igzip_lib.error)
_DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    OverflowError,  # a field of a gzip header that does not end
    zlib.error,
    _ISAL_ERROR,
    zstandard.ZstdError,
    lzma.LZMAError,
)
_MARKS = {
    "gzip": re.compile(rb"\x1f\x8b"),
    # one may begin with a frame of something else (RFC 8878, 3.1.2), as those of pzstd do
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"),
    "xz": re.compile(rb"\xfd7zXZ\0"),
    # with the mark of its first block or of its end, since a name in a tar archive may begin with BZh
    "bzip2": re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)"),
}
_MAX_XZ_MEMORY = 128 << 20
"""Bytes of memory for xz, whose largest preset takes 65 MiB."""


def compression_of(blob: Blob) -> str:
    """`gzip`, `zstd`, `xz`, `bzip2` or `plain`, by the first bytes and not by a manifest or a name."""
    start = blob.read_at(0, 10)
    return next((name for name, mark in _MARKS.items() if mark.match(start)), "plain")


def expanded(blob: Blob, label: str, how: str = "") -> Iterator[bytes]:
    """The uncompressed bytes, in order; `how` it is compressed is found out where it is not given.

    Raises ImageInvalid, which calls the blob `label`, where it is damaged. What they may be in all is
    for the caller to bound.
    """
    produce = {"gzip": _gunzip, "zstd": _unzstd, "xz": _unxz, "bzip2": _bunzip2, "plain": _raw}
    return produce[how or compression_of(blob)](blob, label)


def _raw(blob: Blob, label: str) -> Iterator[bytes]:
    position = 0
    while position < blob.size:
        chunk = blob.read_at(position, _CHUNK)
        if not chunk:
            raise ImageInvalid(f"{label} ends after {position} of {blob.size} bytes")
        yield chunk
        position += len(chunk)


def _gunzip(blob: Blob, label: str) -> Iterator[bytes]:
    """In one member or several, as `cat a.gz b.gz` makes them."""
    raw = io.BufferedReader(_BlobFile(blob), 1 << 18)
    stream = cast(IO[bytes], igzip.IGzipFile(fileobj=raw, mode="rb"))  # type: ignore[no-untyped-call]
    with stream:
        yield from _read(stream, label)


def _unzstd(blob: Blob, label: str) -> Iterator[bytes]:
    """In one frame or several; the window is bounded, so that a frame's header cannot claim all memory."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    raw = io.BufferedReader(_BlobFile(blob), 1 << 18)
    with decompressor.stream_reader(raw, read_across_frames=True) as stream:
        yield from _read(stream, label)
    if ends_within_a_frame(blob):
        raise ImageInvalid(f"{label} is damaged: it is cut off")


def _unxz(blob: Blob, label: str) -> Iterator[bytes]:
    return _streams(blob, label, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, _MAX_XZ_MEMORY))


def _bunzip2(blob: Blob, label: str) -> Iterator[bytes]:
    return _streams(blob, label, bz2.BZ2Decompressor)


def _read(stream: IO[bytes], label: str) -> Iterator[bytes]:
    while True:
        try:
            chunk = stream.read(_CHUNK)
        except _DAMAGE as error:
            raise _damaged(label, error) from error
        if not chunk:
            return
        yield chunk


class _Decompressor(Protocol):
    """What `lzma` and `bz2` have for one stream."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1, /) -> bytes: ...


def _streams(blob: Blob, label: str, begin: Callable[[], _Decompressor]) -> Iterator[bytes]:
    """One stream or several, as pbzip2 and pixz make them; zeros may be between and behind them."""
    position = 0
    rest = b""
    while True:
        current = begin()
        while not current.eof:
            if current.needs_input and not rest:
                rest = blob.read_at(position, _CHUNK)
                position += len(rest)
                if not rest:
                    raise ImageInvalid(f"{label} is damaged: it is cut off")
            try:
                chunk = current.decompress(rest, _CHUNK)
            except _DAMAGE as error:
                raise _damaged(label, error) from error
            rest = b""
            if chunk:
                yield chunk
        rest = current.unused_data.lstrip(b"\0")
        while not rest and (more := blob.read_at(position, _CHUNK)):
            rest = more.lstrip(b"\0")
            position += len(more)
        if not rest:
            return


class _BlobFile(io.RawIOBase):
    """A blob as the file object that decompressors read from."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._position = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Buffer, /) -> int:
        view = memoryview(buffer)
        piece = self._blob.read_at(self._position, len(view))
        view[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)


def _damaged(label: str, error: Exception) -> ImageInvalid:
    return ImageInvalid(f"{label} is damaged: {printable(error)}")
