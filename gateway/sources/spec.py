"""What a user writes for where an image comes from: skopeo's spelling, parsed once."""

from __future__ import annotations

import os
from dataclasses import dataclass

from udi.reference import ImageReference
from udiroot.errors import UsageError, printable

TAKEN = ("docker-archive", "oci", "oci-archive")
"""Kinds of source that are files, which the client opens."""
REMOTE = ("docker", "docker-daemon")
"""Kinds of source that the service asks for; their path is a reference."""
_FORMS = (
    "[docker://]NAME:TAG, docker-daemon:NAME:TAG, docker-archive:FILE[:NAME:TAG], oci:DIR[:TAG], oci-archive:FILE[:TAG]"
)


@dataclass(frozen=True)
class SourceSpec:
    """A parsed source: its kind, the path it is at, and which of its images is meant (empty: the only one)."""

    kind: str
    path: str
    tag: str = ""


def parse_source(text: str) -> SourceSpec:
    """The source that `text` spells; a name alone is an image of a registry. Raises UsageError with all forms."""
    kind, _, rest = text.partition(":")
    if kind == "docker" and rest.startswith("//"):
        return SourceSpec("docker", _reference(text, rest.removeprefix("//")))
    if kind == "docker-daemon" and rest:
        return SourceSpec("docker-daemon", _reference(text, rest))
    if kind not in TAKEN or not rest:
        return SourceSpec("docker", _reference(text, text))
    if "\0" in rest:
        raise UsageError(f"not an image source: '{printable(text)}'", "a path holds no NUL byte")
    path, tag = _split(rest)
    return SourceSpec(kind, path, tag)


def _reference(text: str, name: str) -> str:
    """The reference in full. It is told in what a person may write where it is none."""
    try:
        reference = ImageReference.parse(name)
    except UsageError as error:
        raise UsageError(f"not an image source: {printable(text)!r}", f"it takes {_FORMS}") from error
    if reference.id:
        raise UsageError("an image cannot be brought in by its id", "give its name: NAME:TAG or NAME@sha256:…")
    return str(reference)


def _split(text: str) -> tuple[str, str]:
    """Path and tag. A path that exists as it stands is the path, since file names may hold colons."""
    if os.path.lexists(text):
        return text, ""
    path, _, tag = text.partition(":")
    return path, tag
