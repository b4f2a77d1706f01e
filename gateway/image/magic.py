"""What a file is by its first bytes, for messages: what people give in place of an image or a layer."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_BYTES = 512
"""How many bytes `recognize` needs."""


@dataclass(frozen=True)
class Kind:
    """`name` is what it is, with its article; `hint` is what to do about it."""

    name: str
    hint: str


_SIF = Kind(
    "a SIF image of Singularity or Apptainer",
    "pull the Docker or OCI image that it was built from, or export its files as an OCI image",
)
_REPACK = "decompress it, or build the image again with gzip or zstd layers"
_KINDS = (
    (0, b"\x1f\x8b", Kind("compressed with gzip", "decompress it first: gunzip")),
    (0, b"\x28\xb5\x2f\xfd", Kind("compressed with zstd", "decompress it first: zstd -d")),
    (0, b"\xfd7zXZ\0", Kind("compressed with xz", f"{_REPACK}: xz -d")),
    (0, b"BZh", Kind("compressed with bzip2", f"{_REPACK}: bzip2 -d")),
    (0, b"\x5d\0\0", Kind("compressed with lzma", f"{_REPACK}: xz -d")),
    (0, b"\x04\x22\x4d\x18", Kind("compressed with lz4", f"{_REPACK}: lz4 -d")),
    (0, b"LZIP", Kind("compressed with lzip", f"{_REPACK}: lzip -d")),
    (0, b"\x1f\x9d", Kind("compressed with compress", f"{_REPACK}: uncompress")),
    (32, b"SIF_MAGIC\0", _SIF),
    (0, b"#!/usr/bin/env run-singularity", _SIF),
    (0, b"hsqs", Kind("a squashfs file system", "give the Docker or OCI image that it was made from")),
    (0, b"PK\x03\x04", Kind("a zip archive", "an image archive is what docker save or skopeo copy writes")),
    (0, b"7z\xbc\xaf\x27\x1c", Kind("a 7z archive", "an image archive is what docker save or skopeo copy writes")),
    (0, b"\0asm", Kind("a WebAssembly module", "compute nodes run Linux programs; pull an image for Linux")),
    (0, b"\x7fELF", Kind("a program", "an image archive is what docker save or skopeo copy writes")),
    (0, b"QFI\xfb", Kind("a disk image of a virtual machine", "pull the Docker or OCI image instead")),
    (0, b"\xed\xab\xee\xdb", Kind("an RPM package", "an image archive is what docker save or skopeo copy writes")),
    (0, b"070701", Kind("a cpio archive", "an image archive is what docker save or skopeo copy writes")),
    (0, b"<!DOCTYPE", Kind("an HTML page", "is the address that of a registry, and not of its web site or a proxy?")),
    (0, b"<html", Kind("an HTML page", "is the address that of a registry, and not of its web site or a proxy?")),
)


_LAYERS = ("compressed with gzip", "compressed with zstd")


def foreign_to_layers(start: bytes) -> Kind | None:
    """What begins with these bytes, where it is something well known that no layer may be."""
    kind = recognize(start)
    return None if kind and kind.name in _LAYERS else kind


def recognize(start: bytes) -> Kind | None:
    """What begins with these bytes, where it is something well known that is neither tar nor JSON."""
    if start[257:262] == b"ustar":
        return None
    stripped = start.lstrip()
    for at, magic, kind in _KINDS:
        if start[at : at + len(magic)] == magic or (magic[:1] == b"<" and stripped.lower().startswith(magic.lower())):
            return kind
    return None
