"""Filling an ext4 image from the stream on standard input, in a process and a mount namespace of its own.

Started by `gateway.image.formats.ext4` through unshare(1), so that nothing else sees the mount, and it ends with the
process however that exits. The stream comes from `gateway.image.flatten`: directories precede what is in them, hard
links follow their inodes.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Iterator

from gateway.image import tar_reader
from gateway.image.formats.packer import run_tool
from gateway.image.layers import LayerStream
from gateway.image.tar_reader import Member
from udiroot.errors import UdiError, complain

_DEADLINE = 120.0
_PIECE = 1 << 16
_ZEROS = bytes(_PIECE)


def fill(stream: LayerStream) -> None:
    """Make every member below the current directory."""
    os.rmdir("lost+found")  # made by mke2fs; the image may have its own
    directories: list[tuple[bytes, int]] = []
    for member in tar_reader.members(stream, "stream"):
        name = os.path.normpath(member.name)
        _make(stream, name, member)
        if member.kind == tar_reader.LINK:
            continue
        if member.kind == tar_reader.DIRECTORY:
            directories.append((name, member.mtime))
        os.chown(name, member.uid, member.gid, follow_symlinks=False)
        if member.kind != tar_reader.SYMLINK:
            os.chmod(name, member.mode)  # after chown, which clears setuid bits
        for key, value in member.xattrs:
            os.setxattr(name, key, value, follow_symlinks=False)
        os.utime(name, (member.mtime, member.mtime), follow_symlinks=False)
    for name, mtime in reversed(directories):  # entries made in them have changed their times
        os.utime(name, (mtime, mtime))


def _make(stream: LayerStream, name: bytes, member: Member) -> None:
    if member.kind == tar_reader.DIRECTORY:
        if name != b".":
            os.mkdir(name, 0o700)
    elif member.kind == tar_reader.SYMLINK:
        os.symlink(member.linkname, name)
    elif member.kind == tar_reader.LINK:
        os.link(member.linkname, name, follow_symlinks=False)
    elif member.kind == tar_reader.FIFO:
        os.mkfifo(name, 0o600)
    else:
        _write(stream, name, member.size)


def _write(stream: LayerStream, name: bytes, size: int) -> None:
    """A file's data; pieces of zeros remain holes."""
    descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        at = 0
        while at < size:
            piece = stream.read(min(_PIECE, size - at))
            if piece != _ZEROS[: len(piece)]:
                os.pwrite(descriptor, piece, at)
            at += len(piece)
        os.ftruncate(descriptor, size)
    finally:
        os.close(descriptor)


def _settle(directory: int) -> None:
    """Write out what is only in memory yet. The image file has holes: where there is no room for them, data are lost
    long after they were written, and unmounting does not say so. Raises OSError for what failed since `directory` was
    opened (Linux 5.8; before, e2fsck alone sees it, and of data nothing)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(directory):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _input() -> Iterator[bytes]:
    while piece := os.read(0, 1 << 20):
        yield piece


def main() -> int:
    """Mount the image that the first argument names, fill it, unmount it."""
    try:
        with tempfile.TemporaryDirectory(prefix="udi-ext4-") as target:
            run_tool(
                ["/bin/mount", "-t", "ext4", "-o", "loop,nosuid,nodev,noexec,noatime", sys.argv[1], target], _DEADLINE
            )
            try:
                os.chdir(target)
                directory = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    fill(LayerStream(_input(), "stream"))
                    _settle(directory)
                finally:
                    os.close(directory)
            finally:
                os.chdir("/")
                run_tool(["/bin/umount", target], _DEADLINE)
    except UdiError as error:
        return complain("ext4", error)
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
