"""squashfs, by the writer of `gateway.image.squashfs`; with lz4 and lzo by tar2sqfs (squashfs-tools-ng).

What the packer makes is checked here: its superblock, and by listing it, which reads everything but the data of files.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Callable, Mapping

from gateway.image.flatten import Flattened
from gateway.image.formats.packer import count_lines, pack
from gateway.image.squashfs.compressors import NUMBERS as WRITTEN_HERE
from gateway.image.squashfs.writer import write_squashfs
from udi.gatewayconfig import GatewayConfig
from udiroot.errors import ConfigError, UpstreamFailed, printable

_SUPERBLOCK = struct.Struct("<IIIIIHHHHHHQQ")
_MAGIC = 0x73717368
_LEVELS = {"gzip": (1, 9), "zstd": (1, 22), "xz": None, "lzo": None, "lz4": None}
_NUMBERS = {"gzip": 1, "lzo": 3, "xz": 4, "lz4": 5, "zstd": 6}
_LIST_SECONDS = 600.0
_BLOCK_SIZE = 128 << 10
"""Bytes that are compressed together: what every packer takes, and what docs/pynamic.md found no reason to change."""
_COMPRESSION = re.compile(r"([a-z0-9]+)(?::([0-9]{1,2}))?")


def parse_compression(text: str) -> tuple[str, int | None]:
    """`gzip:1` → ("gzip", 1). Raises ConfigError for what squashfs does not support."""
    match = _COMPRESSION.fullmatch(text)
    if not match or match[1] not in _LEVELS:
        raise ConfigError(
            f"invalid compression '{printable(text)}'", f"use NAME[:LEVEL] with one of {', '.join(_LEVELS)}"
        )
    name, level = match[1], int(match[2]) if match[2] else None
    span = _LEVELS[name]
    if level is not None and (span is None or not span[0] <= level <= span[1]):
        allowed = f"levels of {name} are {span[0]} to {span[1]}" if span else f"{name} takes no level"
        raise ConfigError(f"invalid compression '{printable(text)}'", allowed)
    return name, level


def packers(settings: GatewayConfig) -> Mapping[str, str]:
    """The programs that new squashfs images are made with, key of the configuration → path: none, as a rule."""
    if settings.compression.partition(":")[0] in WRITTEN_HERE:
        return {}
    return {"gateway.tar2sqfs": settings.tar2sqfs, "gateway.rdsquashfs": settings.rdsquashfs}


def make_squashfs(flattened: Flattened, output: str, settings: GatewayConfig, advance: Callable[[int], None]) -> None:
    """Write the tree to `output`, which must not exist. Raises UpstreamFailed, TimedOut, ImageInvalid, OSError."""
    name, level = parse_compression(settings.compression)
    if name in WRITTEN_HERE:
        write_squashfs(flattened, output, (name, level), _BLOCK_SIZE, advance)
    else:
        _by_packer(flattened, output, settings, name, advance)


def _by_packer(
    flattened: Flattened, output: str, settings: GatewayConfig, name: str, advance: Callable[[int], None]
) -> None:
    """The packer writes to the file that is open here, and has no other name for it: it cannot remove it when it fails,
    which would hide that there was no room, nor make it anew after the gateway has given up on this host and removed
    it."""
    with open(output, "xb") as stream:
        os.fchmod(stream.fileno(), 0o600)
        argv = [settings.tar2sqfs, "--quiet", "--no-skip", "--num-jobs", str(len(os.sched_getaffinity(0)))]
        argv += ["--compressor", name, "--force", f"/proc/{os.getpid()}/fd/{stream.fileno()}"]
        pack(argv, flattened.write, advance, output)
    _check(output, flattened.reached.inodes, name)
    listed = count_lines([settings.rdsquashfs, "--describe", output], _LIST_SECONDS)
    if listed < flattened.reached.entries - 1:  # the root is not listed, and a name may contain newlines
        raise UpstreamFailed(f"tar2sqfs stored {listed} of {flattened.reached.entries - 1} names")


def _check(path: str, inodes: int, compression: str) -> None:
    with open(path, "rb") as stream:
        start = stream.read(_SUPERBLOCK.size)
        size = os.fstat(stream.fileno()).st_size
    if len(start) < _SUPERBLOCK.size:
        raise UpstreamFailed(f"tar2sqfs made a file of only {size} bytes")
    magic, count, _, _, _, number, _, _, _, major, minor, _, used = _SUPERBLOCK.unpack(start)
    if magic != _MAGIC or (major, minor) != (4, 0) or number != _NUMBERS[compression]:
        raise UpstreamFailed("tar2sqfs made something other than the requested squashfs")
    if used > size:
        raise UpstreamFailed(f"tar2sqfs made {size} of the {used} bytes of the squashfs")
    if count != inodes:
        raise UpstreamFailed(f"tar2sqfs stored {count} of {inodes} inodes")
