"""A layer with one file of more than 4 GiB between others, so that what follows it has positions that 32 bits cannot
say: in the layer, or in the image. Neither takes that room in the layer's file."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
import tarfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import zstandard

from tests.gateway.archives import BASE, Entry, another_name, directory, file, symlink
from tests.gateway.squashfs_cases import NOISE
from tests.gateway.squashfs_readers import LayerFile, wanted
from tests.gateway.support import Found

_SIZE = (1 << 32) + (1 << 20) + 5
_NEEDED = 3 * _SIZE
_PERIOD = (1 << 20) + 4099
_HUGE = file("huge", b"", mtime=1_500_000_000)
_LARGE = file("after/large", NOISE[7:400_000], mode=0o640, uid=70_000, xattrs={"user.a": b"1"})
_BEFORE = [*BASE, file("before-small", NOISE[:3000]), file("before-large", NOISE[: 1 << 20])]
_AFTER = [
    directory("after", xattrs={"user.b": b"2"}),
    _LARGE,
    another_name("after/another-name", _LARGE),
    file("after/equal", _LARGE.data),
    file("after/equal-to-one-before", NOISE[: 1 << 20]),
    file("after/unlike-by-its-end", _LARGE.data[:-1] + b"x"),
    file("after/sparse", bytes(1 << 20) + NOISE[: 200 << 10], mtime=1),
    file("after/of-a-block", NOISE[5 : 5 + (128 << 10)]),
    *(file(f"after/small-{number}", NOISE[number * 1100 :][: number * 11 + 1]) for number in range(1, 900)),
    symlink("after/link", "large"),
    Entry(b"after/fifo", tarfile.FIFOTYPE, mode=0o622),
]


class Large(NamedTuple):
    """The layer, and what an image of it must have."""

    layer: LayerFile
    right: dict[bytes, Found]


def of_noise(path: Path) -> Large:
    """A zstd layer at `path`, of a few MiB: the noise repeats, at a distance that no block of an image has."""
    digest = hashlib.sha256()
    settings = zstandard.ZstdCompressionParameters.from_level(1, window_log=22)
    with (
        path.open("wb") as stream,
        zstandard.ZstdCompressor(compression_params=settings).stream_writer(stream) as packed,
    ):
        for part in (_start(), *_noise(), _end()):
            digest.update(part)
            packed.write(part)
    assert path.stat().st_size < 64 << 20
    return Large(LayerFile(path, digest.hexdigest()), _right(_noise()))


def of_zeros(path: Path) -> Large:
    """A layer at `path` that is not compressed, with a hole in its file."""
    with path.open("wb") as stream:
        stream.write(_start())
        stream.seek(_SIZE, 1)
        stream.write(_end())
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return Large(LayerFile(path, digest), _right(_zeros()))


def _digest(parts: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.digest()


def _right(content: Iterator[bytes]) -> dict[bytes, Found]:
    """What an image of such a layer must have, with the sha256 of the large file's content, as `Found` has it."""
    tree = wanted([*_BEFORE, _HUGE, *_AFTER])
    tree[_HUGE.name] = dataclasses.replace(tree[_HUGE.name], content=_digest(content))
    return tree


@contextmanager
def room(within: Path) -> Iterator[Path]:
    """A directory with room for the image and what one reader unpacks; it is removed with all that is in it."""
    free = shutil.disk_usage(within).free
    assert free > _NEEDED, f"this test needs {_NEEDED} bytes in {within}, and {free} are free"
    with TemporaryDirectory(dir=within) as name:
        yield Path(name)


def _start() -> bytes:
    """All before the large file's content."""
    return _members(_BEFORE) + _header(_HUGE, _SIZE)


def _end() -> bytes:
    """All behind it."""
    return bytes(-_SIZE % tarfile.BLOCKSIZE) + _members(_AFTER) + bytes(2 * tarfile.BLOCKSIZE)


def _members(entries: Sequence[Entry]) -> bytes:
    return b"".join(
        _header(entry, len(entry.data)) + entry.data + bytes(-len(entry.data) % tarfile.BLOCKSIZE) for entry in entries
    )


def _header(entry: Entry, size: int) -> bytes:
    info = entry.info()
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _noise() -> Iterator[bytes]:
    for at in range(0, _SIZE, _PERIOD):
        yield NOISE[: min(_PERIOD, _SIZE - at)]


def _zeros() -> Iterator[bytes]:
    for at in range(0, _SIZE, _PERIOD):
        yield bytes(min(_PERIOD, _SIZE - at))
