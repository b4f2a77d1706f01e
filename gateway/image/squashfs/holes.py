"""Files with holes: their bytes in pieces of whole blocks, and the holes between them without any."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.image.squashfs.sources import Source
from gateway.image.tar_reader import Sparse

_MOST_RUNS = 1024
"""Runs of zeros that are one piece."""

Run = bytes | bytearray | int
"""Bytes of a file, or so many zeros; `bytes` of either is what it stands for."""


def runs_of(source: Source, position: int, size: int, sparse: Sparse | None, most: int) -> Iterator[Run]:
    """A file of `size` bytes whose data is at a position of its layer, in runs of `most` bytes; only one of zeros may
    be longer, by a whole number of times."""
    parts = ((0, size),) if sparse is None else sparse
    at, next_part = 0, 0
    while at < size:
        following = parts[next_part][0] if next_part < len(parts) else size
        end = min(at + most, size)
        if following >= end:
            whole = size if following == size else following // most * most
            end = min(whole, at + most * _MOST_RUNS)
            yield end - at
            at = end
            continue
        run = bytearray(end - at)
        while next_part < len(parts):
            start, length = parts[next_part]
            low, high = max(start, at), min(start + length, end)
            if low >= high:
                break
            run[low - at : high - at] = source.read(position + low - start, high - low)
            if start + length > end:
                break
            position += length
            next_part += 1
        yield run
        at = end
