"""Formats of disk images, turned into plain bytes by qemu-img, which gets no chance to open another file.

A disk image may name others: a backing file, a data file, the extents of a VMware disk. Whoever lets qemu follow such a
name reads any file of the gateway's host for a user. So the header is read here first, and an image that names another
is refused; qemu-img is told its format and not left to guess, and gets the file by a descriptor.

qcow2: QEMU's docs/interop/qcow2.txt. VMDK: VMware's Virtual Disk Format 5.0. VDI: QEMU's block/vdi.c.
"""

from __future__ import annotations

import json
import os
import re
import struct
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway.disks.extent import require_whole_qcow2, require_whole_vdi, require_whole_vmdk
from gateway.image.blob import Blob
from udi.command import run
from udi.gatewayconfig import GatewayConfig
from udi.oserrors import reason
from udiroot.errors import ImageInvalid, UpstreamFailed, printable

_BACKED = ImageInvalid(
    "the disk image needs another file, its backing file, which is not read",
    "make it one file: qemu-img convert -O qcow2 IMAGE COMPLETE",
)
_EXTERNAL_DATA, _KNOWN_FEATURES = 1 << 2, 0b11011
_MAX_DESCRIPTOR = 1 << 16
_NO_PARENT = "f" * 8
_SECTOR = 512


@dataclass(frozen=True)
class Format:
    """A format that qemu-img reads: its name there, and what reads the header, which returns the disk's bytes and
    raises ImageInvalid for an image that is not one complete file of that format."""

    name: str
    size: Callable[[Blob], int]


def _qcow2(image: Blob) -> int:
    header = image.read_at(0, 104).ljust(104, b"\0")
    magic, version, backing, _, _, size, encryption = struct.unpack_from(">4sIQIIQI", header)
    if magic != b"QFI\xfb" or version not in (2, 3):
        raise _not_one("qcow2")
    features = struct.unpack_from(">Q", header, 72)[0] if version == 3 else 0
    if backing:
        raise _BACKED
    if features & _EXTERNAL_DATA:
        raise ImageInvalid("the disk image keeps its data in another file, which is not read", _BACKED.hint)
    if encryption:
        raise ImageInvalid("the disk image is encrypted", "decrypt it first: qemu-img convert")
    if features & ~_KNOWN_FEATURES:
        raise ImageInvalid(f"the disk image has features of qcow2 that are not known: {features:#x}")
    require_whole_qcow2(image)
    return int(size)


def _vmdk(image: Blob) -> int:
    """One file of the sparse kinds: VMware's others are a text that names files with the data."""
    header = image.read_at(0, 512).ljust(512, b"\0")
    magic, version, _, capacity, _, at, count = struct.unpack_from("<4sIIQQQQ", header)
    if magic != b"KDMV":
        raise ImageInvalid(
            "not a VMware disk in one file", "make it one: qemu-img convert -O vmdk -o subformat=streamOptimized"
        )
    if not capacity or version not in (1, 2, 3):  # of no sectors, its descriptor would name the files with the data
        raise _not_one("VMware disk")
    text = image.read_at(at * _SECTOR, min(count * _SECTOR, _MAX_DESCRIPTOR)).decode("latin-1") if at else ""
    parent = re.search(r"^\s*parentCID\s*=\s*(\w+)", text, re.MULTILINE | re.IGNORECASE)
    if "parentfilenamehint" in text.lower() or (parent and parent[1].lower() != _NO_PARENT):
        raise _BACKED
    require_whole_vmdk(image)
    return int(capacity) * _SECTOR


def _vdi(image: Blob) -> int:
    header = image.read_at(0, 512).ljust(512, b"\0")
    if header[64:68] != b"\x7f\x10\xda\xbe":
        raise _not_one("VDI")
    if any(header[424:456]):  # the uuids of an image that this one continues
        raise _BACKED
    require_whole_vdi(image)
    return int(struct.unpack_from("<Q", header, 368)[0])


FORMATS: Mapping[str, Format] = {
    "qcow2": Format("qcow2", _qcow2), "vmdk": Format("vmdk", _vmdk), "vdi": Format("vdi", _vdi)
}  # fmt: skip


def as_raw(image: Blob, kind: str, directory: str, most: int, settings: GatewayConfig) -> int:
    """A descriptor on a file in `directory`, without a name, with the plain bytes of the disk in `image`, which must be
    a whole file. It takes no room where the disk is empty, and elsewhere `most` bytes and a fiftieth of the disk: a
    small image may name one of its clusters for every place of the disk.

    Raises ImageInvalid; UpstreamFailed where qemu-img cannot be run, TimedOut where it takes too long.
    """
    size = FORMATS[kind].size(image)
    if size > settings.max_disk_bytes:
        raise ImageInvalid(
            f"the disk has {size} bytes, the limit is {settings.max_disk_bytes}", "limit set by gateway.max_disk_bytes"
        )
    given = json.dumps(
        {
            "driver": FORMATS[kind].name,
            "file": {
                "driver": "file",
                "filename": f"/proc/{os.getpid()}/fd/{image.descriptor}",
                "locking": "off",
                "read-only": True,
            },
        }
        | ({"backing": None} if kind != "vdi" else {})
    )
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".udi-disk-") as output:

            def look(progress: bytes) -> None:
                if os.fstat(output.fileno()).st_blocks * _SECTOR > most:
                    raise ImageInvalid(
                        f"the disk has more than {most} bytes that are in use",
                        "limits set by gateway.max_disk_bytes, gateway.max_ratio and gateway.ratio_from_bytes",
                    )

            # it reports its progress each fiftieth of its work
            argv = [settings.qemu_img, "convert", "-p", "-O", "raw", "-W", "-m", "4", f"json:{given}", output.name]
            done = run(argv, seconds=settings.conversion_seconds, on_stdout=look)
            look(b"")
            if done.exit_code:
                raise ImageInvalid(
                    f"the disk image is damaged: {_last_line(done.stderr)}", "check it with qemu-img check"
                )
            return os.open(output.name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise UpstreamFailed(f"the disk cannot be written to {directory}: {reason(error)}") from error


def _not_one(name: str) -> ImageInvalid:
    return ImageInvalid(f"not a disk image of the format {name}, or of a version that is not known")


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return printable(lines[-1].removeprefix("qemu-img: ")) if lines else "no message"
