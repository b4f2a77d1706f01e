"""ext4, for kernels without squashfs: filled through a loop mount in a namespace of its own, which needs root."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable

from gateway.image.flatten import Flattened
from gateway.image.formats.packer import pack, run_tool
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import NotPermitted, UpstreamFailed

_BLOCK = 4096
_INODE = 256
_COMMAND_DEADLINE = 600.0
_RESERVED = 10
"""Inodes that ext4 reserves, including the root's."""
_SUPERBLOCK_AT, _INODES_AT, _FREE_INODES_AT, _MAGIC_AT, _MAGIC = 1024, 0, 16, 56, 0xEF53
_FEATURES = "none,ext_attr,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize"
"""What kernels support since 2.6.28; no journal, since the file is only ever mounted read-only."""
_FIXED_UUID = "6d6f6465-6c20-4f66-8069-6d6167650001"
"""The same for all images, so that the same tree gives the same file as far as ext4 allows."""


def checker(settings: GatewayConfig) -> str:
    """The program that looks at each new file system: e2fsck, which comes with mke2fs and lies beside it."""
    return os.path.join(os.path.dirname(settings.mke2fs), "e2fsck")


def make_ext4(flattened: Flattened, output: str, settings: GatewayConfig, advance: Callable[[int], None]) -> None:
    """Write the tree to `output`. Raises NotPermitted without root, UpstreamFailed, TimedOut, ImageInvalid,
    OSError."""
    if os.geteuid() != 0:
        raise NotPermitted("making an ext4 image requires root, since it is filled through a mount", "use squashfs")
    size = _size(flattened)
    with open(output, "xb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        stream.truncate(size)
    argv = [settings.mke2fs, "-q", "-F", "-t", "ext4", "-O", _FEATURES, "-m", "0", "-b", str(_BLOCK), "-I", str(_INODE)]
    argv += [
        "-N",
        str(flattened.reached.inodes + 64),
        "-U",
        _FIXED_UUID,
        "-E",
        f"lazy_itable_init=0,nodiscard,hash_seed={_FIXED_UUID}",
    ]
    run_tool([*argv, output], _COMMAND_DEADLINE, output)
    fill = ["/usr/bin/unshare", "--mount", "--propagation", "private", "--", sys.executable, "-I"]
    pack([*fill, "-m", "gateway.image.formats.ext4_fill", output], flattened.write, advance, output)
    run_tool([checker(settings), "-fn", output], _COMMAND_DEADLINE, output)
    _check(output, flattened.reached.inodes)


def _size(flattened: Flattened) -> int:
    """Generous for data, directories and attributes; what is not used remains a hole."""
    entries = flattened.reached.entries
    data = flattened.data_bytes + entries * (_BLOCK + 64) + len(flattened.final.xattrs) * _BLOCK
    total = int((data + flattened.reached.inodes * _INODE) * 1.1) + (16 << 20)
    return (total + _BLOCK - 1) // _BLOCK * _BLOCK


def _check(path: str, inodes: int) -> None:
    with open(path, "rb") as stream:
        stream.seek(_SUPERBLOCK_AT)
        block = stream.read(_SUPERBLOCK_AT)
    magic = struct.unpack_from("<H", block, _MAGIC_AT)[0]
    total, free = (struct.unpack_from("<I", block, at)[0] for at in (_INODES_AT, _FREE_INODES_AT))
    if magic != _MAGIC:
        raise UpstreamFailed("the file is not a valid ext4 file system after it was filled")
    if total - free != _RESERVED + inodes - 1:
        raise UpstreamFailed(f"ext4 has {total - free - _RESERVED + 1} of {inodes} inodes")
