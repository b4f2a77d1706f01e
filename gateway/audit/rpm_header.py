"""One package as rpm keeps it: a header blob, which is an index of tagged values and a store of their bytes.

The form is that of rpm's lib/header.c: two numbers, of entries and of bytes; entries of tag, type, offset and count;
the store. All numbers are big-endian. A database's blobs have neither the magic nor the signature of a package file.
"""

from __future__ import annotations

import struct

from gateway.audit.packages import Package, Unreadable, text_of

_ENTRY = struct.Struct(">IIiI")
_LENGTHS = struct.Struct(">II")
_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH, _SOURCE = 1000, 1001, 1002, 1003, 1022, 1044
_INT32, _STRING = 4, 6
_MAX_ENTRIES = 1 << 16
_KEY = "gpg-pubkey"
"""A key that was imported, which rpm keeps as a package."""


def package(blob: bytes) -> Package | None:
    """The package of a header; None for a key. Raises Unreadable."""
    values = _values(blob)
    name = values.get(_NAME, "")
    if not name:
        raise Unreadable("a header has no name")
    if name == _KEY:
        return None
    epoch = values.get(_EPOCH, "")
    version = f"{values.get(_VERSION, '')}-{values.get(_RELEASE, '')}"
    source, source_version = _source(values.get(_SOURCE, ""))
    return Package(
        manager="rpm",
        name=name,
        version=f"{epoch}:{version}" if epoch else version,
        arch=values.get(_ARCH, ""),
        source=source or name,
        source_version=source_version or version,
    )


def _values(blob: bytes) -> dict[int, str]:
    """The values of the tags that count."""
    try:
        entries, size = _LENGTHS.unpack_from(blob)
        store = _LENGTHS.size + entries * _ENTRY.size
        if entries > _MAX_ENTRIES or store + size > len(blob):
            raise Unreadable("a header is longer than its record")
        values: dict[int, str] = {}
        for number in range(entries):
            tag, kind, offset, count = _ENTRY.unpack_from(blob, _LENGTHS.size + number * _ENTRY.size)
            if tag not in (_NAME, _VERSION, _RELEASE, _EPOCH, _ARCH, _SOURCE) or not count:
                continue
            if not 0 <= offset < size:
                raise Unreadable("a header's value lies outside of it")
            if kind == _STRING:
                end = blob.find(b"\0", store + offset, store + size)
                values[tag] = text_of(blob[store + offset : end if end >= 0 else store + size])
            elif kind == _INT32 and tag == _EPOCH:
                values[tag] = str(struct.unpack_from(">I", blob, store + offset)[0])
    except struct.error as error:
        raise Unreadable("a header is cut off") from error
    return values


def _source(name: str) -> tuple[str, str]:
    """`bash-5.1-2.src.rpm` → (`bash`, `5.1-2`)."""
    parts = name.removesuffix(".rpm").rpartition(".")[0].rsplit("-", 2)
    return (parts[0], f"{parts[1]}-{parts[2]}") if len(parts) == 3 else ("", "")
