"""The files of a file system as one tar archive, which is then the only layer of an image.

The archive is the same for the same files: names in order, no names of accounts, no times but those of the files. Its
digest therefore names the content.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO

from gateway.disks.ext import ROOT, ExtFileSystem, Inode
from gateway.disks.kinds import KINDS
from udiroot.errors import ImageInvalid, printable

_LONGEST_PATH = 4095
_NAMED = 1024
"""Bytes that a file takes in an archive besides its path, attributes and content."""


def write_tar(
    system: ExtFileSystem, output: IO[bytes], max_bytes: int, max_entries: int, advance: Callable[[int], None]
) -> None:
    """Write all files of a file system. `advance` is called with the bytes of each file.

    Raises ImageInvalid where the file system is damaged, or larger than allowed.
    """
    _Writer(system, output, max_bytes, max_entries, advance).write()


class _Writer:
    def __init__(
        self, system: ExtFileSystem, output: IO[bytes], max_bytes: int, max_entries: int, advance: Callable[[int], None]
    ) -> None:
        self._system = system
        self._tar = tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8")
        self._max_bytes, self._max_entries, self._advance = max_bytes, max_entries, advance
        self._bytes, self._entries = 0, 0
        self._linked: dict[int, str] = {}
        self._directories: set[int] = set()

    def write(self) -> None:
        root = self._system.inode(ROOT)
        if not stat.S_ISDIR(root.mode):
            raise ImageInvalid("ext file system is damaged: its root is not a directory", "run e2fsck on it")
        with self._tar:
            for path, inode in self._walk("", root):
                self._add(path, inode)

    def _walk(self, path: str, directory: Inode) -> Iterator[tuple[str, Inode]]:
        """Each name below a directory after that directory. A directory has one name only."""
        waiting = [(path, directory)]
        while waiting:
            path, inode = waiting.pop()
            yield path, inode
            if not stat.S_ISDIR(inode.mode):
                continue
            if inode.number in self._directories:
                raise ImageInvalid(f"ext file system is damaged: directory '{printable(path)}' has two places")
            self._directories.add(inode.number)
            below = sorted(self._system.entries(inode), reverse=True)
            self._count(len(below))
            waiting += [(f"{path}/{os.fsdecode(name)}", self._system.inode(number)) for name, number in below]

    def _count(self, entries: int) -> None:
        self._entries += entries
        if self._entries > self._max_entries:
            raise ImageInvalid(
                f"the file system has more than {self._max_entries} files", "limit set by gateway.max_entries"
            )

    def _spend(self, count: int) -> None:
        """Paths and attributes count as well: a small file system may repeat them as often as it has files."""
        self._bytes += count
        if self._bytes > self._max_bytes:
            raise ImageInvalid(
                f"the files have more than {self._max_bytes} bytes",
                "limits set by gateway.max_image_bytes, gateway.max_ratio and gateway.ratio_from_bytes",
            )

    def _add(self, path: str, inode: Inode) -> None:
        if len(os.fsencode(path)) > _LONGEST_PATH:
            raise ImageInvalid(f"the file system has a path of more than {_LONGEST_PATH} bytes: {printable(path, 100)}")
        kind = KINDS.get(stat.S_IFMT(inode.mode))
        if kind is None:
            return
        info = tarfile.TarInfo(f".{path}")
        info.type, info.mode, info.mtime = kind, stat.S_IMODE(inode.mode), inode.mtime
        info.uid, info.gid = inode.uid, inode.gid
        if kind != tarfile.DIRTYPE and inode.links > 1 and inode.number in self._linked:
            info.type, info.linkname = tarfile.LNKTYPE, self._linked[inode.number]
            self._tar.addfile(info)
            return
        if inode.links > 1:
            self._linked[inode.number] = info.name
        attributes = self._system.attributes(inode)
        self._spend(_NAMED + len(path) + sum(len(name) + len(value) for name, value in attributes.items()))
        info.pax_headers = {f"SCHILY.xattr.{name}": os.fsdecode(value) for name, value in attributes.items()}
        if kind == tarfile.SYMTYPE:
            info.linkname = os.fsdecode(self._system.target(inode))
        elif kind in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = inode.device
        if kind != tarfile.REGTYPE:
            self._tar.addfile(info)
            return
        info.size = inode.size
        self._spend(inode.size)
        self._tar.addfile(info, _Pieces(self._system.data(inode)))
        self._advance(inode.size)


class _Pieces:
    """A content in pieces, read as a file is."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = b""

    def read(self, count: int = 0, /) -> bytes:
        parts = [self._rest]
        have = len(self._rest)
        while have < count and (piece := next(self._pieces, b"")):
            parts.append(piece)
            have += len(piece)
        data = b"".join(parts)
        self._rest = data[count:]
        return data[:count]
