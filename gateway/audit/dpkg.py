"""Packages of dpkg: paragraphs of /var/lib/dpkg/status, or one file each in status.d (deb822(5))."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gateway.audit.packages import Package, Unreadable, require_few, text_of

_FIELDS = {b"package", b"version", b"architecture", b"status", b"source"}
_SOURCE = re.compile(r"(\S+)(?:\s+\((\S+)\))?")


def packages(text: bytes) -> list[Package]:
    """The installed packages of a status file. Raises Unreadable."""
    found: list[Package] = []
    for fields in _paragraphs(text):
        status = fields.get(b"status", b"install ok installed").split()
        if b"package" not in fields or status[-1:] != [b"installed"]:
            continue
        name, version = text_of(fields[b"package"]), text_of(fields.get(b"version", b""))
        source = _SOURCE.match(text_of(fields.get(b"source", b"")))
        found.append(
            Package(
                manager="dpkg",
                name=name,
                version=version,
                arch=text_of(fields.get(b"architecture", b"")),
                source=source[1] if source else name,
                source_version=(source[2] if source else None) or version,
            )
        )
        require_few(found)
    if not found and text.strip():
        raise Unreadable("it lists no installed package")
    return found


def _paragraphs(text: bytes) -> Iterator[dict[bytes, bytes]]:
    """The fields that count of each paragraph, by their names in lower case. Lines that go on are of none of them."""
    fields: dict[bytes, bytes] = {}
    for line in text.split(b"\n"):
        if not line.strip():
            if fields:
                yield fields
            fields = {}
            continue
        name, colon, value = line.partition(b":")
        name = name.lower()
        if colon and name in _FIELDS:
            fields.setdefault(name, value.strip())
    if fields:
        yield fields
