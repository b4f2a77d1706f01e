"""What the gateway's tests share: converting in this process, and comparing what came out entry by entry."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.image.convert import convert
from gateway.sources.kinds import parse_source
from tests.gateway.archives import Layer, make_archive
from udi.facts import Facts
from udi.gatewayconfig import GatewayConfig
from udi.registries import RegistryConfig

FORMATS = ("squashfs", "ext4")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts, owners, other users")


class Silent:
    """Progress that nobody looks at."""

    def stage(self, name: str, total: int) -> None:
        self.name = name

    def advance(self, count: int) -> None:
        self.count = count

    def layer(self, digest: str, done: int, total: int) -> None:
        self.count = done


def convert_source(source: str, output: Path, **settings: object) -> Facts:
    """`udi-gateway convert`, in this process."""
    site = dataclasses.replace(GatewayConfig(), **settings)  # type: ignore[arg-type]
    with parse_source(source).image(site, RegistryConfig(), str(output.parent), Silent()) as image:
        return convert(image, str(output), site, Silent())


def convert_layers(directory: Path, layers: Sequence[Layer], how: str = "plain", **settings: object) -> Path:
    """An image of these layers as a file: squashfs, where the settings say nothing else."""
    archive, output = directory / "image.tar", directory / f"image.{settings.get('format', 'squashfs')}"
    output.unlink(missing_ok=True)
    make_archive(archive, layers, how=how)
    convert_source(f"docker-archive:{archive}", output, **settings)
    return output


_KEPT = 64 << 20


@dataclasses.dataclass(frozen=True)
class Found:
    """One entry of a tree. `group` holds all names of its inode where there is more than one. The content of a link is
    its target; that of a file too large to be kept is its sha256."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...]
    group: tuple[bytes, ...]


def tree_of(root: str | os.PathLike[str]) -> dict[bytes, Found]:
    """Every entry below `root` by its path. Directory times are left out: unpackers differ in them."""
    top = os.fsencode(root)
    statuses: dict[bytes, os.stat_result] = {b".": os.lstat(top)}
    for directory, directories, files in os.walk(top):
        for name in directories + files:
            path = os.path.join(directory, name)
            statuses[os.path.relpath(path, top)] = os.lstat(path)
    names: dict[int, list[bytes]] = {}
    for path, status in statuses.items():
        if not stat.S_ISDIR(status.st_mode):
            names.setdefault(status.st_ino, []).append(path)
    return {path: _found(top, path, status, names) for path, status in statuses.items()}


def _found(top: bytes, path: bytes, status: os.stat_result, names: dict[int, list[bytes]]) -> Found:
    full = os.path.join(top, path)
    content = b""
    if stat.S_ISREG(status.st_mode):
        with open(full, "rb") as stream:
            is_kept = status.st_size <= _KEPT
            content = stream.read() if is_kept else hashlib.file_digest(stream, "sha256").digest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(full)
    xattrs = tuple((key, os.getxattr(full, key, follow_symlinks=False)) for key in _xattrs(full))
    group = tuple(sorted(names.get(status.st_ino, ())))
    directory = stat.S_ISDIR(status.st_mode)
    return Found(
        kind=stat.filemode(status.st_mode)[0],
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
        mtime=0 if directory else int(status.st_mtime),
        content=content,
        xattrs=xattrs,
        group=group if len(group) > 1 else (),
    )


def _xattrs(path: bytes) -> list[str]:
    try:
        keys = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return []  # a squashfs in which no file has any
    return sorted(key for key in keys if not key.startswith("security."))


@contextmanager
def mounted(image: Path, kind: str = "squashfs") -> Iterator[Path]:
    """The image mounted read-only beside it."""
    target = image.with_suffix(".mnt")
    target.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", kind, "-o", "loop,ro,nodev", image, target], check=True, timeout=30)
    try:
        yield target
    finally:
        subprocess.run(["umount", target], check=True, timeout=30)
        target.rmdir()


@contextmanager
def in_memory(where: Path) -> Iterator[Path]:
    """A new directory of a file system that is in memory only, and takes as many attributes as there are, but for those
    of users. All in it is gone at once."""
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", where], check=True, timeout=30)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True, timeout=30)
        where.rmdir()


def tree_of_layers(directory: Path, layers: Sequence[Layer], image_format: str = "squashfs") -> dict[bytes, Found]:
    """What we make of these layers."""
    with mounted(convert_layers(directory, layers, format=image_format), image_format) as root:
        return tree_of(root)


def without_root(tree: dict[bytes, Found]) -> dict[bytes, Found]:
    """The root's own attributes are nobody's in an archive that has no entry for it."""
    return {path: found for path, found in tree.items() if path != b"."}


def umoci_tree(layout: Path, tag: str = "1") -> dict[bytes, Found]:
    """What umoci makes of an OCI layout."""
    bundle = layout.with_suffix(".bundle")
    shutil.rmtree(bundle, ignore_errors=True)
    done = subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:{tag}", bundle], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    return tree_of(bundle / "rootfs")
