"""Images by the writer of `gateway.image.squashfs`, with any size of blocks, and what their readers find in them."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from gateway.image.blob import Blob
from gateway.image.flatten import flatten
from gateway.image.layers import Layer
from gateway.image.limits import Limits
from gateway.image.squashfs.writer import write_squashfs
from tests.gateway.archives import Entry, layer_tar
from tests.gateway.support import Found, mounted, tree_of, without_root

BLOCK_SIZES = (4 << 10, 128 << 10, 1 << 20)
"""The smallest that there is, ours, and the largest."""
_LIMITS = Limits(max_bytes=1 << 40, max_entries=1 << 20, max_ratio=1 << 20)
_SECONDS = 300
_KINDS = {tarfile.REGTYPE: "-", tarfile.DIRTYPE: "d", tarfile.SYMTYPE: "l", tarfile.FIFOTYPE: "p"}


class LayerFile(NamedTuple):
    """A layer that is a file, and the sha256 of what it expands to."""

    path: Path
    sha256: str


def write(
    path: Path,
    layers: Sequence[Sequence[Entry] | bytes | LayerFile],
    block_size: int = 128 << 10,
    compression: str = "gzip",
) -> Path:
    """An image of these layers at `path`, replaced if it is there; gzip is that of the default, by ISA-L."""
    path.unlink(missing_ok=True)
    with ExitStack() as opened:
        stream = opened.enter_context(path.with_suffix(".layers").open("w+b"))
        found = []
        for number, layer in enumerate(layers, 1):
            if isinstance(layer, LayerFile):
                blob = Blob.of_file(opened.enter_context(layer.path.open("rb")).fileno())
                found.append(Layer(blob, f"sha256:{layer.sha256}", number))
                continue
            data = layer if isinstance(layer, bytes) else layer_tar(layer)
            blob = Blob(stream.fileno(), stream.tell(), len(data))
            stream.write(data)
            found.append(Layer(blob, f"sha256:{hashlib.sha256(data).hexdigest()}", number))
        stream.flush()
        level = None if compression == "xz" else 1
        write_squashfs(flatten(found, _LIMITS, _unseen), str(path), (compression, level), block_size, _unseen)
    return path


def _unseen(_: int) -> None:
    """Progress that nobody looks at."""


def by_kernel(image: Path) -> dict[bytes, Found]:
    """What the kernel finds, without the root's own attributes."""
    with mounted(image) as root:
        return without_root(tree_of(root))


def by_unsquashfs(image: Path, where: Path) -> dict[bytes, Found]:
    """What unsquashfs unpacks to `where`, which must not exist."""
    return unpacked(["unsquashfs", "-strict-errors"], image, where)


def unpacked(unsquashfs: list[str], image: Path, where: Path) -> dict[bytes, Found]:
    """What an unsquashfs unpacks to `where`, which must not exist."""
    argv: list[str | Path] = [*unsquashfs, "-quiet", "-no-progress", "-d", where, image]
    done = subprocess.run(argv, capture_output=True, timeout=_SECONDS, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return without_root(tree_of(where))


def by_rdsquashfs(image: Path, where: Path) -> dict[bytes, Found]:
    """What rdsquashfs unpacks to `where`. It makes a file of its own for each name of a hard link."""
    where.mkdir()
    options = ["--set-xattr", "--set-times", "--chmod", "--chown", "--quiet", "--unpack-root", str(where)]
    argv: list[str | Path] = ["rdsquashfs", *options, "--unpack-path", "/", image]
    subprocess.run(argv, check=True, capture_output=True, timeout=_SECONDS)
    return without_root(tree_of(where))


def agree(image: Path, right: dict[bytes, Found], where: Path) -> None:
    """Assert that unsquashfs and rdsquashfs find this tree. They unpack it in `where`, and it is gone then."""
    for name, found in (("unsquashfs", by_unsquashfs), ("rdsquashfs", by_rdsquashfs)):
        tree = found(image, where / name)
        assert tree == (without_groups(right) if name == "rdsquashfs" else right), name
        shutil.rmtree(where / name)


def without_groups(tree: dict[bytes, Found]) -> dict[bytes, Found]:
    """The tree as one who does not know hard links sees it."""
    return {path: dataclasses.replace(found, group=()) for path, found in tree.items()}


def wanted(entries: Sequence[Entry]) -> dict[bytes, Found]:
    """What one layer must become: each name once, all directories named, hard links after what they name."""
    inodes: dict[bytes, Entry] = {}
    groups: dict[bytes, list[bytes]] = {}
    for entry in entries:
        first = entry.target if entry.kind == tarfile.LNKTYPE else entry.name
        inodes[entry.name] = inodes[first] if entry.kind == tarfile.LNKTYPE else entry
        groups.setdefault(inodes[entry.name].name, []).append(entry.name)
    return {name: _wanted(entry, groups[entry.name]) for name, entry in inodes.items()}


def _wanted(entry: Entry, names: list[bytes]) -> Found:
    return Found(
        kind=_KINDS[entry.kind],
        mode=entry.mode,
        uid=entry.uid,
        gid=entry.gid,
        mtime=0 if entry.kind == tarfile.DIRTYPE else entry.mtime,
        content=entry.target if entry.kind == tarfile.SYMTYPE else entry.data,
        xattrs=tuple(sorted(entry.xattrs.items())),
        group=tuple(sorted(names)) if len(names) > 1 else (),
    )


def content_at(path: Path, position: int, count: int) -> bytes:
    """A part of a file that is too large to be read."""
    with path.open("rb") as stream:
        return os.pread(stream.fileno(), count, position)
