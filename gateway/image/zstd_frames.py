"""Whether a file of zstd frames is whole: the decompressor takes the end of a file for the end of a frame.

RFC 8878, 3.1: a frame is a header and blocks, each of which says how long it is and whether it is the last one.
"""

from __future__ import annotations

import re

from gateway.image.blob import Blob

_FRAME = b"\x28\xb5\x2f\xfd"
_SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
_RLE = 1
"""The type of a block that stores one byte, whatever its size is."""


def ends_within_a_frame(blob: Blob) -> bool:
    """Whether the file ends before the last of its frames does."""
    at = 0
    while at < blob.size:
        start = blob.read_at(at, 8)
        if _SKIPPABLE.match(start):
            at += 8 + int.from_bytes(start[4:8], "little") if len(start) == 8 else 8
        elif start[:4] == _FRAME and len(start) > 4:
            at = _frame_end(blob, at, start[4])
        else:
            return True
    return at > blob.size


def _frame_end(blob: Blob, at: int, descriptor: int) -> int:
    """Where a frame ends: beyond the end of the file where that is cut off."""
    is_single, has_checksum = bool(descriptor & 0x20), bool(descriptor & 0x04)
    content_size = (int(is_single), 2, 4, 8)[descriptor >> 6]
    at += 5 + (not is_single) + (0, 1, 2, 4)[descriptor & 3] + content_size
    while True:
        raw = blob.read_at(at, 3)
        if len(raw) < 3:
            return blob.size + 1
        header = int.from_bytes(raw, "little")
        at += 3 + (1 if header >> 1 & 3 == _RLE else header >> 3)
        if header & 1:
            return at + 4 * has_checksum
