"""What one image may cost besides the bytes of its files: counted down by all layers together, whatever they repeat.

Everything that a conversion keeps in memory is charged here or is a row of the tree, and every step that is not paid
for by bytes that were read is charged here too. So memory and work are linear in the layers' bytes, and bounded.
"""

from __future__ import annotations

from udiroot.errors import ImageInvalid

XATTR_COST = 160
SPARSE_PART_COST = 160
NAME_COST = 160
"""Bytes of memory that an extended attribute, one part of a sparse map, or a name that is kept for links, takes beyond
its text."""
_DEFAULT_HEADER_BYTES = 64 << 20
_LINK_BYTES_PER_ENTRY = 32
_LINK_BYTES_FLOOR = 1 << 20
_LINK_COST = 16


class HeaderBudget:
    """Bytes of paths, link targets, extended attributes and sparse maps that all layers may have together."""

    def __init__(self, limit: int = _DEFAULT_HEADER_BYTES) -> None:
        self._limit = self._left = limit

    def spend(self, count: int) -> None:
        """Raises ImageInvalid where `count` is more than what is left."""
        self._left -= count
        if self._left < 0:
            raise ImageInvalid(
                f"paths, attributes and sparse maps of the layers have more than {self._limit} bytes",
                "limit set by gateway.max_header_bytes",
            )


class LinkBudget:
    """Bytes of symbolic links' targets that paths of all members may lead through: a member of 512 bytes may name a
    path through 40 links of 4095 bytes each."""

    def __init__(self, max_entries: int) -> None:
        self._left = max(_LINK_BYTES_FLOOR, max_entries * _LINK_BYTES_PER_ENTRY)

    def follow(self, target: bytes) -> None:
        """One link is followed. Raises ImageInvalid where too many were."""
        self._left -= len(target) + _LINK_COST
        if self._left < 0:
            raise ImageInvalid(
                "paths of the layers lead through too many symbolic links", "limit set by gateway.max_entries"
            )
