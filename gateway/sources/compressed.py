"""Archives that are compressed as a whole, as by `docker save … | gzip`: expanded into a file, within bounds.

What is in an archive is found by its position, and the manifest may come last, so it is read as a plain file. The
gateway expands it completely. Whoever only wants to know what it holds makes an outline: everything where it would be,
without the contents of large members.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator

from gateway.image import tar_reader
from gateway.image.blob import Blob
from gateway.image.compression import compression_of, expanded
from gateway.image.layers import LayerStream
from gateway.image.progress import Progress
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, UpstreamFailed

ALL = ("gzip", "zstd", "xz", "bzip2")
"""What is expanded."""
_NO_NAME_YET = os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC
_LABEL = "archive"


@contextlib.contextmanager
def plain(file: Blob, directory: str, settings: GatewayConfig, progress: Progress) -> Iterator[int]:
    """A descriptor on a file in `directory`, without a name, with the expanded bytes of `file`.

    Raises ImageInvalid where it is damaged or expands to more than allowed, UpstreamFailed where there is no room.
    """
    progress.stage("expanding", 0)
    try:
        descriptor = os.open(directory, _NO_NAME_YET, 0o600)
    except OSError as error:
        raise UpstreamFailed(f"{directory}: {reason(error)}") from error
    try:
        at = 0
        for piece in bounded(file, settings):
            _write(descriptor, piece, at, directory)
            at += len(piece)
            progress.advance(len(piece))
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def outline(file: Blob, settings: GatewayConfig) -> Iterator[int]:
    """The same, in the directory for temporary files, without the contents of members that are larger than a manifest:
    zeros, which take no room. There may be many smaller ones, so it is for the user's own machine."""
    with tempfile.TemporaryFile() as kept:
        descriptor = kept.fileno()
        stream = _Outline(LayerStream(bounded(file, settings), _LABEL), descriptor)
        for member in tar_reader.members(stream, _LABEL):
            if member.stored <= settings.max_metadata_bytes:
                stream.keep(member.stored)
        os.ftruncate(descriptor, stream.position)
        yield descriptor


def bounded(file: Blob, settings: GatewayConfig) -> Iterator[bytes]:
    """The expanded bytes, no more than a whole image may have. Raises ImageInvalid."""
    produced = 0
    for piece in expanded(file, _LABEL):
        produced += len(piece)
        if produced > settings.max_image_bytes:
            raise ImageInvalid(
                f"the archive expands to more than {settings.max_image_bytes} bytes",
                "limit set by gateway.max_image_bytes",
            )
        if produced > settings.ratio_from_bytes and produced > file.size * settings.max_ratio:
            raise ImageInvalid(
                f"the archive expands to more than {settings.ratio_from_bytes} bytes and {settings.max_ratio} times "
                "its size",
                "limits set by gateway.ratio_from_bytes and gateway.max_ratio",
            )
        yield piece


def is_compressed(file: Blob) -> bool:
    """Whether a file is compressed in a way that is expanded here."""
    return compression_of(file) in ALL


class _Outline:
    """A stream of headers, which writes what is read of it, and what shall be kept, to the same place in a file."""

    def __init__(self, stream: LayerStream, descriptor: int) -> None:
        self._stream = stream
        self._descriptor = descriptor

    @property
    def position(self) -> int:
        return self._stream.position

    def read(self, count: int) -> bytes:
        at = self._stream.position
        piece = self._stream.read(count)
        _write(self._descriptor, piece, at, tempfile.gettempdir())
        return piece

    def keep(self, count: int) -> None:
        """Keep the next `count` bytes; at the end of the archive there may be fewer, which is found out later."""
        self.read(count)

    def skip(self, count: int) -> None:
        self._stream.skip(count)


def _write(descriptor: int, data: bytes, at: int, directory: str) -> None:
    try:
        while data:
            count = os.pwrite(descriptor, data, at)
            at, data = at + count, data[count:]
    except OSError as error:
        raise UpstreamFailed(f"the archive cannot be expanded in {directory}: {reason(error)}") from error
