"""The empty file system of a per-node cache, made once on the job host and sent with the plan.

`mke2fs` makes it in a sparse file; only the parts that are not zero are kept: some hundred KiB of a file system of any
size, a few KiB when compressed.
"""

from __future__ import annotations

import base64
import errno
import os
import tempfile
import zlib
from collections.abc import Iterator

from udi.command import run
from udi.config import SiteConfig
from udi.oserrors import reason
from udiroot.errors import UpstreamFailed

_PIECE = 1 << 16
"""Bytes: parts are cut at multiples of this, and those that are zero are left out."""
_FEATURES = (
    "none,ext_attr,dir_index,filetype,extent,64bit,flex_bg,meta_bg,sparse_super,large_file,huge_file,uninit_bg,"
    "dir_nlink,extra_isize"
)
"""What kernels support since 2.6.28, whatever the job host's mke2fs.conf has. No journal, since nothing outlives the
job; `meta_bg` keeps the copies of the group descriptors few."""
_EXTENDED = "lazy_itable_init=1,nodiscard"
_SECONDS = 60


def cache_template(site: SiteConfig, size: int, uid: int, gid: int) -> str:
    """An empty ext4 file system of `size` bytes whose top directory belongs to that user, as `PlanCache.template` has
    it. Raises UpstreamFailed where it cannot be made."""
    with tempfile.TemporaryFile() as stream:
        try:
            stream.truncate(size)
            path = f"/proc/{os.getpid()}/fd/{stream.fileno()}"
            options = ["-q", "-F", "-t", "ext4", "-m", "0", "-e", "continue", "-O", _FEATURES]
            extended = f"{_EXTENDED},root_owner={uid}:{gid}"
            run([site.gateway.mke2fs, *options, "-E", extended, path], seconds=_SECONDS).require_success()
            return "\n".join(f"{offset} {_packed(data)}" for offset, data in _parts(stream.fileno(), size))
        except OSError as error:
            raise UpstreamFailed(f"the file system of a per-node cache cannot be made: {reason(error)}") from error


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data, 9)).decode("ascii")


def _parts(descriptor: int, size: int) -> Iterator[tuple[int, bytes]]:
    """The parts of a sparse file that are not zero, with their offsets."""
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(descriptor, offset, os.SEEK_HOLE)
        while offset < end:
            length = min(_PIECE - offset % _PIECE, end - offset)
            data = os.pread(descriptor, length, offset)
            if data.strip(b"\0"):
                yield offset, data
            offset += length
