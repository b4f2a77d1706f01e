"""What a user writes for where an image comes from: skopeo's spelling, parsed once."""

from __future__ import annotations

import os
from dataclasses import dataclass

from udiroot.errors import UsageError, printable

TAKEN = ("docker-archive", "oci", "oci-archive")
"""Kinds of source that this version reads."""
_LATER = ("docker", "docker-daemon")
_FORMS = "docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG] or oci-archive:FILE[:TAG]"


@dataclass(frozen=True)
class SourceSpec:
    """A parsed source: its kind, the path it is at, and which of its images is meant (empty: the only one)."""

    kind: str
    path: str
    tag: str = ""


def parse_source(text: str) -> SourceSpec:
    """The source that `text` spells. Raises UsageError with the sources that this version takes."""
    kind, colon, rest = text.partition(":")
    if kind in _LATER and colon:
        raise UsageError(f"this version does not take images from {kind}: yet", f"it takes {_FORMS}")
    if kind not in TAKEN or not rest:
        raise UsageError(f"not an image source: '{printable(text)}'", f"it takes {_FORMS}")
    if "\0" in rest:
        raise UsageError(f"not an image source: '{printable(text)}'", "a path holds no NUL byte")
    path, tag = _split(rest)
    return SourceSpec(kind, path, tag)


def _split(text: str) -> tuple[str, str]:
    """Path and tag. A path that exists as it stands is the path, since file names may hold colons."""
    if os.path.lexists(text):
        return text, ""
    path, _, tag = text.partition(":")
    return path, tag
