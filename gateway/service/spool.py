"""A private copy of the files that a user handed over.

The service reads a layer twice: to check it, and to pack it. The user could change the file in between, and the image's
id would then be wrong for everybody who uses the image. So the service works on a copy that nobody else can reach:
files without a name.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence

from gateway.sources.files import OpenedFiles
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, UpstreamFailed

_PIECE = 8 << 20
_NOT_HERE = (errno.EXDEV, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF)
"""Errors of copy_file_range(2) where the kernel alone cannot copy between these two files."""


def spool(opened: OpenedFiles, directory: str, limit: int, advance: Callable[[int], None]) -> OpenedFiles:
    """A copy of all files in `directory`, without names. Raises ImageInvalid above `limit` bytes in all."""
    copy = OpenedFiles(opened.source, opened.tag)
    try:
        for name in opened.files:
            copy.files[name] = os.open(directory, os.O_RDWR | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
        copy_to(list(copy.files.values()), list(opened.files.values()), limit, advance)
    except OSError as error:
        copy.close()
        raise UpstreamFailed(f"image cannot be copied to {directory}: {reason(error)}") from error
    except BaseException:
        copy.close()
        raise
    return copy


def copy_to(targets: Sequence[int], sources: Sequence[int], limit: int, advance: Callable[[int], None]) -> None:
    """Copy each source to the target of its place. Raises ImageInvalid above `limit` bytes in all, OSError."""
    for target, source in zip(targets, sources, strict=True):
        size = os.fstat(source).st_size
        limit -= size
        if limit < 0:
            raise ImageInvalid("image is too large", "limit set by gateway.max_image_bytes")
        _copy(source, target, size, advance)


def _copy(source: int, target: int, size: int, advance: Callable[[int], None]) -> None:
    """At most the size that the file had, so that one that grows cannot fill the disk."""
    done = 0
    by_kernel = True
    while done < size:
        if by_kernel:
            try:
                count = os.copy_file_range(source, target, min(_PIECE, size - done), done, done)
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                by_kernel = False
                continue
        else:
            count = os.pwrite(target, os.pread(source, min(_PIECE, size - done), done), done)
        if not count:
            return  # the file became shorter, which reading it reports
        done += count
        advance(count)
