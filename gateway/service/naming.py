"""What an image may be stored as."""

from __future__ import annotations

from udi.reference import ImageReference
from udiroot.errors import UsageError, printable


def storable(text: str) -> ImageReference:
    """The reference that an image is stored under. Raises UsageError for one that is bound to a content already."""
    reference = ImageReference.parse(text)
    if reference.id or reference.digest:
        raise UsageError(f"an image cannot be stored as {printable(text)!r}", "give NAME:TAG")
    return reference
