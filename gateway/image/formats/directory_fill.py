"""Filling an unpacked tree from the stream on standard input, in a process of its own.

The stream comes from `gateway.image.flatten`: directories precede what is in them, hard links follow their inodes. No
link is followed on the way: each directory of a path is opened as one, from the tree's root on.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator

from gateway.image import tar_reader
from gateway.image.layers import LayerStream
from gateway.image.tar_reader import Member
from udi.oserrors import reason
from udiroot.errors import UdiError, complain

_PIECE = 1 << 16
_ZEROS = bytes(_PIECE)
_KEPT_BITS = 0o1755
"""Of a mode: neither set-id bits nor the right of others to write."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Filler:
    """Makes members below a new directory. `size` is the bytes of all files so far."""

    def __init__(self, root: str) -> None:
        os.mkdir(root, 0o700)
        self._root = os.open(root, _DIRECTORY)
        self._at: list[bytes] = []
        self._parent = self._root
        self._directories: list[tuple[bytes, int, int]] = []
        self.size = 0

    def fill(self, stream: LayerStream) -> None:
        """Make every member of the stream."""
        for member in tar_reader.members(stream, "stream"):
            parts = [part for part in member.name.split(b"/") if part not in (b"", b".")]
            if parts:
                self._make(stream, parts, member)
            if member.kind == tar_reader.DIRECTORY:
                self._directories.append((b"/".join(parts), member.mode, member.mtime))
        for name, mode, mtime in reversed(self._directories):  # entries made in them have changed their times
            directory = self._open(name.split(b"/") if name else [])
            os.fchmod(directory, mode & _KEPT_BITS | 0o700)
            os.utime(directory, (mtime, mtime))
            self._close(directory)

    def _make(self, stream: LayerStream, parts: list[bytes], member: Member) -> None:
        self._enter(parts[:-1])
        name, parent = parts[-1], self._parent
        if member.kind == tar_reader.DIRECTORY:
            os.mkdir(name, 0o700, dir_fd=parent)
        elif member.kind == tar_reader.SYMLINK:
            os.symlink(member.linkname, name, dir_fd=parent)
            os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)
        elif member.kind == tar_reader.LINK:
            self._link(member.linkname, name)
        elif member.kind == tar_reader.FIFO:
            os.mkfifo(name, member.mode & _KEPT_BITS & 0o777, dir_fd=parent)
        else:
            self._write(stream, name, member)

    def _link(self, target: bytes, name: bytes) -> None:
        parts = [part for part in target.split(b"/") if part not in (b"", b".")]
        source = self._open(parts[:-1])
        try:
            os.link(parts[-1], name, src_dir_fd=source, dst_dir_fd=self._parent, follow_symlinks=False)
        finally:
            self._close(source)

    def _write(self, stream: LayerStream, name: bytes, member: Member) -> None:
        """A file; pieces of zeros remain holes."""
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=self._parent)
        try:
            at = 0
            while at < member.size:
                piece = stream.read(min(_PIECE, member.size - at))
                if piece != _ZEROS[: len(piece)]:
                    os.pwrite(descriptor, piece, at)
                at += len(piece)
            os.ftruncate(descriptor, member.size)
            os.fchmod(descriptor, member.mode & _KEPT_BITS | 0o600)
            os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)
        self.size += member.size

    def _enter(self, parts: list[bytes]) -> None:
        """Make this the directory in which the next members are made; most often it is already."""
        if parts != self._at:
            self._close(self._parent)
            self._parent = self._open(parts)
            self._at = parts

    def _open(self, parts: list[bytes]) -> int:
        found = self._root
        for part in parts:
            inner = os.open(part, _DIRECTORY, dir_fd=found)
            self._close(found)
            found = inner
        return found

    def _close(self, directory: int) -> None:
        if directory != self._root:
            os.close(directory)


def main() -> int:
    """Fill the directory that the first argument names, and write its size and digest to the file of the second."""
    root, record = sys.argv[1:]
    digest = hashlib.sha256()

    def chunks() -> Iterator[bytes]:
        while chunk := os.read(0, 1 << 20):
            digest.update(chunk)
            yield chunk

    try:
        filler = Filler(root)
        stream = LayerStream(chunks(), "stream")
        filler.fill(stream)
        stream.drain()
        with open(record, "x") as output:
            output.write(f"{filler.size} {digest.hexdigest()}\n")
    except OSError as error:
        sys.stderr.write(f"{os.fsdecode(error.filename or b'the tree')}: {reason(error)}\n")
        return 1
    except UdiError as error:
        return complain("directory_fill", error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
