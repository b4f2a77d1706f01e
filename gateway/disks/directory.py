"""The files of a directory of this host as one tar archive, which is then the only layer of an image.

It is read with the rights of this process, without following a link, and not beyond its own file system. What these
rights do not reach is left out and told, since nobody who runs in the directory itself could read it either. The
archive is the same for the same files, as that of a file system in a file (`gateway.disks.tar`).
"""

from __future__ import annotations

import contextlib
import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO

from gateway.disks.kinds import KINDS
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, UpstreamFailed, printable

_DEEPEST = 250
"""Directories in each other: each is open while what is below it is read."""
_MOST_NAMED = 10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


@dataclass
class LeftOut:
    """What could not be read: how many files and directories, and the first of them by their paths."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, path: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < _MOST_NAMED:
            self.first.append(path)


def write_directory(
    directory: int, output: IO[bytes], max_bytes: int, max_entries: int, advance: Callable[[int], None]
) -> LeftOut:
    """Write all files below an open directory. `advance` is called with the bytes of each file.

    Raises ImageInvalid where there is more than allowed, or where a file changes while it is read; UpstreamFailed where
    its file system fails.
    """
    writer = _Writer(directory, output, max_bytes, max_entries, advance)
    writer.write()
    return writer.left_out


class _Writer:
    def __init__(
        self, root: int, output: IO[bytes], max_bytes: int, max_entries: int, advance: Callable[[int], None]
    ) -> None:
        self.left_out = LeftOut()
        self._root = root
        self._device = os.fstat(root).st_dev
        self._tar = tarfile.open(fileobj=output, mode="w|", format=tarfile.PAX_FORMAT, encoding="utf-8")
        self._max_bytes, self._max_entries, self._advance = max_bytes, max_entries, advance
        self._bytes, self._entries = 0, 0
        self._linked: dict[int, str] = {}

    def write(self) -> None:
        with self._tar:
            self._tar.addfile(self._described(".", os.fstat(self._root), self._root))
            self._write_below(self._root, "", 0)

    def _write_below(self, directory: int, path: str, depth: int) -> None:
        if depth > _DEEPEST:
            raise ImageInvalid(f"more than {_DEEPEST} directories in each other: '{printable(path, 100)}'")
        with _explained(path or "/"):
            names = sorted(os.listdir(directory))
        self._entries += len(names)
        if self._entries > self._max_entries:
            raise ImageInvalid(
                f"the directory has more than {self._max_entries} files", "limit set by gateway.max_entries"
            )
        for name in names:
            self._add(directory, name, f"{path}/{name}", depth)

    def _add(self, directory: int, name: str, path: str, depth: int) -> None:
        with _explained(path):
            status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        kind = stat.S_IFMT(status.st_mode)
        if kind not in KINDS:
            return
        if kind == stat.S_IFDIR:
            self._add_directory(directory, name, path, status, depth)
        elif status.st_nlink > 1 and status.st_ino in self._linked:
            link = self._described(f".{path}", status)
            link.type, link.linkname, link.size = tarfile.LNKTYPE, self._linked[status.st_ino], 0
            self._tar.addfile(link)
        elif kind == stat.S_IFREG:
            self._add_file(directory, name, path)
        else:
            info = self._described(f".{path}", status)
            with _explained(path):
                info.linkname = os.readlink(name, dir_fd=directory) if kind == stat.S_IFLNK else ""
            self._tar.addfile(info)
            self._note_link(status, info)

    def _add_directory(self, above: int, name: str, path: str, status: os.stat_result, depth: int) -> None:
        """A directory; of one that cannot be read, or that another file system is mounted on, the name alone."""
        if status.st_dev != self._device:
            self._tar.addfile(self._described(f".{path}", status))
            return
        try:
            descriptor = os.open(name, _DIRECTORY, dir_fd=above)
        except PermissionError:
            self.left_out.add(path)
            self._tar.addfile(self._described(f".{path}", status))
            return
        except OSError as error:
            raise _failed(path, error) from error
        try:
            self._tar.addfile(self._described(f".{path}", os.fstat(descriptor), descriptor))
            self._write_below(descriptor, path, depth + 1)
        finally:
            os.close(descriptor)

    def _add_file(self, above: int, name: str, path: str) -> None:
        try:
            descriptor = os.open(name, _FILE, dir_fd=above)
        except PermissionError:
            self.left_out.add(path)
            return
        except OSError as error:
            raise _failed(path, error) from error
        with os.fdopen(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise _changed(path)
            info = self._described(f".{path}", status, descriptor)
            self._bytes += info.size
            if self._bytes > self._max_bytes:
                raise ImageInvalid(
                    f"the files have more than {self._max_bytes} bytes", "limit set by gateway.max_image_bytes"
                )
            try:
                self._tar.addfile(info, stream)
            except OSError as error:  # tarfile's own, of a file that became shorter, has no number
                raise (_failed(path, error) if error.errno else _changed(path)) from error
            if (after := os.fstat(descriptor)).st_size != info.size or after.st_mtime_ns != status.st_mtime_ns:
                raise _changed(path)
            self._note_link(status, info)
        self._advance(info.size)

    def _note_link(self, status: os.stat_result, info: tarfile.TarInfo) -> None:
        if status.st_nlink > 1:
            self._linked[status.st_ino] = info.name

    @staticmethod
    def _described(name: str, status: os.stat_result, descriptor: int | None = None) -> tarfile.TarInfo:
        info = tarfile.TarInfo(name)
        info.type, info.mode = KINDS[stat.S_IFMT(status.st_mode)], stat.S_IMODE(status.st_mode)
        info.uid, info.gid, info.mtime = status.st_uid, status.st_gid, int(status.st_mtime)
        if info.type == tarfile.REGTYPE:
            info.size = status.st_size
        elif info.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
            info.devmajor, info.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
        if descriptor is not None:
            info.pax_headers = {f"SCHILY.xattr.{key}": value for key, value in sorted(_attributes(descriptor))}
        return info


def _attributes(descriptor: int) -> Iterator[tuple[str, str]]:
    """Attributes that this process may read; none on a file system that has none."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(descriptor):
            with contextlib.suppress(OSError):
                yield name, os.fsdecode(os.getxattr(descriptor, name))


@contextlib.contextmanager
def _explained(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(path, error) from error


def _failed(path: str, error: OSError) -> UpstreamFailed:
    return UpstreamFailed(f"'{printable(path, 200)}' cannot be read: {reason(error)}")


def _changed(path: str) -> ImageInvalid:
    return ImageInvalid(
        f"'{printable(path, 200)}' changed while it was read", "publish it again when nobody changes it"
    )
