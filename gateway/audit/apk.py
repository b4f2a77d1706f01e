"""Packages of Alpine's apk: paragraphs of /lib/apk/db/installed, with a letter for each field (apk-package(5))."""

from __future__ import annotations

from gateway.audit.packages import Package, Unreadable, require_few, text_of

_NAME, _VERSION, _ARCH, _ORIGIN = b"P:", b"V:", b"A:", b"o:"
_FIELDS = (_NAME, _VERSION, _ARCH, _ORIGIN)


def packages(text: bytes) -> list[Package]:
    """The installed packages. Raises Unreadable."""
    found: list[Package] = []
    fields: dict[bytes, str] = {}
    for line in (*text.split(b"\n"), b""):
        if line[:2] in _FIELDS:
            fields.setdefault(line[:2], text_of(line[2:].strip()))
        elif not line.strip():
            if fields.get(_NAME):
                found.append(_package(fields))
                require_few(found)
            fields = {}
    if not found and text.strip():
        raise Unreadable("it lists no installed package")
    return found


def _package(fields: dict[bytes, str]) -> Package:
    name, version = fields[_NAME], fields.get(_VERSION, "")
    return Package(
        manager="apk",
        name=name,
        version=version,
        arch=fields.get(_ARCH, ""),
        source=fields.get(_ORIGIN, name),
        source_version=version,
    )
